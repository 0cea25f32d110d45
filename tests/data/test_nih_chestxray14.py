"""NIH ChestX-ray14 in its published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medbench.data.nih_chestxray14 import LABELS, NihChestXray14
from medbench.data.samples import Annotates, Box
from medbench.errors import DataError

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
ROWS = [
    "00000001_000.png,Cardiomegaly|Pleural_Thickening,0,1,57,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,No Finding,1,1,414,M,AP,2500,2048,0.168,0.168",
    "00000002_000.png,Infiltration,0,2,0,F,PA,2500,2048,0.168,0.168",
]
IMAGES = [line.partition(",")[0] for line in ROWS]


def entries(root: Path, *rows: str, header: str = HEADER) -> None:
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([header, *rows]) + "\n")


def boxes(root: Path, *rows: str) -> None:
    (root / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *rows]) + "\n")


def lists(root: Path, train: list[str], test: list[str]) -> None:
    (root / "train_val_list.txt").write_text("\n".join(train))
    (root / "test_list.txt").write_text("\n".join(test) + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images of two patients, without lists or boxes."""
    base = tmp_path / "CXR8"
    (base / "images").mkdir(parents=True)
    entries(base, *ROWS)
    for number, name in enumerate(IMAGES):
        grey = np.full((8, 8), 51 * number, np.uint8)
        Image.fromarray(grey).save(base / "images" / name)
    return base


def test_rows_become_samples_as_they_stand(root: Path) -> None:
    reader = NihChestXray14(root)
    first, second, third = reader.samples()
    assert [s.id for s in (first, second, third)] == IMAGES
    assert (first.patient, second.patient, third.patient) == ("00000001", "00000001", "00000002")
    assert first.labels == {n: int(n in ("cardiomegaly", "pleural-thickening")) for n in LABELS}
    assert set(second.labels.values()) == {0}
    assert (first.view, first.sex, first.age) == ("PA", "M", 57.0)
    assert (second.view, second.age, third.age) == ("AP", 414.0, 0.0)
    assert {s.split for s in (first, second, third)} == {None}
    np.testing.assert_allclose(reader.pixels(third), np.full((8, 8), 0.4), atol=1e-6)
    assert reader.boxes(first) == ()
    assert not reader.mask(first).any()


def test_the_first_release_gives_ages_with_a_unit(root: Path) -> None:
    (root / "Data_Entry_2017_v2020.csv").unlink()
    # It has an empty column at the end.
    lines = [HEADER + ",", *(row + "," for row in ROWS)]
    text = "\n".join(lines).replace(",57,", ",058Y,").replace(",414,", ",006M,")
    (root / "Data_Entry_2017.csv").write_text(text + "\n")
    assert [s.age for s in NihChestXray14(root).samples()] == [58.0, 0.5, 0.0]


def test_images_may_lie_in_twelve_parts(root: Path) -> None:
    for number, name in enumerate(IMAGES):
        part = root / f"images_{number + 1:03d}" / "images"
        part.mkdir(parents=True)
        (root / "images" / name).rename(part / name)
    (root / "images").rmdir()
    samples = NihChestXray14(root.parent).samples()
    assert samples[2].files == (root / "images_003/images" / IMAGES[2],)
    assert all(s.files[0].is_file() for s in samples)


def test_an_image_in_two_folders_is_refused(root: Path) -> None:
    (root / "images_001").mkdir()
    (root / "images_001" / IMAGES[0]).touch()
    with pytest.raises(DataError, match=f"both hold {IMAGES[0]}"):
        NihChestXray14(root).samples()


def test_missing_images_are_counted_and_named(root: Path) -> None:
    (root / "images" / IMAGES[1]).unlink()
    (root / "images" / IMAGES[2]).unlink()
    with pytest.raises(DataError, match=f"2 of the 3 images.*missing: {IMAGES[1]}, {IMAGES[2]}"):
        NihChestXray14(root).samples()


def test_the_official_lists_give_the_splits(root: Path) -> None:
    lists(root, IMAGES[:2], IMAGES[2:])
    assert [s.split for s in NihChestXray14(root).samples()] == ["train", "train", "test"]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (IMAGES[:2], IMAGES[1:], f"in the other list too: row 1 '{IMAGES[1]}'"),
        (IMAGES[:1], IMAGES[2:], f"1 images are neither.*{IMAGES[1]}"),
        ([*IMAGES[:2], "00000009_000.png"], IMAGES[2:], "the table does not have: row 3"),
        ([*IMAGES[:2], IMAGES[0]], IMAGES[2:], "an image twice: row 1"),
        ([], IMAGES, r"train_val_list\.txt is empty"),
    ],
)
def test_lists_that_contradict_are_refused(
    root: Path, train: list[str], test: list[str], message: str
) -> None:
    lists(root, train, test)
    with pytest.raises(DataError, match=message):
        NihChestXray14(root).samples()


def test_one_list_without_the_other_is_refused(root: Path) -> None:
    lists(root, IMAGES[:2], IMAGES[2:])
    (root / "test_list.txt").unlink()
    with pytest.raises(DataError, match="without its counterpart"):
        NihChestXray14(root).samples()


def test_boxes_are_fractions_of_the_published_size(root: Path) -> None:
    boxes(
        root,
        f"{IMAGES[0]},Cardiomegaly,256.0,512.0,512.0,256.0",
        f"{IMAGES[2]},Infiltrate,0,0,1024,128",
        f"{IMAGES[0]},Effusion,100,600,200,300",
    )
    reader = NihChestXray14(root)
    assert isinstance(reader, Annotates)
    first, second, third = reader.samples()
    assert reader.boxes(first)[0] == Box("cardiomegaly", 0.25, 0.5, 0.5, 0.25)
    assert [box.label for box in reader.boxes(first)] == ["cardiomegaly", "effusion"]
    assert reader.boxes(second) == ()
    assert reader.boxes(third) == (Box("infiltration", 0, 0, 1, 0.125),)
    mask = reader.mask(first)
    assert mask.shape == (1024, 1024)
    assert mask.sum() == 512 * 256 + 200 * 300 - 44 * 168
    assert mask[512, 256]
    assert not mask[511, 256]
    assert first.annotation is not None
    assert second.annotation is None
    assert first.annotation != third.annotation


def test_boxes_are_there_before_the_samples_were_asked_for(root: Path) -> None:
    boxes(root, f"{IMAGES[0]},Cardiomegaly,256.0,512.0,512.0,256.0")
    sample = NihChestXray14(root).samples()[0]
    assert len(NihChestXray14(root).boxes(sample)) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{IMAGES[0]},Mass,900,0,200,10", "outside the image of 1024 x 1024 pixels: row 1 '900"),
        (f"{IMAGES[0]},Mass,-1,0,20,10", "outside the image"),
        (f"{IMAGES[0]},Mass,1,0,0,10", "empty"),
        (f"{IMAGES[0]},Mass,nan,0,10,10", "no box"),
        (f"{IMAGES[0]},Mass,a,0,10,10", "no box"),
        (f"{IMAGES[0]},Tumour,1,0,10,10", "unknown finding: row 1 'Tumour'"),
        ("00000009_000.png,Mass,1,0,10,10", "an image that the other table does not have: row 1"),
    ],
)
def test_an_impossible_box_is_named_by_its_row(root: Path, row: str, message: str) -> None:
    boxes(root, row)
    with pytest.raises(DataError, match=message) as caught:
        NihChestXray14(root).samples()
    assert "BBox_List_2017.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Infiltration", "Tuberculosis", "findings other than the 14.*row 3 'Tuberculosis'"),
        ("Infiltration", "No Finding|Mass", "'No Finding' beside one"),
        ("Infiltration", "", "findings other than"),
        (",2,0,F,", ",two,0,F,", "a patient that is not a number: row 3"),
        (",0,F,", ",x,F,", "an age that is not a number"),
        (",0,F,", ",0,W,", "a gender that is neither M nor F: row 3 'W'"),
        ("F,PA", "F,LL", "a view that is neither PA nor AP: row 3 'LL'"),
        ("00000002_000.png", "00000001_000.png", "an image that another row has too: row 1"),
        ("00000002_000.png", "../x.png", "an image name that is not like"),
        ("Finding Labels", "Labels", "no column 'Finding Labels'"),
    ],
)
def test_a_wrong_cell_is_named_by_its_row(root: Path, old: str, new: str, message: str) -> None:
    table = root / "Data_Entry_2017_v2020.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=message) as caught:
        NihChestXray14(root).samples()
    assert str(table) in str(caught.value)


def test_an_empty_image_is_an_error_when_it_is_read(root: Path) -> None:
    (root / "images" / IMAGES[0]).write_bytes(b"")
    reader = NihChestXray14(root)
    with pytest.raises(DataError, match=f"{IMAGES[0]} is empty"):
        reader.pixels(reader.samples()[0])


def test_a_folder_without_the_table_names_the_layout(root: Path) -> None:
    (root / "Data_Entry_2017_v2020.csv").unlink()
    with pytest.raises(DataError, match=r"is not NIH ChestX-ray14.*Data_Entry_2017_v2020\.csv"):
        NihChestXray14(root)
