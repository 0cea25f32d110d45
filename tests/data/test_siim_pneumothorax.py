"""SIIM-ACR Pneumothorax: the published layout, and everything a copy of it can get wrong."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ct_files import write_radiograph

from medbench.data import rle
from medbench.data.samples import Annotates
from medbench.data.siim_pneumothorax import SiimPneumothorax
from medbench.errors import DataError
from medbench.phantom.shipped import shipped

#: Ten pixels down from the corner; and ten in the next column, from row 100.
FIRST, SECOND = "0 10", "1124 10"
ROWS = (("1.2.1", " -1"), ("1.2.2", FIRST), ("1.2.2", f" {SECOND}"), ("1.2.3", "-1"))


def write_table(root: Path, rows: Sequence[Sequence[str]], column: str = " EncodedPixels") -> None:
    with (root / "train-rle.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([("ImageId", column), *rows])


def dataset(root: Path, rows: Sequence[Sequence[str]] = ROWS, *, flat: bool = False) -> Path:
    for number, name in enumerate(sorted({row[0] for row in rows})):
        folder = "" if flat else f"study{number}/series{number}"
        pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
        write_radiograph(root / "dicom-images-train" / folder / f"{name}.dcm", pixels)
    write_table(root, rows)
    return root


@pytest.mark.parametrize("flat", [False, True])
def test_each_image_is_one_sample_and_its_rows_are_joined(tmp_path: Path, flat: bool) -> None:
    reader = SiimPneumothorax(dataset(tmp_path, flat=flat))
    assert isinstance(reader, Annotates)
    samples = reader.samples()
    assert [(s.id, dict(s.labels)) for s in samples] == [
        ("1.2.1", {"pneumothorax": 0}),
        ("1.2.2", {"pneumothorax": 1}),
        ("1.2.3", {"pneumothorax": 0}),
    ]
    assert [s.study for s in samples] == ([None] * 3 if flat else ["study0", "study1", "study2"])
    assert all(s.patient is None and s.split is None for s in samples)
    mask = reader.mask(samples[1])
    assert (mask.shape, mask.sum()) == ((1024, 1024), 20)
    assert mask[:10, 0].all()
    assert mask[100:110, 1].all()
    assert not reader.mask(samples[0]).any()
    assert reader.boxes(samples[0]) == ()
    first, second = reader.boxes(samples[1])
    assert (first.x, first.y, first.width, first.height) == (0, 0, 1 / 1024, 10 / 1024)
    assert (second.x, second.y) == (1 / 1024, 100 / 1024)
    assert reader.pixels(samples[0]).shape == (16, 16)
    assert samples[0].annotation == samples[2].annotation != samples[1].annotation


@pytest.mark.parametrize("column", ["EncodedPixels", " EncodedPixels", "EncodedPixels "])
def test_spaces_around_the_columns_name_do_not_matter(tmp_path: Path, column: str) -> None:
    dataset(tmp_path)
    write_table(tmp_path, ROWS, column)
    assert len(SiimPneumothorax(tmp_path).samples()) == 3


def test_the_folder_around_the_real_one_is_accepted(tmp_path: Path) -> None:
    dataset(tmp_path / "siim")
    assert len(SiimPneumothorax(tmp_path).samples()) == 3


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("a", "1 2 3")], r"row 1 \(a\): 3 numbers do not make pairs"),
        ([("b", "-1"), ("a", "1048570 7")], r"row 2 \(a\): a run goes beyond the frame"),
        ([("a", "5 -3")], r"row 1 \(a\): a start below 0 or a length below 1"),
        ([("a", "-2")], r"row 1 \(a\)"),
        ([("a", "")], "no EncodedPixels.*row 1 'a'"),
        ([("a", "0 5"), ("a", "-1")], "no mask.*although another row of its image has one: row 2"),
        ([("a", " -1"), ("a", "-1")], "the same content as an earlier row: row 2 'a'"),
        ([("a", "0 5"), ("a", " 0 5")], "the same content as an earlier row: row 2 'a'"),
        ([("", "-1")], "no usable ImageId: row 1"),
        ([], "no rows"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: list[tuple[str, str]], reason: str) -> None:
    for name in "ab":
        (tmp_path / "dicom-images-train").mkdir(exist_ok=True)
        (tmp_path / "dicom-images-train" / f"{name}.dcm").touch()
    write_table(tmp_path, rows)
    with pytest.raises(DataError, match=rf"train-rle\.csv.*{reason}") as caught:
        SiimPneumothorax(tmp_path).samples()
    assert "\n" not in str(caught.value)


def test_a_renamed_column_and_another_delimiter_are_named(tmp_path: Path) -> None:
    dataset(tmp_path)
    write_table(tmp_path, ROWS, "Mask")
    with pytest.raises(DataError, match="no column 'EncodedPixels'"):
        SiimPneumothorax(tmp_path).samples()
    (tmp_path / "train-rle.csv").write_text("ImageId; EncodedPixels\n1.2.1; -1\n")
    with pytest.raises(DataError, match=r"train-rle\.csv.*separated by ';'"):
        SiimPneumothorax(tmp_path).samples()


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    dataset(tmp_path)
    next(tmp_path.rglob("1.2.1.dcm")).unlink()
    with pytest.raises(DataError, match=r"1 of 3 images that train-rle\.csv.*1\.2\.1\.dcm"):
        SiimPneumothorax(tmp_path).samples()
    for path in list(tmp_path.rglob("*.dcm")):
        path.unlink()
    with pytest.raises(DataError, match="holds no DICOM files"):
        SiimPneumothorax(tmp_path).samples()


def test_a_missing_folder_of_images_is_named(tmp_path: Path) -> None:
    write_table(tmp_path, ROWS)
    with pytest.raises(DataError, match="dicom-images-train does not exist"):
        SiimPneumothorax(tmp_path).samples()
    with pytest.raises(DataError, match="does not exist"):
        SiimPneumothorax(tmp_path / "gone")


def test_unlabelled_images_and_droppings_of_file_managers_are_no_samples(tmp_path: Path) -> None:
    dataset(tmp_path)
    (tmp_path / "dicom-images-train" / "unlabelled.dcm").touch()
    (tmp_path / "dicom-images-train" / "study0" / "._1.2.1.dcm").touch()
    assert len(SiimPneumothorax(tmp_path).samples()) == 3


def test_an_image_in_two_places_is_refused(tmp_path: Path) -> None:
    dataset(tmp_path)
    (tmp_path / "dicom-images-train" / "1.2.1.dcm").touch()
    with pytest.raises(DataError, match=r"Image 1\.2\.1 is both"):
        SiimPneumothorax(tmp_path).samples()


def test_a_link_that_leads_in_a_circle_is_refused_and_an_honest_one_followed(
    tmp_path: Path,
) -> None:
    dataset(tmp_path / "siim")
    images = tmp_path / "siim" / "dicom-images-train"
    elsewhere = tmp_path / "elsewhere"
    (images / "study0").rename(elsewhere)
    (images / "study0").symlink_to(elsewhere)
    assert len(SiimPneumothorax(tmp_path / "siim").samples()) == 3
    (images / "study1" / "loop").symlink_to(images)
    with pytest.raises(DataError, match=r"loop leads back to .*through a symbolic link"):
        SiimPneumothorax(tmp_path / "siim").samples()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    dataset(tmp_path)
    folder = tmp_path / "dicom-images-train" / "study0"
    folder.chmod(0)
    try:
        with pytest.raises(DataError, match="study0 cannot be listed: Permission denied"):
            SiimPneumothorax(tmp_path).samples()
    finally:
        folder.chmod(0o700)


def test_a_damaged_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    reader = SiimPneumothorax(dataset(tmp_path))
    first, second, _ = reader.samples()
    first.files[0].write_bytes(b"")
    second.files[0].write_bytes(second.files[0].read_bytes()[:-100])
    with pytest.raises(DataError, match=r"1\.2\.1\.dcm is empty"):
        reader.pixels(first)
    with pytest.raises(DataError, match=r"1\.2\.2\.dcm is cut short"):
        reader.pixels(second)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SiimPneumothorax:
    """The whole real table, with empty files for its images."""
    import pandas as pd

    root = tmp_path_factory.mktemp("siim")
    table = pd.read_csv(shipped("siim-pneumothorax-train-rle.csv.gz"), dtype=str)
    table.to_csv(root / "train-rle.csv", index=False)
    (root / "dicom-images-train").mkdir()
    for name in table["ImageId"].unique():
        (root / "dicom-images-train" / f"{name}.dcm").touch()
    return SiimPneumothorax(root)


def test_the_real_table_has_the_published_numbers_and_is_listed_in_seconds(
    whole: SiimPneumothorax,
) -> None:
    start = time.process_time()
    samples = whole.samples()
    assert time.process_time() - start < 4  # about one second on an idle core
    assert len(samples) == 12_047
    assert sum(s.labels["pneumothorax"] == 1 for s in samples) == 2_669
    several = next(s for s in samples if len(whole.boxes(s)) > 1)
    one_by_one = [box.width * box.height for box in whole.boxes(several)]
    assert whole.mask(several).mean() <= sum(one_by_one)


def test_an_empty_mask_everywhere_is_right_on_77_8_percent_of_images(
    whole: SiimPneumothorax,
) -> None:
    """What Dice gives a segmentation that finds nothing, when empty on empty counts as 1."""
    samples = whole.samples()
    dice = sum(s.labels["pneumothorax"] == 0 for s in samples) / len(samples)
    assert dice == pytest.approx(0.778, abs=0.0005)
    lesion = next(s for s in samples if s.labels["pneumothorax"])
    encoded = rle.encode(whole.mask(lesion), "relative")
    np.testing.assert_array_equal(rle.decode(encoded, (1024, 1024), "relative"), whole.mask(lesion))
