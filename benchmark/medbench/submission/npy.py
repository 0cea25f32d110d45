"""Plain numpy arrays to bytes and back, from strangers: the header is judged before the data."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from medbench.submission.problems import RefusedError

Array = npt.NDArray[Any]


def to_bytes(array: Array) -> bytes:
    """A ``.npy`` file; equal arrays give equal bytes."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array, order="C"), (1, 0), allow_pickle=False)
    return stream.getvalue()


def from_bytes(where: str, data: bytes, kind: str, dimensions: int) -> Array:
    """The array of a ``.npy`` file.

    Args:
        where: its name, for messages.
        data: the file.
        kind: numpy's name of the type that it must have, such as ``<f8``.
        dimensions: how many it must have.

    Raises:
        RefusedError: pickle (a pickle, or an object array), array (anything else).
    """
    if data[:1] == b"\x80":
        raise RefusedError("pickle", f"{where} is a pickle, which could run code.")
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise RefusedError("array", f"{where} has format version {version}, not (1, 0).")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, EOFError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise RefusedError("array", f"{where} is no array that can be read: {error}.") from error
    if dtype.hasobject:
        raise RefusedError(
            "pickle", f"{where} is an object array, which only Python's pickle could load."
        )
    if dtype.str != kind or len(shape) != dimensions or fortran:
        raise RefusedError(
            "array",
            f"{where} is {dtype.str} of shape {shape}; {kind} of {dimensions} dimensions is "
            "expected.",
        )
    size = dtype.itemsize
    for side in shape:  # Python's own integers: no product overflows
        size *= side
    if size != len(data) - stream.tell() or size <= 0:
        raise RefusedError("array", f"{where} is not as long as its shape {shape} says, or empty.")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
