"""MIMIC-CXR in both layouts, and what is wrong with a folder that is not quite it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medbench.data.mimic_cxr import LABELS, MimicCxr
from medbench.data.samples import Sample
from medbench.errors import DataError

#: dicom id, study, subject, split, ViewPosition; a made-up patient per tens of the subject.
IMAGES = [
    ("aaaaaaaa-1", "50000001", "10000010", "train", "PA"),
    ("aaaaaaaa-2", "50000001", "10000010", "train", "LATERAL"),
    ("aaaaaaaa-3", "50000002", "10000010", "train", "LL"),
    ("bbbbbbbb-1", "50000003", "11000020", "validate", "AP"),
    ("cccccccc-1", "50000004", "19000030", "test", ""),
    ("cccccccc-2", "50000004", "19000030", "test", "LAO"),
]
VALUES = {"50000001": {"Edema": "1.0", "Pneumonia": "-1.0", "Fracture": "0.0"}}
REPORT = "FINAL REPORT\n FINDINGS:\n\n A made-up\n finding.\n\n IMPRESSION: Nothing.\n"


def folder(image: tuple[str, ...]) -> str:
    return f"p{image[2][:2]}/p{image[2]}/s{image[1]}"


def write(path: Path, lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def edit(path: Path, old: str, new: str) -> None:
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new, 1).encode()))


def table(root: Path, kind: str) -> Path:
    return root / f"mimic-cxr-2.0.0-{kind}.csv.gz"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "mimic"
    for image in IMAGES:
        path = root / "files" / folder(image) / f"{image[0]}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 6), 128, np.uint8)).save(path)
    write(
        table(root, "split"),
        ["dicom_id,study_id,subject_id,split", *(",".join(image[:4]) for image in IMAGES)],
    )
    write(
        table(root, "metadata"),
        [
            "dicom_id,subject_id,study_id,ViewPosition,Rows",
            *(f"{i[0]},{i[2]},{i[1]},{i[4]},8" for i in reversed(IMAGES)),
        ],
    )
    studies = sorted({(image[2], image[1]) for image in IMAGES} - {("19000030", "50000004")})
    write(
        table(root, "chexpert"),
        [
            "subject_id,study_id," + ",".join(LABELS),
            *(
                ",".join([*study, *(VALUES.get(study[1], {}).get(n, "") for n in LABELS)])
                for study in studies
            ),
        ],
    )
    return root


@pytest.fixture
def reports(root: Path) -> Path:
    base = root / "mimic-cxr-reports" / "files"
    for image in IMAGES:
        path = base / f"{folder(image)}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(REPORT)
    return base


def by_id(root: Path) -> dict[str, Sample]:
    return {sample.id: sample for sample in MimicCxr(root).samples()}


def test_one_sample_per_image_in_the_order_of_the_split_table(root: Path) -> None:
    samples = MimicCxr(root).samples()

    assert [sample.id for sample in samples] == [image[0] for image in IMAGES]
    assert [sample.split for sample in samples] == ["train"] * 3 + ["val"] + ["test"] * 2
    assert [sample.view for sample in samples] == ["PA", "lateral", "lateral", "AP", None, None]
    first = samples[0]
    assert (first.patient, first.study) == ("p10000010", "s50000001")
    assert first.files == (root / "files" / folder(IMAGES[0]) / "aaaaaaaa-1.jpg",)
    assert (first.text, first.sections) == (None, {})
    pixels = MimicCxr(root).pixels(first)
    assert pixels.shape == (8, 6)
    assert np.allclose(pixels, 128 / 255, atol=0.01)


def test_uncertain_and_blank_labels_are_kept(root: Path) -> None:
    samples = by_id(root)

    labels = samples["aaaaaaaa-1"].labels
    assert (labels["edema"], labels["pneumonia"], labels["fracture"]) == (1, -1, 0)
    assert labels["no-finding"] is None
    assert samples["aaaaaaaa-2"].labels == labels
    assert set(labels) == {name.lower().replace(" ", "-") for name in LABELS}
    # A study that the label table does not have, as eight real ones.
    assert set(samples["cccccccc-1"].labels.values()) == {None}


def test_reports_are_read_from_their_own_tree_or_from_the_images(reports: Path, root: Path) -> None:
    first = MimicCxr(root).samples()[0]
    assert first.text == "A made-up finding. Nothing."
    assert first.sections == {"findings": "A made-up finding.", "impression": "Nothing."}

    for path in reports.rglob("*.txt"):
        path.rename(root / "files" / path.relative_to(reports))
    shutil.rmtree(root / "mimic-cxr-reports")
    assert MimicCxr(root).samples()[0].text == "A made-up finding. Nothing."


def test_plain_tables_and_those_of_negbio_are_read(root: Path) -> None:
    for kind in ("split", "metadata"):
        path = table(root, kind)
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    table(root, "chexpert").rename(table(root, "negbio"))

    assert by_id(root)["aaaaaaaa-1"].labels["edema"] == 1

    table(root, "negbio").unlink()
    assert by_id(root)["aaaaaaaa-1"].labels == {}


def test_the_folder_around_the_dataset_is_accepted(root: Path) -> None:
    assert len(MimicCxr(root.parent).samples()) == len(IMAGES)


@pytest.fixture
def r2gen(root: Path) -> Path:
    """R2Gen's folder: annotation.json beside images, without the tables."""
    (root / "files").rename(root / "images")
    for path in root.glob("*.gz"):
        path.unlink()
    content: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    for image in IMAGES:
        split = {"validate": "val"}.get(image[3], image[3])
        content[split].append(
            {
                "id": image[0],
                "study_id": int(image[1]),
                "subject_id": int(image[2]),
                "report": "Small made-up effusion.",
                "image_path": [f"{folder(image)}/{image[0]}.jpg"],
                "split": split,
            }
        )
    (root / "annotation.json").write_text(json.dumps(content))
    return root


def test_r2gen_annotation(r2gen: Path) -> None:
    samples = MimicCxr(r2gen).samples()

    assert [sample.id for sample in samples] == [image[0] for image in IMAGES]
    assert (samples[0].patient, samples[0].study) == ("p10000010", "s50000001")
    assert samples[3].split == "val"
    assert samples[0].text == "Small made-up effusion."
    assert samples[0].labels["pleural-effusion"] == 1
    assert samples[0].files[0].is_file()
    assert MimicCxr(r2gen / "annotation.json").samples() == samples


def test_images_that_r2gen_names_but_are_missing_are_refused(r2gen: Path) -> None:
    shutil.rmtree(r2gen / "images" / "p10")

    with pytest.raises(DataError, match=r"3 of 6 image files .* are missing: p10/"):
        MimicCxr(r2gen).samples()


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: table(r, "metadata").unlink(), "has no mimic-cxr-2.0.0-metadata"),
        (lambda r: edit(table(r, "split"), "dicom_id", "image"), "no column 'dicom_id'"),
        (lambda r: edit(table(r, "metadata"), "ViewPosition", "View"), "no column 'ViewPosition'"),
        (lambda r: edit(table(r, "chexpert"), "Edema", "Oedema"), "no column 'Edema'"),
        (
            lambda r: write(table(r, "split"), ["dicom_id;study_id;subject_id;split", "a;1;2;t"]),
            "separated by ';'",
        ),
        (lambda r: write(table(r, "split"), ["dicom_id,study_id,subject_id,split"]), "no rows"),
        (lambda r: table(r, "split").write_bytes(b""), "is empty"),
        (
            lambda r: table(r, "split").write_bytes(table(r, "split").read_bytes()[:60]),
            "split.csv.gz cannot be read",
        ),
        (
            lambda r: edit(table(r, "split"), "aaaaaaaa-2", "aaaaaaaa-1"),
            "2 rows have a dicom_id that another row has too: row 1 'aaaaaaaa-1'; row 2",
        ),
        (lambda r: edit(table(r, "split"), ",validate", ",val"), "row 4 'val'"),
        (lambda r: edit(table(r, "split"), ",validate", ""), "than the 4 columns: row 4"),
        (lambda r: edit(table(r, "chexpert"), ",,,", ","), "another number of cells than the 16"),
        (lambda r: edit(table(r, "split"), "50000002", "../5"), "impossible study_id: row 3"),
        (lambda r: edit(table(r, "split"), "19000030", "1900_030"), "impossible subject_id: row 5"),
        (
            lambda r: edit(table(r, "chexpert"), "-1.0", "2.0"),
            "1 row has a value of 'Pneumonia' other than 1, 0, -1 and blank: row 1 '2.0'",
        ),
        (lambda r: edit(table(r, "chexpert"), "1.0", "nan"), "'Edema' other than .* 'nan'"),
        (
            lambda r: edit(table(r, "chexpert"), ",50000002,", ",50000001,"),
            "a study_id that another row has too",
        ),
        (
            lambda r: edit(table(r, "metadata"), "cccccccc-1", "cccccccc-9"),
            "lacks 1 of the images in the split table: cccccccc-1",
        ),
        (
            lambda r: (r / "files" / folder(IMAGES[3]) / "bbbbbbbb-1.jpg").unlink(),
            "1 of 6 image files .* are missing: p11/p11000020/s50000003/bbbbbbbb-1.jpg",
        ),
        (lambda r: shutil.rmtree(r / "files"), "6 of 6 image files"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_one_paragraph(
    root: Path, change: Change, message: str
) -> None:
    change(root)

    with pytest.raises(DataError, match=message) as caught:
        MimicCxr(root).samples()
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "cannot be read"), (None, "missing")],
)
def test_a_report_that_is_missing_or_empty_or_no_text_is_refused(
    reports: Path, root: Path, content: bytes | None, message: str
) -> None:
    path = reports / f"{folder(IMAGES[3])}.txt"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)

    with pytest.raises(DataError, match=message) as caught:
        MimicCxr(root).samples()
    assert "s50000003.txt" in str(caught.value)


def test_an_image_of_no_bytes_is_refused_when_it_is_read(root: Path) -> None:
    path = root / "files" / folder(IMAGES[0]) / "aaaaaaaa-1.jpg"
    path.write_bytes(b"")

    with pytest.raises(DataError, match=r"aaaaaaaa-1\.jpg"):
        MimicCxr(root).pixels(MimicCxr(root).samples()[0])


def test_a_link_in_a_circle_is_refused(root: Path) -> None:
    study = root / "files" / folder(IMAGES[3])
    shutil.rmtree(study)
    os.symlink(study, study)

    with pytest.raises(DataError, match="cannot be listed"):
        MimicCxr(root).samples()


def test_a_folder_that_is_not_the_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        MimicCxr(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"is not MIMIC-CXR: .* neither"):
        MimicCxr(tmp_path)
    write(tmp_path / "mimic-cxr-2.0.0-chexpert.csv", ["x"])
    with pytest.raises(DataError, match="no split table"):
        MimicCxr(tmp_path)
    with pytest.raises(DataError, match="is a file"):
        MimicCxr(tmp_path / "mimic-cxr-2.0.0-chexpert.csv")
