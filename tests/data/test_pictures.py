"""PNG and JPEG pictures of every depth, whole and damaged. NIfTI is tested with its table."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medbench.data.pictures import read_nifti, read_picture
from medbench.errors import DataError

GREY = np.array([[0, 51, 255], [102, 204, 7]], np.uint8)


def saved(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def test_grey_of_8_and_16_bits_and_bilevel_are_scaled_by_their_depth(tmp_path: Path) -> None:
    eight = read_picture(saved(tmp_path / "8.png", Image.fromarray(GREY)))
    sixteen = read_picture(
        saved(tmp_path / "16.png", Image.fromarray(GREY.astype(np.uint16) * 257))
    )
    two = read_picture(saved(tmp_path / "1.png", Image.fromarray(GREY > 100)))
    assert eight.dtype == sixteen.dtype == two.dtype == np.float32
    np.testing.assert_allclose(eight, GREY / 255, atol=1e-7)
    np.testing.assert_allclose(sixteen, GREY / 255, atol=1e-6)
    np.testing.assert_array_equal(two, GREY > 100)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
@pytest.mark.parametrize("colour", [True, False])
def test_grey_kept_in_a_colour_file_is_grey(tmp_path: Path, mode: str, colour: bool) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GREY).convert(mode))
    np.testing.assert_allclose(read_picture(path, colour=colour), GREY / 255, atol=1e-7)


def test_transparency_does_not_change_what_is_seen(tmp_path: Path) -> None:
    picture = Image.fromarray(GREY).convert("RGBA")
    picture.putalpha(0)
    np.testing.assert_allclose(read_picture(saved(tmp_path / "a.png", picture)), GREY / 255)


def test_colour_is_kept_or_becomes_its_brightness(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (3, 2), (255, 51, 0)))
    kept, grey = read_picture(path, colour=True), read_picture(path)
    assert kept.shape == (2, 3, 3)
    np.testing.assert_allclose(kept[0, 0], [1, 0.2, 0], atol=1e-7)
    assert grey.shape == (2, 3)
    np.testing.assert_allclose(grey, 0.299 + 0.587 * 0.2, atol=0.003)


def test_rows_and_columns_are_those_of_the_file_whatever_exif_asks_for(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((8, 16), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6  # turn by a quarter
    assert read_picture(saved(tmp_path / "a.jpg", picture, exif=exif)).shape == (8, 16)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@given(share=st.floats(0.02, 0.95))
def test_a_picture_cut_anywhere_is_refused(
    name: str, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / name
    random = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    saved(path, Image.fromarray(random))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=name) as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


def test_empty_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, reason in [
        ("empty", "is empty"),
        ("text", "cannot be read as an image"),
        ("folder", "cannot be read as an image: Is a directory"),
        ("loop", "cannot be read as an image: Too many levels of symbolic links"),
        ("gone", "does not exist"),
    ]:
        with pytest.raises(DataError, match=rf"{name}\.png {reason}"):
            read_picture(tmp_path / f"{name}.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(GREY))
    path.chmod(0)
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image: Permission denied"):
        read_picture(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_200, 60_000])
def test_a_picture_that_unpacks_to_gigabytes_is_refused_before_it_does(
    tmp_path: Path, side: int
) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )  # fmt: skip
    with pytest.raises(DataError, match=r"bomb\.png cannot be read as an image.*pixels"):
        read_picture(path)


def test_values_beyond_16_bits_and_fractions_are_refused(tmp_path: Path) -> None:
    large = Image.fromarray(np.full((2, 2), 70_000, np.int32))
    with pytest.raises(DataError, match="outside 16 bits"):
        read_picture(saved(tmp_path / "a.tif", large))
    with pytest.raises(DataError, match="floating-point"):
        read_picture(saved(tmp_path / "b.tif", Image.fromarray(np.zeros((2, 2), np.float32))))


def test_an_empty_volume_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii").touch()
    with pytest.raises(DataError, match=r"a\.nii is empty"):
        read_nifti(tmp_path / "a.nii")
