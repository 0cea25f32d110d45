"""Tables of image-text pairs."""

from __future__ import annotations

import time
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from ct_files import write_ct_slice, write_subject
from PIL import Image

from medbench.data.image_text_pairs import ImageTextPairs
from medbench.errors import DataError


def table(root: Path, *rows: dict[str, object], name: str = "pairs.csv") -> Path:
    path = root / name
    frame = pd.DataFrame(rows)
    frame.to_csv(path, index=False) if name.endswith("csv") else frame.to_parquet(path)
    return path


def png(path: Path, values: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((2, 3), np.uint8) if values is None else values).save(path)
    return path


def one(root: Path, image: str) -> np.ndarray:
    reader = ImageTextPairs(table(root, {"image": image, "text": "x"}))
    return reader.pixels(reader.samples()[0])


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.parquet"])
def test_rows_become_samples_in_order(tmp_path: Path, name: str) -> None:
    png(tmp_path / "b.png")
    png(tmp_path / "sub" / "a.png")
    table(
        tmp_path,
        {"image": "b.png", "text": " None ", "patient": "007", "split": "train"},
        {"image": "./sub/a.png", "text": "Chest X-ray", "patient": None, "split": None},
        name=name,
    )
    first, second = ImageTextPairs(tmp_path).samples()
    assert (first.id, first.text, first.patient, first.split) == ("b.png", "None", "007", "train")
    assert (second.id, second.patient, second.split) == ("sub/a.png", None, None)
    assert first.kind == second.kind == "image"


def test_whole_numbers_of_parquet_keep_their_name(tmp_path: Path) -> None:
    png(tmp_path / "a.png")
    png(tmp_path / "b.png")
    table(
        tmp_path,
        {"image": "a.png", "text": "x", "patient": 12, "id": 1},
        {"image": "b.png", "text": "y", "patient": None, "id": 2},
        name="p.parquet",
    )
    samples = ImageTextPairs(tmp_path).samples()
    assert [(s.id, s.patient) for s in samples] == [("1", "12"), ("2", None)]


def test_two_texts_for_one_image_need_ids(tmp_path: Path) -> None:
    png(tmp_path / "a.png")
    rows = [{"image": "a.png", "text": "x"}, {"image": "a.png", "text": "y"}]
    with pytest.raises(DataError, match=r"2 rows have an id that another row has.*row 1 'a\.png'"):
        ImageTextPairs(table(tmp_path, *rows)).samples()
    rows = [{**row, "id": number} for number, row in enumerate(rows)]
    assert len(ImageTextPairs(table(tmp_path, *rows)).samples()) == 2


@pytest.mark.parametrize("image", ["../secret.png", "sub/../../secret.png", "/etc/passwd", ".."])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, image: str) -> None:
    png(tmp_path / "secret.png")
    root = tmp_path / "data"
    png(root / "sub" / "a.png")
    with pytest.raises(DataError, match=r"outside the table's folder.*row 1"):
        ImageTextPairs(table(root, {"image": image, "text": "x"})).samples()


def test_an_absolute_path_inside_the_folder_is_read(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png")
    reader = ImageTextPairs(table(tmp_path, {"image": str(path), "text": "x"}))
    assert reader.samples()[0].id == "a.png"


def test_missing_files_are_counted_and_the_first_named(tmp_path: Path) -> None:
    png(tmp_path / "a.png")
    rows = [{"image": "a.png", "text": "x"}]
    rows += [{"image": f"gone/{n}.png", "text": "x"} for n in range(7)]
    with pytest.raises(
        DataError, match=r"7 rows have a missing image file: row 2 'gone/0\.png'.*and 2 more"
    ):
        ImageTextPairs(table(tmp_path, *rows)).samples()


def test_missing_columns_and_empty_cells_are_named(tmp_path: Path) -> None:
    png(tmp_path / "a.png")
    with pytest.raises(DataError, match="no column text"):
        ImageTextPairs(table(tmp_path, {"image": "a.png", "caption": "x"})).samples()
    rows = [{"image": "a.png", "text": "x"}, {"image": "a.png", "text": None}]
    with pytest.raises(DataError, match="1 row has no text: row 2"):
        ImageTextPairs(table(tmp_path, *rows)).samples()
    with pytest.raises(DataError, match="1 row has no image path: row 1"):
        ImageTextPairs(table(tmp_path, {"image": None, "text": "x"})).samples()


def test_a_folder_must_hold_just_one_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="exactly one"):
        ImageTextPairs(tmp_path)
    table(tmp_path, {"image": "a", "text": "x"})
    table(tmp_path, {"image": "a", "text": "x"}, name="b.csv")
    with pytest.raises(DataError, match=r"b\.csv, pairs\.csv"):
        ImageTextPairs(tmp_path)


def test_an_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gif").touch()
    with pytest.raises(DataError, match="unknown kind"):
        ImageTextPairs(table(tmp_path, {"image": "a.gif", "text": "x"})).samples()


def test_a_hundred_thousand_rows_are_listed_in_seconds(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(1000):
        (images / f"{number}.png").touch()
    frame = pd.DataFrame({"image": [f"images/{n % 1000}.png" for n in range(100_000)]})
    frame["text"], frame["id"] = "x", range(100_000)
    frame.to_csv(tmp_path / "t.csv", index=False)
    start = time.process_time()
    assert len(ImageTextPairs(tmp_path).samples()) == 100_000
    assert time.process_time() - start < 6  # about 1 s on an idle core


def test_pictures_are_scaled_by_their_depth(tmp_path: Path) -> None:
    png(tmp_path / "8.png", np.array([[0, 51, 255]], np.uint8))
    png(tmp_path / "16.png", np.array([[0, 13107, 65535]], np.uint16))
    png(tmp_path / "rgb.png", np.full((1, 2, 3), (255, 51, 0), np.uint8))
    np.testing.assert_allclose(one(tmp_path, "8.png"), [[0, 0.2, 1]], atol=1e-6)
    np.testing.assert_allclose(one(tmp_path, "16.png"), [[0, 0.2, 1]], atol=1e-6)
    colour = one(tmp_path, "rgb.png")
    assert colour.shape == (1, 2, 3)
    np.testing.assert_allclose(colour[0, 0], [1, 0.2, 0], atol=1e-6)


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    path = png(tmp_path / "a.png", noise)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image"):
        one(tmp_path, "a.png")


def test_a_folder_of_dicom_is_a_volume_in_slice_order(tmp_path: Path) -> None:
    write_subject(tmp_path / "series", levels=(150, -1350, -600), locations=(3, 1, 2))
    reader = ImageTextPairs(table(tmp_path, {"image": "series", "text": "x"}))
    sample = reader.samples()[0]
    assert sample.kind == "volume"
    np.testing.assert_allclose(reader.pixels(sample)[:, 0, 0], [0, 0.5, 1], atol=1e-6)


def test_nifti_comes_as_an_axial_dicom_would_show_it(tmp_path: Path) -> None:
    """A marked voxel at the right, front, top of the patient is at the last slice, first row and
    first column, whichever way the file's axes run."""
    values = np.full((3, 4, 5), -1350, np.int16)
    values[2, 3, 4] = 150  # right-most, front-most, top-most when axes run to R, A, S
    ras = np.diag([1.0, 1.0, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values, ras), tmp_path / "ras.nii")
    lps = np.diag([-1.0, -1.0, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values[::-1, ::-1], lps), tmp_path / "lps.nii.gz")
    first, second = one(tmp_path, "ras.nii"), one(tmp_path, "lps.nii.gz")
    assert first.shape == (5, 4, 3)
    assert np.argwhere(first == 1).tolist() == [[4, 0, 0]]
    np.testing.assert_array_equal(first, second)


def test_volumes_that_are_not_hounsfield_are_scaled_to_their_range(tmp_path: Path) -> None:
    values = np.zeros((2, 2, 2), np.int16)
    values[0, 0, 0], values[1, 1, 1] = 400, 100
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "mr.nii.gz")
    pixels = one(tmp_path, "mr.nii.gz")
    assert sorted(set(pixels.ravel().tolist())) == [0, 0.25, 1]


def test_damaged_or_flat_nifti_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"rubbish")
    with pytest.raises(DataError, match="cannot be read as NIfTI"):
        one(tmp_path, "a.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2), np.int16), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(DataError, match="three axes"):
        one(tmp_path, "b.nii")


def test_a_single_dicom_is_a_picture(tmp_path: Path) -> None:
    write_ct_slice(tmp_path / "a.dcm", np.full((4, 4), -600, np.int16), None)
    np.testing.assert_allclose(one(tmp_path, "a.dcm"), 0.5, atol=1e-6)
