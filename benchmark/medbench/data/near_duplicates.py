"""Pictures that look the same: the same exposure scaled, re-compressed or brightened.

The signature of a picture is the direction of its low-frequency DCT coefficients. It is what
perceptual hashes take the signs of. The signs alone will not do here, because radiographs are all
of one subject in one position: on phantoms of 64 pixels, 64-bit hashes within 4 bits of each other
named forty different pairs for each one that is the same, and missed 6 % of re-compressed copies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medbench.data.decoded import Decoded
from medbench.data.images import Bytes
from medbench.data.samples import Pixels

#: Pairs whose signatures have at least this cosine are candidates. Copies stay above 0.999.
COARSE = 0.998

#: Candidates are the same when their middle slices correlate by this much at the prepared size.
FINE = 0.985

_LOWEST = 16  # coefficients in each direction
_TILE = 4096  # pictures compared with as many others at once

Pairs = npt.NDArray[np.int64]


def near_duplicates(images: Decoded) -> Pairs:
    """Pairs of pictures, or of volumes by their mean and middle slices, that look the same.

    Args:
        images: N prepared samples.

    Returns:
        Indices int64 [P, 2], i < j, in lexical order. Flat pictures are in no pair.
    """
    pairs = close_pairs(signatures(images.thumbnails), COARSE)
    same = [_correlation(_middle(images[i]), _middle(images[j])) >= FINE for i, j in pairs.tolist()]
    kept: Pairs = pairs[np.array(same, bool)]
    return kept


def signatures(thumbnails: Pixels) -> Pixels:
    """What pictures look like at a glance, whatever their brightness and contrast.

    Args:
        thumbnails: float32 [N, 32, 32].

    Returns:
        float32 [N, 255]: the 16 x 16 lowest DCT coefficients but for the mean, at unit length;
        zeros for flat pictures.
    """
    from scipy.fft import dctn

    found = np.zeros((len(thumbnails), _LOWEST**2 - 1), np.float32)
    for start in range(0, len(thumbnails), _TILE):
        low = dctn(thumbnails[start : start + _TILE], axes=(1, 2), norm="ortho")
        rows = low[:, :_LOWEST, :_LOWEST].reshape(len(low), -1)[:, 1:]
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        lively = norms[:, 0] > 1e-3
        found[start : start + _TILE][lively] = rows[lively] / norms[lively]
    return found


def close_pairs(vectors: Pixels, least: float) -> Pairs:
    """All pairs of unit vectors [N, D] whose cosine is at least ``least``; as `near_duplicates`."""
    found = [np.zeros((0, 2), np.int64)]
    for top in range(0, len(vectors), _TILE):
        rows = vectors[top : top + _TILE]
        for left in range(top, len(vectors), _TILE):
            close = rows @ vectors[left : left + _TILE].T >= least
            pairs = np.argwhere(np.triu(close, 1) if left == top else close)
            found.append(pairs + np.array([top, left]))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _middle(pixels: Bytes) -> Pixels:
    """The middle slice [H, W], colour averaged, less its mean."""
    picture = pixels[len(pixels) // 2].astype(np.float32)
    grey = picture.mean(axis=-1) if picture.ndim == 3 else picture
    return np.asarray(grey - grey.mean(), np.float32)


def _correlation(first: Pixels, second: Pixels) -> float:
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float((first * second).sum()) / scale if scale > 0 else 0.0
