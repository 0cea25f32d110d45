"""The phantom of CheXpert: real rows, read back by the very same reader."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medbench.data.chexpert import COLUMNS, LABELS, CheXpert
from medbench.data.five_by_200 import CLASSES, choose
from medbench.data.samples import Sample
from medbench.phantom.chest import FINDINGS, UNCERTAIN
from medbench.phantom.layouts import chexpert
from medbench.phantom.shipped import shipped
from medbench.phantom.write import MARKER, write_phantom
from medbench.schemas.specs import DatasetSpec

LIMIT = 40


def spec(name: str) -> DatasetSpec:
    return DatasetSpec(
        name=name, title=name, description=name, reader="unused:Reader",
        phantom=f"medbench.phantom.layouts.{name.replace('-', '_')}:write",
    )  # fmt: skip


@pytest.fixture(scope="module")
def table() -> chexpert.RealTable:
    return chexpert.real_table()


@pytest.fixture(scope="module")
def whole(table: chexpert.RealTable) -> tuple[list[chexpert.Row], list[chexpert.Row]]:
    return chexpert.rows(table, chexpert.PRESETS["tiny"][1], None)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chexpert")
    write_phantom(spec("chexpert"), folder, preset="tiny", limit=LIMIT)
    return folder


def real_rows() -> dict[str, list[str]]:
    """The shipped table, read independently of the code under test."""
    with gzip.open(shipped("chexpert_train.csv.gz"), "rt", newline="") as file:
        rows = list(csv.reader(file))
    return {row[0]: row for row in rows}


def test_what_is_read_back_is_what_the_installed_table_says(root: Path) -> None:
    real, reader = real_rows(), CheXpert(root)
    train = [sample for sample in reader.samples() if sample.split == "train"]
    assert len(train) > 20
    for sample in train:
        path, sex, age, side, way, *labels = real[f"CheXpert-v1.0-small/{sample.id}"]
        assert sample.patient == path.split("/")[2]
        assert sample.study == "/".join(path.split("/")[2:4])
        assert sample.age == float(age)
        assert sample.sex == {"Male": "M", "Female": "F"}.get(sex)
        assert sample.view == (way if side == "Frontal" else "lateral")
        wanted = {
            name.lower().replace(" ", "-"): None if cell == "" else int(float(cell))
            for name, cell in zip(COLUMNS, labels, strict=True)
        }
        assert sample.labels == wanted


def test_every_image_is_there_and_none_besides(root: Path) -> None:
    reader = CheXpert(root)
    files = {path for sample in reader.samples() for path in sample.files}
    assert files == set(root.rglob("*.jpg"))
    for sample in reader.samples():
        pixels = reader.pixels(sample)
        assert pixels.shape == (128, 128)
        assert 0 <= pixels.min() < pixels.max() <= 1
        assert pixels.std() > 0.05
    with Image.open(next(iter(files))) as image:
        assert (image.mode, image.format) == ("L", "JPEG")


def test_the_marker_says_what_is_real_and_what_is_drawn(root: Path) -> None:
    facts = json.loads((root / MARKER).read_text())["facts"]
    samples = CheXpert(root).samples()
    assert facts["images"] == len(samples) <= LIMIT
    assert facts["train"] == sum(s.split == "train" for s in samples)
    assert facts["patients"] == len({s.patient for s in samples})
    assert facts["bytes"] == sum(path.stat().st_size for path in root.rglob("*.jpg"))
    assert "valid.csv" in facts["drawn"][0]
    assert "train.csv" in facts["real"][0]


def test_a_limited_phantom_is_a_part_of_the_whole(
    root: Path,
    table: chexpert.RealTable,
    whole: tuple[list[chexpert.Row], list[chexpert.Row]],
) -> None:
    known = {row.path: row for rows in whole for row in rows}
    assert {sample.id for sample in CheXpert(root).samples()} <= known.keys()
    train, valid = chexpert.rows(table, chexpert.PRESETS["tiny"][1], LIMIT)
    assert all(known[row.path] == row for row in (*train, *valid))
    assert train
    assert valid


def test_patients_are_whole_and_none_of_them_is_evaluated_by_5x200(
    table: chexpert.RealTable, whole: tuple[list[chexpert.Row], list[chexpert.Row]]
) -> None:
    train = {row.path for row in whole[0]}
    patients = {str(row.chest.patient) for row in whole[0]}
    assert {s.id for s in table.samples if s.patient in patients} == train
    chosen = choose(table.samples)
    assert {name: len(found) for name, found in chosen.items()} == dict.fromkeys(CLASSES, 200)
    assert not patients & {s.patient for found in chosen.values() for s in found}


def test_tiny_has_enough_of_each_competition_label(
    whole: tuple[list[chexpert.Row], list[chexpert.Row]],
) -> None:
    train, valid = whole
    assert 5_390 <= len(train) <= 5_400
    assert len(valid) == 234
    assert len({row.chest.patient for row in valid}) == 200
    assert sum(row.chest.view == "frontal" for row in valid) == 200
    for rows, least in ((train, 500), (valid, 20)):
        place = {name: 5 + number for number, name in enumerate(LABELS)}
        for name in CLASSES:
            positive = sum(row.line.split(",")[place[name]] == "1.0" for row in rows)
            negative = sum(row.line.split(",")[place[name]] != "1.0" for row in rows)
            assert positive >= least, name
            assert negative >= least, name


def test_the_drawn_table_has_no_uncertain_label_and_no_real_patient(
    table: chexpert.RealTable, whole: tuple[list[chexpert.Row], list[chexpert.Row]]
) -> None:
    cells = Counter(cell for row in whole[1] for cell in row.line.split(",")[5:])
    assert set(cells) == {"0.0", "1.0"}
    assert not {row.chest.patient for row in whole[1]} & {s.patient for s in table.samples}
    assert len({row.path for row in whole[1]}) == len(whole[1])


def test_findings_are_drawn_as_the_labels_say() -> None:
    labels: dict[str, int | None] = dict.fromkeys(LABELS)
    labels |= {"lung-opacity": 1, "edema": -1, "fracture": 1, "pneumonia": 0, "no-finding": None}
    labels |= {"pleural-effusion": 1, "enlarged-cardiomediastinum": 1, "cardiomegaly": 1}
    chest = chexpert.chest_of(
        Sample("i", "p", (), labels, study="p/s", view="lateral", age=40.0, sex="F")
    )
    # An opacity that is no more than an uncertain edema would be drawn too faintly.
    assert chest.findings == {
        "edema": UNCERTAIN, "lung-opacity": 1.0, "fracture": 1.0, "effusion": 1.0,
        "cardiomegaly": 1.0,
    }  # fmt: skip
    assert (chest.patient, chest.image, chest.study) == ("p", "i", "p/s")
    assert (chest.view, chest.age, chest.female) == ("lateral", 40.0, True)


def test_every_label_has_a_way_to_be_drawn(table: chexpert.RealTable) -> None:
    drawn = {name for sample in table.samples[:3000] for name in chexpert.chest_of(sample).findings}
    assert drawn <= set(FINDINGS)
    assert len(drawn) == 13


def test_the_same_phantom_has_the_same_bytes(root: Path, tmp_path: Path) -> None:
    write_phantom(spec("chexpert"), tmp_path, preset="tiny", limit=LIMIT // 2)
    for path in tmp_path.rglob("*.jpg"):
        other = root / path.relative_to(tmp_path)
        with Image.open(path) as one, Image.open(other) as two:
            assert np.array_equal(np.asarray(one), np.asarray(two))
