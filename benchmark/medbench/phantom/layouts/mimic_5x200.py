"""MIMIC 5x200 on disk: a MIMIC-CXR-JPG folder whose images the 5x200 rule picks, and their list.

All of it is drawn, as the phantom of MIMIC-CXR is, from rows of their own: no patient is in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medbench.data.five_by_200 import CLASSES, only_positive
from medbench.data.mimic_5x200 import LIST
from medbench.phantom.draws import seed
from medbench.phantom.layouts.chexpert_5x200 import per_class
from medbench.phantom.layouts.mimic_cxr import (
    PatientPlan,
    draw_labels,
    plan_patient,
    write_patients,
)
from medbench.phantom.wording import Stream

DATASET = "mimic-5x200"
#: Preset to side of the images in pixels. Every preset has all images.
PRESETS = {"tiny": 128, "small": 256, "paper": 512}
#: Rows of `mimic_cxr.plan_patient` that are this phantom's.
_FIRST_ROW = 1_000_000
#: A study whose report cannot be worded as its labels want it is drawn again from the next row.
_TRIES = 50


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the phantom of MIMIC 5x200 into ``root`` (see docs/phantoms.md).

    Raises:
        UsageError: a limit below 5 images, one of each class.
    """
    each = per_class(limit)
    patients = [plan(name, number) for name in CLASSES for number in range(each)]
    facts = write_patients(root, patients, size=PRESETS[preset], advance=advance)
    ids = [patient.studies[0].pictures[0].id for patient in patients]
    (root / LIST).write_text("\n".join(["dicom_id", *ids]) + "\n", encoding="utf-8")
    facts["drawn"] = [
        "subject, study and image ids, outside the real ranges",
        "labels: one of the five findings alone, other labels in their published prevalences",
        "one patient with one frontal image for each row of the list, in split test",
    ]
    return {**facts, "per_class": each}


def plan(name: str, number: int) -> PatientPlan:
    """A patient with one frontal image whose report states one of the five findings alone."""
    first = _FIRST_ROW + (CLASSES.index(name) * 10_000 + number) * _TRIES
    for row in range(first, first + _TRIES):
        patient = plan_patient(row, [_labels(name, row)], "test")
        study = patient.studies[0]
        if only_positive(study.findings.labels) == name:
            # The first image of a study is a frontal one.
            return replace(patient, studies=(replace(study, pictures=study.pictures[:1]),))
    raise AssertionError(f"no report for {name}, row {number}")


def _labels(name: str, row: int) -> Mapping[str, int | None]:
    """Labels of a study of MIMIC-CXR, but of the five findings this one alone is present."""
    drawn = draw_labels(Stream(DATASET, "labels", row))
    absent = seed(DATASET, "absent", row)
    for bit, other in enumerate(CLASSES):
        # The others are said to be absent or not mentioned, about as often.
        drawn[other] = 1 if other == name else 0 if absent >> bit & 1 else None
    drawn["no-finding"] = None
    return drawn
