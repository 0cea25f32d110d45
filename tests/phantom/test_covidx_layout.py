"""The phantom of COVIDx 9A, read back by the very same reader."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image
from test_chexpert_layout import spec

from medbench.data.covidx import CovidX
from medbench.phantom.layouts import covidx as layout
from medbench.phantom.write import MARKER, write_phantom

LIMIT = 45


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("covidx")
    write_phantom(spec("covidx"), folder, preset="tiny", limit=LIMIT)
    return folder


@pytest.fixture(scope="module")
def whole() -> list[layout.Picture]:
    return layout.pictures(layout.PRESETS["tiny"][1], None)


def test_what_is_read_back_is_what_was_drawn(root: Path, whole: list[layout.Picture]) -> None:
    known = {f"{picture.split}/{picture.file}": picture for picture in whole}
    samples = CovidX(root).samples()
    assert LIMIT - 6 <= len(samples) <= LIMIT
    for sample in samples:
        picture = known[sample.id]
        assert (sample.patient, sample.split) == (picture.chest.patient, picture.split)
        assert [name for name, value in sample.labels.items() if value] == [picture.kind.lower()]
    assert {s.split for s in samples} == {"train", "test"}
    facts = json.loads((root / MARKER).read_text())["facts"]
    assert facts["images"] == len(samples)
    assert facts["real"] == []


def test_lines_have_four_fields_and_images_are_png(root: Path) -> None:
    reader = CovidX(root)
    for split in ("train", "test"):
        lines = (root / f"{split}_COVIDx9A.txt").read_text().splitlines()
        assert all(len(line.split(" ")) == 4 for line in lines)
        assert {line.split(" ")[2] for line in lines} == {"normal", "pneumonia", "COVID-19"}
    files = {path for sample in reader.samples() for path in sample.files}
    assert files == set(root.rglob("*.png"))
    with Image.open(next(iter(files))) as image:
        assert (image.mode, image.size) == ("L", (128, 128))
    assert all(reader.pixels(sample).std() > 0.05 for sample in reader.samples()[:5])


def test_classes_are_in_the_published_numbers(whole: list[layout.Picture]) -> None:
    counts = Counter((picture.split, picture.kind) for picture in whole)
    assert {kind: counts["test", kind] for kind in layout.TEST} == layout.TEST
    assert sum(counts["train", kind] for kind in layout.TRAIN) == 1_400
    for kind, number in layout.TRAIN.items():
        assert counts["train", kind] / 1_400 == pytest.approx(number / 30_130, abs=0.002)


def test_no_patient_is_in_both_lists_and_files_are_distinct(whole: list[layout.Picture]) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for picture in whole:
        splits[picture.chest.patient].add(picture.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len({picture.file for picture in whole}) == len(whole)
    covid = Counter(p.chest.patient for p in whole if p.kind == "COVID-19" and p.split == "train")
    assert 2.0 <= sum(covid.values()) / len(covid) <= 4.0


def test_presets_and_limits_are_nested(whole: list[layout.Picture]) -> None:
    known = {(p.split, p.file): p for p in layout.pictures(layout.PRESETS["small"][1], None)}
    assert all(known[p.split, p.file] == p for p in whole)
    assert all(known[p.split, p.file] == p for p in layout.pictures(1_400, 100))


def test_classes_look_as_the_disease_does(whole: list[layout.Picture]) -> None:
    chests = {kind: [p.chest for p in whole if p.kind == kind] for kind in layout.TRAIN}
    assert all(not chest.findings and not chest.boxes for chest in chests["normal"])
    covid = [chest for chest in chests["COVID-19"] if chest.sides["lung-opacity"] == "both"]
    assert 0.7 <= len(covid) / len(chests["COVID-19"]) <= 0.9
    for chest in chests["COVID-19"]:
        # The patient's right lung is on the left of the image.
        found = {"right" if box.x < 0.5 else "left" for box in chest.boxes}
        side = chest.sides["lung-opacity"]
        assert found == ({"left", "right"} if side == "both" else {side})
        for box in chest.boxes:
            assert 0 <= box.x < box.x + box.width <= 1
            assert 0.15 <= box.y < box.y + box.height <= 0.81
    one_sided = [c for c in chests["pneumonia"] if c.sides["consolidation"] != "both"]
    assert 0.75 <= len(one_sided) / len(chests["pneumonia"]) <= 0.95


@pytest.mark.parametrize("limit", [2, 3, 7, 20])
def test_a_small_phantom_still_has_both_lists(limit: int) -> None:
    found = layout.pictures(5_600, limit)
    assert limit - 6 < len(found) <= limit
    assert {picture.split for picture in found} == {"train", "test"}
