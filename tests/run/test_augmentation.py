"""Training on generated images: no prompt of an evaluated patient, and equal epochs for all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medbench.data.splits import TRAIN, VAL
from medbench.errors import DataError
from medbench.run import augmentation
from medbench.run.augmentation import (
    classifier_of,
    epoch_rows,
    prompt_rows,
    refuse_evaluated,
    schedule_of,
)
from medbench.run.stores import Store


def job(patients: list[str], folds: list[int], reports: list[str]) -> Any:
    """As much of a job as choosing prompts reads."""
    samples = [
        SimpleNamespace(id=f"s{n}", sections={}, text=text) for n, text in enumerate(reports)
    ]
    loaded = SimpleNamespace(
        samples=samples,
        patients=patients,
        folds=np.array(folds),
        labelled=np.array([n != 1 for n in range(len(folds))]),
        dataset=SimpleNamespace(root=Path("data")),
    )
    return SimpleNamespace(loaded=loaded, cell=SimpleNamespace(seed=3))


def test_prompts_are_of_labelled_training_images_with_a_report_each_in_turn() -> None:
    some = job(list("abcdef"), [TRAIN] * 4 + [VAL, 0], ["x", "x", "x", " ", "x", "x"])
    rows = prompt_rows(some, 5)
    assert sorted(rows[:2].tolist()) == [0, 2]
    assert rows.tolist() == [*rows[:2], *rows[:2], rows[0]]
    assert np.array_equal(rows, prompt_rows(some, 5))


@pytest.mark.parametrize("fold", [VAL, 0])
def test_a_prompt_of_a_patient_who_is_evaluated_is_refused(fold: int) -> None:
    leaking = job(["a", "b", "c", "c"], [TRAIN, TRAIN, TRAIN, fold], ["x"] * 4)
    with pytest.raises(DataError, match=r"1 reports .* such as 's2' of data"):
        prompt_rows(leaking, 3)
    with pytest.raises(DataError, match="'s3'"):
        refuse_evaluated(leaking.loaded, np.array([0, 3]))


def test_tasks_of_several_shares_draw_what_they_have_in_common_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def draw(_: Any, owners: Any, size: int, first: int) -> Any:
        asked.append((first, len(owners)))
        seeds = first + np.arange(len(owners))  # an image is its prompt and its seed
        return (owners * 16 + seeds).astype(np.uint8)[:, None, None] + np.zeros((1, 2, 2), np.uint8)

    monkeypatch.setattr(augmentation, "generate", draw)
    monkeypatch.setattr(
        augmentation, "_generated_key", lambda _, rows, first: {"rows": rows.tolist(), "of": first}
    )
    some = job(list("abcde"), [TRAIN] * 5, ["x"] * 5)  # four are labelled
    some.store = Store(tmp_path)
    some.cell.preset = "tiny"
    made = {n: augmentation._generated(some, prompt_rows(some, n)) for n in (2, 4, 8, 3)}
    assert asked == [(0, 2), (2, 2), (4, 2), (6, 2), (2, 1)]
    assert [len(images) for images in made.values()] == [2, 4, 8, 3]
    for images in made.values():
        assert np.array_equal(images, made[8][: len(images)])


def test_without_reports_there_is_nothing_to_draw_from() -> None:
    with pytest.raises(DataError, match="No labelled training image"):
        prompt_rows(job(["a", "b"], [TRAIN, TRAIN], ["", "x"]), 3)


@given(rows=st.integers(1, 50), count=st.integers(1, 200), seed=st.integers(0, 9))
def test_an_epoch_has_as_many_pictures_whatever_there_is_to_see(
    rows: int, count: int, seed: int
) -> None:
    found = epoch_rows(np.arange(rows), count, seed)
    times = np.bincount(found, minlength=rows)
    assert len(found) == count
    assert times.max() - times.min() <= 1


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
def test_classifiers_grow_with_the_preset_and_are_never_stopped_early(preset: str) -> None:
    schedule = schedule_of(preset)
    assert schedule.patience == schedule.epochs
    network = classifier_of(preset).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, 3, 64, 64)).ndim == 2
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    low, high = {"tiny": (0.1, 0.3), "small": (0.5, 2), "paper": (6.9, 7)}[preset]
    assert low < millions < high
