"""Difficulty: measured without any model, and frozen with the renderer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from medbench.phantom import yardsticks
from medbench.phantom.chest import UNCERTAIN, Chest
from medbench.phantom.scanner import XRAY_UNITS
from medbench.phantom.version import RENDERER_VERSION


def test_the_frozen_figures_belong_to_this_renderer() -> None:
    for task in yardsticks.frozen().values():
        for entry in task.values():
            assert entry["renderer"] == RENDERER_VERSION


def test_pixels_stay_clearly_below_an_oracle_near_the_top() -> None:
    for entry in yardsticks.frozen()["covid-ct"].values():
        assert 0.5 < entry["pixels-mean"] < 0.80
        assert entry["pixels-central"] < 0.80
        assert entry["oracle"] >= 0.95


def test_radiographs_are_hard_for_pixels_and_clear_to_an_oracle() -> None:
    entry = yardsticks.frozen()["chest-radiographs"]["tiny"]
    assert 0.60 <= entry["pixels"] <= 0.75
    assert min(entry["per-label"]["oracle"].values()) >= 0.95
    assert max(entry["per-label"]["pixels"].values()) < 0.95


def test_the_oracle_sees_a_finding_and_the_pixels_of_a_few_images_do_not() -> None:
    chests = [
        Chest(f"p{i}", f"i{i}", findings={"nodule": float(i % 2), "mass": UNCERTAIN * (i % 3 == 0)})
        for i in range(24)
    ]
    found = yardsticks.radiographs(
        "test", chests, ["nodule", "mass"], XRAY_UNITS["iu-xray"], size=64, observed=24
    )
    assert found["images"] == found["patients"] == 24
    assert found["oracle"] >= 0.9
    assert set(found["per-label"]["oracle"]) == {"nodule"}  # uncertain ones are not scored
    assert found["pixels"] < found["oracle"]


@given(seed=st.integers(0, 1000), ties=st.booleans())
def test_auroc_agrees_with_scikit_learn(seed: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    label = random.permutation(np.arange(30) % 3)
    score = random.random((30, 3))
    if ties:
        score = score.round(1)
    expected = np.mean([roc_auc_score(label == k, score[:, k]) for k in range(3)])
    assert yardsticks.macro_auroc(label, score) == pytest.approx(expected, abs=1e-12)


def test_the_measurement_covers_every_subject() -> None:
    found = yardsticks.measure("tiny", 9)
    assert len(found.label) == 9
    assert found.mean.shape == found.central.shape == (9, 1024)
    assert np.isfinite(found.loads).all()


@pytest.mark.slow
def test_the_frozen_figures_reproduce() -> None:
    for preset, entry in yardsticks.frozen()["covid-ct"].items():
        again = yardsticks.covid_ct(preset)
        for name in ("pixels-mean", "pixels-central", "oracle"):
            assert again[name] == pytest.approx(entry[name], abs=0.01)


@pytest.mark.slow
def test_the_frozen_figures_of_radiographs_reproduce() -> None:
    again = yardsticks.chest_radiographs("tiny")
    entry = yardsticks.frozen()["chest-radiographs"]["tiny"]
    for name in ("pixels", "oracle"):
        assert again[name] == pytest.approx(entry[name], abs=0.01)
