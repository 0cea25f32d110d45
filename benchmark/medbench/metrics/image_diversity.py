"""Diversity of generated images: MS-SSIM between the images of one prompt."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from medbench.metrics.image_clusters import Integers
from medbench.metrics.values import FloatArray, ImageTable, Values

Bytes = npt.NDArray[np.uint8]


WINDOW, SIGMA = 11, 1.5
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
#: Images of one prompt that are compared pair by pair.
PER_PROMPT = 4


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
