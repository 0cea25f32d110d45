"""Run-length encoded masks, in the two conventions of Kaggle's tables.

Both go down the columns of the image (column-major) and list pairs of a start and a length:

- ``absolute``: a start counts pixels from 1 at the upper left corner;
- ``relative``: a start counts pixels from 0 at the end of the run before, or at the corner for the
  first one. SIIM-ACR uses this one, on frames of 1024 x 1024.

An empty mask is ``-1``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

from medbench.errors import DataError

Convention = Literal["absolute", "relative"]
Mask = npt.NDArray[np.bool_]
Runs = npt.NDArray[np.int64]

EMPTY = "-1"


def runs(text: str, shape: tuple[int, int], convention: Convention, where: str) -> Runs:
    """The runs of one encoded mask, checked against the frame.

    Args:
        text: the encoding; spaces around it do not matter.
        shape: height and width of the frame.
        convention: what a start counts from.
        where: table and row, for the message.

    Returns:
        int64 [N, 2]: first pixel and the one after the last, from 0, column-major.

    Raises:
        DataError: not whole numbers, an odd count, negative numbers, a run without pixels, runs
            that overlap or go back, or one beyond the frame.
    """
    words = text.split()
    if words == [EMPTY]:
        return np.zeros((0, 2), np.int64)
    height, width = shape
    try:
        numbers = np.array([int(word) for word in words], np.int64)
    except (ValueError, OverflowError):
        numbers = np.zeros(0, np.int64)
    if len(numbers) == 0:
        raise _wrong(where, f"'{text[:40]}' is not a list of whole numbers")
    if len(numbers) % 2:
        raise _wrong(where, f"{len(numbers):,} numbers do not make pairs of start and length")
    start, length = numbers[0::2], numbers[1::2]
    least = 1 if convention == "absolute" else 0
    if start.min() < least or length.min() < 1:
        raise _wrong(where, f"a start below {least} or a length below 1")
    # Single numbers beyond the frame are caught before their sum could overflow.
    if numbers.max() <= height * width:
        if convention == "absolute":
            first = start - 1
            if (first[1:] < (first + length)[:-1]).any():
                raise _wrong(where, "runs overlap or go back")
        else:
            first = np.cumsum(start + length) - length
        if first[-1] + length[-1] <= height * width:
            return np.stack([first, first + length], axis=1)
    raise _wrong(where, f"a run goes beyond the frame of {width} x {height} pixels")


def decode(
    text: str, shape: tuple[int, int], convention: Convention, where: str = "the mask"
) -> Mask:
    """bool [H, W] of one encoding. Arguments and errors as `runs`."""
    return fill([runs(text, shape, convention, where)], shape)


def fill(several: Iterable[Runs], shape: tuple[int, int]) -> Mask:
    """bool [H, W]: runs of one image's rows, joined."""
    height, width = shape
    flat = np.zeros(height * width, np.bool_)
    for first, after in (pair for some in several for pair in some.tolist()):
        flat[first:after] = True
    return np.ascontiguousarray(flat.reshape(width, height).T)


def encode(mask: Mask, convention: Convention) -> str:
    """The encoding of bool [H, W]; `EMPTY` for a mask without pixels. Inverse of `decode`."""
    edges = np.flatnonzero(np.diff(mask.T.ravel().astype(np.int8), prepend=0, append=0))
    first, after = edges[0::2], edges[1::2]
    if len(first) == 0:
        return EMPTY
    start = first + 1 if convention == "absolute" else first - np.concatenate([[0], after[:-1]])
    return " ".join(map(str, np.stack([start, after - first], axis=1).ravel().tolist()))


def _wrong(where: str, what: str) -> DataError:
    return DataError(
        f"{where}: {what}, so this is no run-length encoded mask. Copy the table again from its "
        "source."
    )
