"""Segmentation metrics against MONAI: random, empty, one pixel, at the border, weighted."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medbench.metrics import segmentation as metrics
from medbench.metrics.cards import card_sha256
from medbench.metrics.segmentation_cards import SEGMENTATION
from medbench.metrics.values import FloatArray

Masks = npt.NDArray[np.bool_]
FUNCTIONS = [getattr(metrics, spec.function.partition(":")[2]) for spec in SEGMENTATION]


@dataclass(frozen=True, eq=False)
class Table:
    reference: Masks
    prediction: Masks
    spacing: FloatArray | None = None

    def take(self, rows: npt.NDArray[np.intp]) -> Table:
        spacing = None if self.spacing is None else self.spacing[rows]
        return Table(self.reference[rows], self.prediction[rows], spacing)


def ellipses(rng: np.random.Generator, count: int, size: int) -> Masks:
    """Ellipses that may reach over the border."""
    down, across = np.mgrid[:size, :size]
    centre = rng.uniform(0, size, (count, 2, 1, 1))
    radius = rng.uniform(1, size / 2, (count, 2, 1, 1))
    return ((down - centre[:, 0]) / radius[:, 0]) ** 2 + (
        (across - centre[:, 1]) / radius[:, 1]
    ) ** 2 < 1


def example(seed: int, count: int = 24, size: int = 24, *, empty: bool = True) -> Table:
    """Ellipses, noise, single pixels, full and equal masks, and empty ones where asked for."""
    rng = np.random.default_rng(seed)
    reference, prediction = ellipses(rng, count, size), ellipses(rng, count, size)
    reference[0], prediction[0] = rng.random((2, size, size)) < 0.4
    reference[1], prediction[1] = False, False
    reference[1, 0, 0] = prediction[1, -1, -1] = True
    reference[2] = prediction[2] = True
    prediction[3] = reference[3]
    prediction[4] = False
    prediction[4, :, 5:7] = True
    reference[:, 0, 0] |= ~reference.any(axis=(1, 2))
    prediction[:, 0, 0] |= ~prediction.any(axis=(1, 2))
    if empty:
        reference[5:8] = False
        prediction[7:10] = False
    return Table(reference, prediction, rng.uniform(0.3, 3, (count, 2)))


def by_monai(table: Table, ignore_empty: bool) -> tuple[FloatArray, FloatArray]:
    """Dice and IoU per image, by MONAI; NaN for an empty reference when it is ignored."""
    import torch
    from monai.metrics import DiceHelper, compute_iou

    prediction = torch.from_numpy(table.prediction[:, None]).float()
    reference = torch.from_numpy(table.reference[:, None]).float()
    helper = DiceHelper(
        include_background=True, reduction="none", get_not_nans=False, ignore_empty=ignore_empty
    )
    dice = helper(prediction, reference)
    iou = compute_iou(prediction, reference, include_background=True, ignore_empty=ignore_empty)
    return dice.double().numpy()[:, 0], iou.double().numpy()[:, 0]


def surface_by_monai(table: Table) -> FloatArray:
    """Distance per image, NaN where either side is empty."""
    import torch
    from monai.metrics import compute_average_surface_distance

    found = []
    for i in range(len(table.reference)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(
                compute_average_surface_distance(
                    torch.from_numpy(table.prediction[i])[None, None],
                    torch.from_numpy(table.reference[i])[None, None],
                    include_background=True,
                    symmetric=True,
                    spacing=None if table.spacing is None else table.spacing[i].tolist(),
                ).item()
            )
    values = np.array(found)
    return np.where(np.isfinite(values), values, np.nan)


@pytest.mark.parametrize("seed", range(3))
def test_overlap_agrees_with_monai(seed: int) -> None:
    table = example(seed)
    weights = np.stack([np.ones(24), np.random.default_rng(seed).random(24)])
    dice, iou = by_monai(table, ignore_empty=False)
    positive, _ = by_monai(table, ignore_empty=True)
    known = ~np.isnan(positive)
    assert 0 < known.sum() < 24
    for b, row in enumerate(weights):
        assert metrics.dice(table, weights).value[b] == pytest.approx(
            np.average(dice, weights=row), abs=1e-6
        )
        assert metrics.iou(table, weights).value[b] == pytest.approx(
            np.average(iou, weights=row), abs=1e-6
        )
        assert metrics.dice_positive(table, weights).value[b] == pytest.approx(
            np.average(positive[known], weights=row[known]), abs=1e-6
        )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spaced", [True, False])
def test_surface_distance_of_every_image_agrees_with_monai(seed: int, spaced: bool) -> None:
    table = example(seed)
    if not spaced:
        table = Table(table.reference, table.prediction)
    each = metrics.surface_distance(table, np.eye(24)).value
    expected = surface_by_monai(table)
    assert np.isnan(expected).sum() == 5
    assert each == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)
    whole = metrics.surface_distance(table, np.ones((1, 24)))
    assert whole.value[0] == pytest.approx(np.nanmean(expected), rel=1e-6)


def test_distances_of_hand_made_masks() -> None:
    """Two pixels three columns apart, and a bar beside a pixel."""
    reference = np.zeros((2, 6, 6), dtype=bool)
    prediction = np.zeros((2, 6, 6), dtype=bool)
    reference[:, 2, 1] = True
    prediction[0, 2, 4] = True
    prediction[1, 2, 1:4] = True  # distances 0, 1, 2 one way and 0 back
    table = Table(reference, prediction, np.array([[9.0, 0.5], [9.0, 2.0]]))
    each = metrics.surface_distance(table, np.eye(2)).value
    assert each.tolist() == [1.5, (0 + 2 + 4 + 0) / 4]
    pixels = metrics.surface_distance(Table(reference, prediction), np.eye(2))
    assert pixels.value.tolist() == [3.0, 0.75]
    assert pixels.reason == "in pixels, no spacing is given"


def test_images_without_a_surface_are_left_out_of_distance_and_counted() -> None:
    table = example(0)
    values = metrics.surface_distance(table, np.ones((1, 24)))
    rest = metrics.surface_distance(
        table.take(np.delete(np.arange(24), np.s_[5:10])), np.ones((1, 19))
    )
    assert rest.reason is None
    assert values.value == pytest.approx(rest.value)
    assert values.reason == (
        "of 24 images without a distance, left out: 1 empty on both sides, 2 empty in the "
        "prediction only, 2 empty in the reference only"
    )


def test_predicting_nothing_scores_the_share_of_empty_images() -> None:
    """The degenerate case: where no image has a lesion, the empty mask is perfect."""
    reference = np.zeros((4, 8, 8), dtype=bool)
    reference[0, 2:4, 2:4] = True
    nothing = np.zeros_like(reference)
    ones = np.ones((1, 4))
    table = Table(reference, nothing)
    assert metrics.dice(table, ones).value[0] == 0.75
    assert metrics.iou(table, ones).value[0] == 0.75
    assert metrics.dice_positive(table, ones).value[0] == 0.0
    distance = metrics.surface_distance(table, ones)
    assert np.isnan(distance.value[0])
    assert "1 empty in the prediction only" in (distance.reason or "")
    healthy = Table(nothing, nothing)
    assert metrics.dice(healthy, ones).value[0] == 1.0
    positive = metrics.dice_positive(healthy, ones)
    assert np.isnan(positive.value[0])
    assert positive.reason == "no image has anything in its reference"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_integer_weights_equal_repeated_images(function) -> None:
    table = example(3)
    counts = np.random.default_rng(0).integers(0, 4, 24)
    rows = np.repeat(np.arange(24), counts)
    weighted = function(table, counts[None].astype(float)).value
    assert weighted == pytest.approx(function(table.take(rows), np.ones((1, len(rows)))).value)


def test_a_resample_without_a_countable_image_is_undefined_and_raises_no_warning() -> None:
    table = example(0)
    healthy = np.zeros(24)
    healthy[7] = 2
    weights = np.stack([np.zeros(24), healthy])
    with np.errstate(all="raise"):
        assert np.isnan(metrics.dice(table, weights).value).tolist() == [True, False]
        assert np.isnan(metrics.iou(table, weights).value).tolist() == [True, False]
        assert np.isnan(metrics.dice_positive(table, weights).value).all()
        assert np.isnan(metrics.surface_distance(table, weights).value).all()


def test_masks_are_read_once_for_all_metrics_and_resamples(monkeypatch) -> None:
    calls = []
    original = metrics._surface
    monkeypatch.setattr(metrics, "_surface", lambda mask: calls.append(1) or original(mask))
    table = example(0)
    for _ in range(3):
        metrics.surface_distance(table, np.ones((50, 24)))
    assert len(calls) == 2 * 19
    metrics.surface_distance(example(0), np.ones((1, 24)))
    assert len(calls) == 4 * 19


def test_memory_beside_the_masks_does_not_grow_with_their_number() -> None:
    rng = np.random.default_rng(0)
    table = Table(ellipses(rng, 60, 128), ellipses(rng, 60, 128))
    ones = np.ones((1, 60))
    metrics.surface_distance(Table(table.reference[:1], table.prediction[:1]), ones[:, :1])
    tracemalloc.start()
    try:
        for function in FUNCTIONS:
            function(table, ones)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < table.reference.nbytes / 2


pairs = arrays(np.bool_, (2, 3, 5, 6))
factors = st.floats(0.1, 10)


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_metrics_are_symmetric_and_survive_mirroring(masks) -> None:
    ones = np.ones((1, 3))
    table = Table(masks[0], masks[1])
    for function in (metrics.dice, metrics.iou, metrics.surface_distance):
        value = function(table, ones).value
        swapped = function(Table(masks[1], masks[0]), ones).value
        mirrored = function(Table(masks[0][:, ::-1], masks[1][:, ::-1]), ones).value
        assert swapped == pytest.approx(value, nan_ok=True)
        assert mirrored == pytest.approx(value, nan_ok=True)


@given(pairs, factors)
@settings(max_examples=60, deadline=None)
def test_values_keep_their_range_and_distance_its_scale(masks, factor: float) -> None:
    spacing = np.full((3, 2), 0.7)
    each = np.eye(3)
    table = Table(masks[0], masks[1], spacing)
    dice, iou = metrics.dice(table, each).value, metrics.iou(table, each).value
    assert ((dice >= iou) & (iou >= 0) & (dice <= 1)).all()
    assert dice == pytest.approx(2 * iou / (1 + iou))
    distance = metrics.surface_distance(table, each).value
    wider = metrics.surface_distance(Table(masks[0], masks[1], spacing * factor), each).value
    assert wider == pytest.approx(distance * factor, nan_ok=True)
    same = Table(masks[0], masks[0], spacing)
    assert (metrics.dice(same, each).value == 1).all()
    assert np.nan_to_num(metrics.surface_distance(same, each).value).tolist() == [0, 0, 0]


def test_cards_are_complete_distinct_and_light() -> None:
    assert [spec.name for spec in SEGMENTATION] == [
        "dice", "dice-positive", "iou", "surface-distance",
    ]  # fmt: skip
    assert len({card_sha256(spec) for spec in SEGMENTATION}) == len(SEGMENTATION)
    for spec in SEGMENTATION:
        assert spec.definition
        assert "interval:" in spec.aggregation
        assert spec.reference
        assert spec.higher_is_better == (spec.name != "surface-distance")
    code = (
        "import sys, medbench.metrics.segmentation_cards, medbench.metrics.retrieval_cards; "
        "print([m for m in ('numpy', 'scipy', 'torch', 'monai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
