"""COVID-CT-MD on disk: three subject folders of DICOM series, Index.csv, slice and lobe labels."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medbench.phantom.anatomy import lobe_of
from medbench.phantom.cohort import (
    CAP,
    CLASSES,
    COVID,
    DATASET,
    PRESETS,
    Cohort,
    Subject,
    build,
    subjects,
)
from medbench.phantom.dicom import Series, write_series
from medbench.phantom.draws import Draws
from medbench.phantom.findings import INFECTION
from medbench.phantom.parallel import in_order
from medbench.phantom.scanner import COVID_CT
from medbench.phantom.version import RENDERER_VERSION

Labels = npt.NDArray[np.uint8]

#: Subjects with slice and lobe labels, from the dataset's README.
LABELLED = {COVID: 54, CAP: 25}
#: The published Index.csv skips this label index.
_SKIPPED_INDEX = 43


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the phantom of COVID-CT-MD into ``root`` (see docs/phantoms.md)."""
    size, fewest, most = PRESETS[preset]
    members = subjects(limit)
    # Sampling pays in large batches, rendering in ones whose temporaries fit the cache.
    chunk = max(1, round(4 * (64 / size) ** 2 * 30 / most))
    large = 5 * chunk
    labels: dict[int, Labels] = {}
    files, done = 0, 0

    def batch(start: int) -> tuple[int, int, dict[int, Labels]]:
        cohort = build(members[start : start + large], fewest, most)
        return _write_batch(root, cohort, size, chunk)

    for number, written, found in in_order(batch, range(0, len(members), large)):
        files, done = files + written, done + number
        labels.update(found)
        advance(done, len(members))
    _write_labels(root, labels, members)
    return {
        "renderer": RENDERER_VERSION,
        "subjects": {c[1]: sum(s.label == c[0] for s in members) for c in CLASSES},
        "files": files,
        "image_size": size,
        "slices": [fewest, most],
        "from_published_prevalences": [
            "number of subjects, sex and age by class",
            "side, lobe, depth, density and number of lesions by class",
        ],
        "annotations": "slice and lobe labels are computed from the drawn lesions",
    }


def _write_batch(
    root: Path, cohort: Cohort, size: int, chunk: int
) -> tuple[int, int, dict[int, Labels]]:
    """Write some subjects; returns how many, their number of files, and their labels by index."""
    labels: dict[int, Labels] = {}
    files = 0
    for start in range(0, len(cohort.subjects), chunk):
        part = cohort[start : start + chunk]
        hu = part.render(size).hu.numpy()
        files += len(hu)
        for index, subject in enumerate(part.subjects):
            slices = torch.nonzero(part.owner == index)[:, 0]
            _write_subject(root, part, index, hu[slices[0] : slices[-1] + 1], size)
            if subject.number < LABELLED.get(subject.label, 0):
                labels[_label_index(subject.label, subject.number)] = infected(part, index)
    return len(cohort.subjects), files, labels


def _write_subject(
    root: Path, cohort: Cohort, index: int, hu: npt.NDArray[np.float32], size: int
) -> None:
    subject = cohort.subjects[index]
    heights = cohort.z[cohort.owner == index].tolist()
    folder = root / subject.folder / subject.name
    folder.mkdir(parents=True)
    series = Series(
        dataset=DATASET,
        subject=subject.name,
        female=subject.female,
        age=round(float(cohort.patients.age[index])),
        scanner=COVID_CT,
        size=size,
        spacing=abs(heights[0] - heights[1]),
    )
    write_series(series, folder, file_names(subject.row, len(heights)), heights, hu)


def file_names(row: int, count: int) -> list[str]:
    """Names of the files of a subject, slice by slice: numbered in no anatomical order."""
    order = np.argsort(Draws(DATASET, [row], "names", count).uniform(shape=(count,))[0])
    if (np.diff(order) > 0).all() or (np.diff(order) < 0).all():
        order = np.roll(order, 1)
    return [f"IM{int(number) + 1:04d}.dcm" for number in order]


def infected(cohort: Cohort, index: int) -> Labels:
    """Lobe labels of one subject, uint8 [S, 5] in order of SliceLocation, lowest first.

    A slice shows infection in a lobe when it cuts a marked lesion of that lobe well inside.
    """
    lesions = cohort.findings.lesions
    heights = cohort.z[cohort.owner == index].flip(0)
    marks = np.zeros((len(heights), 5), dtype=np.uint8)
    for number in torch.nonzero((lesions.owner == index) & lesions.marked)[:, 0].tolist():
        if int(lesions.kind[number]) not in INFECTION:
            continue
        centre, radii = lesions.centre[number], lesions.radii[number]
        cut = (heights - centre[2]).abs() < 0.8 * radii[2]
        position = centre.repeat(len(heights), 1)
        position[:, 2] = heights
        lobe = lobe_of(cohort.patients, torch.full((len(heights),), index), position)
        if int(lesions.lobe[number]) >= 0:
            lobe = torch.full_like(lobe, int(lesions.lobe[number]))
        marks[cut.numpy(), lobe[cut].numpy()] = 1
    return marks


def _label_index(label: int, number: int) -> int:
    if label == COVID:
        return number + (number >= _SKIPPED_INDEX)
    return LABELLED[COVID] + 1 + number


def _write_labels(root: Path, labels: dict[int, Labels], members: list[Subject]) -> None:
    rows = LABELLED[COVID] + 1 + LABELLED[CAP]
    deepest = max((len(v) for v in labels.values()), default=0)
    lobes = np.zeros((rows, deepest, 5), dtype=np.uint8)
    for index, value in labels.items():
        lobes[index, : len(value)] = value
    np.save(root / "Lobe-level-labels-updated-1.npy", lobes, allow_pickle=False)
    np.save(root / "Slice-level-labels-updated-1.npy", lobes.max(-1), allow_pickle=False)
    with (root / "Index.csv").open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["Label Index", "Diagnosis", "Relative Path", "Folder/ID"])
        for subject in members:
            if subject.number < LABELLED.get(subject.label, 0):
                name = subject.folder.removesuffix(" subjects")
                index = _label_index(subject.label, subject.number)
                table.writerow([index, name, f"./{name}/", subject.name])
