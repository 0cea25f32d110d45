"""The pre-training corpora: their tables, texts and volumes."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medbench.phantom import abdomen, brain, captions
from medbench.phantom.cases import NAMES, sample_cases
from medbench.phantom.cohort import subjects
from medbench.phantom.scenes import caption, sample_scenes

DATASET = "image-text-pairs"


def table(root: Path) -> list[dict[str, str]]:
    with (root / "pairs.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("name", ["image-text-pairs", "scenes"])
def test_each_row_names_a_file_a_text_and_a_patient(name: str, phantoms: dict[str, Path]) -> None:
    rows = table(phantoms[name])
    assert list(rows[0]) == ["image", "text", "patient", "split"]
    for row in rows:
        assert (phantoms[name] / row["image"]).is_file()
        assert row["text"].strip()
        assert row["patient"]
        assert row["split"] in ("train", "validate")
    files = [p for p in phantoms[name].rglob("*") if p.suffix in (".png", ".nii")]
    assert len(files) == len(rows)


def test_images_have_the_published_depths(phantoms: dict[str, Path]) -> None:
    for name, mode in (("image-text-pairs", "L"), ("scenes", "RGB")):
        for path in (phantoms[name] / "images").glob("*.png"):
            with Image.open(path) as image:
                assert (image.mode, image.size) == (mode, (64, 64))
                assert np.asarray(image).std() > 5


def test_volumes_are_hounsfield_with_z_towards_the_head(phantoms: dict[str, Path]) -> None:
    for path in (phantoms["image-text-pairs"] / "volumes").glob("*.nii"):
        image = nib.load(path)
        data = np.asarray(image.dataobj)
        assert data.dtype == np.int16
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert data.shape[:2] == (64, 64)
        assert 18 <= data.shape[2] <= 30
        # The top slice shows shoulders: less air inside the body than the middle one has.
        lung = ((data > -950) & (data < -600)).sum((0, 1))
        assert lung[data.shape[2] // 2] > lung[-1]
        assert b"PHANTOM" in bytes(image.header["descrip"])


def test_corpus_patients_are_no_patients_of_the_task(phantoms: dict[str, Path]) -> None:
    corpus = {row["patient"] for row in table(phantoms["image-text-pairs"])}
    assert all(patient.startswith("PAIRS-") for patient in corpus)
    assert not corpus & {s.name for s in subjects()}


def test_one_patient_is_in_one_split_only(phantoms: dict[str, Path]) -> None:
    seen: dict[str, str] = {}
    for row in table(phantoms["image-text-pairs"]):
        assert seen.setdefault(row["patient"], row["split"]) == row["split"]


def all_texts(count: int) -> list[str]:
    rows = range(count)
    cases = sample_cases(DATASET, rows)
    lesions = captions.spots(cases)
    texts = [captions.describe_volume(DATASET, cases, lesions[k], k) for k in rows]
    for view in ("frontal", "lateral"):
        texts += [captions.describe_radiograph(DATASET, cases, lesions[k], k, view) for k in rows]
    for number, z in enumerate((60.0, 0.0, -60.0)):
        texts += [captions.describe_slice(DATASET, cases, lesions[k], k, z, number) for k in rows]
    brains, slices = brain.sample_brains(DATASET, rows), abdomen.sample_abdomens(DATASET, rows)
    texts += [captions.describe_brain(DATASET, brains, k) for k in rows]
    return texts + [captions.describe_abdomen(DATASET, slices, k) for k in rows]


def test_no_text_names_a_target_class() -> None:
    texts = all_texts(400)
    assert [text for text in texts if captions.names_target(text)] == []
    scenes = sample_scenes(range(200))
    assert not any(captions.names_target(caption(scenes, k)) for k in range(200))


@pytest.mark.parametrize(
    "text",
    [
        "COVID-19 pneumonia", "Pneumonias", "community acquired", "CAP of the left lung",
        "SARS-CoV-2", "a Normal chest", "novel coronavirus", "healthy lungs",
    ],
)  # fmt: skip
def test_target_names_are_recognised(text: str) -> None:
    assert captions.names_target(text)


@pytest.mark.parametrize("text", ["capillary leak", "abnormal density", "ground glass", "capsule"])
def test_appearances_are_not_target_names(text: str) -> None:
    assert not captions.names_target(text)


def test_every_forbidden_word_is_recognised() -> None:
    assert all(captions.names_target(f"lungs, {word} here") for word in captions.FORBIDDEN)


def test_wording_is_varied_and_complete() -> None:
    texts = all_texts(300)
    assert len(set(texts)) > len(texts) * 0.45
    assert not any("{" in text or "  " in text for text in texts)


def test_a_slice_text_tells_only_what_the_slice_shows() -> None:
    consolidation = np.full(12, NAMES.index("consolidation"))
    cases = sample_cases(DATASET, range(12), consolidation)
    lesions = captions.spots(cases)
    for k in range(12):
        far = [s for s in lesions[k] if s.marked]
        away = max(s.z + s.reach for s in far) + 20
        text = captions.describe_slice(DATASET, cases, lesions[k], k, away, 0).lower()
        assert "consolidation " not in text.replace("no consolidation", "")
