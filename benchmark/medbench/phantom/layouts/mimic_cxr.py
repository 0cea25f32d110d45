"""MIMIC-CXR-JPG 2.0.0 on disk: JPEG files, gzipped tables, and the tree of reports.

Nothing of MIMIC-CXR can be shipped, so all of it is drawn: patients with numbers outside the real
ranges, labels in their published prevalences, and reports of real sentences. The sentences are
those of Open-i reports that iu-xray neither validates nor tests on, chosen so that a report states
the findings of its study and no others.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from medbench.data.mimic_cxr import LABELS, label_name
from medbench.data.report_findings import FINDINGS, ReportFindings, read_report
from medbench.phantom.chest import Chest, render
from medbench.phantom.openi_reports import drawn
from medbench.phantom.parallel import in_order
from medbench.phantom.scanner import XRAY_UNITS
from medbench.phantom.subset import stratified
from medbench.phantom.version import RENDERER_VERSION
from medbench.phantom.wording import Label, Stream, bank, compose

DATASET = "mimic-cxr"


@dataclass(frozen=True)
class Amounts:
    """Side of an image in pixels, and number of patients."""

    size: int
    patients: int


#: About 1,500, 6,000 and 20,000 images.
PRESETS = {"tiny": Amounts(128, 370), "small": Amounts(256, 1_480), "paper": Amounts(512, 4_930)}

#: Per cent of studies whose label is positive, negative, uncertain: round figures after the
#: CheXpert labeller's counts over the 227,827 studies of MIMIC-CXR-JPG 2.0.0 (arXiv 1901.07042).
PREVALENCE: Mapping[str, tuple[float, float, float]] = {
    "atelectasis": (20.1, 0.7, 4.5),
    "cardiomegaly": (19.7, 7.0, 2.7),
    "consolidation": (4.7, 3.5, 1.9),
    "edema": (11.9, 11.3, 5.8),
    "enlarged-cardiomediastinum": (3.2, 2.3, 4.1),
    "fracture": (1.9, 0.4, 0.2),
    "lung-lesion": (2.8, 0.4, 0.5),
    "lung-opacity": (22.6, 1.3, 1.7),
    "pleural-effusion": (23.8, 11.9, 2.6),
    "pleural-other": (0.9, 0.1, 0.3),
    "pneumonia": (7.3, 10.7, 8.0),
    "pneumothorax": (4.5, 18.6, 0.5),
    "support-devices": (29.2, 1.5, 0.1),
}
#: Share of studies in which nothing is found, so that "no finding" comes out at the published
#: 33 %: findings are drawn independently, and one study in twelve of the others has none either.
HEALTHY = 0.27
# Shares are cumulated from here on, as `Stream.weighed` takes them.
#: Splits in which evaluation has enough patients; published are 97.8, 0.8 and 1.4 % of images.
SPLITS = (("train", 0.7), ("validate", 0.8), ("test", 1.0))

#: Studies of a patient (real patients have 3.5 in the mean, a few of them over 100).
_STUDIES = ((1, 0.42), (2, 0.62), (3, 0.75), (4, 0.83), (5, 0.89), (6, 0.94), (7, 0.97), (8, 1.0))
_MOST_STUDIES = 8
#: Views of a study, by rounded frequency. LL is a left lateral; it and LATERAL both occur.
_VIEWS = (
    (("AP",), 0.45), (("PA", "LATERAL"), 0.74), (("PA", "LL"), 0.87), (("AP", "LATERAL"), 0.92),
    (("AP", "AP"), 0.95), (("PA",), 0.98), (("PA", "PA", "LATERAL"), 1.0),
)  # fmt: skip
_VIEW_CODES = {
    "AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral", "LL": "left lateral",
}  # fmt: skip
#: Columns of the metadata table.
METADATA = (
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition",
    "Rows", "Columns", "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip
#: Real subjects are 10000032 to 19999987 and studies 50000014 to 59999985.
_FIRST_ID, _IDS = 90_000_000, 9_999_991
_WIDTH = 78


@dataclass(frozen=True)
class Picture:
    """One image: its DICOM id and ViewPosition."""

    id: str
    view: str


@dataclass(frozen=True)
class StudyPlan:
    """One examination: what its report states is what its images show."""

    id: int
    findings: ReportFindings
    report: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class PatientPlan:
    """One patient. ``split`` is "train", "validate" or "test"."""

    id: int
    split: str
    age: int
    female: bool
    studies: tuple[StudyPlan, ...]

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(len(study.pictures) for study in self.studies)


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the phantom of mimic-cxr into ``root`` (see docs/phantoms.md)."""
    amounts = PRESETS[preset]
    everyone = [plan_patient(row) for row in range(amounts.patients)]
    return write_patients(root, limited(everyone, limit), size=amounts.size, advance=advance)


def limited(patients: Sequence[PatientPlan], limit: int | None) -> list[PatientPlan]:
    """Whole patients, stratified by split, that have at most ``limit`` images together."""
    if limit is None:
        return list(patients)
    kept: list[int] = []
    images = 0
    for row in stratified(DATASET, [patient.split for patient in patients]):
        images += patients[row].images
        if images > limit:
            if kept:
                break
            images = 0  # fewer than the first patient has: the next may have less
        else:
            kept.append(row)
    return [patients[row] for row in sorted(kept)]


def write_patients(
    root: Path,
    patients: Sequence[PatientPlan],
    *,
    size: int,
    advance: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write images, reports and tables of these patients; returns the facts of the phantom."""
    total = sum(patient.images for patient in patients)
    step = max(1, round(12 * (128 / size) ** 2))
    batches = [patients[start : start + step] for start in range(0, len(patients), step)]
    done, written = 0, 0

    def batch(some: Sequence[PatientPlan]) -> tuple[int, int]:
        return sum(patient.images for patient in some), _write_files(root, some, size)

    for number, count in in_order(batch, batches):
        done, written = done + number, written + count
        advance(done, total)
    _write_tables(root, patients, size)
    return {
        "renderer": RENDERER_VERSION,
        "patients": dict(Counter(patient.split for patient in patients)),
        "studies": sum(len(patient.studies) for patient in patients),
        "images": total,
        "image_size": size,
        "bytes": written,
        "real": ["sentences of the reports: Open-i reports that iu-xray does not evaluate on"],
        "drawn": [
            "subject, study and image ids, outside the real ranges",
            "labels, independently, in their published prevalences where there are sentences that "
            "say so; number of studies and views in round figures",
            "split by patient, 70/10/20 (published: 97.8/0.8/1.4 % of images)",
        ],
    }


def plan_patient(
    row: int, labels: Sequence[Mapping[str, Label]] | None = None, split: str | None = None
) -> PatientPlan:
    """Draw one patient, from the row number alone.

    Args:
        row: below 1,000,000 for this phantom; other phantoms take rows above it.
        labels: what the studies show, one each; None draws number and labels.
        split: None draws it.
    """
    draw = Stream(DATASET, "patient", row)
    subject = _number(row)
    drawn_split = draw.weighed(SPLITS)
    female = draw.below(0.48)
    age = 18 + int(72 * (draw.uniform() + draw.uniform()) / 2)
    if labels is None:
        labels = [
            draw_labels(Stream(DATASET, "labels", row * _MOST_STUDIES + index))
            for index in range(draw.weighed(_STUDIES))
        ]
    studies = tuple(
        _plan_study(row * _MOST_STUDIES + index, wanted, female)
        for index, wanted in enumerate(labels)
    )
    return PatientPlan(subject, split or drawn_split, age, female, studies)


def draw_labels(draw: Stream) -> dict[str, Label]:
    """Labels of one study: 1, 0, -1 or None; all of `FINDINGS`."""
    healthy = draw.below(HEALTHY)
    labels: dict[str, Label] = {}
    for name, (positive, negative, uncertain) in PREVALENCE.items():
        u, v = draw.uniform(), draw.uniform()
        ill = 1.0 if name == "support-devices" else 0.0 if healthy else 1 / (1 - HEALTHY)
        if u < ill * positive / 100:
            labels[name] = 1
        elif u < ill * (positive + uncertain) / 100:
            labels[name] = -1
        else:
            labels[name] = 0 if v < negative / (100 - positive - uncertain) else None
    found = any(labels[name] for name in PREVALENCE if name != "support-devices")
    return {name: labels.get(name, None if found else 1) for name in FINDINGS}


def _number(row: int) -> int:
    """Spreads rows over the range of ids; 7919 is prime to it, so no two rows meet."""
    return _FIRST_ID + (row * 7919 + 1234567) % _IDS


def _plan_study(row: int, wanted: Mapping[str, Label], female: bool) -> StudyPlan:
    draw = Stream(DATASET, "study", row)
    views: tuple[str, ...] = draw.weighed(_VIEWS)
    pictures = []
    for index, view in enumerate(views):
        digest = hashlib.sha256(f"{DATASET}|{row}|{index}".encode()).hexdigest()
        pictures.append(Picture("-".join(digest[n : n + 8] for n in range(0, 40, 8)), view))
    findings, impression = compose(Stream(DATASET, "words", row), wanted)
    stated = read_report(" ".join((*findings, *impression)))
    report = _report(Stream(DATASET, "report", row), views, findings, impression, female)
    return StudyPlan(_number(row), stated, report, tuple(pictures))


def _report(
    draw: Stream,
    views: Sequence[str],
    findings: Sequence[str],
    impression: Sequence[str],
    female: bool,
) -> str:
    words = bank()
    procedure, technique = _procedure(views)
    indication = draw.pick([*words.indications[female], *words.indications[None]])
    comparison = draw.pick(words.comparisons) if draw.below(0.7) else "None."
    lines = [" " * 33 + "FINAL REPORT"]
    for heading, text in (
        ("EXAMINATION", procedure),
        ("INDICATION", indication),
        ("TECHNIQUE", technique),
        ("COMPARISON", comparison),
    ):
        lines += [*textwrap.wrap(f"{heading}:  {text}", _WIDTH), ""]
    if draw.below(0.1):
        # Some real reports have an impression only.
        impression, findings = [*findings, *(s for s in impression if s not in findings)], ()
    for heading, sentences in (("FINDINGS", findings), ("IMPRESSION", impression)):
        if sentences:
            lines += [f"{heading}: ", "", *textwrap.wrap(" ".join(sentences), _WIDTH), ""]
    return "\n".join(f" {line}" if line else "" for line in lines).rstrip() + "\n"


def _procedure(views: Sequence[str]) -> tuple[str, str]:
    if views[0] == "AP":
        return "CHEST (PORTABLE AP)", "Portable AP view of the chest."
    if len(views) == 1:
        return "CHEST (SINGLE VIEW)", "Single PA view of the chest."
    return "CHEST (PA AND LAT)", "Chest PA and lateral."


def _folder(patient: PatientPlan) -> str:
    return f"files/p{str(patient.id)[:2]}/p{patient.id}"


def _write_files(root: Path, patients: Sequence[PatientPlan], size: int) -> int:
    """Draw and write images and reports of some patients; returns the bytes of the images."""
    chests, paths = [], []
    for patient in patients:
        for study in patient.studies:
            folder = root / _folder(patient) / f"s{study.id}"
            folder.mkdir(parents=True)
            report = root / "mimic-cxr-reports" / _folder(patient) / f"s{study.id}.txt"
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(study.report, encoding="utf-8")
            severity, sides = drawn(study.findings)
            for picture in study.pictures:
                paths.append(folder / f"{picture.id}.jpg")
                chests.append(
                    Chest(
                        patient=str(patient.id),
                        image=picture.id,
                        study=str(study.id),
                        view="frontal" if picture.view in ("AP", "PA") else "lateral",
                        age=patient.age,
                        female=patient.female,
                        findings=severity,
                        sides=sides,
                    )
                )
    written = 0
    for path, pixels in zip(paths, render(DATASET, chests, size, XRAY_UNITS[DATASET]), strict=True):
        Image.fromarray(pixels).save(path, quality=95)
        written += path.stat().st_size
    return written


def _write_tables(root: Path, patients: Sequence[PatientPlan], size: int) -> None:
    """The tables of MIMIC-CXR-JPG, with their columns in their order."""
    splits: list[Sequence[object]] = []
    metadata: list[Sequence[object]] = []
    labels: list[Sequence[object]] = []
    for patient in sorted(patients, key=lambda patient: patient.id):
        for study in sorted(patient.studies, key=lambda study: study.id):
            values = [study.findings.labels[label_name(name)] for name in LABELS]
            labels.append(
                [patient.id, study.id, *("" if v is None else f"{v:.1f}" for v in values)]
            )
            draw = Stream(DATASET, "time", study.id)
            # Dates of MIMIC are shifted into the years from 2105.
            date = f"{2105 + int(90 * draw.uniform())}{1 + int(12 * draw.uniform()):02d}"
            date += f"{1 + int(28 * draw.uniform()):02d}"
            time = f"{int(24 * draw.uniform()):02d}{int(60 * draw.uniform()):02d}30.0"
            procedure, _ = _procedure([picture.view for picture in study.pictures])
            erect = "Recumbent" if study.pictures[0].view == "AP" else "Erect"
            for picture in study.pictures:
                splits.append([picture.id, study.id, patient.id, patient.split])
                metadata.append(
                    [picture.id, patient.id, study.id, procedure, picture.view, size, size, date,
                     time, procedure, _VIEW_CODES[picture.view], erect]
                )  # fmt: skip
    _write_table(root, "split", ["dicom_id", "study_id", "subject_id", "split"], splits)
    _write_table(root, "metadata", METADATA, metadata)
    _write_table(root, "chexpert", ["subject_id", "study_id", *LABELS], labels)


def _write_table(
    root: Path, kind: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    # Without a time stamp, so that the same phantom has the same bytes.
    content = gzip.compress(text.getvalue().encode(), mtime=0)
    (root / f"mimic-cxr-2.0.0-{kind}.csv.gz").write_bytes(content)
