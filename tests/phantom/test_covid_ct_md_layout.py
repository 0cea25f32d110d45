"""The phantom of COVID-CT-MD keeps the published layout and its quirks."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medbench.phantom.cohort import CAP, COVID, NORMAL, subjects
from medbench.phantom.layouts.covid_ct_md import LABELLED, file_names


@pytest.fixture(scope="module")
def root(phantoms: dict[str, Path]) -> Path:
    return phantoms["covid-ct-md"]


def series(root: Path) -> dict[str, list[tuple[str, pydicom.Dataset]]]:
    return {
        folder.name: [(p.name, pydicom.dcmread(p)) for p in sorted(folder.glob("*.dcm"))]
        for folder in sorted(root.glob("* subjects/*"))
    }


def test_three_folders_hold_the_subjects(root: Path) -> None:
    assert sorted(p.name for p in root.glob("* subjects")) == [
        "CAP subjects", "COVID-19 subjects", "Normal subjects",
    ]  # fmt: skip
    assert (root / "COVID-19 subjects" / "P001").is_dir()
    assert (root / "CAP subjects" / "cap001").is_dir()
    assert (root / "Normal subjects" / "normal001").is_dir()


def test_every_file_says_phantom_and_reads_as_ct(root: Path) -> None:
    uids = set()
    for name, slices in series(root).items():
        for _, data in slices:
            assert "PHANTOM" in str(data.PatientName)
            assert "PHANTOM" in data.ImageType
            assert "PHANTOM" in data.SeriesDescription
            assert "PHANTOM" in data.ImageComments
            assert data.PatientID == name
            assert data.Modality == "CT"
            assert data.SOPInstanceUID.startswith("2.25.")
            assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
            assert data.SOPInstanceUID.is_valid
            uids.add(data.SOPInstanceUID)
            hu = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
            assert hu.shape == (64, 64)
            assert -1024 <= hu.min() < -900
            assert 100 < hu.max() < 3072
    assert len(uids) == sum(len(s) for s in series(root).values())


def test_slice_counts_vary(root: Path) -> None:
    counts = {len(s) for s in series(root).values()}
    assert len(counts) > 1
    assert min(counts) >= 18
    assert max(counts) <= 30


def test_file_names_are_not_in_slice_order(root: Path) -> None:
    for slices in series(root).values():
        heights = np.array([float(data.SliceLocation) for _, data in sorted(slices)])
        assert not (np.diff(heights) > 0).all()
        assert not (np.diff(heights) < 0).all()
        assert len(set(heights)) == len(heights)
        positions = [float(data.ImagePositionPatient[2]) for _, data in sorted(slices)]
        assert positions == list(heights)


@given(row=st.integers(0, 10_000), count=st.integers(3, 200))
def test_names_are_distinct_and_never_sorted(row: int, count: int) -> None:
    names = file_names(row, count)
    assert len(set(names)) == count
    assert names != sorted(names)
    assert names != sorted(names, reverse=True)


def test_slices_in_order_of_location_are_one_body(root: Path) -> None:
    """Neighbours by SliceLocation resemble each other more than neighbours by name."""
    for slices in series(root).values():
        by_place = sorted(slices, key=lambda item: float(item[1].SliceLocation))
        stack = np.stack([d.pixel_array.astype(float) for _, d in by_place])
        named = np.stack([d.pixel_array.astype(float) for _, d in sorted(slices)])
        assert np.abs(np.diff(stack, axis=0)).mean() < np.abs(np.diff(named, axis=0)).mean()


def test_labels_are_plain_arrays_in_order_of_location(root: Path) -> None:
    slices = np.load(root / "Slice-level-labels-updated-1.npy", allow_pickle=False)
    lobes = np.load(root / "Lobe-level-labels-updated-1.npy", allow_pickle=False)
    assert lobes.shape == (*slices.shape, 5)
    assert (lobes.max(-1) == slices).all()
    with (root / "Index.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["Label Index", "Diagnosis", "Relative Path", "Folder/ID"]
    found = series(root)
    for row in rows:
        marked = slices[int(row["Label Index"])]
        assert 0 < marked.sum() < len(found[row["Folder/ID"]])
        assert not marked[len(found[row["Folder/ID"]]) :].any()


def test_the_full_cohort_has_the_published_numbers() -> None:
    everyone = subjects()
    count = {k: sum(s.label == k for s in everyone) for k in (COVID, CAP, NORMAL)}
    assert count == {COVID: 169, CAP: 60, NORMAL: 76}
    women = {k: sum(s.female for s in everyone if s.label == k) for k in count}
    assert women == {COVID: 61, CAP: 25, NORMAL: 36}
    assert {s.name for s in everyone} >= {"P169", "cap060", "normal076"}
    assert LABELLED == {COVID: 54, CAP: 25}


@given(limit=st.integers(0, 400))
def test_a_limit_is_stratified_and_nested(limit: int) -> None:
    some = subjects(limit)
    assert len(some) == min(limit, 305)
    if limit >= 3:
        assert {s.label for s in some} == {COVID, CAP, NORMAL}
    assert {s.name for s in some} <= {s.name for s in subjects()}
