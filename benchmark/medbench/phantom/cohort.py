"""The COVID-CT-MD phantom cohort: who has what, and the slices each subject gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medbench.phantom.ct import Texture, Volume, render_ct, slice_heights
from medbench.phantom.disease import lobar_consolidation, multifocal_ground_glass
from medbench.phantom.draws import Draws, noise
from medbench.phantom.findings import Findings, Plan, confounders
from medbench.phantom.patient import Patients, sample_patients
from medbench.phantom.scanner import COVID_CT

DATASET = "covid-ct-md"
NORMAL, COVID, CAP = range(3)

#: Class, folder, prefix of the subject id, subjects, men, mean and sd of age: the dataset's README.
CLASSES = (
    (COVID, "COVID-19 subjects", "P", 169, 108, 51.96, 14.39),
    (CAP, "CAP subjects", "cap", 60, 35, 57.7, 21.7),
    (NORMAL, "Normal subjects", "normal", 76, 40, 43.4, 14.1),
)

#: Preset: image size, fewest and most slices; every preset has all 305 subjects.
PRESETS: dict[str, tuple[int, int, int]] = {
    "tiny": (64, 18, 30),
    "small": (128, 32, 48),
    "paper": (512, 96, 160),
}


@dataclass(frozen=True)
class Subject:
    """One subject: row in the seed, class, folder, id, sex and number in its class from 0."""

    row: int
    label: int
    folder: str
    name: str
    female: bool
    age_mean: float
    age_deviation: float
    number: int


def subjects(limit: int | None = None) -> list[Subject]:
    """The 305 subjects, or a stratified ``limit`` of them (one of each class when at least 3)."""
    total = sum(c[3] for c in CLASSES)
    quota = {c[0]: c[3] for c in CLASSES}
    if limit is not None and limit < total:
        quota = {c[0]: int(limit * c[3] / total) for c in CLASSES}
        if limit >= len(CLASSES):
            quota = {label: max(1, n) for label, n in quota.items()}
        while sum(quota.values()) > max(limit, 0):
            quota[max(quota, key=lambda label: quota[label])] -= 1
        while sum(quota.values()) < limit:
            quota[max(quota, key=lambda label: _size(label) * limit / total - quota[label])] += 1
    found, row = [], 0
    for label, folder, prefix, count, men, mean, deviation in CLASSES:
        # Exact numbers of men and women, in a shuffled order that never depends on the limit.
        order = np.argsort(Draws(DATASET, [label], "sex", count).uniform(shape=(count,))[0])
        for number in range(count):
            subject = Subject(
                row, label, folder, f"{prefix}{number + 1:03d}", bool(order[number] >= men),
                mean, deviation, number,
            )  # fmt: skip
            row += 1
            if number < quota[label]:
                found.append(subject)
    return found


def _size(label: int) -> int:
    return next(c[3] for c in CLASSES if c[0] == label)


@dataclass
class Cohort:
    """Some subjects, ready to be rendered.

    Attributes:
        subjects: who, in order.
        patients, findings: their bodies and what is wrong with them.
        owner, z: subject and height of each slice [S], from head to feet.
    """

    subjects: Sequence[Subject]
    patients: Patients
    findings: Findings
    owner: torch.Tensor
    z: torch.Tensor

    def __getitem__(self, index: slice) -> Cohort:
        """A run of subjects."""
        start, stop, _ = index.indices(len(self.subjects))
        keep = (self.owner >= start) & (self.owner < stop)
        return Cohort(
            self.subjects[start:stop],
            self.patients[index],
            self.findings[index],
            self.owner[keep] - start,
            self.z[keep],
        )

    def render(self, size: int, *, reference: bool = False, device: str = "cpu") -> Volume:
        """Draw all slices; ``reference`` leaves out disease and noise (what an oracle expects)."""
        rows = [s.row for s in self.subjects]
        quantum = None
        if not reference:
            counts = torch.bincount(self.owner, minlength=len(rows)).tolist()
            quantum = torch.cat(
                [
                    noise(DATASET, "quantum", row, (count, size, size))
                    for row, count in zip(rows, counts, strict=True)
                ]
            ).to(device)
        findings = self.findings.without_disease() if reference else self.findings
        return render_ct(
            self.patients, findings, self.owner, self.z, size, COVID_CT,
            Texture.draw(DATASET, rows, device), quantum,
        )  # fmt: skip


def build(members: Sequence[Subject], fewest: int, most: int) -> Cohort:
    """Sample bodies, findings and slice positions of the subjects."""
    rows = [s.row for s in members]
    label = np.array([s.label for s in members])
    draws = Draws(DATASET, rows, "person", 64)
    deviation = np.array([s.age_deviation for s in members])
    age = np.clip(np.array([s.age_mean for s in members]) + deviation * draws.normal(0, 1), 18, 90)
    counts = draws.integer(fewest, most + 1)
    female = np.array([float(s.female) for s in members])
    patients = sample_patients(Draws(DATASET, rows, "body", 900), age=age, female=female)
    plan = Plan(patients)
    rest = confounders(plan, Draws(DATASET, rows, "confounders", 128))
    multifocal_ground_glass(plan, Draws(DATASET, rows, "multifocal", 384), label == COVID)
    fluid = lobar_consolidation(plan, Draws(DATASET, rows, "lobar", 160), label == CAP)
    findings = Findings(
        lesions=plan.lesions(),
        effusion=torch.from_numpy(fluid.astype(np.float32)),
        pneumothorax=torch.zeros(len(rows), 2),
        **rest,
    )
    owner, z = slice_heights(patients, counts.tolist())
    return Cohort(members, patients, findings, owner, z)
