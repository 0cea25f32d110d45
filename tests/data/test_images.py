"""The harness's transform and the caches behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from counting_reader import make
from hypothesis import given
from hypothesis import strategies as st

from medbench.data.images import Images, Volumes, alike, resize, thumbnail, to_bytes, to_tensor
from medbench.errors import DataError


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


@pytest.mark.parametrize("slices", [(), (4,)])
def test_grey_beside_colour_becomes_the_same_in_colour(slices: tuple[int, ...]) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (*slices, 5, 5), np.uint8)
    colour = np.zeros((*slices, 5, 5, 3), np.uint8)
    one, other = alike([grey, colour])
    assert torch.equal(to_tensor(one), to_tensor(grey))
    assert other is colour
    assert alike([grey])[0] is grey
    assert alike([]) == []


def test_levels_are_rounded_to_the_nearest() -> None:
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_bytes(every / np.float32(255)), every)
    assert to_bytes(every) is every or np.shares_memory(to_bytes(every), every)
    assert to_bytes(np.array([0.5 / 255, 0.49 / 255], np.float32)).tolist() == [1, 0]


@given(st.integers(1, 90), st.integers(1, 90))
def test_a_thumbnail_averages_areas_of_the_padded_square(height: int, width: int) -> None:
    picture = np.random.default_rng(height * 100 + width).random((height, width), np.float32)
    side = max(height, width)
    square = np.zeros((side, side), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    fine = np.kron(square, np.ones((32, 32), np.float32))  # 32 x 32 equal parts, whatever the side
    expected = fine.reshape(32, side, 32, side).mean(axis=(1, 3))
    np.testing.assert_allclose(thumbnail(picture), expected, atol=1e-5)


def test_a_thumbnail_is_of_the_mean_slice_in_grey() -> None:
    volume = np.stack([np.zeros((40, 40)), np.ones((40, 40))]).astype(np.float32)
    assert thumbnail(volume).shape == (32, 32)
    np.testing.assert_allclose(thumbnail(volume), 0.5, atol=1e-6)
    colour = np.zeros((40, 40, 3), np.uint8)
    colour[..., 0] = 255
    np.testing.assert_allclose(thumbnail(colour), 1 / 3, atol=1e-6)
    assert thumbnail(colour).dtype == np.float32


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
