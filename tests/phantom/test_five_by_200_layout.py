"""The phantoms of the two 5x200 sets, read back by their readers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_chexpert_layout import real_rows, spec

from medbench.data.chexpert import COLUMNS, below_root
from medbench.data.chexpert_5x200 import LIST, CheXpert5x200
from medbench.data.five_by_200 import CLASSES, choose
from medbench.data.mimic_5x200 import LIST as MIMIC_LIST
from medbench.data.mimic_5x200 import Mimic5x200
from medbench.data.mimic_cxr import MimicCxr
from medbench.errors import UsageError
from medbench.phantom.layouts import chexpert, mimic_5x200, mimic_cxr
from medbench.phantom.layouts.chexpert_5x200 import per_class
from medbench.phantom.write import MARKER, write_phantom

LIMIT = 23


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chexpert-5x200")
    write_phantom(spec("chexpert-5x200"), folder, preset="tiny", limit=LIMIT)
    return folder


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mimic-5x200")
    write_phantom(spec("mimic-5x200"), folder, preset="tiny", limit=LIMIT)
    return folder


def test_samples_are_real_rows_that_the_rule_allows(root: Path) -> None:
    real, reader = real_rows(), CheXpert5x200(root)
    assert len(reader.samples()) == 20
    for sample in reader.samples():
        cells = dict(zip(COLUMNS, real[f"CheXpert-v1.0-small/{sample.id}"][5:], strict=True))
        five = {name: cells[name.replace("-", " ").title()] for name in CLASSES}
        positive = [name for name, cell in five.items() if cell == "1.0"]
        assert len(positive) == 1
        assert all(cell in ("1.0", "0.0", "") for cell in five.values())
        assert sample.labels == {name: int(name == positive[0]) for name in CLASSES}
        assert sample.view in ("AP", "PA", "frontal")
        assert reader.pixels(sample).shape == (128, 128)
    assert {p for s in reader.samples() for p in s.files} == set(root.rglob("*.jpg"))


def test_the_list_and_the_rule_pick_the_same(root: Path, tmp_path: Path) -> None:
    by_list = CheXpert5x200(root).samples()
    hidden = (root / LIST).rename(root / "hidden")
    try:
        by_rule = CheXpert5x200(root).samples()
    finally:
        hidden.rename(root / LIST)
    assert by_rule == by_list
    facts = json.loads((root / MARKER).read_text())["facts"]
    assert (facts["images"], facts["per_class"]) == (20, 4)


def test_the_whole_phantom_is_1000_images_of_which_a_limited_one_has_the_first(root: Path) -> None:
    table = chexpert.real_table()
    chosen = choose(table.samples)
    assert {name: len(found) for name, found in chosen.items()} == dict.fromkeys(CLASSES, 200)
    listed = (root / LIST).read_text().splitlines()[1:]
    wanted = [sample.id for found in chosen.values() for sample in found[:4]]
    assert [below_root(path) for path in listed] == wanted


@pytest.mark.parametrize(("limit", "each"), [(None, 200), (5, 1), (23, 4), (2_000, 200)])
def test_a_limit_is_divided_among_the_classes(limit: int | None, each: int) -> None:
    assert per_class(limit) == each


def test_a_limit_below_one_of_each_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 5"):
        per_class(4)


def test_mimic_images_show_one_finding_alone_as_their_reports_say(mimic: Path) -> None:
    reader = Mimic5x200(mimic)
    samples = reader.samples()
    assert len(samples) == 20
    whole = {sample.id: sample for sample in MimicCxr(mimic).samples()}
    assert whole.keys() == {sample.id for sample in samples}
    for sample in samples:
        labels = whole[sample.id].labels
        assert [name for name in CLASSES if labels[name] == 1] == [
            name for name in CLASSES if sample.labels[name]
        ]
        assert all(labels[name] in (1, 0, None) for name in CLASSES)
        assert sample.text
        assert reader.pixels(sample).shape == (128, 128)
    assert len({sample.patient for sample in samples}) == 20
    assert len((mimic / MIMIC_LIST).read_text().splitlines()) == 21


def test_the_rule_alone_finds_the_same_mimic_images(mimic: Path) -> None:
    by_list = {sample.id: sample.labels for sample in Mimic5x200(mimic).samples()}
    hidden = (mimic / MIMIC_LIST).rename(mimic / "hidden")
    try:
        by_rule = {sample.id: sample.labels for sample in Mimic5x200(mimic).samples()}
    finally:
        hidden.rename(mimic / MIMIC_LIST)
    assert by_rule == by_list


def test_no_patient_is_in_the_phantom_of_mimic_cxr_too() -> None:
    corpus = {mimic_cxr.plan_patient(row).id for row in range(100)}
    evaluated = {mimic_5x200.plan(name, n).id for name in CLASSES for n in range(4)}
    assert len(evaluated) == 20
    assert not corpus & evaluated
    rows = (mimic_5x200._FIRST_ROW, mimic_cxr.PRESETS["paper"].patients)
    assert rows[0] > rows[1]
