"""Frechet distance of features (FID), with a jackknife interval, on each named backbone.

Every metric takes a table of N real and G generated images and ``weights`` float [B, N + G]: row 0
is the metric itself, the others are resamples of whole patients and prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medbench.metrics.backbones import table_features
from medbench.metrics.image_clusters import Integers, clusters_of, hold
from medbench.metrics.values import FloatArray, ImageTable, Values

Metric = Callable[[ImageTable, FloatArray], Values]

#: Groups of the jackknife behind the interval.
GROUPS = 20
#: Features whose variance is this share of their squared mean lose one digit and a half about zero.
NEAR = 1 / 25


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
    """Features [n, D] about an origin [D], with how often each counts [n]; products if n > D."""

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
    origin = np.zeros(x.shape[1])
    if len(x):
        mean = counts @ x / counts.sum()
        square = np.einsum("nd,nd->d", x, x) / len(x)  # of unlike counts near enough
        # far from their origin sums of products would lose their digits; near it a copy is spared
        if (square - mean * mean < NEAR * mean * mean).any():
            origin = mean
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
    """F S F^T for one side's factor F and the other's covariance S, [r, r], symmetric: its lower
    triangle, at least.

    Its eigenvalues are those of S1 S2 but for zeros. None where they are not to be had, or have
    zeros among them and ``exact`` is asked: the root of a zero that is rounded is 1e-8 of the
    largest.
    """
    from scipy.linalg import LinAlgError, cholesky
    from scipy.linalg.lapack import dsygst

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
        return np.asarray(dsygst(other.T, lower, itype=2, lower=1)[0], np.float64)
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
    """Of a symmetric matrix, by its lower triangle."""
    if len(matrix) < 512:
        return np.asarray(np.linalg.eigvalsh(matrix, UPLO="L"), np.float64)
    import torch  # its LAPACK reduces a large matrix nearly twice as fast as numpy's

    found: FloatArray = torch.linalg.eigvalsh(torch.from_numpy(matrix), UPLO="L").numpy()
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


def _fid_on(backbone: str) -> Metric:
    def fid(table: ImageTable, weights: FloatArray) -> Values:
        """Row 0 and its jackknife interval; see `frechet`. Other rows are not read."""
        value = np.full(len(weights), np.nan)
        found = table_features(table, backbone)
        if isinstance(found, str):
            return Values(value, None, found)
        count, dimensions = found.real.shape
        hold(weights, count + len(found.generated))
        real = _side(found.real, weights[0, :count])
        generated = _side(found.generated, weights[0, count:])
        distance = _distance(real.moments(), generated.moments(), exact=True)
        if np.isnan(distance):
            reason = f"needs two real and two generated images; there are {count} and "
            return Values(value, None, f"{reason}{len(found.generated)}")
        value[0] = distance
        if len(weights) == 1:
            return Values(value, None, found.note)
        clusters = clusters_of(table, weights, count)[weights[0] > 0]
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


fid_xrv = _fid_on("xrv")
fid_inception = _fid_on("inception")
fid_inception_torchvision = _fid_on("inception-torchvision")
fid_phantom = _fid_on("phantom")
