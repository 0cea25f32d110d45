"""COVID-CT-MD in its published layout."""

from __future__ import annotations

import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from ct_files import write_ct_slice, write_subject

from medbench.data.covid_ct_md import CovidCtMd
from medbench.errors import DataError


def index(root: Path, *rows: tuple[int, str]) -> None:
    lines = [f"{case},COVID-19,./COVID-19/,{subject}" for case, subject in rows]
    (root / "Index.csv").write_text(
        "Label Index,Diagnosis,Relative Path,Folder/ID\n" + "\n".join(lines)
    )


def test_subjects_become_volumes_with_one_label(covid_root: Path) -> None:
    samples = CovidCtMd(covid_root).samples()
    assert [s.id for s in samples] == ["normal001", "normal002", "P001", "P002", "cap001", "cap002"]
    assert all(s.patient == s.id and s.kind == "volume" and len(s.files) == 3 for s in samples)
    assert samples[2].labels == {"normal": 0, "covid-19": 1, "cap": 0}


def test_pixels_show_the_lung_window_in_slice_order(covid_root: Path) -> None:
    folder = covid_root / "COVID-19 subjects" / "P001"
    shutil.rmtree(folder)
    write_subject(folder, levels=(-600, 3000, -3000, -975), locations=(2.0, 30.0, -1.0, 1.0))
    reader = CovidCtMd(covid_root)
    sample = next(s for s in reader.samples() if s.id == "P001")
    pixels = reader.pixels(sample)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[:, 0, 0], [0, 0.25, 0.5, 1], atol=1e-6)


def test_volumes_may_differ_in_slices(covid_root: Path) -> None:
    write_subject(covid_root / "CAP subjects" / "cap003", levels=range(-900, -895))
    reader = CovidCtMd(covid_root)
    assert {len(reader.pixels(s)) for s in reader.samples()} == {3, 5}


@pytest.mark.parametrize(
    "names",
    [
        ("Covid-19 Cases", "Cap Cases", "Normal Cases"),
        ("COVID-19", "CAP", "Normal"),
        ("covid-19_subjects", "CAP Subjects", "NORMAL SUBJECTS"),
    ],
)
def test_spellings_in_circulation_are_read(covid_root: Path, names: tuple[str, str, str]) -> None:
    for old, new in zip(("COVID-19", "CAP", "Normal"), names, strict=True):
        (covid_root / f"{old} subjects").rename(covid_root / new)
    assert len(CovidCtMd(covid_root).samples()) == 6


def test_the_folder_around_the_dataset_will_do(covid_root: Path) -> None:
    (covid_root.parent / ".DS_Store").touch()
    (covid_root / "CAP subjects" / ".DS_Store").touch()
    assert len(CovidCtMd(covid_root.parent).samples()) == 6


def test_two_copies_side_by_side_are_refused(covid_root: Path) -> None:
    shutil.copytree(covid_root, covid_root.parent / "copy")
    with pytest.raises(DataError, match="several copies"):
        CovidCtMd(covid_root.parent)


def test_a_missing_or_empty_folder_names_the_expected_layout(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="COVID-19 subjects/<ID>") as caught:
            CovidCtMd(path)
        assert str(path) in str(caught.value)


def test_a_missing_class_is_named(covid_root: Path) -> None:
    shutil.rmtree(covid_root / "CAP subjects")
    with pytest.raises(DataError, match="no folder for cap"):
        CovidCtMd(covid_root)


def test_a_subject_without_dicom_is_named(covid_root: Path) -> None:
    empty = covid_root / "Normal subjects" / "normal077"
    empty.mkdir()
    (empty / "readme.txt").touch()
    with pytest.raises(DataError, match=r"without DICOM files.*normal077"):
        CovidCtMd(covid_root).samples()


def test_a_subject_in_two_classes_is_refused(covid_root: Path) -> None:
    shutil.copytree(covid_root / "CAP subjects" / "cap001", covid_root / "Normal subjects/cap001")
    with pytest.raises(DataError, match="one diagnosis"):
        CovidCtMd(covid_root).samples()


def test_a_slice_without_location_is_named_with_its_file(covid_root: Path) -> None:
    bad = covid_root / "COVID-19 subjects" / "P002" / "IM0001.dcm"
    write_ct_slice(bad, np.zeros((8, 8), np.int16), None)
    reader = CovidCtMd(covid_root)
    with pytest.raises(DataError, match=r"P002/IM0001\.dcm has no SliceLocation"):
        reader.pixels(next(s for s in reader.samples() if s.id == "P002"))


def test_slice_labels_follow_the_index(covid_root: Path) -> None:
    labels = np.zeros((3, 10))
    labels[0, 1] = labels[2, 2] = 1
    np.save(covid_root / "Slice-level-labels.npy", labels)
    index(covid_root, (0, "P001"), (2, "cap001"))
    reader = CovidCtMd(covid_root)
    by_id = {s.id: reader.slice_labels(s) for s in reader.samples()}
    assert by_id["P001"] is not None
    assert by_id["P001"].tolist() == [0, 1, 0]
    assert by_id["cap001"] is not None
    assert by_id["cap001"].tolist() == [0, 0, 1]
    assert by_id["P002"] is None


def test_an_index_with_a_gap_goes_by_rank_when_rows_are_as_many(covid_root: Path) -> None:
    """The published index skips case 43."""
    labels = np.array([[1, 0, 0], [0, 0, 1]], np.uint8)
    np.save(covid_root / "Slice-level-labels.npy", labels)
    index(covid_root, (0, "P001"), (2, "P002"))
    reader = CovidCtMd(covid_root)
    second = reader.slice_labels(next(s for s in reader.samples() if s.id == "P002"))
    assert second is not None
    assert second.tolist() == [0, 0, 1]


def test_corrected_labels_are_preferred(covid_root: Path) -> None:
    np.save(covid_root / "Slice-level-labels.npy", np.zeros((1, 3)))
    np.save(covid_root / "Slice-level-labels-updated-1.npy", np.ones((1, 3)))
    index(covid_root, (0, "P001"))
    reader = CovidCtMd(covid_root)
    labels = reader.slice_labels(next(s for s in reader.samples() if s.id == "P001"))
    assert labels is not None
    assert labels.tolist() == [1, 1, 1]


def test_slice_labels_that_do_not_fit_the_series_are_refused(covid_root: Path) -> None:
    np.save(covid_root / "Slice-level-labels.npy", np.ones((1, 9)))
    index(covid_root, (0, "P001"))
    reader = CovidCtMd(covid_root)
    with pytest.raises(DataError, match="3 slices, but its slice labels speak of 9"):
        reader.slice_labels(next(s for s in reader.samples() if s.id == "P001"))


class _Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("bare", [False, True], ids=["object array", "bare pickle"])
def test_a_label_file_that_needs_pickle_is_left_unread_and_said_once(
    covid_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, bare: bool
) -> None:
    path, proof = covid_root / "Slice-level-labels.npy", tmp_path / "executed"
    if bare:
        path.write_bytes(pickle.dumps(_Trap(proof)))
    else:
        np.save(path, np.array([_Trap(proof)], object), allow_pickle=True)
    index(covid_root, (0, "P001"))
    reader = CovidCtMd(covid_root)
    with caplog.at_level(logging.WARNING, "medbench"):
        assert all(reader.slice_labels(s) is None for s in reader.samples())
    assert sum("not read" in record.message for record in caplog.records) == 1
    assert not proof.exists()
