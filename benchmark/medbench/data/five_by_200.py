"""The 5x200 rule: 200 frontal images for each of five findings, each positive for that one alone.

GLoRIA (Huang et al., ICCV 2021) selects so from the train part of CheXpert: of the five findings of
the CheXpert competition exactly one is positive, the other four are absent or not mentioned (not
uncertain), and other labels, "no finding" included, are not looked at. MedCLIP does the same on
MIMIC-CXR. Both draw 200 of each at random. The list of the first was published, so it is read where
it is there; without a list, images are taken in the order of a hash of their ids, which is the same
on every machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medbench.data.folders import names_in
from medbench.data.samples import Sample
from medbench.data.tables import read_lines, read_table, refuse_rows, repeated
from medbench.errors import DataError
from medbench.phantom.write import MARKER

CLASSES = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural-effusion")
PER_CLASS = 200
#: A list of ids, one a line, that a folder may hold instead of a published table.
IDS = "ids.txt"


def class_of(sample: Sample) -> str | None:
    """The one of `CLASSES` that a sample is a candidate for, or None.

    Candidates are frontal, have exactly one of the five labels 1, and the others 0 or None.
    """
    if sample.view not in ("PA", "AP", "frontal"):
        return None
    return only_positive(sample.labels)


def only_positive(labels: Mapping[str, int | None]) -> str | None:
    """The one of `CLASSES` that is 1 while the others are 0 or None; else None."""
    values = [labels.get(name) for name in CLASSES]
    if values.count(1) != 1 or -1 in values:
        return None
    return CLASSES[values.index(1)]


def choose(samples: Sequence[Sample], per_class: int = PER_CLASS) -> dict[str, list[Sample]]:
    """Of each class the first ``per_class`` candidates by hash of their ids, or all there are."""
    candidates: dict[str, list[Sample]] = {name: [] for name in CLASSES}
    for sample in samples:
        name = class_of(sample)
        if name is not None:
            candidates[name].append(sample)
    return {
        name: sorted(found, key=lambda sample: _rank(sample.id))[:per_class]
        for name, found in candidates.items()
    }


def by_rule(samples: Sequence[Sample], root: Path) -> list[Sample]:
    """The 5x200 samples of a dataset, by class.

    Args:
        samples: its images.
        root: its folder. In that of a phantom, which is smaller than the real dataset, there may be
            fewer than 200 of each class, but as many of each.

    Raises:
        DataError: a class has fewer than 200 candidates; in a phantom, none.
    """
    chosen = choose(samples)
    fewest = min(len(found) for found in chosen.values())
    if fewest < (1 if (root / MARKER).is_file() else PER_CLASS):
        counts = ", ".join(f"{name} {len(found)}" for name, found in chosen.items())
        raise DataError(
            f"{root} has too few images that are positive for one of the five findings alone: "
            f"{counts}; {PER_CLASS} of each are needed. Is the dataset complete? A part of it can "
            f"be used with a list of its images, one id a line, in {root / IDS}."
        )
    return [evaluated(sample, name) for name, found in chosen.items() for sample in found[:fewest]]


def by_list(samples: Sequence[Sample], ids: Sequence[str], source: Path) -> list[Sample]:
    """The listed samples, in the order of the list.

    Args:
        samples: the images of the dataset.
        ids: of the wanted ones.
        source: where the list was read, for messages.

    Raises:
        DataError: an id twice, of no sample, or of one that the rule excludes; a class without any.
    """
    refuse_rows(source, "an image that another row has too", repeated(ids), ids)
    known = {sample.id: sample for sample in samples}
    refuse_rows(
        source, "an image that the dataset's tables do not have",
        [number for number, name in enumerate(ids) if name not in known], ids,
    )  # fmt: skip
    names = [class_of(known[name]) for name in ids]
    refuse_rows(
        source, "an image that is not frontal and positive for exactly one of the five findings",
        [number for number, name in enumerate(names) if name is None], ids,
    )  # fmt: skip
    counts = Counter(names)
    without = [name for name in CLASSES if not counts[name]]
    if without:
        raise DataError(f"{source} lists no image of {', '.join(without)}. Complete the list.")
    return [evaluated(known[i], name) for i, name in zip(ids, names, strict=True) if name]


def read_ids(root: Path, table: str, column: str) -> tuple[Path, list[str]] | None:
    """The list that a folder holds: column ``column`` of ``table``, or the lines of ids.txt.

    Returns:
        Where it was read, and its entries; None when there is no list. Raises DataError.
    """
    names = names_in(str(root))
    if table in names:
        found = read_table(root / table, (column,))
        return found.path, found.column(column)
    if IDS in names:
        return root / IDS, read_lines(root / IDS)
    return None


def evaluated(sample: Sample, name: str) -> Sample:
    """The sample with the five labels, one of them 1, in split "test": it is for evaluation."""
    return replace(sample, labels={other: int(other == name) for other in CLASSES}, split="test")


def _rank(name: str) -> bytes:
    return hashlib.sha256(f"5x200|{name}".encode()).digest()
