"""COVIDx CXR in its published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medbench.data.covidx import CovidX
from medbench.errors import DataError

TRAIN = ["3 a.png normal rsna", "3 b.jpg pneumonia cohen", "S-1 c.png COVID-19 bimcv"]
TEST = ["T-1 d.png COVID-19 ricord", "T-2 e.png normal rsna"]


def write(root: Path, version: str = "_COVIDx9A", train: list[str] = TRAIN,
          test: list[str] = TEST) -> Path:  # fmt: skip
    for split, lines in (("train", train), ("test", test)):
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / f"{split}{version}.txt").write_text("\n".join(lines) + "\n")
    for split, names in (("train", "a.png b.jpg c.png"), ("test", "d.png e.png")):
        for name in names.split():
            Image.fromarray(np.full((5, 6), 102, np.uint8)).save(root / split / name)
    return root


def test_lines_become_samples_with_one_of_three_labels(tmp_path: Path) -> None:
    reader = CovidX(write(tmp_path))
    samples = reader.samples()
    assert [s.id for s in samples] == [
        "train/a.png", "train/b.jpg", "train/c.png", "test/d.png", "test/e.png",
    ]  # fmt: skip
    assert [s.split for s in samples] == ["train"] * 3 + ["test"] * 2
    assert [s.patient for s in samples] == ["3", "3", "S-1", "T-1", "T-2"]
    assert samples[0].labels == {"normal": 1, "pneumonia": 0, "covid-19": 0}
    assert samples[1].labels == {"normal": 0, "pneumonia": 1, "covid-19": 0}
    assert samples[3].labels == {"normal": 0, "pneumonia": 0, "covid-19": 1}
    np.testing.assert_allclose(reader.pixels(samples[0]), np.full((5, 6), 0.4), atol=1e-6)


def test_binary_lists_have_one_label(tmp_path: Path) -> None:
    train = ["3 a.png negative rsna", "S-1 c.png positive bimcv"]
    root = write(tmp_path, "", train, ["T-1 d.png positive ricord"])
    assert [s.labels for s in CovidX(root).samples()] == [
        {"covid-19": 0}, {"covid-19": 1}, {"covid-19": 1},
    ]  # fmt: skip


def test_a_version_is_preferred_to_plain_lists_and_two_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path, "", ["3 a.png negative rsna"], ["T-1 d.png positive ricord"])
    write(tmp_path)
    assert len(CovidX(root).samples()) == 5
    write(tmp_path, "_COVIDx9B")
    with pytest.raises(DataError, match="several versions: COVIDx9A, COVIDx9B"):
        CovidX(root).samples()


def test_a_validation_list_is_read(tmp_path: Path) -> None:
    root = write(tmp_path, "")
    (root / "val").mkdir()
    (root / "val" / "v.png").touch()
    (root / "val.txt").write_text("V v.png pneumonia rsna\n")
    assert [s.split for s in CovidX(root).samples()].count("val") == 1


def test_the_folder_around_will_do(tmp_path: Path) -> None:
    write(tmp_path / "covidx-cxr2")
    (tmp_path / "readme.txt").touch()
    assert len(CovidX(tmp_path).samples()) == 5


@pytest.mark.parametrize(
    ("line", "patient", "file"),
    [
        ("COVID 19 (7) a.png normal rsna", "COVID 19 (7)", "a.png"),
        ("9 a.png normal", "9", "a.png"),
        ("9   a.png\tNORMAL  rsna", "9", "a.png"),
        ("normal a.png normal rsna", "normal", "a.png"),
        ("P 1 c (2).png COVID-19 sirm", "P 1", "c (2).png"),
    ],
)
def test_patients_and_files_may_have_spaces(
    tmp_path: Path, line: str, patient: str, file: str
) -> None:
    root = write(tmp_path, train=[line])
    (root / "train" / "c (2).png").touch()
    sample = CovidX(root).samples()[0]
    assert (sample.patient, sample.id) == (patient, f"train/{file}")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*TRAIN, "x"], "no patient, file and class.*row 4 'x'"),
        ([*TRAIN, "4 f.png tuberculosis rsna"], "no patient, file and class.*row 4"),
        ([*TRAIN, "4,f.png,normal,rsna"], "no patient, file and class.*row 4"),
        ([*TRAIN, "a.png normal"], "no patient, file and class.*row 4"),
        ([*TRAIN, "4 a.png normal rsna"], r"another row has too: row 1 'a\.png'; row 4 'a\.png'"),
        ([*TRAIN, "4 f.png normal rsna"], r"lacks 1 of the 4 image files.*f\.png"),
        ([*TRAIN, "4 ../test/d.png normal rsna"], "lacks 1 of the 4"),
        (["3 a.png negative rsna"], "mix classes of the versions A .* and B"),
        ([""], "is empty"),
    ],
)
def test_a_wrong_line_is_named_by_its_row(tmp_path: Path, lines: list[str], message: str) -> None:
    root = write(tmp_path, train=lines)
    with pytest.raises(DataError, match=message) as caught:
        CovidX(root).samples()
    assert str(root) in str(caught.value)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "test_COVIDx9A.txt").unlink()
    with pytest.raises(DataError, match=r"has no test_COVIDx9A\.txt"):
        CovidX(root).samples()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "test").rename(root / "elsewhere")
    with pytest.raises(DataError, match="test lacks 2 of the 2 image files"):
        CovidX(root).samples()


def test_a_damaged_image_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    reader = CovidX(write(tmp_path))
    sample = reader.samples()[0]
    sample.files[0].write_bytes(sample.files[0].read_bytes()[:40])
    with pytest.raises(DataError, match=r"a\.png"):
        reader.pixels(sample)


def test_a_folder_without_lists_names_the_layout(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"is not COVIDx.*train_COVIDx9A\.txt"):
        CovidX(tmp_path)
