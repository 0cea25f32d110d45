"""The phantom of NIH ChestX-ray14: real rows and boxes, read back by the very same reader."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from test_chexpert_layout import spec

from medbench.data.nih_chestxray14 import LABELS, NihChestXray14
from medbench.phantom.layouts import nih_chestxray14 as layout
from medbench.phantom.shipped import shipped
from medbench.phantom.write import MARKER, write_phantom

LIMIT = 40


@pytest.fixture(scope="module")
def table() -> layout.RealTable:
    return layout.real_table()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nih")
    write_phantom(spec("nih-chestxray14"), folder, preset="tiny", limit=LIMIT)
    return folder


def real(name: str) -> list[list[str]]:
    """Rows of a shipped table, read independently of the code under test."""
    with gzip.open(shipped(name), "rt", newline="") as file:
        return list(csv.reader(file))[1:]


def test_what_is_read_back_is_what_the_installed_table_says(root: Path) -> None:
    rows = {row[0]: row for row in real("Data_Entry_2017_v2020.csv.gz")}
    samples = NihChestXray14(root).samples()
    assert 20 < len(samples) <= LIMIT
    for sample in samples:
        _, findings, _, patient, age, sex, view, *_ = rows[sample.id]
        names = {name.lower().replace("_", "-") for name in findings.split("|")} - {"no finding"}
        assert {name for name, value in sample.labels.items() if value == 1} == names
        assert list(sample.labels) == list(LABELS)
        assert (int(sample.patient or 0), sample.age) == (int(patient), float(age))
        assert (sample.sex, sample.view) == (sex, view)


def test_boxes_are_those_of_the_installed_list(root: Path) -> None:
    reader = NihChestXray14(root)
    wanted: dict[str, list[tuple[float, ...]]] = {}
    for image, _, *place in real("BBox_List_2017.csv.gz"):
        wanted.setdefault(image, []).append(tuple(float(cell) / 1024 for cell in place[:4]))
    boxed = 0
    for sample in reader.samples():
        found = [(box.x, box.y, box.width, box.height) for box in reader.boxes(sample)]
        assert found == wanted.get(sample.id, [])
        assert (sample.annotation is not None) == bool(found)
        assert all(sample.labels[box.label] == 1 for box in reader.boxes(sample))
        assert reader.mask(sample).any() == bool(found)
        boxed += len(found)
    assert boxed > 0
    assert json.loads((root / MARKER).read_text())["facts"]["boxes"] == boxed


def test_headers_keep_their_quirks(root: Path) -> None:
    boxes = (root / "BBox_List_2017.csv").read_text().splitlines()[0]
    assert boxes == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    entries = (root / "Data_Entry_2017_v2020.csv").read_text().splitlines()[0]
    assert entries.endswith("OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]")


def test_images_are_grey_png_files_of_the_preset(root: Path) -> None:
    reader = NihChestXray14(root)
    files = {path for sample in reader.samples() for path in sample.files}
    assert files == set((root / "images").iterdir())
    for path in files:
        with Image.open(path) as image:
            assert (image.mode, image.format, image.size) == ("L", "PNG", (128, 128))
    assert all(reader.pixels(sample).std() > 0.05 for sample in reader.samples()[:5])


def test_lists_divide_patients_as_published(root: Path, table: layout.RealTable) -> None:
    chosen = layout.choose(table, layout.PRESETS["tiny"][1], None)
    for sample in NihChestXray14(root).samples():
        assert sample.split == chosen[str(sample.patient)]
    assert {s.split for s in NihChestXray14(root).samples()} == {"train", "test"}
    images = Counter(chosen[str(s.patient)] for s in table.samples if s.patient in chosen)
    assert images["test"] / images.total() == pytest.approx(25_596 / 112_120, abs=0.04)


def test_patients_are_whole_and_presets_nested(table: layout.RealTable) -> None:
    tiny, small = (
        layout.choose(table, layout.PRESETS[preset][1], None) for preset in ("tiny", "small")
    )
    images = sum(sample.patient in tiny for sample in table.samples)
    assert 1_790 <= images <= 1_800
    assert len(tiny.keys() - small.keys()) <= 2  # those who filled the last places of tiny
    assert all(small[patient] == split for patient, split in tiny.items() if patient in small)
    limited = layout.choose(table, layout.PRESETS["tiny"][1], LIMIT)
    assert limited.items() <= tiny.items()


def test_tiny_has_enough_of_each_finding_and_boxes(table: layout.RealTable) -> None:
    chosen = layout.choose(table, layout.PRESETS["tiny"][1], None)
    samples = [sample for sample in table.samples if sample.patient in chosen]
    for split, least in (("train", 30), ("test", 10)):
        part = [sample for sample in samples if chosen[str(sample.patient)] == split]
        for name in LABELS:
            assert sum(sample.labels[name] == 1 for sample in part) >= least, (split, name)
    assert sum(sample.id in table.boxes for sample in samples) >= 100


def test_a_chest_has_the_findings_and_boxes_of_its_row(table: layout.RealTable) -> None:
    sample = next(s for s in table.samples if s.id in table.boxes and s.labels["effusion"])
    chest = layout.chest_of(sample, table.boxes[sample.id])
    assert chest.findings == {name: 1.0 for name in LABELS if sample.labels[name]}
    assert {box.label for box in chest.boxes} <= chest.findings.keys()
    assert (chest.patient, chest.age, chest.view) == (sample.patient, sample.age, "frontal")


def test_a_phantom_of_one_image_has_no_lists(tmp_path: Path) -> None:
    write_phantom(spec("nih-chestxray14"), tmp_path, preset="tiny", limit=1)
    (sample,) = NihChestXray14(tmp_path).samples()
    assert sample.split is None
