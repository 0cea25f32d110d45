"""COVID-CT-MD: chest CT of COVID-19, community-acquired pneumonia (CAP) and normal subjects.

Layout, as published (Afshar et al., Scientific Data 2021, doi 10.1038/s41597-021-00900-3)::

    <root>/COVID-19 subjects/P001/*.dcm
    <root>/CAP subjects/cap001/*.dcm
    <root>/Normal subjects/normal001/*.dcm
    <root>/Index.csv                     optional: who has slice labels
    <root>/Slice-level-labels.npy        optional: 0/1 [cases, slices]

Copies in circulation call the folders "COVID-19 Cases", "Cap Cases", "Normal Cases" or just
"COVID-19", "CAP", "Normal"; all are read.
"""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medbench.data.dicom import is_dicom, read_series, to_window
from medbench.data.samples import Pixels, Sample
from medbench.errors import DataError
from medbench.phantom.hounsfield import LUNG_WINDOW

logger = logging.getLogger("medbench")

CLASSES = ("normal", "covid-19", "cap")
LAYOUT = "'COVID-19 subjects/<ID>/*.dcm', 'CAP subjects/<ID>/*.dcm', 'Normal subjects/<ID>/*.dcm'"

_FOLDERS = {"normal": "normal", "covid19": "covid-19", "covid": "covid-19", "cap": "cap"}


class CovidCtMd:
    """Reader of COVID-CT-MD: a sample is a patient's volume, labelled with one of ``CLASSES``.

    ``root`` holds the three subject folders, or is the folder around the one that does.
    """

    def __init__(self, root: Path) -> None:
        self.root = _base(Path(root))
        self._slice_labels: dict[str, npt.NDArray[np.int8]] | None = None
        self._samples: tuple[Sample, ...] | None = None

    def samples(self) -> Sequence[Sample]:
        """One sample per subject folder, by class and name. Sample id = patient = folder name.

        Raises:
            DataError: a class without subjects, subjects without DICOM, one ID in two classes.
        """
        if self._samples is None:
            self._samples = tuple(self._list())
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """float32 [S, H, W] in [0, 1]: the lung window, slices by ascending SliceLocation.

        Raises:
            DataError: see `medbench.data.dicom.read_series`.
        """
        return to_window(read_series(sample.files), LUNG_WINDOW)

    def slice_labels(self, sample: Sample) -> npt.NDArray[np.int8] | None:
        """Radiologists' label of each slice, in the order of `pixels`.

        Returns:
            int8 [S], 1 where a slice shows infection; None for a subject without slice labels.

        Raises:
            DataError: label files that contradict each other or the series.
        """
        if self._slice_labels is None:
            self._slice_labels = _read_slice_labels(self.root)
        row = self._slice_labels.get(sample.id.lower())
        if row is None:
            return None
        count = len(sample.files)
        if len(row) < count or row[count:].any():
            labelled = len(row) if len(row) < count else int(np.flatnonzero(row)[-1]) + 1
            raise DataError(
                f"Subject {sample.id} in {self.root} has {count} slices, but its slice labels "
                f"speak of {labelled}. The series or the label file is incomplete; copy both again."
            )
        return row[:count]

    def _list(self) -> list[Sample]:
        samples: list[Sample] = []
        empty: list[Path] = []
        seen: dict[str, Path] = {}
        folders = _class_folders(self.root)
        for name in CLASSES:
            folder = folders[name]
            subjects = sorted(p for p in _entries(folder) if p.is_dir())
            if not subjects:
                raise DataError(f"{folder} has no subject folders. Expected in it: <ID>/*.dcm.")
            for subject in subjects:
                files = tuple(sorted(p for p in _entries(subject) if is_dicom(p)))
                if not files:
                    empty.append(subject)
                if subject.name in seen:
                    raise DataError(
                        f"Subject {subject.name} is in {seen[subject.name].parent} and in "
                        f"{folder}; a patient has one diagnosis here. Remove or rename one."
                    )
                seen[subject.name] = subject
                labels = {other: int(other == name) for other in CLASSES}
                samples.append(
                    Sample(subject.name, subject.name, files, labels=labels, kind="volume")
                )
        if empty:
            named = ", ".join(str(path) for path in empty[:5])
            more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
            raise DataError(
                f"Subject folders without DICOM files (*.dcm) directly in them: {named}{more}. "
                f"Expected layout: {LAYOUT}. Complete or remove these folders."
            )
        return samples


def _base(root: Path) -> Path:
    """The folder that holds the three class folders: ``root`` or one folder inside it."""
    if not root.exists():
        raise DataError(f"{root} does not exist. Give the folder that holds {LAYOUT}.")
    if not root.is_dir():
        raise DataError(f"{root} is a file. Give the folder that holds {LAYOUT}.")
    entries = _entries(root)
    if not entries:
        raise DataError(f"{root} is empty. COVID-CT-MD is expected in it as {LAYOUT}.")
    found = _class_folders(root)
    if len(found) == len(CLASSES):
        return root
    if not found:
        inside = [child for child in entries if child.is_dir() and len(_class_folders(child)) == 3]
        if len(inside) == 1:
            return inside[0]
        if inside:
            raise DataError(
                f"{root} holds several copies of COVID-CT-MD: "
                f"{', '.join(child.name for child in inside)}. Give one of them."
            )
    missing = [name for name in CLASSES if name not in found]
    raise DataError(
        f"{root} is not COVID-CT-MD: no folder for {', '.join(missing)}. Expected layout: {LAYOUT}."
    )


def _class_folders(folder: Path) -> dict[str, Path]:
    """Class name to folder, by the spellings in circulation."""
    found: dict[str, Path] = {}
    for child in _entries(folder):
        key = re.sub(r"[^a-z0-9]", "", child.name.lower())
        key = re.sub(r"(subjects?|cases?|patients?)$", "", key)
        name = _FOLDERS.get(key)
        if name is None or not child.is_dir():
            continue
        if name in found:
            raise DataError(
                f"{found[name]} and {child} both look like the folder of class '{name}'. Keep "
                "one of them."
            )
        found[name] = child
    return found


def _entries(folder: Path) -> list[Path]:
    """Visible entries of a folder (hidden ones are droppings of file managers), by name."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}.") from error
    return [folder / name for name in sorted(names)]


def _read_slice_labels(root: Path) -> dict[str, npt.NDArray[np.int8]]:
    """Lower-case subject ID to its row, or nothing when the label files are absent."""
    by_key = {re.sub(r"[^a-z0-9.]", "", path.name.lower()): path for path in _entries(root)}
    index = by_key.get("index.csv")
    # The authors corrected two cases in September 2021.
    labels = by_key.get("slicelevellabelsupdated1.npy") or by_key.get("slicelevellabels.npy")
    if index is None or labels is None:
        return {}
    array = _load_plain(labels)
    if array is None:
        return {}
    if array.ndim != 2 or not np.isin(array, (0, 1)).all():
        raise DataError(
            f"{labels} is not a table of 0 and 1 (cases x slices) but {array.dtype} of shape "
            f"{array.shape}. Copy it again from its source."
        )
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:
            rows = [(int(row["Label Index"]), row["Folder/ID"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{index} cannot be read: {error}. Its columns are expected to be 'Label Index', "
            "'Diagnosis', 'Relative Path', 'Folder/ID'."
        ) from error
    rows.sort()
    # The published index skips 43, so the last index is one past the last row of an array that
    # has exactly one row per entry: then rows go by rank, else by the index itself.
    if len(array) == len(rows):
        rows = [(rank, subject) for rank, (_, subject) in enumerate(rows)]
    elif rows and (rows[-1][0] >= len(array) or rows[0][0] < 0):
        raise DataError(
            f"{index} speaks of case {rows[-1][0]}, but {labels.name} has {len(array)} rows. The "
            "two files are of different releases; copy both again."
        )
    return {subject.strip().lower(): array[case].astype(np.int8) for case, subject in rows}


def _load_plain(path: Path) -> npt.NDArray[np.generic] | None:
    """A .npy file without objects; None, with one warning, if only pickle could read it."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except ValueError as error:
        if "pickle" not in str(error):
            raise DataError(f"{path} is damaged: {error}. Copy it again.") from error
        logger.warning(
            "%s holds Python objects, which can run code when loaded: it is not read, and slice "
            "labels are left out.",
            path,
        )
        return None
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}. Copy it again.") from error
