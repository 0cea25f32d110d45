"""NIH ChestX-ray14 on disk: its two tables, two lists, and PNG files.

Rows of the tables are real ones, of whole patients, and so are the boxes. The official lists are
not in the package that carries them, so they are derived by rule: by patient, in the published
proportion.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from medbench.data.nih_chestxray14 import (
    BOXES,
    LABELS,
    LISTS,
    TABLES,
    read_boxes,
    read_entries,
    to_samples,
)
from medbench.data.samples import Box, Sample
from medbench.phantom.chest import Chest
from medbench.phantom.draws import seed
from medbench.phantom.radiograph_files import draw_files, whole_patients
from medbench.phantom.shipped import shipped
from medbench.phantom.version import RENDERER_VERSION

DATASET = "nih-chestxray14"
#: Preset to side of the images in pixels, and number of images.
PRESETS = {"tiny": (128, 1_800), "small": (256, 6_000), "paper": (1024, 20_000)}
#: Patients with more images are left out, so that a small phantom has many patients.
MOST_IMAGES = 5
#: Published numbers of images: the share of the test list.
TEST_SHARE = 25_596 / 112_120
#: Of so many patients in the order of preference, one is taken for each finding (its stratum is
#: the rarest finding of any of the images) and the others have none. So rare findings, such as 227
#: hernias among 112,120 images, are frequent enough to be scored.
_TURN = 20


@dataclass(frozen=True)
class RealTable:
    """The real table and boxes: headers, rows as text, samples, and boxes by image."""

    header: str
    lines: Sequence[str]
    samples: Sequence[Sample]
    box_header: str
    box_lines: Sequence[str]
    boxes: Mapping[str, tuple[Box, ...]]


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the phantom of NIH ChestX-ray14 into ``root`` (see docs/phantoms.md)."""
    size, count = PRESETS[preset]
    table = real_table()
    patients = choose(table, count, limit)
    numbers = [n for n, sample in enumerate(table.samples) if sample.patient in patients]
    samples = [table.samples[number] for number in numbers]
    images = {sample.id for sample in samples}
    boxes = [line for line in table.box_lines if line.partition(",")[0] in images]
    _write_lines(root / TABLES[0], [table.header, *(table.lines[number] for number in numbers)])
    if boxes:
        _write_lines(root / BOXES, [table.box_header, *boxes])
    lists = {
        name: [s.id for s in samples if patients[str(s.patient)] == split]
        for name, split in LISTS.items()
    }
    if all(lists.values()):  # a phantom of one patient has no lists
        for name, listed in lists.items():
            _write_lines(root / name, listed)
    chests = [chest_of(sample, table.boxes.get(sample.id, ())) for sample in samples]
    del table  # hundreds of megabytes
    paths = [f"images/{sample.id}" for sample in samples]
    written = draw_files(root, DATASET, chests, paths, size, advance)
    return {
        "renderer": RENDERER_VERSION,
        "images": len(samples),
        "patients": len(patients),
        "test": len(lists["test_list.txt"]),
        "boxes": len(boxes),
        "image_size": size,
        "bytes": written,
        "subset": f"whole patients with at most {MOST_IMAGES} images; of 20 patients in turn 14 "
        "have each a finding as their rarest one, those with boxes before every other one without, "
        "and 6 have none",
        "real": ["rows of the table: ids, findings, age, sex, view, size, spacing", "boxes"],
        "by_rule": [
            "the two lists: by patient, within each stratum, in the published proportion; the "
            "official lists are not in the package"
        ],
        "frame": "boxes in pixels of 1024 x 1024 as published, whatever the image size",
    }


def real_table() -> RealTable:
    """The tables that torchxrayvision carries."""
    entries, boxes = shipped(f"{TABLES[0]}.gz"), shipped(f"{BOXES}.gz")
    header, *lines = gzip.decompress(entries.read_bytes()).decode().splitlines()
    box_header, *box_lines = gzip.decompress(boxes.read_bytes()).decode().splitlines()
    table = read_entries(entries)
    images = dict.fromkeys(table.column("Image Index"), "images")
    samples = to_samples(table, images, {}, {})
    return RealTable(
        header, lines, samples, box_header, box_lines, read_boxes(boxes, set(images))[0]
    )


def choose(table: RealTable, count: int, limit: int | None) -> dict[str, str]:
    """Patients of the phantom to their split.

    Args:
        table: the real one.
        count: images of the whole phantom.
        limit: at most this many images; patients are among those of the whole, in their splits.
    """
    order, sizes = _order(table)
    chosen = whole_patients(((patient, sizes[patient]) for patient in order), count)
    if limit is not None:
        chosen = whole_patients(((patient, sizes[patient]) for patient in chosen), limit)
    return {patient: order[patient] for patient in chosen}


def chest_of(sample: Sample, boxes: tuple[Box, ...]) -> Chest:
    """What is drawn of a sample: its findings, inside its boxes where it has some."""
    return Chest(
        patient=str(sample.patient),
        image=sample.id,
        age=sample.age,
        female=None if sample.sex is None else sample.sex == "F",
        findings={name: 1.0 for name in LABELS if sample.labels[name] == 1},
        boxes=boxes,
    )


def _order(table: RealTable) -> tuple[Mapping[str, str], Mapping[str, int]]:
    """Patients in the order of preference, to their split; and their numbers of images."""
    sizes: dict[str, int] = {}
    found: dict[str, set[str]] = {}
    boxed: set[str] = set()
    totals = dict.fromkeys(LABELS, 0)
    for sample in table.samples:
        patient = str(sample.patient)
        sizes[patient] = sizes.get(patient, 0) + 1
        findings = [name for name in LABELS if sample.labels[name] == 1]
        found.setdefault(patient, set()).update(findings)
        for name in findings:
            totals[name] += 1
        if sample.id in table.boxes:
            boxed.add(patient)
    rarest = sorted(LABELS, key=totals.__getitem__)
    strata: dict[str, list[str]] = {name: [] for name in (*rarest, "")}
    for patient in sorted(sizes, key=lambda patient: seed(DATASET, "subset", int(patient))):
        if sizes[patient] <= MOST_IMAGES:
            strata[next((n for n in rarest if n in found[patient]), "")].append(patient)
    queues = {name: _alternate(members, boxed) for name, members in strata.items()}
    splits: dict[str, str] = {}
    for place, members in enumerate(queues.values()):
        # Strata begin at different phases, so that a small phantom has test patients too.
        phase = (0.7 + place * 0.618) % 1
        for rank, patient in enumerate(members):
            test = int((rank + 1) * TEST_SHARE + phase) > int(rank * TEST_SHARE + phase)
            splits[patient] = "test" if test else "train"
    # "" comes up in 6 places of a turn, spread evenly.
    free = _TURN - len(rarest)
    turn: list[str] = []
    for place, name in enumerate(rarest):
        turn.append(name)
        if (place + 1) * free // len(rarest) > place * free // len(rarest):
            turn.append("")
    waiting = {name: iter(members) for name, members in queues.items()}
    order: dict[str, str] = {}
    while len(order) < len(splits):
        for name in turn:
            upcoming = next(waiting[name], None)
            if upcoming is not None:
                order[upcoming] = splits[upcoming]
    return order, sizes


def _alternate(members: Sequence[str], boxed: set[str]) -> list[str]:
    """Patients with boxes and without by turns, as long as there are both."""
    with_boxes = [patient for patient in members if patient in boxed]
    without = [patient for patient in members if patient not in boxed]
    pairs = zip_longest(with_boxes, without)
    return [patient for pair in pairs for patient in pair if patient is not None]


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
