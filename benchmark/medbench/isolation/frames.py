"""Frames: what goes over the pipes between the harness and a worker.

A frame is a head of 16 bytes (four that say what it is, the length of the JSON, the length of the
tensors), a JSON document, and tensors in the safetensors format. Lengths are bounded, nothing is
unpickled, and a stream that is not of frames is refused at its first bytes. Tensors are written
from, and read into, the memory that they are used in: there is no copy beside the pipe's own.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MAGIC = b"mbf1"
_HEAD = struct.Struct("<4sIQ")
#: Most bytes of a frame's JSON and of its tensors. A report generator's largest state is some GB.
MOST_JSON = 2**28
MOST_TENSORS = 2**36
#: Names that the safetensors format has for torch's types.
_TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
    "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL", "complex64": "C64",
}  # fmt: skip
_NAMES = {short: name for name, short in _TYPES.items()}

#: Called before a read ("r") or write ("w") that would have to wait, with the file descriptor; it
#: returns when that can go on, or raises.
Watch = Callable[[int, str], None]


class BrokenFrameError(Exception):
    """What came is no frame."""


class ClosedError(Exception):
    """The other end is gone."""


class Channel:
    """Frames in and out over two file descriptors.

    Args:
        reading: descriptor to read from.
        writing: descriptor to write to.
        watch: called whenever reading or writing would have to wait; None: it waits for ever.
    """

    def __init__(self, reading: int, writing: int, watch: Watch | None = None) -> None:
        self._reading, self._writing, self._watch = reading, writing, watch
        for number in (reading, writing):
            os.set_inheritable(number, False)
            os.set_blocking(number, watch is None)

    def send(self, document: Any, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write a frame: a JSON document and contiguous tensors on the CPU, by name.

        Raises:
            ClosedError: nobody reads any more.
            ValueError: it is larger than a frame may be.
            TypeError: the document is not JSON, or a tensor's type is none of safetensors.
        """
        text = json.dumps(document).encode()
        parts = _safetensors(tensors) if tensors else []
        size = sum(len(part) for part in parts)
        if len(text) > MOST_JSON or size > MOST_TENSORS:
            raise ValueError(f"{len(text) + size:,} bytes are more than one frame may hold")
        self._write(memoryview(_HEAD.pack(MAGIC, len(text), size) + text))
        for part in parts:
            self._write(part)

    def receive(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """Read a frame: its document, and its tensors by name.

        Raises:
            ClosedError: the other end closed.
            BrokenFrameError: what was read is no frame.
        """
        magic, length, size = _HEAD.unpack(self._read(_HEAD.size))
        if magic != MAGIC:
            raise BrokenFrameError(f"a frame begins with {MAGIC!r}, not with {magic!r}")
        if length > MOST_JSON or size > MOST_TENSORS:
            raise BrokenFrameError(f"a frame of {length + size:,} bytes is larger than allowed")
        try:
            document = json.loads(bytes(self._read(length)))
        except ValueError as error:
            raise BrokenFrameError(f"its document is not JSON ({error})") from error
        return document, _tensors(self._read(size)) if size else {}

    def _write(self, data: memoryview) -> None:
        while data:
            try:
                done = os.write(self._writing, data)
            except BlockingIOError:
                assert self._watch is not None
                self._watch(self._writing, "w")
                continue
            except BrokenPipeError as error:
                raise ClosedError("the other end is closed") from error
            data = data[done:]

    def _read(self, count: int) -> bytearray:
        buffer = bytearray(count)
        rest = memoryview(buffer)
        while rest:
            try:
                done = os.readv(self._reading, [rest])
            except BlockingIOError:
                assert self._watch is not None
                self._watch(self._reading, "r")
                continue
            if done == 0:
                raise ClosedError("the other end is closed")
            rest = rest[done:]
        return buffer


def _safetensors(tensors: Mapping[str, torch.Tensor]) -> list[memoryview]:
    """The safetensors file of some tensors, in parts: the header, then each tensor's memory."""
    import torch

    header: dict[str, Any] = {}
    parts: list[memoryview] = []
    end = 0
    # widest first, so that each begins at a multiple of its width
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in _TYPES or tensor.layout != torch.strided:
            raise TypeError(f"a tensor of type {tensor.dtype}, {tensor.layout} cannot be sent")
        header[name] = {
            "dtype": _TYPES[kind],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
        if tensor.nbytes:
            parts.append(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [memoryview(struct.pack("<Q", len(text)) + text), *parts]


def _tensors(buffer: bytearray) -> dict[str, torch.Tensor]:
    """Tensors over the memory of a safetensors file."""
    import math

    import torch

    found: dict[str, torch.Tensor] = {}
    try:
        (length,) = struct.unpack_from("<Q", buffer)
        start = 8 + length
        if start > len(buffer):
            raise ValueError(f"a header of {length:,} bytes in a frame of {len(buffer):,}")
        for name, entry in json.loads(bytes(buffer[8:start])).items():
            kind = getattr(torch, _NAMES[entry["dtype"]])
            shape, (first, last) = entry["shape"], entry["data_offsets"]
            if not all(isinstance(side, int) and 0 <= side <= MOST_TENSORS for side in shape):
                raise ValueError(f"'{name}' has shape {shape}")
            count = math.prod(shape)
            if last - first != count * kind.itemsize or not 0 <= first <= last:
                raise ValueError(f"'{name}' has {last - first} bytes for shape {shape}")
            found[name] = (
                torch.frombuffer(buffer, dtype=kind, count=count, offset=start + first)
                if count
                else torch.empty(0, dtype=kind)
            ).reshape(shape)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise BrokenFrameError(f"its tensors are not safetensors ({error!r})") from error
    return found
