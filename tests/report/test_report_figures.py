"""What figures are drawn from, held against definitions and against the metrics."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import pairs

from medbench.evaluation.files import trivial
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.predictions import ClassPredictions
from medbench.metrics import classification as metrics
from medbench.metrics.retrieval import standings
from medbench.report.classification import reliability, roc
from medbench.report.drawing import canvas, finish
from medbench.report.embedding import _groups, tsne
from medbench.report.retrieval import bins, matching, ranks
from medbench.report.segmentation import choose, dice


@given(st.integers(0, 10_000), st.integers(4, 60))
@settings(max_examples=25, deadline=None)
def test_the_area_under_the_drawn_curve_is_the_metric(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    truth = (np.arange(count) % 2).astype(float)
    scores = rng.integers(0, 6, count) / 6  # ties
    truth[rng.integers(0, count)] = np.nan
    drawn = roc(truth, scores)
    assert drawn is not None
    table = ClassPredictions(
        [str(i) for i in range(count)], [str(i) for i in range(count)], ["a"],
        truth[:, None], scores[:, None], multiclass=False,
    )  # fmt: skip
    value = metrics.auroc(table, np.ones((1, count))).value[0]
    assert np.trapezoid(drawn[1], drawn[0]) == pytest.approx(value, abs=1e-12)
    centres, happened, counts = reliability(scores, truth)
    error = float((counts * np.abs(happened - centres)).sum() / counts.sum())
    assert error == pytest.approx(metrics.ece(table, np.ones((1, count))).value[0], abs=1e-12)


def test_one_class_alone_has_no_curve() -> None:
    assert roc(np.array([1.0, 1.0, np.nan]), np.array([0.1, 0.2, 0.3])) is None


@given(st.integers(0, 10_000), st.integers(2, 150))
@settings(max_examples=25, deadline=None)
def test_ranks_and_chance_are_distributions_over_the_same_bins(seed: int, count: int) -> None:
    table = pairs(count, seed=seed)
    edges = bins(count)
    assert edges[0] == 1
    assert edges[-1] == count + 1
    assert edges == sorted(set(edges))
    for way in ("i2t", "t2i"):
        shares, chance = ranks(standings(table, way), matching(table, way), count, edges)
        assert shares.sum() == pytest.approx(1)
        assert chance.sum() == pytest.approx(1)
        # with one match each, chance is uniform
        assert chance == pytest.approx(np.diff(edges) / count)


def test_chance_of_several_matches_is_what_the_metric_gives_to_ties() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 4, 30)
    table = pairs(30)
    table = type(table)(table.image, table.text, groups, np.sort(groups), table.image_patients)
    edges = [1, 2, 6, 11, 31]
    _, chance = ranks(standings(table, "i2t"), matching(table, "i2t"), 30, edges)
    tied = standings(trivial(table)["chance"], "i2t")  # type: ignore[arg-type]
    expected = [tied.hit(edge - 1)[tied.known].mean() for edge in edges]
    assert chance == pytest.approx(np.diff(expected))


def masks(count: int = 12) -> MaskPredictions:
    """Image k of the odd ones shows k / 12 of its lesion; even ones have none."""
    reference = np.zeros((count, 6, count), bool)
    prediction = reference.copy()
    for k in range(1, count, 2):
        reference[k] = True
        prediction[k, :, :k] = True
    ids = [f"s{k:02d}" for k in range(count)]
    return MaskPredictions(ids, ids, reference, prediction)


def test_best_and_worst_are_taken_among_lesions() -> None:
    table = masks()
    values = dice(table)
    assert values[0] == 1
    assert values[1] == pytest.approx(2 / 13)
    chosen = choose(table)
    assert chosen["best"] == [11, 9, 7]
    assert chosen["worst"] == [1, 3, 5]
    assert chosen["random"] == choose(table.take(range(12)))["random"]
    assert len(set(chosen["random"])) == 3
    few = choose(table.take([1, 3, 5, 7]))
    assert (few["best"], few["worst"]) == ([3, 2, 1], [0])


def test_without_a_lesion_only_random_cases_are_left() -> None:
    chosen = choose(masks().take([0, 2, 4]))
    assert chosen["best"] == chosen["worst"] == []
    assert sorted(chosen["random"]) == [0, 1, 2]


def test_equal_features_give_equal_maps_that_keep_neighbours() -> None:
    rng = np.random.default_rng(0)
    side = np.repeat([0.0, 20.0], 20)[:, None]
    vectors = rng.normal(size=(40, 5)) + side
    first, again = tsne(vectors), tsne(vectors.copy())
    assert first.tobytes() == again.tobytes()
    far = np.linalg.norm(first[:, None] - first[None], axis=-1)
    np.fill_diagonal(far, np.inf)
    nearest = far.argmin(axis=1)
    assert ((nearest < 20) == (np.arange(40) < 20)).all()


def test_each_sample_has_one_colour_and_what_has_no_single_label_is_said() -> None:
    y = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0], [np.nan, 0, 0]])
    codes, names = _groups(y, ["a", "b", "c"])
    assert [names[code] for code in codes] == [
        "a", "b", "b", "several labels", "no label", "no label",
    ]  # fmt: skip
    codes, names = _groups(np.array([[1.0], [0.0]]), ["a"])
    assert [names[code] for code in codes] == ["a", "no a"]
    codes, names = _groups(np.zeros((2, 0)), [])
    assert names == ["tested sample"]
    many = np.eye(9)
    codes, names = _groups(np.vstack([many, many[:7]]), [f"l{k}" for k in range(9)])
    assert names == ["l0", "l1", "l2", "l3", "l4", "l5", "another label"]
    assert (codes >= 0).all()


def test_a_drawing_takes_its_colours_and_font_from_the_page() -> None:
    with canvas() as (figure, axes):
        axes.plot([0, 1], [0, 1], color="#0072b2")
        axes.set_title("$x$ & <y>")
        drawn = finish(figure, "name", "A title", "A description", "caption")
    text = str(drawn.svg)
    assert "var(--s1)" in text
    assert "currentColor" in text
    assert "font-family" not in text
    assert "$x$ &amp; &lt;y&gt;" in text
    assert not re.search(r"#[0-9a-f]{6}", text)
    assert "metadata" not in text
    assert "xmlns" not in text
