"""The SIIM phantom: real ids and masks on disk, read back by the reader of the real data."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest

from medbench.data import rle
from medbench.data.dicom import says_phantom
from medbench.data.siim_pneumothorax import SiimPneumothorax
from medbench.phantom import dicom_challenges
from medbench.phantom.chest import Chest
from medbench.phantom.layouts.siim_pneumothorax import write
from medbench.phantom.shipped import shipped

LIMIT = 27


def phantom(root: Path, limit: int) -> dict[str, Any]:
    root.mkdir()
    return write(root, preset="tiny", limit=limit, advance=lambda done, total: None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("siim") / "p"
    return root, phantom(root, LIMIT)


def test_the_reader_of_real_data_reads_it(written: tuple[Path, dict[str, Any]]) -> None:
    root, facts = written
    reader = SiimPneumothorax(root)
    samples = reader.samples()
    assert len(samples) == facts["images"] == LIMIT
    positive = [s for s in samples if s.labels["pneumothorax"]]
    assert len(positive) == facts["positive"]
    assert len(positive) in (5, 6)  # 22.2 %
    for sample in samples[:6]:
        pixels = reader.pixels(sample)
        assert pixels.shape == (128, 128)
        assert pixels.std() > 0.05


def test_masks_are_the_real_ones(written: tuple[Path, dict[str, Any]]) -> None:
    real = pd.read_csv(shipped("siim-pneumothorax-train-rle.csv.gz"), dtype=str)
    with (written[0] / "train-rle.csv").open(newline="") as handle:
        header, *found = csv.reader(handle)
    assert header == ["ImageId", " EncodedPixels"]
    ids = {row[0] for row in found}
    expected = real[real["ImageId"].isin(ids)]
    assert sorted((n, t.strip()) for n, t in found) == sorted(
        expected.itertuples(index=False, name=None)
    )
    reader = SiimPneumothorax(written[0])
    for sample in reader.samples():
        texts = expected.loc[expected["ImageId"] == sample.id, " EncodedPixels"]
        union = np.logical_or.reduce([rle.decode(text, (1024, 1024), "relative") for text in texts])
        np.testing.assert_array_equal(reader.mask(sample), union)


def test_files_are_nested_by_study_and_series_and_say_phantom(
    written: tuple[Path, dict[str, Any]],
) -> None:
    images = written[0] / "dicom-images-train"
    files = list(images.rglob("*.dcm"))
    assert len(files) == LIMIT
    for path in files:
        study, series, name = path.relative_to(images).parts
        header = pydicom.dcmread(path)
        assert (header.StudyInstanceUID, header.SeriesInstanceUID) == (study, series)
        assert header.PatientID == name.removesuffix(".dcm")
        assert 5 <= int(header.PatientAge) <= 92
        assert header.ViewPosition in ("PA", "AP")
        assert says_phantom(path)


def test_the_renderer_is_given_the_mask_as_the_reader_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Chest] = []
    render = dicom_challenges.render

    def watch(dataset: str, chests: list[Chest], *rest: Any) -> np.ndarray:
        drawn.extend(chests)
        return render(dataset, chests, *rest)

    monkeypatch.setattr(dicom_challenges, "render", watch)
    phantom(tmp_path / "p", 9)
    reader = SiimPneumothorax(tmp_path / "p")
    masks = {chest.image: chest.mask for chest in drawn}
    assert sum(mask is not None for mask in masks.values()) == 2
    for sample in reader.samples():
        mask = masks[sample.id]
        if sample.labels["pneumothorax"]:
            assert mask is not None
            np.testing.assert_array_equal(mask, reader.mask(sample))
        else:
            assert mask is None
    assert all(("pneumothorax" in c.findings) == (c.mask is not None) for c in drawn)


def test_a_smaller_phantom_holds_the_same_images(
    written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    phantom(tmp_path / "p", 4)
    fewer = [path.relative_to(tmp_path / "p") for path in (tmp_path / "p").rglob("*.dcm")]
    assert len(fewer) == 4
    for path in fewer:
        assert (tmp_path / "p" / path).read_bytes() == (written[0] / path).read_bytes()
