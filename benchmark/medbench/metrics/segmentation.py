"""Segmentation metrics: overlap and surface distance, each from one number per image.

A metric here is a mean over images, so one pass over the masks gives what every resample needs:
weights float [B, N], one column per image, times a vector. The pass is made once per table and
looks at one image at a time, so that it needs no memory beside the masks themselves.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from medbench.metrics.values import FloatArray, MaskTable, Values

Flags = npt.NDArray[np.bool_]
Mask = npt.NDArray[np.bool_]


class _Areas(NamedTuple):
    """Pixels per image: float [N] each, whole numbers."""

    reference: FloatArray
    prediction: FloatArray
    both: FloatArray


_AREAS: WeakKeyDictionary[MaskTable, _Areas] = WeakKeyDictionary()
_DISTANCES: WeakKeyDictionary[MaskTable, FloatArray] = WeakKeyDictionary()


def dice(table: MaskTable, weights: FloatArray) -> Values:
    """Mean over images of twice the common area over the sum of both areas. In [0, 1].

    An image that is empty on both sides counts 1, so predicting nothing scores the share of
    empty images. Source: Dice 1945.

    Args:
        table: masks bool [N, H, W].
        weights: float [B, N].
    """
    return Values(_mean(_dice(_areas(table)), weights))


def dice_positive(table: MaskTable, weights: FloatArray) -> Values:
    """Dice over the images whose reference is not empty. In [0, 1]; NaN where there is none."""
    areas = _areas(table)
    reason = None if areas.reference.any() else "no image has anything in its reference"
    return Values(_mean(_dice(areas), weights, areas.reference > 0), reason=reason)


def iou(table: MaskTable, weights: FloatArray) -> Values:
    """Mean over images of the common area over the joint one, empty on both sides 1. In [0, 1].

    Source: Jaccard 1912.
    """
    areas = _areas(table)
    return Values(
        _mean(_share(areas.both, areas.reference + areas.prediction - areas.both), weights)
    )


def surface_distance(table: MaskTable, weights: FloatArray) -> Values:
    """Average symmetric surface distance, mean over images; 0 or more, lower is better.

    The surface of a mask is its pixels with one of the four neighbours, or the border of the
    image, outside it. Every surface pixel of either mask has its distance to the nearest one of
    the other mask, and an image has the mean of them all. In mm, or in pixels where the table has
    no spacing. An image without a surface on one side or on both has no distance; it is left
    out and counted in the reason. Source: the definition that MONAI follows.

    Args:
        table: masks bool [N, H, W]; spacing float [N, 2] in mm, greater than zero, or None.
        weights: float [B, N].
    """
    areas = _areas(table)
    if table not in _DISTANCES:
        _DISTANCES[table] = _distances(table, areas)
    distances = _DISTANCES[table]
    known = ~np.isnan(distances)
    reference, prediction = areas.reference > 0, areas.prediction > 0
    counted = (
        (int((~reference & ~prediction).sum()), "empty on both sides"),
        (int((reference & ~prediction).sum()), "empty in the prediction only"),
        (int((~reference & prediction).sum()), "empty in the reference only"),
    )
    notes = [f"{count} {where}" for count, where in counted if count]
    if notes:
        notes = [f"of {len(known)} images without a distance, left out: {', '.join(notes)}"]
    if table.spacing is None:
        notes.append("in pixels, no spacing is given")
    values = _mean(np.where(known, distances, 0.0), weights, known)
    return Values(values, reason="; ".join(notes) or None)


def _areas(table: MaskTable) -> _Areas:
    """Areas of every image, counted once per table.

    One image at a time is the fastest way: counting contiguous flags needs no wider copy.
    """
    if table not in _AREAS:
        counts = np.empty((3, len(table.reference)))
        for i, (reference, prediction) in enumerate(
            zip(table.reference, table.prediction, strict=True)
        ):
            counts[0, i] = np.count_nonzero(reference)
            counts[1, i] = np.count_nonzero(prediction)
            counts[2, i] = np.count_nonzero(reference & prediction)
        _AREAS[table] = _Areas(*counts)
    return _AREAS[table]


def _dice(areas: _Areas) -> FloatArray:
    return _share(2 * areas.both, areas.reference + areas.prediction)


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Quotient, 1 where the whole is nothing."""
    found: FloatArray = np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)
    return found


def _distances(table: MaskTable, areas: _Areas) -> FloatArray:
    """float [N]: average symmetric surface distance, NaN where a side is empty."""
    found = np.full(len(areas.reference), np.nan)
    for i in np.flatnonzero((areas.reference > 0) & (areas.prediction > 0)):
        spacing = np.ones(2) if table.spacing is None else table.spacing[i]
        found[i] = _symmetric(
            _surface(table.reference[i]) * spacing, _surface(table.prediction[i]) * spacing
        )
    return found


def _surface(mask: Mask) -> npt.NDArray[np.intp]:
    """bool [H, W] -> [K, 2], row and column of each surface pixel."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    corner = np.array([rows[0], columns[0]])
    box = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    inside = box[:-2, 1:-1] & box[2:, 1:-1] & box[1:-1, :-2] & box[1:-1, 2:]
    surface: npt.NDArray[np.intp] = np.argwhere(box[1:-1, 1:-1] & ~inside) + corner
    return surface


def _symmetric(a: FloatArray, b: FloatArray) -> float:
    """Mean over the points [K, 2] of both sets of the distance to the other set."""
    from scipy.spatial import KDTree

    there, _ = KDTree(b).query(a)
    back, _ = KDTree(a).query(b)
    return float((there.sum() + back.sum()) / (len(a) + len(b)))


def _mean(each: FloatArray, weights: FloatArray, counted: Flags | None = None) -> FloatArray:
    """Weighted mean of float [N] over the counted images: float [B], NaN without weight."""
    of = np.ones(len(each)) if counted is None else counted.astype(np.float64)
    total, size = weights @ (each * of), weights @ of
    found: FloatArray = np.divide(total, size, out=np.full(len(weights), np.nan), where=size > 0)
    return found
