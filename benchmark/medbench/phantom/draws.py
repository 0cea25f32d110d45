"""Random numbers that depend on (dataset, renderer version, purpose, row) and on nothing else.

Every row owns its stream, so a limited phantom holds the same patients as the whole one, and the
order or size of rendering batches never matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri

from medbench.phantom.version import RENDERER_VERSION

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def seed(dataset: str, purpose: str, row: int) -> int:
    """A 63-bit seed from SHA-256, the same on every platform."""
    key = f"medbench.phantom|{RENDERER_VERSION}|{dataset}|{purpose}|{row}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


class Draws:
    """A table of uniform numbers, one row per patient, that is consumed column by column.

    Sampling is then vectorised over patients while each patient keeps a stream of its own.

    Args:
        dataset: name of the dataset, part of the seed.
        rows: row numbers, length B.
        purpose: what the numbers are for, part of the seed.
        width: how many numbers each row may consume.
    """

    def __init__(self, dataset: str, rows: Sequence[int], purpose: str, width: int = 512) -> None:
        self._table = np.empty((len(rows), width))
        for index, row in enumerate(rows):
            generator = np.random.Generator(np.random.PCG64(seed(dataset, purpose, row)))
            self._table[index] = generator.random(width)
        self._next = 0

    @property
    def rows(self) -> int:
        """Number of rows B."""
        return len(self._table)

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()) -> Floats:
        """Uniform numbers in [low, high), shape [B, *shape]."""
        count = int(np.prod(shape)) if shape else 1
        columns = self._table[:, self._next : self._next + count]
        if columns.shape[1] != count:
            raise ValueError("a row consumed more random numbers than its stream holds")
        self._next += count
        return low + (high - low) * columns.reshape((self.rows, *shape))

    def normal(
        self, mean: float = 0.0, deviation: float = 1.0, shape: tuple[int, ...] = ()
    ) -> Floats:
        """Normal numbers cut off at 2.5 deviations, so that no anatomy is absurd."""
        values = ndtri(self.uniform(0.0062, 0.9938, shape))
        return np.asarray(mean + deviation * values)

    def below(self, probability: float | Floats, shape: tuple[int, ...] = ()) -> Mask:
        """True with the given probability."""
        return np.asarray(self.uniform(shape=shape) < probability)

    def integer(self, low: int, high: int, shape: tuple[int, ...] = ()) -> Ints:
        """Integers in [low, high)."""
        return np.floor(self.uniform(low, high, shape)).astype(np.int64)

    def choice(self, weights: Sequence[float], shape: tuple[int, ...] = ()) -> Ints:
        """Indices drawn in proportion to ``weights``."""
        edges = np.cumsum(np.asarray(weights, dtype=float))
        picked = np.searchsorted(edges / edges[-1], self.uniform(shape=shape), side="right")
        return np.minimum(picked, len(weights) - 1).astype(np.int64)


def noise(dataset: str, purpose: str, row: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal noise of one row, float32 on the CPU, so every device sees the same."""
    generator = torch.Generator().manual_seed(seed(dataset, purpose, row))
    return torch.randn(shape, generator=generator)


def to_tensor(values: object, device: torch.device | str = "cpu") -> torch.Tensor:
    """Numbers as a float32 tensor."""
    return torch.as_tensor(np.asarray(values, dtype=np.float32), device=device)
