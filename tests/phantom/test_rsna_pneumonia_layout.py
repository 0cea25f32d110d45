"""The RSNA phantom: real rows and headers on disk, read back by the reader of the real data."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest

from medbench.data.dicom import says_phantom
from medbench.data.rsna_pneumonia import RsnaPneumonia
from medbench.phantom.layouts.rsna_pneumonia import ABNORMAL, NORMAL, OPACITY, findings, write
from medbench.phantom.shipped import shipped
from medbench.phantom.subset import stratified


def phantom(root: Path, limit: int, preset: str = "tiny") -> dict[str, Any]:
    root.mkdir()
    return write(root, preset=preset, limit=limit, advance=lambda done, total: None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("rsna") / "p"
    return root, phantom(root, 36)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_reader_of_real_data_reads_it(written: tuple[Path, dict[str, Any]]) -> None:
    root, facts = written
    reader = RsnaPneumonia(root)
    samples = reader.samples()
    assert len(samples) == facts["images"] == 36
    positive = [s for s in samples if s.labels["pneumonia"]]
    assert len(positive) == facts["positive"] == 8
    assert all(reader.mask(s).any() for s in positive)
    for sample in samples[:6]:
        pixels = reader.pixels(sample)
        assert pixels.shape == (128, 128)
        assert pixels.std() > 0.05


def test_rows_and_boxes_are_the_real_ones(written: tuple[Path, dict[str, Any]]) -> None:
    found = rows(written[0] / "stage_2_train_labels.csv")
    real = pd.read_csv(shipped("kaggle_stage_2_train_labels.csv.zip"), dtype=str).fillna("")
    ids = {row["patientId"] for row in found}
    expected = real[real["patientId"].isin(ids)]
    assert [tuple(row.values()) for row in found] == list(expected.itertuples(index=False))


def test_headers_say_the_real_age_sex_view_and_spacing_and_phantom(
    written: tuple[Path, dict[str, Any]],
) -> None:
    real = pd.read_csv(
        shipped("kaggle_stage_2_train_images_dicom_headers.csv.gz"), dtype=str
    ).set_index("PatientID")
    uids = set()
    for path in (written[0] / "stage_2_train_images").iterdir():
        assert says_phantom(path)
        header, row = pydicom.dcmread(path), real.loc[path.stem]
        assert (header.PatientID, header.PatientSex) == (path.stem, row["PatientSex"])
        assert (header.PatientAge, header.ViewPosition) == (row["PatientAge"], row["ViewPosition"])
        assert float(header.PixelSpacing[0]) == pytest.approx(
            8 * float(row["PixelSpacing"]), rel=1e-4
        )
        assert (header.Rows, header.BitsStored, header.PhotometricInterpretation) == (
            128, 8, "MONOCHROME2",
        )  # fmt: skip
        assert header.file_meta.TransferSyntaxUID == pydicom.uid.JPEGBaseline8Bit
        assert header.SOPInstanceUID == header.file_meta.MediaStorageSOPInstanceUID
        for uid in (header.SOPInstanceUID, header.StudyInstanceUID, header.SeriesInstanceUID):
            assert uid.is_valid
            assert uid.startswith("2.25.")
            uids.add(uid)
    assert len(uids) == 3 * 36


def test_a_smaller_phantom_holds_the_same_images(
    written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    phantom(tmp_path / "p", 5)
    fewer = list((tmp_path / "p" / "stage_2_train_images").iterdir())
    assert len(fewer) == 5
    for path in fewer:
        assert path.read_bytes() == (written[0] / "stage_2_train_images" / path.name).read_bytes()


def test_classes_keep_their_published_proportions(written: tuple[Path, dict[str, Any]]) -> None:
    classes = dict(
        tuple(row.values()) for row in rows(written[0] / "stage_2_detailed_class_info.csv")
    )
    counts = Counter(classes.values())
    # 6,012 : 8,851 : 11,821 of 26,684, for 36 images.
    assert counts[OPACITY] == pytest.approx(8.1, abs=1)
    assert counts[NORMAL] == pytest.approx(11.9, abs=1.5)
    assert counts[ABNORMAL] == pytest.approx(15.9, abs=1.5)


def test_only_abnormal_images_show_findings() -> None:
    shown = {
        name: [findings(row, name) for row in range(300)] for name in (OPACITY, NORMAL, ABNORMAL)
    }
    assert not any(shown[NORMAL])
    assert all("pneumonia" in found for found in shown[OPACITY])
    assert all(found and "pneumonia" not in found for found in shown[ABNORMAL])
    assert 0.25 < np.mean([len(found) > 1 for found in shown[OPACITY]]) < 0.45


def test_every_beginning_of_the_order_has_the_strata_in_proportion() -> None:
    strata = ["rare"] * 100 + ["common"] * 900
    order = stratified("test", strata)
    assert sorted(order) == list(range(1000))
    for length in (10, 57, 400, 1000):
        share = sum(strata[row] == "rare" for row in order[:length])
        assert share == pytest.approx(length / 10, abs=1)
    assert order != stratified("another", strata)
