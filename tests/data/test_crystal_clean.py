"""Crystal Clean: the published layout, groups of altered copies, and what a copy can get wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medbench.data.crystal_clean import CLASSES, CrystalClean, group
from medbench.errors import DataError

FILES: Mapping[str, Sequence[str]] = {
    "Normal": ("N_1.jpg", "N_2_HF_.jpg"),
    "Tumor/glioma_tumor": ("G_1.jpg", "G_10.jpg", "G_1_VF_.jpg"),
    "Tumor/meningioma_tumor": ("M_1.jpg",),
    "Tumor/pituitary_tumor": ("P_1_RO_.jpg", "P_1_SP_.jpg"),
}


def dataset(root: Path) -> Path:
    for folder, names in FILES.items():
        (root / "Data" / folder).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (8, 6), (90, 90, 90)).save(root / "Data" / folder / name)
    return root


def test_each_picture_has_exactly_one_class(tmp_path: Path) -> None:
    reader = CrystalClean(dataset(tmp_path))
    samples = reader.samples()
    assert [s.id for s in samples] == [f"{d}/{n}" for d, names in FILES.items() for n in names]
    assert all(tuple(s.labels) == CLASSES and sum(s.labels.values()) == 1 for s in samples)
    assert [next(k for k, v in s.labels.items() if v) for s in samples] == [
        "normal", "normal", "glioma", "glioma", "glioma", "meningioma", "pituitary", "pituitary",
    ]  # fmt: skip
    pixels = reader.pixels(samples[0])
    assert (pixels.shape, pixels.dtype) == ((6, 8), np.float32)
    np.testing.assert_allclose(pixels, 90 / 255, atol=0.01)


def test_altered_copies_share_their_originals_group_and_nothing_else_does(tmp_path: Path) -> None:
    groups = [s.patient for s in CrystalClean(dataset(tmp_path)).samples()]
    assert groups == [
        "normal/N_1", "normal/N_2", "glioma/G_1", "glioma/G_10", "glioma/G_1", "meningioma/M_1",
        "pituitary/P_1", "pituitary/P_1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("G_1.jpg", "G_1"), ("G_1_VF_.jpg", "G_1"), ("G_1_HF.jpg", "G_1"), ("G_1_ro_.JPG", "G_1"),
        ("G_1_SP_BR_.jpg", "G_1"), ("G_11_BR_.jpg", "G_11"), ("BR_1.jpg", "BR_1"),
        ("scan_BROAD.jpg", "scan_BROAD"), ("_VF_.jpg", "_VF_"),
    ],
)  # fmt: skip
def test_the_group_is_the_name_before_its_suffixes(name: str, expected: str) -> None:
    assert group(name) == expected


@pytest.mark.parametrize("below", [".", "Data", ".."])
def test_data_itself_and_folders_around_it_are_accepted(tmp_path: Path, below: str) -> None:
    root = dataset(tmp_path / "archive")
    assert len(CrystalClean((root / below).resolve()).samples()) == 8


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        CrystalClean(tmp_path / "gone")
    with pytest.raises(DataError, match=r"no folder Normal, Tumor/glioma_tumor"):
        CrystalClean(tmp_path)
    dataset(tmp_path)
    folder = tmp_path / "Data" / "Tumor" / "meningioma_tumor"
    (folder / "M_1.jpg").unlink()
    with pytest.raises(DataError, match="meningioma_tumor holds no pictures"):
        CrystalClean(tmp_path).samples()
    folder.rmdir()
    with pytest.raises(DataError, match="Data is not Crystal Clean: no folder Tumor/meningioma"):
        CrystalClean(tmp_path)
    with pytest.raises(DataError, match="is a file"):
        CrystalClean(tmp_path / "Data" / "Normal" / "N_1.jpg")


def test_two_copies_of_the_dataset_are_refused(tmp_path: Path) -> None:
    dataset(tmp_path / "a")
    dataset(tmp_path / "b")
    with pytest.raises(DataError, match="several copies"):
        CrystalClean(tmp_path)


def test_entries_that_are_no_pictures_are_named_and_hidden_ones_ignored(tmp_path: Path) -> None:
    dataset(tmp_path)
    (tmp_path / "Data" / "Normal" / ".DS_Store").touch()
    assert len(CrystalClean(tmp_path).samples()) == 8
    (tmp_path / "Data" / "Normal" / "notes.txt").touch()
    with pytest.raises(DataError, match=r"Normal holds 1 entries.*'notes\.txt'"):
        CrystalClean(tmp_path).samples()


def test_a_damaged_picture_is_named_when_it_is_read(tmp_path: Path) -> None:
    reader = CrystalClean(dataset(tmp_path))
    first, second, *_ = reader.samples()
    first.files[0].write_bytes(b"")
    second.files[0].write_bytes(second.files[0].read_bytes()[:200])
    with pytest.raises(DataError, match=r"N_1\.jpg is empty"):
        reader.pixels(first)
    with pytest.raises(DataError, match=r"N_2_HF_\.jpg cannot be read as an image"):
        reader.pixels(second)
