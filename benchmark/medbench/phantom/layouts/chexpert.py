"""CheXpert on disk, in the layout of v1.0-small: train.csv, valid.csv and JPEG files.

Rows of train.csv are real ones, of whole patients. The real valid.csv is not in the package that
carries them, so it is drawn: its rows take their labels from real rows without uncertain ones.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medbench.data.chexpert import LABELS, read_samples
from medbench.data.five_by_200 import CLASSES, choose
from medbench.data.samples import Sample
from medbench.phantom.chest import UNCERTAIN, Chest
from medbench.phantom.draws import seed
from medbench.phantom.radiograph_files import draw_files, whole_patients
from medbench.phantom.shipped import shipped
from medbench.phantom.subset import stratified
from medbench.phantom.version import RENDERER_VERSION

DATASET = "chexpert"
#: Preset to side of the images in pixels (v1.0-small has 390 on the long side), and number of
#: images in train.csv.
PRESETS = {"tiny": (128, 5_400), "small": (256, 9_766), "paper": (390, 19_766)}
#: Patients with more images are left out, so that a small phantom has many patients.
MOST_IMAGES = 2
#: As published: 200 patients with 234 images. Every sixth has a lateral image too.
VALID_PATIENTS, _LATERAL_EVERY = 200, 6
#: Real patients are 00001 to 64540 in train and follow on in valid and test.
_FIRST_VALID = 90_001
_PREFIX = "CheXpert-v1.0-small/"

#: The rarest first: a patient belongs to the first stratum that any of the images is positive for.
_STRATA = ("consolidation", "cardiomegaly", "atelectasis", "edema", "pleural-effusion")
_NAMES = {"pleural-effusion": "effusion"}
#: Labels that say no more than that one of these is there: not drawn a second time.
_IMPLIED: Mapping[str, Sequence[str]] = {
    "lung-opacity": ("edema", "consolidation", "pneumonia", "atelectasis", "lung-lesion"),
    "enlarged-cardiomediastinum": ("cardiomegaly",),
}


@dataclass(frozen=True)
class RealTable:
    """The real train.csv: its header, its rows as text, and as samples."""

    header: str
    lines: Sequence[str]
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Row:
    """A row of a phantom's table: its text, and what is drawn of it."""

    line: str
    path: str
    chest: Chest


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the phantom of CheXpert into ``root`` (see docs/phantoms.md)."""
    size, count = PRESETS[preset]
    table = real_table()
    train, valid = rows(table, count, limit)
    write_table(root / "train.csv", table.header, train)
    if valid:  # a phantom limited to a few images may have none
        write_table(root / "valid.csv", table.header, valid)
    del table  # hundreds of megabytes
    both = [*train, *valid]
    written = draw_files(
        root, DATASET, [row.chest for row in both], [row.path for row in both], size, advance
    )
    return {
        "renderer": RENDERER_VERSION,
        "images": len(both),
        "train": len(train),
        "valid": len(valid),
        "patients": len({row.chest.patient for row in both}),
        "image_size": size,
        "bytes": written,
        "subset": f"whole patients with at most {MOST_IMAGES} images, none of chexpert-5x200, "
        "equally many for each rarest of the five competition labels that they are positive for, "
        "and for none: so a hundredth of the labels still has five patients of each",
        "real": ["rows of train.csv: paths, labels, age, sex, views"],
        "drawn": [
            "valid.csv: labels, age, sex and view of each patient are those of a real row without "
            "uncertain labels (blank as 0); half of the patients from all such rows, a tenth each "
            "from those positive for each of the five labels; patients from patient90001"
        ],
    }


def real_table() -> RealTable:
    """The table that torchxrayvision carries."""
    path = shipped("chexpert_train.csv.gz")
    header, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return RealTable(header, lines, read_samples(path, Path(), "train"))


def rows(table: RealTable, count: int, limit: int | None) -> tuple[list[Row], list[Row]]:
    """Rows of train.csv and valid.csv, in the order of the real table and of the patients.

    Args:
        table: the real one.
        count: images of train in the whole phantom.
        limit: at most this many images together, in the proportion of the whole; the rows are
            among those of the whole.
    """
    sizes = Counter(str(sample.patient) for sample in table.samples)
    chosen = whole_patients(((name, sizes[name]) for name in _order(table)), count)
    pools = _pools(table)
    valid = [_valid(table, pools[min(k % 10, 5)], k) for k in range(VALID_PATIENTS)]
    if limit is not None:
        total = sum(map(len, valid))
        part = min(total, round(limit * total / (count + total)))
        chosen = whole_patients(((name, sizes[name]) for name in chosen), limit - part)
        while sum(map(len, valid)) > part:
            valid.pop()
    kept = set(chosen)
    train = [
        Row(line, sample.id, chest_of(sample))
        for line, sample in zip(table.lines, table.samples, strict=True)
        if sample.patient in kept
    ]
    return train, [row for images in valid for row in images]


def chest_of(sample: Sample) -> Chest:
    """What is drawn of a sample: what it is positive for, and faintly what is uncertain."""
    severity = {
        name: 1.0 if value == 1 else UNCERTAIN
        for name, value in sample.labels.items()
        if value in (1, -1) and name != "no-finding"
    }
    for name, reasons in _IMPLIED.items():
        if severity.get(name, 0) <= max(severity.get(reason, 0) for reason in reasons):
            severity.pop(name, None)
    return Chest(
        patient=str(sample.patient),
        image=sample.id,
        study=sample.study or "",
        view="lateral" if sample.view == "lateral" else "frontal",
        age=sample.age,
        female=None if sample.sex is None else sample.sex == "F",
        findings={_NAMES.get(name, name): value for name, value in severity.items()},
    )


def write_table(path: Path, header: str, some: Sequence[Row]) -> None:
    """Write a table of CheXpert."""
    path.write_text("\n".join([header, *(row.line for row in some)]) + "\n", encoding="utf-8")


def _order(table: RealTable) -> Sequence[str]:
    """Patients of the phantom in the order of preference: every beginning has equally many of each
    stratum."""
    held_out = {s.patient for found in choose(table.samples).values() for s in found}
    sizes = Counter(str(sample.patient) for sample in table.samples)
    positive: dict[str, set[str]] = {}
    for sample in table.samples:
        patient = str(sample.patient)
        if sizes[patient] <= MOST_IMAGES and patient not in held_out:
            found = positive.setdefault(patient, set())
            found.update(name for name in _STRATA if sample.labels[name] == 1)
    patients = sorted(positive)
    strata = [
        next((name for name in _STRATA if name in positive[patient]), "") for patient in patients
    ]
    return [patients[number] for number in stratified(DATASET, strata, balanced=True)]


def _pools(table: RealTable) -> Sequence[Sequence[int]]:
    """Rows that valid.csv may take its labels from: positive for each of the five, and all."""
    samples = table.samples
    certain = [
        number
        for number, sample in enumerate(samples)
        if sample.view in ("AP", "PA") and sample.sex and -1 not in sample.labels.values()
    ]
    return [*([n for n in certain if samples[n].labels[name] == 1] for name in CLASSES), certain]


def _valid(table: RealTable, pool: Sequence[int], number: int) -> list[Row]:
    """The images of a patient of valid.csv: a frontal one, and of every sixth a lateral one."""
    source = pool[seed(DATASET, "valid", number) % len(pool)]
    sample, cells = table.samples[source], table.lines[source].split(",")
    labels = {name: int(value == 1) for name, value in sample.labels.items()}
    values = ",".join(f"{labels[name]:.1f}" for name in LABELS)
    patient = f"patient{_FIRST_VALID + number}"
    found = []
    for view in range(1 + (number % _LATERAL_EVERY == 0)):
        side = "lateral" if view else "frontal"
        path = f"valid/{patient}/study1/view{view + 1}_{side}.jpg"
        described = f"{cells[1]},{cells[2]},{side.title()},{'' if view else cells[4]}"
        drawn = Sample(
            path, patient, (), labels, study=f"{patient}/study1", age=sample.age, sex=sample.sex,
            view="lateral" if view else sample.view,
        )  # fmt: skip
        found.append(Row(f"{_PREFIX}{path},{described},{values}", path, chest_of(drawn)))
    return found
