"""R2Gen's ``annotation.json``: studies with a report and the paths of their images, by split.

``{"train": [{"id", "report", "image_path": [...], "split"}], "val": [...], "test": [...]}``. The
MIMIC-CXR one also has ``study_id`` and ``subject_id``.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from medbench.data.tables import repeated, some
from medbench.errors import DataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
FILE = "annotation.json"


@dataclass(frozen=True, slots=True)
class Study:
    """One entry. ``images`` are paths relative to the folder of images, as written."""

    id: str
    report: str
    images: tuple[str, ...]
    split: Split
    study_id: str | None
    subject_id: str | None


def read_annotation(path: Path) -> list[Study]:
    """All studies, in the file's order: train, val, test.

    Raises:
        DataError: not JSON, splits or fields missing, of the wrong type or empty, an id or an
            image that occurs twice, a path that leaves the folder; names the entry by split and
            number, counted from 1.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}. Copy it again from its source.") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(split), list) for split in SPLITS
    ):
        raise DataError(
            f"{path} is not R2Gen's annotation: expected an object with the lists train, val and "
            "test."
        )
    studies = [
        _entry(path, split, number, entry)
        for split in SPLITS
        for number, entry in enumerate(content[split], 1)
    ]
    if not studies:
        raise DataError(f"{path} lists no studies. Copy it again from its source.")
    _refuse_repeated(path, "study ids", [study.id for study in studies])
    _refuse_repeated(path, "image paths", [image for study in studies for image in study.images])
    return studies


def _entry(path: Path, split: Split, number: int, entry: Any) -> Study:
    where = f"{path}, entry {number} of '{split}'"
    if not isinstance(entry, dict):
        raise DataError(f"{where}: is not an object. Copy the file again from its source.")
    for key in ("id", "report", "image_path"):
        if key not in entry:
            raise DataError(
                f"{where}: has no '{key}'. Each entry needs id, report, image_path and split."
            )
    name, report, images = entry["id"], entry["report"], entry["image_path"]
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where}: its id is {name!r}, not a name. Correct it.")
    if not isinstance(report, str) or not report.strip():
        raise DataError(f"{where} ('{name}'): has no report. Correct or remove the entry.")
    if (
        not isinstance(images, list)
        or not images
        or not all(isinstance(image, str) and image for image in images)
    ):
        raise DataError(f"{where} ('{name}'): its image_path is not a list of paths. Correct it.")
    given = entry.get("split", split)
    if given != split:
        raise DataError(
            f"{where} ('{name}'): says it belongs to split {given!r}. Correct the entry or move it."
        )
    for image in images:
        normal = os.path.normpath(image)
        if os.path.isabs(image) or normal.startswith("..") or "\0" in image:
            raise DataError(
                f"{where} ('{name}'): the image path '{image}' leaves the folder of images. Paths "
                "are relative to it."
            )
    return Study(
        name.strip(),
        report.strip(),
        tuple(cast("list[str]", images)),
        split,
        *(
            None if entry.get(key) is None else str(entry[key])
            for key in ("study_id", "subject_id")
        ),
    )


def _refuse_repeated(path: Path, what: str, values: list[str]) -> None:
    positions = repeated(values)
    if positions:
        names = list(dict.fromkeys(values[position] for position in positions))
        raise DataError(
            f"{path}: {len(names):,} {what} occur more than once: {some(names)}. Remove the "
            "repetitions."
        )
