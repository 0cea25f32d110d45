"""IU X-Ray in both layouts, and what is wrong with a folder that is not quite it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medbench.data.dataset import open_dataset
from medbench.data.iu_xray import IuXray, patient_of, study_views
from medbench.data.openi import parse_openi_report, read_openi_report
from medbench.data.samples import Sample
from medbench.errors import DataError
from medbench.schemas.specs import DatasetSpec

XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="CXR{number}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON"/>
<AbstractText Label="INDICATION">A made-up cough.</AbstractText>
<AbstractText Label="FINDINGS">Heart size is
   normal.</AbstractText>
<AbstractText Label="IMPRESSION">Small left effusion.</AbstractText>
</Abstract></Article></MedlineCitation>
<MeSH><major>Nodule/lung/left</major><major>normal</major><automatic>effusion</automatic></MeSH>
<parentImage id="CXR{number}_IM-0001-1001"/><parentImage id="CXR{number}_IM-0001-2001"/>
</eCitation>"""


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 5), value, np.uint8)).save(path)


def entry(name: str, split: str) -> dict[str, Any]:
    return {
        "id": name,
        "report": "Heart size is normal. Possible right effusion.",
        "image_path": [f"{name}/0.png", f"{name}/1.png"],
        "split": split,
    }


@pytest.fixture
def annotation() -> dict[str, list[dict[str, Any]]]:
    return {
        "train": [entry("CXR9001_IM-0001", "train"), entry("CXR9002_IM-0002", "train")],
        "val": [entry("CXR9003_IM-0003", "val")],
        "test": [entry("CXR9004_IM-0004", "test")],
    }


@pytest.fixture
def r2gen(tmp_path: Path, annotation: dict[str, list[dict[str, Any]]]) -> Path:
    root = tmp_path / "iu_xray"
    for studies in annotation.values():
        for study in studies:
            for number, path in enumerate(study["image_path"]):
                picture(root / "images" / path, 51 * number)
    (root / "annotation.json").write_text(json.dumps(annotation))
    return root


@pytest.fixture
def openi(tmp_path: Path) -> Path:
    root = tmp_path / "openi"
    for number in (2, 10):
        path = root / "NLMCXR_reports" / "ecgen-radiology" / f"{number}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(XML.format(number=f"900{number}"))
        for image in ("1001", "2001"):
            picture(root / "NLMCXR_png" / f"CXR900{number}_IM-0001-{image}.png", 255)
    return root


def by_id(root: Path) -> dict[str, Sample]:
    return {sample.id: sample for sample in IuXray(root).samples()}


def rewrite(root: Path, annotation: dict[str, list[dict[str, Any]]]) -> None:
    (root / "annotation.json").write_text(json.dumps(annotation))


def test_r2gen_layout(r2gen: Path) -> None:
    samples = IuXray(r2gen).samples()

    assert [sample.split for sample in samples] == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    first = samples[0]
    assert first.id == "CXR9001_IM-0001/0"
    assert (first.patient, first.study, first.view) == ("CXR9001", "CXR9001_IM-0001", None)
    assert first.text == "Heart size is normal. Possible right effusion."
    assert first.sections == {"findings": first.text}
    assert (first.labels["cardiomegaly"], first.labels["pleural-effusion"]) == (0, -1)
    assert first.labels["fracture"] is None
    pixels = IuXray(r2gen).pixels(samples[1])
    assert (pixels.dtype, pixels.shape) == (np.float32, (6, 5))
    assert np.allclose(pixels, 0.2)


def test_openi_layout(openi: Path) -> None:
    samples = by_id(openi)

    assert list(samples) == [  # report 2 before report 10
        "CXR9002_IM-0001-1001", "CXR9002_IM-0001-2001",
        "CXR90010_IM-0001-1001", "CXR90010_IM-0001-2001",
    ]  # fmt: skip
    first = samples["CXR9002_IM-0001-1001"]
    assert first.text == "Heart size is normal. Small left effusion."
    assert first.sections == {
        "indication": "A made-up cough.",
        "findings": "Heart size is normal.",
        "impression": "Small left effusion.",
    }
    assert (first.patient, first.study, first.split) == ("CXR9002", "CXR9002", None)
    assert first.labels["pleural-effusion"] == 1
    assert first.labels["lung-lesion"] == 1  # from MeSH alone
    assert first.view is None  # no table knows this image


def test_views_are_told_only_where_the_tables_agree() -> None:
    """On real image ids, which the installed package's tables speak of."""
    views = study_views(["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"])
    assert views[0] == "lateral"
    views = study_views(["CXR1000_IM-0003-1001", "CXR1000_IM-0003-2001"])
    assert sum(view in ("PA", "frontal") for view in views) == 1
    assert study_views(["CXR0_nobody"]) == (None,)


@pytest.mark.parametrize("layout", ["r2gen", "openi"])
def test_the_folder_around_the_dataset_is_accepted(
    layout: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root: Path = request.getfixturevalue(layout)
    outer = tmp_path / "outer"
    outer.mkdir()
    root.rename(outer / root.name)

    assert len(IuXray(outer).samples()) in (4, 8)


def test_images_beside_the_reports_and_the_annotation_itself_are_accepted(
    r2gen: Path, openi: Path
) -> None:
    for file in (openi / "NLMCXR_png").iterdir():
        file.rename(openi / file.name)
    (openi / "NLMCXR_png").rmdir()
    (openi / "NLMCXR_reports" / "ecgen-radiology").rename(openi / "ecgen-radiology")

    assert len(IuXray(openi).samples()) == 4
    assert len(IuXray(r2gen / "annotation.json").samples()) == 8


def test_it_opens_as_a_dataset_without_decoding(r2gen: Path) -> None:
    for file in (r2gen / "images").rglob("*.png"):
        file.write_bytes(b"")
    spec = DatasetSpec(
        name="iu-xray", title="t", description="d", reader="medbench.data.iu_xray:IuXray"
    )

    dataset = open_dataset(spec, r2gen)

    assert (dataset.track, len(dataset.samples), dataset.patients) == ("real", 8, 4)
    with pytest.raises(DataError, match=r"0\.png"):
        dataset.reader.pixels(dataset.samples[0])


def test_patient_of_any_study() -> None:
    assert patient_of("CXR1_1_IM-0001") == "CXR1"
    assert patient_of("other") == "other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("val"), "lists train, val and test"),
        (lambda a: a["train"][1].pop("report"), r"entry 2 of 'train': has no 'report'"),
        (lambda a: a["train"][1].pop("image_path"), "has no 'image_path'"),
        (lambda a: a["val"][0].update(report="  "), r"entry 1 of 'val' .* has no report"),
        (lambda a: a["val"][0].update(report=None), "has no report"),
        (lambda a: a["val"][0].update(image_path="x.png"), "not a list of paths"),
        (lambda a: a["val"][0].update(image_path=[]), "not a list of paths"),
        (lambda a: a["val"][0].update(id=7), "not a name"),
        (lambda a: a["test"][0].update(split="train"), "says it belongs to split 'train'"),
        (lambda a: a["test"].append("x"), "is not an object"),
        (lambda a: a["test"].append(dict(a["train"][0], split="test")), "1 study ids occur more"),
        (
            lambda a: a["test"][0].update(image_path=a["train"][0]["image_path"]),
            "2 image paths occur more than once",
        ),
        (lambda a: a["test"][0].update(image_path=["../x.png"]), "leaves the folder of images"),
        (lambda a: a["test"][0].update(image_path=["/etc/x.png"]), "leaves the folder of images"),
        (
            lambda a: a["test"][0].update(image_path=["gone/0.png", "gone/1.png"]),
            r"2 of 8 image files that annotation.json names are missing: gone/0.png, gone/1.png",
        ),
        (lambda a: [some.clear() for some in a.values()], "lists no studies"),
    ],
)
def test_a_wrong_annotation_is_refused(
    r2gen: Path, annotation: dict[str, list[dict[str, Any]]], change: Any, message: str
) -> None:
    change(annotation)
    rewrite(r2gen, annotation)

    with pytest.raises(DataError, match=message) as caught:
        IuXray(r2gen).samples()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "null"])
def test_an_annotation_that_is_not_json_or_another_one_is_refused(
    r2gen: Path, content: str
) -> None:
    (r2gen / "annotation.json").write_text(content)

    with pytest.raises(DataError, match=r"annotation\.json"):
        IuXray(r2gen).samples()


def test_an_annotation_that_is_not_text_is_refused(r2gen: Path) -> None:
    (r2gen / "annotation.json").write_bytes(b"\xff\xfe\x00\x01")

    with pytest.raises(DataError, match="is not JSON"):
        IuXray(r2gen).samples()


def test_missing_images_are_counted_and_named(openi: Path) -> None:
    (openi / "NLMCXR_png" / "CXR9002_IM-0001-1001.png").unlink()

    with pytest.raises(DataError, match=r"1 of 4 images .* missing: CXR9002_IM-0001-1001"):
        IuXray(openi).samples()


def test_images_of_no_report_are_refused(openi: Path) -> None:
    picture(openi / "NLMCXR_png" / "CXR77.png", 1)

    with pytest.raises(DataError, match="1 PNG files belong to no report: CXR77"):
        IuXray(openi).samples()


def test_reports_and_images_that_occur_twice_are_refused(openi: Path) -> None:
    reports = openi / "NLMCXR_reports" / "ecgen-radiology"
    shutil.copy(reports / "2.xml", reports / "3.xml")
    with pytest.raises(DataError, match="both have the id CXR9002"):
        IuXray(openi).samples()
    (reports / "3.xml").unlink()

    picture(openi / "CXR9002_IM-0001-1001.png", 1)
    with pytest.raises(DataError, match="of one name"):
        IuXray(openi).samples()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<eCitation><uId", "is not XML"),
        (b"\x00\x01", "is not XML"),
        (b"<eCitation/>", "has no uId"),
        (b'<e><uId id=" "/></e>', "has no uId"),
        (b'<!DOCTYPE e [<!ENTITY a "b">]><e>&a;</e>', "document type"),
        ('<!DOCTYPE e SYSTEM "file:///etc/passwd"><e/>'.encode("utf-16"), "document type"),
        (b"<!--" + b" " * 1_000_000 + b"--><e/>", "larger than 1 MB"),
        (b'<e><uId id="a"/><parentImage id="i"/><parentImage id="i"/></e>', "image twice"),
        (b'<e><uId id="a"/><parentImage/></e>', "image without a name"),
        (
            b'<e><uId id="a"/><AbstractText Label="F"/><AbstractText Label="f"/></e>',
            "section twice",
        ),
    ],
)
def test_a_wrong_report_file_is_refused_by_name(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "5.xml"
    path.write_bytes(content)

    with pytest.raises(DataError, match=message) as caught:
        read_openi_report(path)
    assert "5.xml" in str(caught.value)


def test_terms_leave_out_those_that_name_nothing() -> None:
    report = parse_openi_report(XML.format(number=1).encode(), "x")

    assert report.terms == ("Nodule/lung/left",)
    assert report.automatic == ("effusion",)


def test_a_folder_that_is_not_the_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        IuXray(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is not IU X-Ray"):
        IuXray(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        IuXray(tmp_path / "file")


def test_a_report_folder_without_reports_and_a_link_in_a_circle(
    tmp_path: Path, r2gen: Path
) -> None:
    (tmp_path / "empty" / "ecgen-radiology").mkdir(parents=True)
    with pytest.raises(DataError, match="no XML files"):
        IuXray(tmp_path / "empty").samples()

    folder = r2gen / "images" / "CXR9001_IM-0001"
    shutil.rmtree(folder)
    os.symlink(folder, folder)
    with pytest.raises(DataError, match="cannot be listed"):
        IuXray(r2gen).samples()
