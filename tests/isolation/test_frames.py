"""Frames and values: what is sent is what arrives, and nothing else is taken for it."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from medbench import Sample, Stage
from medbench.isolation import frames
from medbench.isolation.frames import BrokenFrameError, Channel, ClosedError
from medbench.isolation.values import pack, unpack

TYPES = [getattr(torch, name) for name in frames._TYPES]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    kind = draw(st.sampled_from(TYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = int(np.prod(shape)) * kind.itemsize
    seed = draw(st.integers(0, 2**32 - 1))
    raw = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, count, np.uint8))
    if kind == torch.bool:
        raw = raw % 2
    return raw.view(kind).reshape(shape) if count else torch.empty(shape, dtype=kind)


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    plain | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def through(value: Any) -> Any:
    """A value packed, sent through a real pipe, and unpacked."""
    reading, writing = os.pipe()
    here, there = Channel(reading, writing), Channel(reading, writing)
    sent: dict[str, torch.Tensor] = {}
    document = pack(value, sent)
    sender = threading.Thread(target=lambda: here.send(document, sent))
    sender.start()
    got = there.receive()
    sender.join()
    os.close(reading)
    os.close(writing)
    return unpack(*got)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and (one.dtype, one.shape) == (other.dtype, other.shape)
            and one.numpy(force=True).tobytes() == other.numpy(force=True).tobytes()
            if one.dtype != torch.bfloat16
            else torch.equal(one.view(torch.int16), other.view(torch.int16))
        )
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(values)
@settings(max_examples=150, deadline=None)
def test_what_is_sent_arrives_as_it_was(value: Any) -> None:
    assert same(value, through(value))


@given(st.dictionaries(st.text(max_size=5), tensors(), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_tensors_of_a_frame_are_a_safetensors_file(some: dict[str, torch.Tensor]) -> None:
    known = {name: t for name, t in some.items() if t.dtype != torch.complex64}
    if not known:
        return
    found = load(b"".join(map(bytes, frames._safetensors(known))))
    assert found.keys() == known.keys()
    for name, tensor in known.items():
        assert same(tensor, found[name])


def test_frames_larger_than_a_pipe_arrive() -> None:
    value = torch.arange(3_000_000, dtype=torch.float32)
    assert torch.equal(through([value, "x" * 500_000])[0], value)


def test_a_transposed_tensor_and_views_of_one_memory_arrive() -> None:
    base = torch.arange(12.0).reshape(3, 4)
    assert same([base.T.contiguous(), base, base[1:]], through([base.T, base, base[1:]]))


def test_things_of_the_contract_arrive() -> None:
    sample = Sample(id="a", patient=None, files=(Path("x/y.png"),), labels={"edema": -1})
    stage = Stage(name="s", corpus="task", config={"a": [1, {"b": None}]}, needs=("t",))
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    got = through([sample, stage, array, np.float32(0.5), np.bool_(False)])
    assert got[:2] == [sample, stage]
    assert got[2].dtype == np.uint8
    assert (got[2] == array).all()
    assert got[3:] == [0.5, False]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,)])
@pytest.mark.parametrize("writeable", [True, False])
def test_arrays_keep_their_shape(shape: tuple[int, ...], writeable: bool) -> None:
    array = np.full(shape, 7, np.int16)
    array.flags.writeable = writeable
    got = through([array])[0]
    assert isinstance(got, np.ndarray)
    assert (got.shape, got.dtype) == (shape, np.int16)
    assert (got == array).all()


def test_a_dictionary_that_looks_like_a_packed_value_stays_a_dictionary() -> None:
    assert through({"$path": "x", "$tensor": "0"}) == {"$path": "x", "$tensor": "0"}


def test_what_cannot_be_sent_is_named() -> None:
    with pytest.raises(TypeError, match="a Thread cannot be sent"):
        pack([threading.Thread()], {})
    with pytest.raises(ValueError, match="nothing is sent as"):
        unpack({"$python": "os.system"}, {})


HEAD = struct.Struct("<4sIQ")


def tensors_of_shape(shape: str, end: int) -> bytes:
    """A frame with a float32 tensor of this shape, in the first ``end`` bytes of four."""
    entry = f'{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}'
    header = f'{{"a":{entry}}}'.encode().ljust(80)
    return HEAD.pack(b"mbf1", 2, 92) + b"{}" + struct.pack("<Q", 80) + header + bytes(4)


@pytest.mark.parametrize(
    "content",
    [
        b"hello, this is no frame",
        HEAD.pack(b"mbf1", 2**31, 0),
        HEAD.pack(b"mbf1", 2, 2**60) + b"{}",
        HEAD.pack(b"mbf1", 3, 0) + b"{{{",
        HEAD.pack(b"mbf1", 2, 4) + b"{}abcd",
        HEAD.pack(b"mbf1", 2, 10) + b"{}" + struct.pack("<Q", 2**40) + b"{}",
        HEAD.pack(b"mbf1", 2, 64) + b"{}" + struct.pack("<Q", 56)
        + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(56),
        HEAD.pack(b"mbf1", 2, 64) + b"{}" + struct.pack("<Q", 56)
        + b'{"a":{"dtype":"OBJ","shape":[],"data_offsets":[0,0]}}'.ljust(56),
        tensors_of_shape("[-1,-1]", 4),
        tensors_of_shape("[-1,0]", 0),
        tensors_of_shape("[1000000000000000000000,0]", 0),
        tensors_of_shape("[60000000000,60000000000,60000000000,0]", 0),
        tensors_of_shape("[1.0]", 4),
        tensors_of_shape('["1"]', 4),
    ],
)  # fmt: skip
def test_garbage_is_refused(content: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    spare = os.dup(reading)
    with pytest.raises(BrokenFrameError):
        Channel(reading, spare).receive()
    os.close(reading)
    os.close(spare)


@pytest.mark.parametrize("content", [b"", b"mbf1", HEAD.pack(b"mbf1", 2, 0) + b"{"])
def test_an_end_in_the_middle_is_an_end(content: bytes) -> None:
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    spare = os.dup(reading)
    with pytest.raises(ClosedError):
        Channel(reading, spare).receive()
    os.close(reading)
    os.close(spare)
