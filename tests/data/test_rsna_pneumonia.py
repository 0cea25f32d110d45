"""RSNA Pneumonia: the published layout, and everything a copy of it can get wrong."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ct_files import write_radiograph

from medbench.data.rsna_pneumonia import RsnaPneumonia
from medbench.data.samples import Annotates
from medbench.errors import DataError
from medbench.phantom.shipped import shipped

HEADER = ("patientId", "x", "y", "width", "height", "Target")
ROWS = (
    ("a", "", "", "", "", "0"),
    ("b", "256.0", "512.0", "128.0", "64.0", "1"),
    ("b", "320.0", "512.0", "128.0", "64.0", "1"),
    ("c", "", "", "", "", "0"),
)
CLASSES = (
    ("a", "Normal"), ("b", "Lung Opacity"), ("b", "Lung Opacity"),
    ("c", "No Lung Opacity / Not Normal"),
)  # fmt: skip


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([header, *rows])


def dataset(
    root: Path,
    rows: Sequence[Sequence[str]] = ROWS,
    header: Sequence[str] = HEADER,
    classes: Sequence[Sequence[str]] | None = None,
) -> Path:
    images = root / "stage_2_train_images"
    images.mkdir(parents=True)
    for name in sorted({row[0] for row in rows}):
        pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
        write_radiograph(images / f"{name or 'blank'}.dcm", pixels)
    write_csv(root / "stage_2_train_labels.csv", header, rows)
    if classes is not None:
        write_csv(root / "stage_2_detailed_class_info.csv", ("patientId", "class"), classes)
    return root


def test_each_image_is_one_sample_in_the_tables_order(tmp_path: Path) -> None:
    reader = RsnaPneumonia(dataset(tmp_path))
    samples = reader.samples()
    assert [(s.id, s.patient, dict(s.labels)) for s in samples] == [
        ("a", "a", {"pneumonia": 0}),
        ("b", "b", {"pneumonia": 1}),
        ("c", "c", {"pneumonia": 0}),
    ]
    assert all(s.split is None and s.view is None and s.age is None for s in samples)
    pixels = reader.pixels(samples[1])
    assert (pixels.shape, pixels.dtype) == ((16, 16), np.float32)
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert len({s.annotation for s in samples}) == 2  # none, and two boxes


def test_detailed_classes_become_labels_of_the_negatives(tmp_path: Path) -> None:
    samples = RsnaPneumonia(dataset(tmp_path, classes=CLASSES)).samples()
    assert [dict(s.labels) for s in samples] == [
        {"pneumonia": 0, "normal": 1, "no-lung-opacity-not-normal": 0},
        {"pneumonia": 1, "normal": 0, "no-lung-opacity-not-normal": 0},
        {"pneumonia": 0, "normal": 0, "no-lung-opacity-not-normal": 1},
    ]


def test_boxes_are_fractions_of_1024_pixels_whatever_the_image_has(tmp_path: Path) -> None:
    reader = RsnaPneumonia(dataset(tmp_path))
    assert isinstance(reader, Annotates)
    none, two, _ = reader.samples()
    assert reader.boxes(none) == ()
    first, second = reader.boxes(two)
    assert (first.label, first.x, first.y) == ("pneumonia", 0.25, 0.5)
    assert (first.width, first.height, second.x) == (0.125, 0.0625, 0.3125)
    mask = reader.mask(two)
    assert mask.shape == (1024, 1024)
    assert mask.sum() == 64 * (128 + 64)  # the overlap counts once
    assert mask[512:576, 256:448].all()
    assert not reader.mask(none).any()


@pytest.mark.parametrize("above", ["", "rsna"])
def test_the_folder_around_the_real_one_is_accepted(tmp_path: Path, above: str) -> None:
    dataset(tmp_path / "rsna")
    assert len(RsnaPneumonia(tmp_path / above).samples()) == 3


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("a", "1", "1", "5", "5", "2")], "1 row has a Target other than 0 and 1: row 1 '2'"),
        ([("a", "", "", "", "", "")], "a Target other than 0 and 1"),
        ([("a", "1", "1", "5", "", "1")], "Target 1 without the four numbers"),
        ([("a", "1", "1", "5", "nan", "1")], "Target 1 without the four numbers"),
        ([("a", "1", "1", "5", "5", "0")], "a box although its Target is 0"),
        ([("a", "1000", "1", "25", "5", "1")], "not inside the frame of 1024 x 1024"),
        ([("a", "-1", "1", "25", "5", "1")], "not inside the frame"),
        ([("a", "5", "1", "0", "5", "1")], "without area"),
        ([("a", "", "", "", "", "0")] * 2, "the same content as an earlier row: row 2 'a'"),
        ([("a", "1", "1", "5", "5", "1")] * 3, "2 rows have the same content"),
        (
            [("a", "", "", "", "", "0"), ("a", "1", "1", "5", "5", "1")],
            "another Target than an earlier row of the same patientId: row 2",
        ),
        ([("", "", "", "", "", "0")], "no usable patientId: row 1"),
        ([("../a", "", "", "", "", "0")], "no usable patientId"),
        ([], "no rows"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(tmp_path: Path, rows: list[tuple[str, ...]], reason: str) -> None:
    (tmp_path / "stage_2_train_images").mkdir()
    write_csv(tmp_path / "stage_2_train_labels.csv", HEADER, rows)
    with pytest.raises(DataError, match=rf"stage_2_train_labels\.csv.*{reason}") as caught:
        RsnaPneumonia(tmp_path).samples()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ([("a", "Sick")], "a class other than Normal"),
        ([("z", "Normal")], "a patientId that stage_2_train_labels.csv does not have: row 1 'z'"),
        ([("a", "Lung Opacity")], "a class that contradicts the Target"),
        ([("b", "Normal")], "a class that contradicts the Target"),
        ([*CLASSES, ("a", CLASSES[3][1])], "another class than an earlier row"),
        (CLASSES[:3], "no class for 1 images"),
    ],
)
def test_a_detailed_class_that_does_not_fit_is_named(
    tmp_path: Path, classes: Sequence[tuple[str, str]], reason: str
) -> None:
    reader = RsnaPneumonia(dataset(tmp_path, classes=classes))
    with pytest.raises(DataError, match=rf"stage_2_detailed_class_info\.csv.*{reason}"):
        reader.samples()


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    dataset(tmp_path)
    for name in "ac":
        (tmp_path / "stage_2_train_images" / f"{name}.dcm").unlink()
    with pytest.raises(DataError, match=r"2 of 3 image files.*missing: a\.dcm, c\.dcm"):
        RsnaPneumonia(tmp_path).samples()


def test_an_image_that_the_table_does_not_name_is_no_sample(tmp_path: Path) -> None:
    dataset(tmp_path)
    (tmp_path / "stage_2_train_images" / "other.dcm").touch()
    assert [s.id for s in RsnaPneumonia(tmp_path).samples()] == ["a", "b", "c"]


def test_renamed_columns_and_other_delimiters_are_named(tmp_path: Path) -> None:
    dataset(tmp_path, header=(*HEADER[:5], "target"))
    with pytest.raises(DataError, match=r"no column 'Target'"):
        RsnaPneumonia(tmp_path).samples()
    text = (tmp_path / "stage_2_train_labels.csv").read_text().replace("target", "Target")
    (tmp_path / "stage_2_train_labels.csv").write_text(text.replace(",", ";"))
    with pytest.raises(DataError, match=r"stage_2_train_labels\.csv.*separated by ';'"):
        RsnaPneumonia(tmp_path).samples()


def test_an_empty_table_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        RsnaPneumonia(tmp_path / "gone")
    with pytest.raises(DataError, match="is empty"):
        RsnaPneumonia(tmp_path)
    (tmp_path / "stage_2_train_labels.csv").touch()
    with pytest.raises(DataError, match=r"stage_2_train_labels\.csv is empty"):
        RsnaPneumonia(tmp_path).samples()
    with pytest.raises(DataError, match="is a file"):
        RsnaPneumonia(tmp_path / "stage_2_train_labels.csv")


def test_a_damaged_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    reader = RsnaPneumonia(dataset(tmp_path))
    first, second, third = reader.samples()
    first.files[0].write_bytes(b"")
    second.files[0].write_bytes(second.files[0].read_bytes()[:-100])
    third.files[0].unlink()
    third.files[0].symlink_to(third.files[0])
    for sample, reason in ((first, "is empty"), (second, "cut short"), (third, "symbolic links")):
        with pytest.raises(DataError, match=rf"{sample.id}\.dcm.*{reason}"):
            reader.pixels(sample)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole real table, with empty files for its images."""
    import pandas as pd

    root = tmp_path_factory.mktemp("rsna")
    table = pd.read_csv(shipped("kaggle_stage_2_train_labels.csv.zip"), dtype=str)
    table.to_csv(root / "stage_2_train_labels.csv", index=False)
    (root / "stage_2_train_images").mkdir()
    for name in table["patientId"].unique():
        (root / "stage_2_train_images" / f"{name}.dcm").touch()
    return root


def test_the_real_table_has_the_published_numbers_and_is_listed_in_seconds(whole: Path) -> None:
    start = time.process_time()
    reader = RsnaPneumonia(whole)
    samples = reader.samples()
    assert time.process_time() - start < 3  # about half a second on an idle core
    assert len(samples) == 26_684
    assert sum(s.labels["pneumonia"] == 1 for s in samples) == 6_012
    assert sum(len(reader.boxes(s)) for s in samples) == 9_555


def test_an_empty_mask_everywhere_is_right_on_77_5_percent_of_images(whole: Path) -> None:
    """What Dice gives a segmentation that finds nothing, when empty on empty counts as 1."""
    reader = RsnaPneumonia(whole)
    samples = reader.samples()
    dice = sum(not reader.boxes(s) for s in samples) / len(samples)
    assert dice == pytest.approx(0.775, abs=0.0005)
