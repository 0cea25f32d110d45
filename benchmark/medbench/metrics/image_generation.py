"""Image-generation metrics: Frechet and kernel distance of features, diversity by MS-SSIM.

Every metric takes a table of N real and G generated images and ``weights`` float [B, N + G]: row 0
is the metric itself, the others are resamples of whole patients and prompts. Nothing here looks at
ids: images of one patient or prompt share their weights in every resample, and that is how they
are known to belong together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from medbench.metrics.backbones import table_features
from medbench.metrics.image_cards import BACKBONES
from medbench.metrics.values import FloatArray, ImageTable, Values

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Metric = Callable[[ImageTable, FloatArray], Values]

#: Groups of the jackknife behind the interval of the Frechet distance.
GROUPS = 20
#: Rows of weights that tell clusters apart: two are alike by chance with odds below 1e-16.
SIGNATURE = 32
#: Rows of a block of kernel values.
BLOCK = 1024

WINDOW, SIGMA = 11, 1.5
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
#: Images of one prompt that are compared pair by pair.
PER_PROMPT = 4


# Frechet distance


def frechet(real: FloatArray, generated: FloatArray) -> float:
    """Squared Frechet distance between the Gaussians fitted to two sets of features.

    With more images than dimensions tr((S1 S2)^(1/2)) is the sum of the square roots of the
    eigenvalues of L^T S2 L, S1 = L L^T (Cholesky): symmetric, so several times cheaper than a
    matrix square root. With fewer images, or features that depend on each other, it is the sum of
    the singular values of X Y^T, X and Y the centred features over sqrt(n - 1) or their triangular
    factors: no root of a rounded zero is taken.

    Args:
        real: float [N, D].
        generated: float [G, D].

    Returns:
        Distance, at least 0; NaN with fewer than two images on either side.
    """
    a, b = _side(real, np.ones(len(real))), _side(generated, np.ones(len(generated)))
    return _distance(a.moments(), b.moments(), exact=True)


def frechet_of_moments(
    mean: FloatArray, covariance: FloatArray, other_mean: FloatArray, other_covariance: FloatArray
) -> float:
    """`frechet` from means float [D] and covariances float [D, D], as kept of a reference set."""
    a, b = _stored(mean, covariance), _stored(other_mean, other_covariance)
    return _distance(a, b, exact=True)


def frechet_interval(
    real: FloatArray, generated: FloatArray, clusters: Integers, groups: int = GROUPS
) -> tuple[float, float] | None:
    """95 % interval of `frechet` by a delete-group jackknife.

    Clusters are dealt into groups in their order; one group at a time is left out of both sides,
    by subtracting its sums. Value +- t(groups - 1) standard errors, cut at 0. The interval is
    about the mean of the distance at these numbers of images: its bias is not in it.

    Args:
        real: float [N, D].
        generated: float [G, D].
        clusters: int [N + G]: images of equal number belong together.
        groups: of clusters; fewer where one side has fewer clusters.

    Returns:
        Low and high; None where a side has fewer than two clusters, or one image when a group is
        left out.
    """
    a, b = _side(real, np.ones(len(real))), _side(generated, np.ones(len(generated)))
    value = _distance(a.moments(), b.moments(), exact=True)
    return _jackknife(a, b, value, _deal(clusters, len(real), groups))


class _Moments(NamedTuple):
    """Mean [D], covariance [D, D] or None, F [r, D] with F^T F the covariance or None, its trace,
    and F by a stable but slower way."""

    mean: FloatArray
    covariance: FloatArray | None
    factor: FloatArray | None
    trace: float
    stable: Callable[[], FloatArray]


@dataclass(frozen=True, eq=False)
class _Side:
    """Features [n, D] about their mean, with how often each counts [n]; products if n > D.

    The mean is taken out first so that sums of products keep their digits.
    """

    x: FloatArray
    counts: FloatArray
    origin: FloatArray
    gram: FloatArray | None

    def moments(self, without: npt.NDArray[np.bool_] | None = None) -> _Moments | None:
        """Moments but for some rows; None with one image or none."""
        counts = self.counts if without is None else np.where(without, 0.0, self.counts)
        total = float(counts.sum())
        if total <= 1:
            return None
        mean = counts @ self.x / total

        def rows() -> FloatArray:
            kept = counts > 0
            centred: FloatArray = self.x[kept] - mean
            centred *= np.sqrt(counts[kept] / (total - 1))[:, None]
            return centred

        where = self.origin + mean
        if self.gram is None:
            factor = rows()
            return _Moments(where, None, factor, float(np.square(factor).sum()), lambda: factor)
        covariance = np.outer(mean, -total * mean)
        covariance += self.gram
        if without is not None and without.any():
            left_out = self.x[without]
            covariance -= (left_out * self.counts[without][:, None]).T @ left_out
        covariance /= total - 1
        return _Moments(
            where, covariance, None, float(np.trace(covariance)), lambda: _triangle(rows())
        )


def _stored(mean: FloatArray, covariance: FloatArray) -> _Moments:
    def factor() -> FloatArray:
        values, vectors = np.linalg.eigh(covariance)
        found: FloatArray = np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T
        return found

    return _Moments(mean, covariance, None, float(np.trace(covariance)), factor)


def _triangle(rows: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.qr(rows, mode="r"), dtype=np.float64)


def _side(x: FloatArray, counts: FloatArray) -> _Side:
    x = np.asarray(x, np.float64)
    kept = counts > 0
    if not kept.all():
        x, counts = x[kept], counts[kept]
    origin = counts @ x / counts.sum() if len(x) else np.zeros(x.shape[1])
    x = x - origin
    gram = None
    # with fewer images than dimensions a covariance would be larger than the features
    if len(x) > x.shape[1]:
        gram = x.T @ (x if (counts == 1).all() else x * counts[:, None])
    return _Side(x, counts, origin, gram)


def _distance(a: _Moments | None, b: _Moments | None, exact: bool) -> float:
    """Squared Frechet distance; a replicate of the jackknife need not be ``exact``."""
    if a is None or b is None:
        return float("nan")
    gap = a.mean - b.mean
    product = _congruence(a, b, exact)
    if product is None:
        from scipy.linalg import svdvals

        root = float(svdvals(a.stable() @ b.stable().T, check_finite=False).sum())
    else:
        root = float(np.sqrt(np.clip(_eigenvalues(product), 0.0, None)).sum())
    return max(float(gap @ gap) + a.trace + b.trace - 2 * root, 0.0)


def _congruence(a: _Moments, b: _Moments, exact: bool) -> FloatArray | None:
    """F S F^T for one side's factor F and the other's covariance S: symmetric, [r, r].

    Its eigenvalues are those of S1 S2 but for zeros. None where they are not to be had, or have
    zeros among them and ``exact`` is asked: the root of a zero that is rounded is 1e-8 of the
    largest.
    """
    from scipy.linalg import LinAlgError, cholesky
    from scipy.linalg.blas import dtrmm

    if a.covariance is not None and b.covariance is not None:
        one, other = _live(a.covariance, b.covariance)
        try:
            # transposed, symmetric matrices are as LAPACK wants them without a copy
            lower = cholesky(one.T, lower=True, check_finite=False)
        except LinAlgError:
            return None
        # what the features before it leave unexplained of each feature
        if exact and (np.square(np.diag(lower)) < 1e-12 * np.diag(one)).any():
            return None
        half = dtrmm(1.0, lower, other.T, lower=1, trans_a=1)
        return np.asarray(dtrmm(1.0, lower, half, lower=1, side=1, overwrite_b=1), np.float64)
    if exact:
        return None
    if a.factor is None or (b.factor is not None and len(b.factor) < len(a.factor)):
        a, b = b, a
    assert a.factor is not None
    if b.factor is None:
        assert b.covariance is not None
        return a.factor @ b.covariance @ a.factor.T
    cross = a.factor @ b.factor.T
    return cross @ cross.T


def _live(one: FloatArray, other: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both covariances without the features that do not vary on either side: S1 S2 has only
    zeros there, and a network has units that never fire."""
    alive = (np.diag(one) > 1e-24 * np.trace(one)) & (np.diag(other) > 1e-24 * np.trace(other))
    if alive.all():
        return one, other
    index = np.ix_(alive, alive)
    return one[index], other[index]


def _eigenvalues(matrix: FloatArray) -> FloatArray:
    if len(matrix) < 512:
        return np.asarray(np.linalg.eigvalsh(matrix), np.float64)
    import torch  # its LAPACK reduces a large matrix nearly twice as fast as numpy's

    found: FloatArray = torch.linalg.eigvalsh(torch.from_numpy(matrix.T)).numpy()
    return found


def _jackknife(a: _Side, b: _Side, value: float, dealt: Integers) -> tuple[float, float] | None:
    """Interval about ``value``; ``dealt`` int [n + m] is the group of each image, 0, 1, ..."""
    from scipy.special import stdtrit

    number = int(dealt.max()) + 1
    if number < 2 or not np.isfinite(value):
        return None
    on_a, on_b = dealt[: len(a.x)], dealt[len(a.x) :]
    left = np.array(
        [_distance(a.moments(on_a == k), b.moments(on_b == k), exact=False) for k in range(number)]
    )
    if np.isnan(left).any():
        return None
    error = np.sqrt((number - 1) / number * np.square(left - left.mean()).sum())
    reach = float(stdtrit(number - 1, 0.975) * error)
    return max(value - reach, 0.0), value + reach


def _deal(clusters: Integers, real: int, groups: int) -> Integers:
    """Group of each image, int [N + G]: clusters dealt out in order, kind by kind.

    Kinds are clusters of real images only, of generated ones only, and of both, so that every
    group holds its share of each; there are no more groups than clusters of the rarest kind.
    """
    _, at = np.unique(clusters, return_inverse=True)
    kind = np.zeros(at.max() + 1, np.int64)
    kind[at[:real]] |= 1
    kind[at[real:]] |= 2
    members = [np.flatnonzero(kind == k) for k in (1, 2, 3)]
    groups = min([groups, *(len(m) for m in members if len(m))])
    group = np.empty(len(kind), np.int64)
    for some in members:
        group[some] = np.arange(len(some)) % groups
    return group[at]


# Kernel distance


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


# Metrics on a backbone


def _fid_on(backbone: str) -> Metric:
    def fid(table: ImageTable, weights: FloatArray) -> Values:
        """Row 0 and its jackknife interval; see `frechet`. Other rows are not read."""
        value = np.full(len(weights), np.nan)
        found = table_features(table, backbone)
        if isinstance(found, str):
            return Values(value, None, found)
        count, dimensions = found.real.shape
        _hold(weights, count + len(found.generated))
        real = _side(found.real, weights[0, :count])
        generated = _side(found.generated, weights[0, count:])
        distance = _distance(real.moments(), generated.moments(), exact=True)
        if np.isnan(distance):
            return Values(value, None, "needs two real and two generated images")
        value[0] = distance
        if len(weights) == 1:
            return Values(value, None, found.note)
        clusters = _clusters(table, weights, count)[weights[0] > 0]
        dealt = _deal(clusters, len(real.x), GROUPS)
        interval = _jackknife(real, generated, distance, dealt)
        if interval is None:
            value[0] = np.nan
            return Values(value, None, "too few patients or prompts for an interval")
        notes = [found.note] if found.note else []
        groups, fewest = int(dealt.max()) + 1, min(len(real.x), len(generated.x))
        if groups < GROUPS:
            notes.append(f"interval from {groups} groups")
        if fewest <= dimensions:
            notes.append(
                f"{fewest:,} images in {dimensions:,} dimensions: the bias is large, compare at "
                "equal numbers of images only"
            )
        return Values(value, None, "; ".join(notes) or None, interval)

    return fid


def _kid_on(backbone: str) -> Metric:
    def kid(table: ImageTable, weights: FloatArray) -> Values:
        """Every row; see `kernel_distance`."""
        found = table_features(table, backbone)
        if isinstance(found, str):
            return Values(np.full(len(weights), np.nan), None, found)
        count = len(found.real)
        _hold(weights, count + len(found.generated))
        if min(count, len(found.generated)) < 2:
            reason = "needs two real and two generated images"
            return Values(np.full(len(weights), np.nan), None, reason)
        clusters = _clusters(table, weights, count)
        value = kernel_distance(found.real, found.generated, weights, clusters)
        return Values(value, None, found.note)

    return kid


fid_xrv = _fid_on("xrv")
fid_inception = _fid_on("inception")
fid_inception_torchvision = _fid_on("inception-torchvision")
fid_phantom = _fid_on("phantom")
kid_xrv = _kid_on("xrv")
kid_inception = _kid_on("inception")
kid_inception_torchvision = _kid_on("inception-torchvision")
kid_phantom = _kid_on("phantom")


def _hold(weights: FloatArray, images: int) -> None:
    if weights.ndim != 2 or weights.shape[1] != images:
        raise ValueError(f"weights of shape {weights.shape} for {images} images")


def _clusters(table: ImageTable, weights: FloatArray, real: int) -> Integers:
    """Number of each image's patient or prompt, int [N + G], the same for any order of rows.

    Resamples give images of one cluster equal weights and tell clusters apart. With too few rows
    to do so, prompts say it for the generated images, and each real one stands for itself.
    """
    if len(weights) > SIGNATURE:
        columns = np.ascontiguousarray(weights[1 : SIGNATURE + 1].T)
        return np.asarray(np.unique(columns, axis=0, return_inverse=True)[1], np.int64).ravel()
    generated = weights.shape[1] - real
    prompts = np.arange(generated) if table.prompts is None else table.prompts
    _, number = np.unique(prompts, return_inverse=True)
    return np.concatenate([np.arange(real), real + number]).astype(np.int64)


# Diversity


def ms_ssim(table: ImageTable, weights: FloatArray) -> Values:
    """Mean MS-SSIM within prompts, 5 scales, images of at least 176 px. In [0, 1], lower is more
    diverse."""
    return _diversity(table, weights, SCALES)


def ms_ssim_3(table: ImageTable, weights: FloatArray) -> Values:
    """Mean MS-SSIM within prompts, 3 scales, images of 44 to 175 px. In [0, 1], lower is more
    diverse."""
    return _diversity(table, weights, SCALES[:3])


def pairwise_ms_ssim(images: Bytes, scales: int = 5) -> FloatArray:
    """MS-SSIM of every pair of k images: float [k, k], symmetric, ones on the diagonal, in [0, 1].

    What belongs to one image (its blurred levels and squares) is computed once per scale and
    shared by its pairs; a blur is two products with a banded matrix.

    Args:
        images: uint8 [k, H, W].
        scales: 5, or 3 with the first three published weights divided by their sum.

    Raises:
        ValueError: images too small for the scales: the window must fit into the coarsest.
    """
    if min(images.shape[1:]) < _smallest(scales):
        raise ValueError(f"{scales} scales need {_smallest(scales)} px, not {images.shape[1:]}")
    weights = np.array(SCALES[:scales])
    if scales < len(SCALES):
        weights /= weights.sum()
    first, second = np.triu_indices(len(images), 1)
    # about the middle level: a shift changes no variance, and small numbers lose less in float32
    levels = images.astype(np.float32) - np.float32(128)
    similarity = np.ones(len(first))
    for scale, weight in enumerate(weights):
        last = scale == scales - 1
        columns, rows = (_blur(size, last) for size in levels.shape[1:])
        mean = _blurred(levels, columns, rows)
        variance = _blurred(np.square(levels), columns, rows)
        variance -= np.square(mean)
        np.maximum(variance, 0, out=variance)
        for at, (i, j) in enumerate(zip(first, second, strict=True)):
            term = _blurred(levels[i] * levels[j], columns, rows)
            term -= mean[i] * mean[j]
            term *= 2
            term += np.float32(C2)
            term /= variance[i] + variance[j] + np.float32(C2)
            if last:
                a, b = mean[i] + np.float32(128), mean[j] + np.float32(128)
                term *= (2 * a * b + np.float32(C1)) / (a * a + b * b + np.float32(C1))
            similarity[at] *= max(float(term.mean(dtype=np.float64)), 0.0) ** weight
        if not last:
            levels = _halved(levels)
    found = np.eye(len(images))
    found[first, second] = found[second, first] = np.minimum(similarity, 1.0)
    return found


def _smallest(scales: int) -> int:
    """Least side in px: the window fits into the coarsest scale."""
    return int(WINDOW * 2 ** (scales - 1))


def _diversity(table: ImageTable, weights: FloatArray, scales: tuple[float, ...]) -> Values:
    nothing = np.full(len(weights), np.nan)
    if table.generated is None:
        return Values(nothing, None, "there are no generated pixels")
    if table.prompts is None:
        return Values(nothing, None, "there are no prompts: images of one prompt are compared")
    side, least = min(table.generated.shape[1:]), _smallest(len(scales))
    if side < least:
        return Values(nothing, None, f"{len(scales)} scales need {least} px, images have {side}")
    if len(scales) < len(SCALES) and side >= _smallest(len(SCALES)):
        return Values(nothing, None, f"images of {side} px take 5 scales: see ms-ssim")
    means, share, alone = _within_prompts(table, table.generated, table.prompts, len(scales))
    if not len(means):
        return Values(nothing, None, "no prompt has two images")
    kept = weights[:, weights.shape[1] - len(table.generated) :] @ share
    total = kept.sum(axis=1)
    value = np.divide(kept @ means, total, out=nothing, where=total > 0)
    reason = f"prompts with one image, left out of the mean: {alone:,}" if alone else None
    return Values(value, None, reason)


Diversity = tuple[FloatArray, FloatArray, int]
_diversities: WeakKeyDictionary[ImageTable, dict[int, Diversity]] = WeakKeyDictionary()


def _within_prompts(table: ImageTable, images: Bytes, prompts: Integers, scales: int) -> Diversity:
    """Mean MS-SSIM of each prompt [P], the share of each image in its prompt's weight [G, P], and
    how many prompts have one image only. Computed once per table."""
    memo = _diversities.setdefault(table, {})
    if scales in memo:
        return memo[scales]
    means: list[float] = []
    columns: list[Integers] = []
    alone = 0
    _, number = np.unique(prompts, return_inverse=True)
    order = np.argsort(number, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
        if len(rows) < 2:
            alone += 1
            continue
        if len(rows) > PER_PROMPT:
            # by content, so that neither names nor the order of rows choose
            rows = rows[np.argsort([hashlib.sha256(images[row]).hexdigest() for row in rows])]
        chosen = rows[:PER_PROMPT].astype(np.int64)
        pairs = pairwise_ms_ssim(images[chosen], scales)
        means.append(float(pairs[np.triu_indices(len(chosen), 1)].mean()))
        columns.append(chosen)
    share = np.zeros((len(images), len(means)))
    for column, chosen in enumerate(columns):
        share[chosen, column] = 1 / len(chosen)
    memo[scales] = np.array(means), share, alone
    return memo[scales]


Floats = npt.NDArray[np.float32]


@lru_cache(maxsize=32)
def _blur(size: int, mirrored: bool) -> Floats:
    """The Gaussian window as a matrix [out, size]: where it fits, or everywhere, mirrored."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-np.square(offsets) / (2 * SIGMA**2))
    window /= window.sum()
    centres = np.arange(size) if mirrored else np.arange(WINDOW // 2, size - WINDOW // 2)
    source = np.abs(centres[:, None] + offsets)
    source = np.where(source >= size, 2 * (size - 1) - source, source)
    matrix = np.zeros((len(centres), size))
    np.add.at(matrix, (np.arange(len(centres))[:, None], source), window)
    return matrix.astype(np.float32)


def _blurred(maps: Floats, columns: Floats, rows: Floats) -> Floats:
    """Blur [..., H, W] along its columns by [h, H] and along its rows by [w, W]: [..., h, w]."""
    return np.asarray(columns @ maps @ rows.T, np.float32)


def _halved(maps: Floats) -> Floats:
    """Mean over 2 x 2; a last odd row or column is left."""
    height, width = (size // 2 * 2 for size in maps.shape[1:])
    maps = maps[:, :height, :width]
    quarter: Floats = (
        maps[:, ::2, ::2] + maps[:, 1::2, ::2] + maps[:, ::2, 1::2] + maps[:, 1::2, 1::2]
    ) * np.float32(0.25)
    return quarter


# The floor: real images against real images


@dataclass(frozen=True, eq=False)
class RealHalves:
    """One half of the real images in the place of the generated ones: an `ImageTable`.

    Attributes:
        real: uint8 [N, H, W], the first half, or None.
        generated: uint8 [G, H, W], the second half, or None.
        prompts: int [G]: cluster of each image of the second half.
        clusters: int [N + G]: over these whole patients are drawn.
        first: int [N] rows of the table in the first half.
        second: int [G] rows in the second.
    """

    real: Bytes | None
    generated: Bytes | None
    prompts: Integers
    clusters: Integers
    first: Integers
    second: Integers
    source: ImageTable

    def features(self, backbone: str) -> tuple[FloatArray, FloatArray] | None:
        """Features of the two halves, or None; those of the table, so computed once for both."""
        found = table_features(self.source, backbone)
        return None if isinstance(found, str) else (found.real[self.first], found.real[self.second])


def real_versus_real(
    table: ImageTable, clusters: Integers | None = None, seed: int = 0
) -> RealHalves:
    """Split the real images into two halves by cluster: what no generator can be expected to beat.

    Any metric of this module may be called on the result. Each half has half the images, so its
    Frechet distance has about twice the bias of the whole: compare it at equal numbers of images.
    Clusters are drawn in a seeded order and each goes to the half with fewer images.

    Args:
        table: its real side.
        clusters: int [N], images of one patient share a number; None: each is its own. The split
            depends on these numbers, not on the order of rows.
        seed: of the draw.

    Raises:
        ValueError: fewer than two clusters.
    """
    count = len(_known_real(table)) if clusters is None else len(clusters)
    owner = np.arange(count) if clusters is None else np.asarray(clusters, np.int64)
    if table.real is not None and len(table.real) != count:
        raise ValueError(f"{len(table.real)} real images have {count} clusters")
    _, at, sizes = np.unique(owner, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise ValueError(f"real images of {len(sizes)} cluster(s) cannot be halved")
    held = [0, 0]
    half = np.empty(len(sizes), np.int64)
    for cluster in np.random.default_rng(seed).permutation(len(sizes)):
        half[cluster] = held[1] < held[0]
        held[half[cluster]] += sizes[cluster]
    first, second = (np.flatnonzero(half[at] == side) for side in (0, 1))
    return RealHalves(
        real=None if table.real is None else table.real[first],
        generated=None if table.real is None else table.real[second],
        prompts=owner[second],
        clusters=np.concatenate([owner[first], owner[second]]),
        first=first,
        second=second,
        source=table,
    )


def _known_real(table: ImageTable) -> npt.NDArray[np.generic]:
    """Pixels or features of the real images, whichever there are."""
    if table.real is not None:
        return table.real
    given = (table.features(backbone) for backbone in BACKBONES)
    return next((pair[0] for pair in given if pair is not None), np.empty(0))
