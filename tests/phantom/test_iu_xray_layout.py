"""The phantom of iu-xray: real studies, in R2Gen's layout, read back by the reader."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medbench.data.iu_xray import IuXray
from medbench.data.report_findings import read_report
from medbench.phantom.chest import FINDINGS, UNCERTAIN
from medbench.phantom.layouts import iu_xray
from medbench.phantom.openi_reports import drawn, reports, splits, studies, wording

LIMIT = 20


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("iu-xray")
    return root, write(root, LIMIT)


def write(root: Path, limit: int) -> dict[str, Any]:
    return iu_xray.write(root, preset="tiny", limit=limit, advance=lambda done, total: None)


def hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_rule_leaves_as_many_studies_as_r2gen_has() -> None:
    assert len(reports()) == 3955
    assert Counter(splits().values()) == {"train": 2069, "val": 296, "test": 590}
    assert len({study.id for study in studies()}) == len(studies()) == 2955


def test_nobody_may_use_the_words_of_evaluated_reports() -> None:
    evaluated = {name for name, split in splits().items() if split != "train"}

    assert not evaluated & {report.id for report in wording()}
    assert len(wording()) == 3955 - len(evaluated)


def test_what_is_read_back_is_what_the_real_reports_say(
    written: tuple[Path, dict[str, Any]],
) -> None:
    root, facts = written
    samples = IuXray(root).samples()
    real = {study.id: study for study in studies()}

    assert len(samples) == facts["images"] == LIMIT
    for sample in samples:
        study = real[sample.study or ""]
        assert sample.text == study.report.sections["findings"]
        assert (sample.patient, sample.split) == (study.report.id, study.split)
        assert sample.labels == read_report(sample.text).labels
    assert Counter(sample.split for sample in samples) == {"train": 14, "val": 2, "test": 4}


def test_images_have_the_presets_size_and_two_views(written: tuple[Path, dict[str, Any]]) -> None:
    root, facts = written
    reader = IuXray(root)
    pixels = [reader.pixels(sample) for sample in reader.samples()]

    assert {image.shape for image in pixels} == {(128, 128)}
    assert facts["image_size"] == 128
    assert all(image.std() > 0.05 for image in pixels)
    assert not any(np.array_equal(a, b) for a, b in pairwise(pixels))
    assert facts["bytes"] == sum(path.stat().st_size for path in root.rglob("*.png"))


def test_it_is_written_to_r2gens_file_names(written: tuple[Path, dict[str, Any]]) -> None:
    root, _ = written
    annotation = json.loads((root / "annotation.json").read_text())

    assert list(annotation) == ["train", "val", "test"]
    entry = annotation["train"][0]
    assert set(entry) == {"id", "report", "image_path", "split"}
    assert entry["image_path"] == [f"{entry['id']}/0.png", f"{entry['id']}/1.png"]
    assert (root / "images" / entry["image_path"][1]).is_file()


def test_the_same_again_and_a_limited_one_is_part_of_it(
    written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    again, part = tmp_path / "again", tmp_path / "part"
    again.mkdir()
    part.mkdir()
    write(again, LIMIT)
    write(part, 7)

    assert hashes(again) == hashes(written[0])
    images = {name: digest for name, digest in hashes(part).items() if name.endswith(".png")}
    assert len(images) == 6
    assert images.items() <= hashes(written[0]).items()


def test_every_study_has_one_frontal_and_one_lateral_image() -> None:
    for study in studies():
        assert sorted(study.lateral) == [False, True]
        assert [chest.view for chest in iu_xray.chests(study)] == [
            "lateral" if lateral else "frontal" for lateral in study.lateral
        ]


def test_findings_are_drawn_where_the_report_states_them() -> None:
    counts: Counter[str] = Counter()
    for study in studies():
        severity, sides = drawn(study.findings, study.report.terms)
        assert set(severity) <= set(FINDINGS)
        assert set(sides) <= set(severity)
        counts.update(severity)
        label = study.findings.labels["pleural-effusion"]
        assert severity.get("effusion") == {1: 1.0, -1: UNCERTAIN}.get(label or 0)
        assert sides.get("effusion") == study.findings.sides.get("pleural-effusion")

    assert counts["cardiomegaly"] > 200
    assert counts["effusion"] > 70
    assert min(counts[name] for name in ("nodule", "mass", "hernia", "emphysema", "fibrosis")) > 5


def test_bodies_are_of_the_real_age_and_sex_where_they_are_known() -> None:
    ages = [study.age for study in studies() if study.age is not None]

    assert len(ages) > 2900
    assert 45 < np.mean(ages) < 55
    assert {study.female for study in studies()} == {True, False, None}
