"""The phantom of mimic-cxr: drawn patients in the real layout, with reports of real sentences."""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from medbench.data.mimic_cxr import LABELS, MimicCxr, label_name
from medbench.data.report_findings import FINDINGS, read_report
from medbench.data.reports import narrative, sections
from medbench.phantom.layouts import mimic_cxr
from medbench.phantom.openi_reports import reports
from medbench.phantom.wording import Stream, bank, compose

LIMIT = 20


@pytest.fixture(scope="module")
def patients() -> list[mimic_cxr.PatientPlan]:
    return [mimic_cxr.plan_patient(row) for row in range(mimic_cxr.PRESETS["tiny"].patients)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("mimic-cxr")
    return root, write(root, LIMIT)


def write(root: Path, limit: int) -> dict[str, Any]:
    return mimic_cxr.write(root, preset="tiny", limit=limit, advance=lambda done, total: None)


def hashes(root: Path, suffix: str = "") -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob(f"*{suffix}"))
        if path.is_file()
    }


def test_what_is_read_back_is_what_was_drawn(
    written: tuple[Path, dict[str, Any]], patients: list[mimic_cxr.PatientPlan]
) -> None:
    root, facts = written
    plans = {
        picture.id: (patient, study, picture)
        for patient in patients
        for study in patient.studies
        for picture in study.pictures
    }
    reader = MimicCxr(root)
    samples = reader.samples()

    assert len(samples) == facts["images"]
    assert LIMIT - 10 < len(samples) <= LIMIT
    for sample in samples:
        patient, study, picture = plans[sample.id]
        assert (sample.patient, sample.study) == (f"p{patient.id}", f"s{study.id}")
        assert sample.labels == study.findings.labels
        assert sample.text == narrative(sections(study.report), study.report)
        assert sample.split == {"validate": "val"}.get(patient.split, patient.split)
        assert sample.view == {"LL": "lateral", "LATERAL": "lateral"}.get(
            picture.view, picture.view
        )
    assert {reader.pixels(sample).shape for sample in samples[:3]} == {(128, 128)}
    assert reader.pixels(samples[0]).std() > 0.05


def test_a_report_states_its_studys_labels_and_no_others(
    patients: list[mimic_cxr.PatientPlan],
) -> None:
    for patient in patients:
        for study in patient.studies:
            text = narrative(sections(study.report), study.report)
            assert read_report(text).labels == study.findings.labels, study.report


def test_labels_are_drawn_in_their_published_prevalences() -> None:
    count = 6000
    seen: Counter[tuple[str, int | None]] = Counter()
    for row in range(count):
        seen.update(mimic_cxr.draw_labels(Stream("mimic-cxr", "test", row)).items())

    for name, (positive, _, uncertain) in mimic_cxr.PREVALENCE.items():
        assert seen[name, 1] / count == pytest.approx(positive / 100, abs=0.018), name
        assert seen[name, -1] / count == pytest.approx(uncertain / 100, abs=0.012), name
    assert seen["no-finding", 1] / count == pytest.approx(0.331, abs=0.018)


def test_nearly_all_drawn_labels_find_sentences(patients: list[mimic_cxr.PatientPlan]) -> None:
    drawn: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for row, patient in enumerate(patients):
        for index, study in enumerate(patient.studies):
            wanted = mimic_cxr.draw_labels(Stream("mimic-cxr", "labels", row * 8 + index))
            for name, value in wanted.items():
                if value is not None and name != "no-finding":
                    drawn[name] += 1
                    lost[name] += study.findings.labels[name] != value

    assert lost.total() <= 0.02 * drawn.total()
    # No real report calls a pneumothorax uncertain.
    assert set(lost) - {"consolidation", "pneumothorax", "pleural-other"} <= {
        name for name in lost if not lost[name]
    }


def test_sentences_are_real_and_sides_agree() -> None:
    real = " ".join(
        " ".join(report.sections.values()).replace("XXXX", "___") for report in reports()
    )
    wanted = {"pleural-effusion": 1, "cardiomegaly": 1, "pneumothorax": 0, "atelectasis": 1}
    for row in range(40):
        findings, impression = compose(Stream("mimic-cxr", "test", row), wanted)
        for sentence in (*findings, *impression):
            assert sentence.rstrip(".") in real
        sides = {
            read_report(sentence).sides.get("pleural-effusion")
            for sentence in (*findings, *impression)
        }
        assert len(sides - {None}) <= 1


def test_wording_is_varied() -> None:
    wanted = {"pleural-effusion": 1, "pneumothorax": 0}
    texts = {" ".join(compose(Stream("mimic-cxr", "test", row), wanted)[0]) for row in range(100)}

    assert len(texts) > 90
    assert len(bank().stating) > 150


def test_ids_lie_outside_the_real_ranges_and_are_never_shared(
    patients: list[mimic_cxr.PatientPlan],
) -> None:
    other = [mimic_cxr.plan_patient(1_000_000 + row) for row in range(50)]
    everyone = [*patients, *other]
    studies = [study for patient in everyone for study in patient.studies]
    pictures = [picture.id for study in studies for picture in study.pictures]

    assert min(patient.id for patient in everyone) > 19_999_987
    assert min(study.id for study in studies) > 59_999_985
    assert len({patient.id for patient in everyone}) == len(everyone)
    assert len({study.id for study in studies}) == len(studies)
    assert len(set(pictures)) == len(pictures)


def test_the_tiny_subset_has_enough_to_evaluate_on(patients: list[mimic_cxr.PatientPlan]) -> None:
    images = Counter[str]()
    positive: Counter[str] = Counter()
    for patient in patients:
        images[patient.split] += patient.images
        for study in patient.studies:
            if patient.split == "test":
                positive.update(n for n, value in study.findings.labels.items() if value == 1)

    assert 1300 < images.total() < 1700
    assert images["validate"] > 100
    assert min(positive[n] for n in ("edema", "cardiomegaly", "pleural-effusion")) >= 10


def test_given_labels_and_split_are_kept() -> None:
    wanted = dict.fromkeys(FINDINGS, None) | {"edema": 1, "consolidation": 0, "cardiomegaly": 0}
    patient = mimic_cxr.plan_patient(1_000_000, [wanted], split="test")

    assert patient.split == "test"
    labels = patient.studies[0].findings.labels
    assert (labels["edema"], labels["consolidation"], labels["cardiomegaly"]) == (1, 0, 0)
    assert patient.studies[0].report.startswith(" " * 34 + "FINAL REPORT")


def test_tables_have_the_real_columns(written: tuple[Path, dict[str, Any]]) -> None:
    root, _ = written

    def header(kind: str) -> list[str]:
        with gzip.open(root / f"mimic-cxr-2.0.0-{kind}.csv.gz", "rt") as file:
            return next(csv.reader(file))

    assert header("split") == ["dicom_id", "study_id", "subject_id", "split"]
    assert header("chexpert") == ["subject_id", "study_id", *LABELS]
    assert tuple(header("metadata")) == mimic_cxr.METADATA
    assert set(map(label_name, LABELS)) == set(FINDINGS)


def test_the_same_again_and_a_limited_one_is_part_of_it(
    written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    again, part = tmp_path / "again", tmp_path / "part"
    again.mkdir()
    part.mkdir()
    write(again, LIMIT)
    write(part, 8)

    assert hashes(again) == hashes(written[0])
    assert hashes(part, ".jpg").items() <= hashes(written[0], ".jpg").items()
    assert hashes(part, ".txt").items() <= hashes(written[0], ".txt").items()
    assert 0 < len(hashes(part, ".jpg")) <= 8
