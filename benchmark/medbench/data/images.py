"""The harness's transform, equal for every model, and caches that decode each sample once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from medbench.data.samples import Pixels, Reader, Sample
from medbench.errors import DataError

if TYPE_CHECKING:
    import torch

Bytes = npt.NDArray[np.uint8]
THUMBNAIL = 32  #: side of the pixel baseline's view, in pixels
Advance = Callable[[int, int], None]  #: called with samples done and their total


def to_bytes(pixels: Pixels | Bytes) -> Bytes:
    """float in [0, 1] to the nearest of 256 levels, same shape; uint8 is given back as it is."""
    if pixels.dtype == np.uint8:
        return pixels.view(np.uint8)
    levels = pixels * np.float32(255)
    levels += np.float32(0.5)
    return levels.astype(np.uint8)


def resize(pixels: Pixels | Bytes, size: int) -> Bytes:
    """Fit into a square: the long side becomes ``size``, the rest is black, the picture centred.

    Args:
        pixels: float32 in [0, 1] or uint8; [H, W], [H, W, 3] or [S, H, W]. A last axis of 3 is
            colour.
        size: side of the square, in pixels.

    Returns:
        uint8 [..., size, size] or [..., size, size, 3]; bicubic with antialiasing.
    """
    # Rounded before resampling: the result has 8 bits anyway, and this way is 3 times faster.
    pixels = to_bytes(pixels)
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    height, width = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if height == width == size:
        return np.ascontiguousarray(pixels)
    if pixels.ndim > (3 if colour else 2):
        return np.stack([_resize_one(picture, size) for picture in pixels])
    return _resize_one(pixels, size)


def _resize_one(picture: npt.NDArray[np.generic], size: int) -> Bytes:
    from PIL import Image

    height, width = picture.shape[:2]
    scale = size / max(height, width)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(
        Image.fromarray(np.ascontiguousarray(picture)).resize(inner, Image.Resampling.BICUBIC)
    )
    square = np.zeros((size, size, *picture.shape[2:]), np.uint8)
    top, left = (size - inner[1]) // 2, (size - inner[0]) // 2
    square[top : top + inner[1], left : left + inner[0]] = small
    return square


def thumbnail(pixels: Pixels | Bytes) -> Pixels:
    """What the pixel baseline sees of a sample: its mean slice at 32 x 32, grey.

    Args:
        pixels: as `resize` takes them.

    Returns:
        float32 [32, 32] in [0, 1], area-averaged from the full size, so that it is the same
        whatever size a model asks for; a picture that is not square is padded as by `resize`.
    """
    unit: Pixels = pixels.astype(np.float32, copy=False)
    if unit.ndim == 3:
        unit = unit.mean(axis=-1 if unit.shape[-1] == 3 else 0, dtype=np.float32)
    height, width = unit.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    weights = _area_weights(side)
    # Two products with the shares of each pixel: ten times faster than resampling a padded copy.
    small = weights[:, top : top + height] @ unit @ weights[:, left : left + width].T
    return np.asarray(small / (255 if pixels.dtype == np.uint8 else 1), np.float32)


@lru_cache(maxsize=64)
def _area_weights(side: int) -> Pixels:
    """float32 [32, side]: the share that each of ``side`` pixels has in each of 32 equal parts."""
    edges = np.arange(THUMBNAIL + 1)[:, None] * (side / THUMBNAIL)
    pixels = np.arange(side)
    overlap = np.minimum(pixels + 1, edges[1:]) - np.maximum(pixels, edges[:-1])
    return np.asarray(overlap.clip(0) * (THUMBNAIL / side), np.float32)


def to_tensor(pixels: Bytes) -> torch.Tensor:
    """What models are given.

    Args:
        pixels: uint8 [..., H, W] (grey) or [..., H, W, 3] (colour).

    Returns:
        float32 [..., 3, H, W] in [0, 1]; grey is repeated.
    """
    import torch

    array = np.ascontiguousarray(pixels)
    # torch warns about arrays that cannot be written, such as mapped files; division copies anyway.
    return to_unit(torch.from_numpy(array if array.flags.writeable else array.copy()))


def to_unit(pixels: torch.Tensor) -> torch.Tensor:
    """The same of a tensor, on its device: bytes are a twelfth of what a grey picture becomes, so
    they are what should travel to a GPU."""
    import torch

    # a tensor, since by a number a GPU multiplies with the reciprocal, which is another last bit
    levels = torch.full((), 255.0, device=pixels.device)
    if pixels.ndim >= 3 and pixels.shape[-1] == 3:
        return pixels.movedim(-1, -3).to(torch.float32).div_(levels).contiguous()
    grey = pixels.to(torch.float32).div_(levels).unsqueeze(-3)
    return grey.expand(*grey.shape[:-3], 3, *grey.shape[-2:]).contiguous()


def alike(pictures: Sequence[Bytes]) -> list[Bytes]:
    """All grey or, where one of them is in colour, all in colour: [..., H, W] becomes
    [..., H, W, 3]. All have the axes before these in common, though not their length."""
    most = max((picture.ndim for picture in pictures), default=0)
    return [p if p.ndim == most else np.repeat(p[..., None], 3, axis=-1) for p in pictures]


def joined(pictures: Sequence[Bytes]) -> torch.Tensor:
    """Pictures one after the other: [n, H, W] or [n, H, W, 3] each -> uint8 [sum of n, H, W], or
    [..., 3] where one is in colour."""
    import torch

    return torch.from_numpy(np.concatenate(alike(pictures)))


class _Cache:
    """Samples as uint8, decoded when first asked for and kept while the budget lasts.

    What has been kept stays: training goes through all samples again and again, and under that
    pattern throwing out the oldest would never find anything it looks for.
    """

    def __init__(
        self, reader: Reader, samples: Sequence[Sample], size: int, memory_bytes: int, kind: str
    ) -> None:
        wrong = next((s for s in samples if s.kind != kind), None)
        if wrong is not None:
            raise DataError(f"Sample '{wrong.id}' is a {wrong.kind} where {kind}s are expected.")
        self.samples = samples
        self.size = size
        self._reader = reader
        self._kept: list[Bytes | None] = [None] * len(samples)
        self._left = memory_bytes

    def __len__(self) -> int:
        return len(self.samples)

    def get(self, index: int) -> Bytes:
        """uint8, as `resize` gives it. Raises DataError naming the sample."""
        kept = self._kept[index]
        if kept is None:
            kept = load(self._reader, self.samples[index], self.size)
            if kept.nbytes <= self._left:
                self._left -= kept.nbytes
                self._kept[index] = kept
        return kept

    def warm(self, advance: Advance | None = None) -> None:
        """Decode what fits, with progress. Every sample is decoded, so that damaged ones show."""
        for index in range(len(self)):
            self.get(index)
            if advance is not None:
                advance(index + 1, len(self))


class Images(_Cache):
    """The pictures of a corpus, each decoded once.

    Args:
        reader: decodes the samples.
        samples: pictures only.
        size: side of the squares, in pixels.
        memory_bytes: beyond this, pictures are decoded whenever they are asked for.
    """

    def __init__(
        self, reader: Reader, samples: Sequence[Sample], size: int, memory_bytes: int = 2 * 2**30
    ) -> None:
        super().__init__(reader, samples, size, memory_bytes, "image")

    def batch(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> torch.Tensor:
        """float32 [B, 3, size, size] in [0, 1]. Raises DataError naming a damaged sample."""
        return to_unit(self.stack(indices))

    def stack(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> torch.Tensor:
        """The same before `to_unit`: uint8 [B, size, size], or [B, size, size, 3] where one is in
        colour."""
        import torch

        pictures = alike([self.get(int(index)) for index in indices])
        if not pictures:
            return torch.zeros(0, self.size, self.size, dtype=torch.uint8)
        return torch.from_numpy(np.stack(pictures))


class Volumes(_Cache):
    """The volumes of a corpus, each decoded once; arguments as `Images`."""

    def __init__(
        self, reader: Reader, samples: Sequence[Sample], size: int, memory_bytes: int = 2 * 2**30
    ) -> None:
        super().__init__(reader, samples, size, memory_bytes, "volume")

    def volume(self, index: int) -> Bytes:
        """uint8 [S, size, size]. Raises DataError naming a damaged sample."""
        return self.get(index)


def load(reader: Reader, sample: Sample, size: int) -> Bytes:
    """Decode one sample and `resize` it: uint8 [size, size], [size, size, 3] or [S, size, size].

    Raises:
        DataError: see `read`.
    """
    return resize(read(reader, sample), size)


def read(reader: Reader, sample: Sample) -> Pixels | Bytes:
    """Decode one sample at its own size, held to the reader's contract.

    Returns:
        [H, W] or [H, W, 3] for a picture, [S, H, W] for a volume.

    Raises:
        DataError: damaged files, or a reader that gives what its contract excludes; names the
            sample.
    """
    try:
        pixels = reader.pixels(sample)
    except DataError as error:
        raise DataError(f"Sample '{sample.id}': {error}") from error
    if sample.kind == "volume":
        fits = pixels.ndim == 3
    else:
        fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] == 3)
    if not fits or 0 in pixels.shape:
        raise DataError(
            f"Sample '{sample.id}': its reader gave shape {pixels.shape} for a {sample.kind}."
        )
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= -1e-6 and high <= 1 + 1e-6):  # also False for NaN
            raise DataError(
                f"Sample '{sample.id}': its reader gave values from {low:g} to {high:g}, outside "
                "[0, 1]."
            )
    return pixels
