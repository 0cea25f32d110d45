"""The harness's transform and the caches behind it."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medbench.data.decoded import Decoded, decode
from medbench.data.images import Images, Volumes, resize, to_tensor
from medbench.data.samples import Pixels, Sample
from medbench.errors import DataError, StorageError


class CountingReader:
    """Gives constant pictures from files of their value, and counts its work."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.decoded: Counter[str] = Counter()
        self.alive = 0

    def samples(self) -> list[Sample]:
        return []

    def pixels(self, sample: Sample) -> Pixels:
        self.decoded[sample.id] += 1
        words = sample.files[0].read_text().split()
        if words[0] == "damaged":
            raise DataError(f"{sample.files[0]} is cut short.")
        shape = tuple(int(side) for side in words[1:])
        return np.full(shape, float(words[0]), np.float32)


def make(
    root: Path, contents: list[str], kind: str = "image"
) -> tuple[CountingReader, list[Sample]]:
    samples = []
    for number, content in enumerate(contents):
        path = root / f"{number}.txt"
        path.write_text(content)
        samples.append(Sample(f"s{number}", None, (path,), kind=kind))  # type: ignore[arg-type]
    return CountingReader(root), samples


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([8, 16, 33]), st.booleans())
def test_pictures_fit_a_square_with_the_rest_black(
    height: int, width: int, size: int, colour: bool
) -> None:
    shape = (height, width, 3) if colour else (height, width)
    square = resize(np.ones(shape, np.float32), size)
    assert square.shape == (size, size, 3)[: 3 if colour else 2]
    assert square.dtype == np.uint8
    lit = np.argwhere(square.reshape(size, size, -1)[..., 0] == 255)
    sides = lit.max(0) - lit.min(0) + 1
    assert sides.max() == size
    assert len(lit) == sides.prod()
    np.testing.assert_allclose(sides, size * np.array([height, width]) / max(height, width), atol=1)
    np.testing.assert_allclose(lit.min(0), (size - sides) / 2, atol=0.5)  # centred


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.tile(np.array([0, 1], np.float32), (256, 128))
    assert abs(resize(stripes, 32)[4:-4, 4:-4].astype(int) - 127).max() <= 2


def test_volumes_are_resized_slice_by_slice() -> None:
    volume = np.random.default_rng(0).random((5, 20, 30), np.float32)
    squares = resize(volume, 16)
    assert squares.shape == (5, 16, 16)
    np.testing.assert_array_equal(squares[3], resize(volume[3], 16))
    np.testing.assert_array_equal(resize(squares, 16), squares)


def test_tensors_are_three_channels_in_the_unit_range() -> None:
    grey = np.array([[[0, 255], [51, 102]]], np.uint8)
    tensor = to_tensor(grey)
    assert tensor.shape == (1, 3, 2, 2)
    assert tensor.dtype == torch.float32
    assert tensor[0, 2].flatten().tolist() == pytest.approx([0, 1, 0.2, 0.4])
    colour = np.zeros((4, 5, 5, 3), np.uint8)
    colour[..., 1] = 255
    assert to_tensor(colour).shape == (4, 3, 5, 5)
    assert to_tensor(colour)[0, :, 0, 0].tolist() == [0, 1, 0]
    assert grey.tolist() == [[[0, 255], [51, 102]]]


def test_each_picture_is_decoded_once(tmp_path: Path) -> None:
    reader, samples = make(tmp_path, ["0 9 9", "1 9 9", "0.2 9 9 3"])
    images = Images(reader, samples, 8)
    batch = images.batch([2, 0, 1, 0])
    assert batch.shape == (4, 3, 8, 8)
    assert batch[:, 1, 4, 4].tolist() == pytest.approx([0.2, 0, 1, 0], abs=1e-6)
    images.batch(np.array([1, 2]))
    steps: list[tuple[int, int]] = []
    images.warm(lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert set(reader.decoded.values()) == {1}
    assert len(images) == 3


def test_memory_stays_within_its_budget(tmp_path: Path) -> None:
    reader, samples = make(tmp_path, [f"{n / 10} 8 8" for n in range(10)])
    images = Images(reader, samples, 8, memory_bytes=3 * 64)
    for _ in range(2):
        images.batch(range(10))
    assert sorted(reader.decoded.values()) == [1] * 3 + [2] * 7
    none = Volumes(*make(tmp_path, ["1 2 8 8"], "volume"), 8, memory_bytes=0)
    assert none.volume(0).shape == (2, 8, 8)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    images = Images(*make(tmp_path, ["1 8 8", "damaged"]), 8)
    with pytest.raises(DataError, match=r"Sample 's1': .*1\.txt is cut short"):
        images.batch([0, 1])


@pytest.mark.parametrize(
    ("content", "words"), [("7 8 8", "outside"), ("1 8", "shape"), ("nan 8 8", "nan")]
)
def test_a_reader_that_breaks_its_contract_is_named(
    tmp_path: Path, content: str, words: str
) -> None:
    with pytest.raises(DataError, match=f"Sample 's0': its reader gave .*{words}"):
        Images(*make(tmp_path, [content]), 8).batch([0])


def test_volumes_where_pictures_are_expected_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'s0' is a volume where images are expected"):
        Images(*make(tmp_path, ["1 2 8 8"], "volume"), 8)


def test_a_decoded_store_gives_back_what_the_readers_gave(tmp_path: Path) -> None:
    reader, samples = make(tmp_path, ["1 3 9 9", "0.2 1 9 9"], "volume")
    colour = Sample("c", None, (tmp_path / "c.txt",))
    colour.files[0].write_text("1 8 8 3")
    steps: list[int] = []
    decode(reader, [*samples, colour], 8, tmp_path / "store", lambda done, _: steps.append(done))
    store = Decoded.open(tmp_path / "store", [*samples, colour])
    assert [store[i].shape for i in range(len(store))] == [(3, 8, 8), (1, 8, 8), (1, 8, 8, 3)]
    assert store.slices == [3, 1, 1]
    assert steps == [1, 2, 3]
    assert int(store[1][0, 4, 4]) == 51
    assert isinstance(store[0].base, np.memmap)
    assert not store[0].flags.writeable
    assert torch.equal(to_tensor(store[0]), torch.ones(3, 3, 8, 8))
    assert len(set(store.source_sha256.values())) == 3
    store.verify()


def test_decoding_holds_one_volume_at_a_time(tmp_path: Path) -> None:
    reader, samples = make(tmp_path, ["0.5 16 128 128"] * 12, "volume")  # 1 MiB each, as float32
    tracemalloc.start()
    decode(reader, samples, 128, tmp_path / "store")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 2**20


def test_all_damaged_samples_are_reported_together(tmp_path: Path) -> None:
    reader, samples = make(tmp_path, ["1 8 8"] + ["damaged"] * 7)
    gone = Sample("gone", None, (tmp_path / "gone.txt",))
    with pytest.raises(DataError, match=r"^8 of 9 samples cannot be read\..*'s5'.*And 3 more\.$"):
        decode(reader, [*samples, gone], 8, tmp_path / "store")
    assert sum(reader.decoded.values()) == 8  # the pass went on to the end
    with pytest.raises(DataError, match="incomplete"):
        Decoded.open(tmp_path / "store")


def test_a_store_of_other_samples_or_cut_short_is_refused(tmp_path: Path) -> None:
    reader, samples = make(tmp_path, ["1 8 8", "1 8 8"])
    decode(reader, samples, 8, tmp_path / "store")
    with pytest.raises(DataError, match="not those asked for"):
        Decoded.open(tmp_path / "store", samples[::-1])
    slices = tmp_path / "store" / "slices.bin"
    content = slices.read_bytes()
    slices.write_bytes(content[:-1])
    with pytest.raises(DataError, match="127 bytes, not 128"):
        Decoded.open(tmp_path / "store")
    slices.write_bytes(content[:-1] + b"\0")
    with pytest.raises(DataError, match="changed"):
        Decoded.open(tmp_path / "store").verify()


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        decode(*make(tmp_path, ["1 8 8"]), 8, tmp_path / "file" / "store")


def test_an_empty_store_can_be_opened(tmp_path: Path) -> None:
    decode(CountingReader(tmp_path), [], 8, tmp_path / "store")
    assert len(Decoded.open(tmp_path / "store")) == 0
    assert json.loads((tmp_path / "store" / "index.json").read_text())["samples"] == []
