"""CheXpert in its published layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medbench.data.chexpert import COLUMNS, LABELS, CheXpert, below_root
from medbench.errors import DataError

HEADER = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *COLUMNS]


def row(
    path: str = "train/patient00001/study1/view1_frontal.jpg",
    sex: str = "Female",
    age: str = "68",
    side: str = "Frontal",
    way: str = "AP",
    prefix: str = "CheXpert-v1.0-small/",
    **labels: str,
) -> list[str]:
    named = {name.lower().replace(" ", "_"): name for name in COLUMNS}
    cells = dict.fromkeys(COLUMNS, "")
    cells.update({named[name]: value for name, value in labels.items()})
    return [prefix + path, sex, age, side, way, *cells.values()]


def write(
    root: Path,
    train: Sequence[Sequence[str]],
    valid: Sequence[Sequence[str]] = (),
    header: Sequence[str] = HEADER,
    images: bool = True,
) -> Path:
    """A folder with these tables and a small image for every path that looks like one."""
    root.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train.csv", train), ("valid.csv", valid)):
        if rows:
            lines = [",".join(header), *(",".join(cells) for cells in rows)]
            (root / name).write_text("\n".join(lines) + "\n")
        for cells in rows if images else ():
            file = root / below_root(cells[0])
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 5), 51, np.uint8)).save(file, quality=100)
    return root


def several() -> list[list[str]]:
    return [
        row(no_finding="1.0", pneumothorax="0.0", support_devices="1.0"),
        row("train/patient00002/study2/view1_frontal.jpg", "Male", "0", way="LL", edema="-1.0"),
        row("train/patient00002/study2/view2_lateral.jpg", "Unknown", "", "Lateral", "",
            pleural_effusion="1.0", atelectasis="-1"),
        row("train/patient00002/study1/view1_frontal.jpg", way="PA", pneumonia="0"),
    ]  # fmt: skip


def test_rows_become_samples_as_they_stand(tmp_path: Path) -> None:
    valid = row("valid/patient64541/study1/view1_frontal.jpg", cardiomegaly="1.0")
    reader = CheXpert(write(tmp_path / "CheXpert-v1.0-small", several(), [valid]))
    first, second, third, fourth, last = reader.samples()
    assert first.id == "train/patient00001/study1/view1_frontal.jpg"
    assert (first.patient, first.study) == ("patient00001", "patient00001/study1")
    assert (first.view, first.age, first.sex, first.split) == ("AP", 68.0, "F", "train")
    assert first.labels == dict.fromkeys(LABELS) | {
        "no-finding": 1, "pneumothorax": 0, "support-devices": 1,
    }  # fmt: skip
    assert (second.view, second.age, second.sex) == ("frontal", 0.0, "M")
    assert second.labels["edema"] == -1
    assert (third.view, third.age, third.sex) == ("lateral", None, None)
    assert third.labels["pleural-effusion"] == 1
    assert third.labels["atelectasis"] == -1
    assert third.study == second.study != fourth.study
    assert (fourth.view, fourth.labels["pneumonia"]) == ("PA", 0)
    assert (last.split, last.patient, last.labels["cardiomegaly"]) == ("val", "patient64541", 1)
    np.testing.assert_allclose(reader.pixels(first), np.full((6, 5), 0.2), atol=0.01)
    assert reader.pixels(first).dtype == np.float32


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0/", "CheXpert-v1.0-small/", ""])
def test_the_prefix_of_the_paths_is_not_the_folder(tmp_path: Path, prefix: str) -> None:
    root = write(tmp_path / "anything", [row(prefix=prefix)])
    for given in (root, tmp_path):
        (sample,) = CheXpert(given).samples()
        assert sample.files == (root / "train/patient00001/study1/view1_frontal.jpg",)
        assert sample.files[0].is_file()


def test_columns_may_stand_in_another_order(tmp_path: Path) -> None:
    header = list(reversed(HEADER))
    root = write(tmp_path / "a", [row(edema="1.0")])
    (tmp_path / "a" / "train.csv").write_text(
        ",".join(header) + "\n" + ",".join(reversed(row(edema="1.0"))) + "\n"
    )
    (sample,) = CheXpert(root).samples()
    assert sample.labels["edema"] == 1
    assert sample.view == "AP"


@pytest.mark.parametrize("name", ["test.csv", "test_labels.csv"])
def test_a_test_table_needs_paths_and_labels_only(tmp_path: Path, name: str) -> None:
    root = write(tmp_path / "a", [row()])
    path = "test/patient64741/study1/view2_lateral.jpg"
    (root / name).write_text(
        ",".join(["Path", *COLUMNS]) + f"\n{path}," + ",".join(["0.0"] * 14) + "\n"
    )
    (root / path).parent.mkdir(parents=True)
    last = CheXpert(root).samples()[-1]
    assert (last.split, last.view, last.age, last.sex) == ("test", "lateral", None, None)
    assert set(last.labels.values()) == {0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (row(edema="2.0"), r"row 2 'Edema: 2\.0'"),
        (row(edema="yes", fracture="x"), "row 2 'Edema: yes, Fracture: x'"),
        (row(age="old"), "an age that is not a number: row 2 'old'"),
        (row(sex="F"), "a sex that is not Female, Male or Unknown: row 2 'F'"),
        (row(side="frontal"), "neither Frontal nor Lateral: row 2"),
        (row("train/00001/study1/view1_frontal.jpg"), "a path that is not like"),
        (row("train/patient00001/view1_frontal.jpg"), "a path that is not like"),
        (row("train/patient00001/../view1_frontal.jpg"), "a path that is not like"),
        (row("other/patient00001/study1/view1_frontal.jpg"), "a path that is not like"),
        (row("train/patient00009/study1/view1_frontal.jpg"), "a path that another row has too"),
        ([*row(), "1"], "another number of cells"),
        (row()[:-1], "another number of cells"),
    ],
)
def test_a_wrong_cell_is_named_by_its_row(tmp_path: Path, wrong: list[str], message: str) -> None:
    good = row("train/patient00009/study1/view1_frontal.jpg")
    root = write(tmp_path / "a", [good, wrong], images=False)
    with pytest.raises(DataError, match=message) as caught:
        CheXpert(root).samples()
    assert str(root / "train.csv") in str(caught.value)


def test_a_renamed_column_is_refused(tmp_path: Path) -> None:
    header = [name.replace("Pleural Effusion", "Effusion") for name in HEADER]
    root = write(tmp_path / "a", [row()], header=header)
    with pytest.raises(DataError, match="no column 'Pleural Effusion'"):
        CheXpert(root).samples()


def test_another_delimiter_is_named(tmp_path: Path) -> None:
    root = write(tmp_path / "a", [row()])
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text.replace(",", ";"))
    with pytest.raises(DataError, match="separated by ';'"):
        CheXpert(root).samples()


def test_patients_without_a_folder_are_counted_and_named(tmp_path: Path) -> None:
    rows = [row(f"train/patient{n:05d}/study1/view1_frontal.jpg") for n in range(1, 10)]
    root = write(tmp_path / "a", rows[:2])
    write(root, rows, images=False)
    with pytest.raises(
        DataError, match=r"lacks the folders of 7 of the 9 patients.*patient00003.* and 2 more"
    ):
        CheXpert(root).samples()


def test_a_missing_or_damaged_image_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    reader = CheXpert(write(tmp_path / "a", [row()]))
    (sample,) = reader.samples()
    content = sample.files[0].read_bytes()
    for damage in (content[: len(content) // 2], b""):
        sample.files[0].write_bytes(damage)
        with pytest.raises(DataError, match=r"view1_frontal\.jpg"):
            reader.pixels(sample)
    sample.files[0].unlink()
    with pytest.raises(DataError, match="does not exist"):
        reader.pixels(sample)


def test_a_folder_without_tables_names_the_layout(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError, match=r"is not CheXpert.*train\.csv"):
        CheXpert(tmp_path)


def test_two_copies_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "CheXpert-v1.0", [row()])
    write(tmp_path / "CheXpert-v1.0-small", [row()])
    with pytest.raises(DataError, match="several copies"):
        CheXpert(tmp_path)


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "a", [row()], images=False)
    (root / "train").symlink_to(root / "train")
    with pytest.raises(DataError, match="train"):
        CheXpert(root).samples()
