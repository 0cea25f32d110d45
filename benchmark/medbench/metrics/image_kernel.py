"""Kernel distance of features (KID): of all images, per finding and for short, medium and long
prompts, on each named backbone.

Every metric takes a table of N real and G generated images and ``weights`` float [B, N + G]: row 0
is the metric itself, the others are resamples of whole patients and prompts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medbench.metrics.backbones import Features, table_features
from medbench.metrics.image_clusters import Integers, clusters_of, hold
from medbench.metrics.image_strata import Third, thirds
from medbench.metrics.image_table import JudgedTable
from medbench.metrics.values import FloatArray, Values

Metric = Callable[[JudgedTable, FloatArray], Values]

#: Rows of a block of kernel values.
BLOCK = 1024
#: Real images with a finding, and images generated from prompts with it, that its own distance
#: needs at least.
LEAST = 20


def kernel_distance(
    real: FloatArray, generated: FloatArray, weights: FloatArray, clusters: Integers
) -> FloatArray:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3, weighted.

    Under weights w the mean over pairs of real images is the sum of w_i w_j k_ij over ordered
    pairs of unlike clusters, and of w_i k_ij over pairs of unlike images of one cluster, divided by
    the same sum without k. So an image is never paired with itself, nor a copy of a cluster with
    another copy of it (which would let resamples look more alike than new data do), while pairs
    inside one copy count once per copy. With ones it is the U statistic.

    Kernel values are computed once, in blocks, and meet all weightings in one product.

    Args:
        real: float [N, D].
        generated: float [G, D].
        weights: float [B, N + G], equal within a cluster.
        clusters: int [N + G].

    Returns:
        float [B]; NaN where one side has no pair.
    """
    count = len(real)
    by_image = np.ascontiguousarray(weights.T, dtype=np.float64)
    u, v = by_image[:count], by_image[count:]
    cu, cv = clusters[:count], clusters[count:]
    return (
        _mean_kernel(real, real, u, u, cu, cu)
        + _mean_kernel(generated, generated, v, v, cv, cv)
        - 2 * _mean_kernel(real, generated, u, v, cu, cv)
    )


def _mean_kernel(
    x: FloatArray, y: FloatArray, u: FloatArray, v: FloatArray, cu: Integers, cv: Integers
) -> FloatArray:
    """Weighted mean of k(x_i, y_j), float [B]; x is y: over pairs of unlike images.

    u [n, B] and v [m, B] are weights by image, cu [n] and cv [m] clusters.
    """
    same = x is y
    total = np.zeros(u.shape[1])
    # of each image with its own cluster on the other side: sum of kernel values, and number
    own, mates = np.zeros(len(x)), np.zeros(len(x))
    for start in range(0, len(x), BLOCK):
        rows = slice(start, min(start + BLOCK, len(x)))
        # the kernel of a set with itself is symmetric: blocks left of the diagonal stand twice
        columns = slice(0, rows.stop) if same else slice(0, len(y))
        kernel = _kernel(x[rows], y[columns])
        together = cu[rows, None] == cv[None, columns]
        near = np.where(together, kernel, 0.0)
        own[rows] += near.sum(axis=1)
        mates[rows] += together.sum(axis=1)
        if same:
            own[: rows.start] += near[:, : rows.start].sum(axis=0)
            mates[: rows.start] += together[:, : rows.start].sum(axis=0)
            kernel[:, : rows.start] *= 2
        total += np.einsum("ib,ib->b", u[rows], kernel @ v[columns])
    alone = _self_kernel(x) if same else np.zeros(len(x))
    pairs = u.sum(axis=0) * v.sum(axis=0)
    squared = np.square(u)
    total += (own - alone) @ u - own @ squared
    pairs += (mates - float(same)) @ u - mates @ squared
    # without a pair the difference of sums may leave a trace of rounding
    some = pairs > 1e-12 * u.sum(axis=0) * v.sum(axis=0)
    found: FloatArray = np.divide(total, pairs, out=np.full_like(total, np.nan), where=some)
    return found


def _kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    values: FloatArray = x @ y.T
    values /= x.shape[1]
    values += 1.0
    return values * values * values


def _self_kernel(x: FloatArray) -> FloatArray:
    cubed: FloatArray = (np.einsum("ij,ij->i", x, x) / x.shape[1] + 1.0) ** 3
    return cubed


def _kid_on(backbone: str) -> Metric:
    def kid(table: JudgedTable, weights: FloatArray) -> Values:
        """Every row, and per finding and third of the prompts where both sides know them; see
        `kernel_distance`."""
        found = table_features(table, backbone)
        if isinstance(found, str):
            return Values(np.full(len(weights), np.nan), None, found)
        count = len(found.real)
        hold(weights, count + len(found.generated))
        if min(count, len(found.generated)) < 2:
            reason = (
                f"needs two real and two generated images; there are {count} and "
                f"{len(found.generated)}"
            )
            return Values(np.full(len(weights), np.nan), None, reason)
        clusters = clusters_of(table, weights, count)
        value = kernel_distance(found.real, found.generated, weights, clusters)
        per_finding, few = _per_finding(table, found, weights, clusters)
        notes = [found.note] if found.note else []
        if few:
            notes.append(
                f"findings with fewer than {LEAST} real images, or images generated for them, "
                f"without a value of their own: {few}"
            )
        drawn = {name: _drawn(table, name) for name in per_finding or ()}
        cut = thirds(table)

        def of(third: Third) -> FloatArray | None:
            if len(third.real) < LEAST:
                notes.append(f"{third.name}: {len(third.real)} real images, too few for a value")
                return None
            return _among(found, third.real, third.generated, weights, clusters)

        parts = {**(per_finding or {}), **cut.values(of)}
        notes += [cut.note] if cut.note else []
        return Values(
            value, parts or None, "; ".join(notes) or None, label_counts=drawn | cut.counts
        )

    return kid


def _drawn(table: JudgedTable, name: str) -> int:
    """Number of images generated from prompts with a finding."""
    assert table.labels is not None
    return int((table.labels[:, list(table.label_names).index(name)] == 1).sum())


def _per_finding(
    table: JudgedTable, found: Features, weights: FloatArray, clusters: Integers
) -> tuple[dict[str, FloatArray] | None, str]:
    """The distance between real images with a finding and those generated from prompts with it,
    float [B] by finding, and the findings that have too few, with their numbers."""
    if table.labels is None or table.real_labels is None:
        return None, ""
    values: dict[str, FloatArray] = {}
    few: list[str] = []
    for k, name in enumerate(table.label_names):
        real = np.flatnonzero(table.real_labels[:, k] == 1)
        generated = np.flatnonzero(table.labels[:, k] == 1)
        if min(len(real), len(generated)) < LEAST:
            few.append(f"{name} ({len(real)} and {len(generated)})")
            continue
        values[name] = _among(found, real, generated, weights, clusters)
    return values, ", ".join(few)


def _among(
    found: Features, real: Integers, generated: Integers, weights: FloatArray, clusters: Integers
) -> FloatArray:
    """The distance between some real images and some generated ones, float [B]."""
    columns = np.concatenate([real, len(found.real) + generated])
    return kernel_distance(
        found.real[real], found.generated[generated], weights[:, columns], clusters[columns]
    )


kid_xrv = _kid_on("xrv")
kid_inception = _kid_on("inception")
kid_inception_torchvision = _kid_on("inception-torchvision")
kid_phantom = _kid_on("phantom")
