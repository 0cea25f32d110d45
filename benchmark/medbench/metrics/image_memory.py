"""Memorisation: does a generator give back training images?

Each generated image has a distance to the nearest training image, in the features of an independent
judge. How near is too near is asked of new real images: the tested ones, which are of other
patients, have distances of their own, and one in twenty of them is as near as their 5th percentile.
A generator that draws anew has a share of about .05 nearer than that, or less where its images are
unlike real ones; one that copies has 1.
"""

from __future__ import annotations

import numpy as np

from medbench.metrics.image_clusters import hold
from medbench.metrics.image_table import JudgedTable
from medbench.metrics.values import FloatArray, Values

#: Share of new real images that are called as near as a copy.
NEAR = 0.05
#: Real images that say how near that is, at least: the 5th percentile is then one of them.
LEAST = 20


def memorised_share(table: JudgedTable, weights: FloatArray) -> Values:
    """Share of generated images that are at least as near to a training image as the nearest 5 % of
    the real test images are. In [0, 1].

    Weights are [B, N + G]: the percentile is that of the weighted real images of each row.
    """
    nothing = np.full(len(weights), np.nan)
    mine, real = table.train_distances, table.real_train_distances
    if mine is None or real is None:
        return Values(nothing, None, "there are no distances to training images")
    hold(weights, len(real) + len(mine))
    if len(real) < LEAST:
        reason = f"its percentile needs {LEAST} real images; there are {len(real)}"
        return Values(nothing, None, reason)
    limit = percentile(real, weights[:, : len(real)], NEAR)
    drawn = weights[:, len(real) :]
    near = np.einsum("bg,bg->b", drawn, (mine[None, :] <= limit[:, None]).astype(np.float64))
    total = drawn.sum(axis=1)
    value = np.divide(near, total, out=nothing, where=(total > 0) & ~np.isnan(limit))
    note = (
        f"median distance to the nearest training image {np.median(mine):.4g}, of the real test "
        f"images {np.median(real):.4g} and their 5th percentile {limit[0]:.4g}"
    )
    return Values(value, None, note)


def percentile(values: FloatArray, weights: FloatArray, share: float) -> FloatArray:
    """The least value up to which a share of the weight goes, under each row of weights.

    Args:
        values: float [N].
        weights: float [B, N].
        share: in (0, 1].

    Returns:
        float [B]; NaN where nothing has weight.
    """
    order = np.argsort(values, kind="stable")
    grown = np.cumsum(weights[:, order], axis=1)
    # a hair less, since 20 times .05 is not quite 1
    at = (grown < (share - 1e-12) * grown[:, -1:]).sum(axis=1)
    found: FloatArray = np.where(
        grown[:, -1] > 0, values[order][np.minimum(at, len(values) - 1)], np.nan
    )
    return found
