"""RSNA Pneumonia Detection Challenge, stage 2: radiographs with boxes around lung opacities.

Layout, as Kaggle publishes it::

    <root>/stage_2_train_labels.csv             patientId,x,y,width,height,Target: one row per box
    <root>/stage_2_detailed_class_info.csv      optional: patientId,class
    <root>/stage_2_train_images/<patientId>.dcm

Boxes are in pixels of 1024 x 1024, the size of every published image. The tables are always read in
that frame, whatever size the images beside them have.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medbench.data.dicom import read_image
from medbench.data.folders import names_in, refuse_missing
from medbench.data.samples import Box, Pixels, Sample
from medbench.data.tables import Table, find_base, read_table
from medbench.errors import DataError

logger = logging.getLogger("medbench")

TABLE = "stage_2_train_labels.csv"
CLASSES = "stage_2_detailed_class_info.csv"
IMAGES = "stage_2_train_images"
LAYOUT = f"'{TABLE}' beside '{IMAGES}/<patientId>.dcm'"

#: Width and height of the frame that the tables count pixels in.
FRAME = 1024
LABEL = "pneumonia"

_COLUMNS = ("patientId", "x", "y", "width", "height", "Target")
_SIDES = ("x", "y", "width", "height")
#: Detailed class to its label; the third is the target itself.
_NEGATIVE = {
    "Normal": "normal",
    "No Lung Opacity / Not Normal": "no-lung-opacity-not-normal",
}
_POSITIVE = "Lung Opacity"


class RsnaPneumonia:
    """Reader of RSNA Pneumonia: a sample is an image, "pneumonia" where it has a box.

    ``root`` holds the table and the folder of images, or is the folder around the one that does.
    """

    def __init__(self, root: Path) -> None:
        self.root = find_base(Path(root), "RSNA Pneumonia", LAYOUT, lambda names: TABLE in names)
        self._samples: tuple[Sample, ...] | None = None
        self._boxes: dict[str, tuple[Box, ...]] = {}

    def samples(self) -> Sequence[Sample]:
        """One sample per patientId, in the table's order; patients have one image each.

        Labels: "pneumonia"; with the table of detailed classes also "normal" and
        "no-lung-opacity-not-normal". Age, sex, view and pixel spacing are in the DICOM headers
        only, which are not opened here, so a sample has none of them. Images that the table does
        not name are no samples; a log line counts them.

        Raises:
            DataError: missing files or columns, a Target other than 0 and 1, boxes without a side
                or beyond the frame, boxes on an image without pneumonia, an image both with and
                without, doubled rows, detailed classes that contradict the boxes.
        """
        if self._samples is None:
            self._samples = tuple(self._list())
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """float32 [H, W] in [0, 1]; see `medbench.data.dicom.read_image`, and its errors."""
        image = read_image(sample.files[0])
        if image.ndim != 2:
            raise DataError(f"{sample.files[0]} is in colour; a radiograph is grey. Replace it.")
        return image

    def boxes(self, sample: Sample) -> tuple[Box, ...]:
        """The opacities of an image, as fractions of the frame; none for an image without."""
        self.samples()
        return self._boxes.get(sample.id, ())

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_]:
        """bool [1024, 1024]: boxes filled, overlaps joined."""
        mask = np.zeros((FRAME, FRAME), np.bool_)
        for box in self.boxes(sample):
            left, top = round(box.x * FRAME), round(box.y * FRAME)
            right = round((box.x + box.width) * FRAME)
            bottom = round((box.y + box.height) * FRAME)
            mask[top:bottom, left:right] = True
        return mask

    def _list(self) -> list[Sample]:
        table = self.root / TABLE
        targets, boxes = _checked(read_table(table, _COLUMNS))
        ids = list(targets)
        folder = self.root / IMAGES
        refuse_missing([f"{name}.dcm" for name in ids], folder, table)
        extra = sum(n.endswith(".dcm") and n[:-4] not in targets for n in names_in(str(folder)))
        if extra:
            logger.info("%s: %s names none of %d images; left out.", folder, TABLE, extra)
        classes = _classes(self.root / CLASSES, targets)
        detailed = tuple(_NEGATIVE.values()) if classes else ()
        self._boxes = {
            name: tuple(Box(LABEL, *(side / FRAME for side in box)) for box in found)
            for name, found in boxes.items()
        }
        return [
            Sample(
                id=name,
                patient=name,
                files=(folder / f"{name}.dcm",),
                labels={LABEL: target, **{c: int(classes[name] == c) for c in detailed}},
                annotation=hashlib.sha256(repr(boxes.get(name, [])).encode()).hexdigest(),
            )
            for name, target in targets.items()
        ]


def _checked(table: Table) -> tuple[dict[str, int], dict[str, list[tuple[float, ...]]]]:
    """patientId to Target, in the order of the table; patientId to its boxes in pixels."""
    names = [name.strip() for name in table.column("patientId")]
    marks = [mark.strip() for mark in table.column("Target")]
    sides = list(zip(*(table.column(side) for side in _SIDES), strict=True))
    table.refuse("no usable patientId", [n for n, name in enumerate(names) if not _usable(name)])
    table.refuse(
        "a Target other than 0 and 1",
        [n for n, mark in enumerate(marks) if mark not in ("0", "1")],
        marks,
    )
    numbers = [tuple(map(_number, row)) for row in sides]
    shown = [",".join(row) for row in sides]
    positive = [n for n, mark in enumerate(marks) if mark == "1"]
    table.refuse(
        "a box although its Target is 0",
        [n for n, mark in enumerate(marks) if mark == "0" and any(map(str.strip, sides[n]))],
        shown,
    )
    table.refuse(
        "Target 1 without the four numbers of a box",
        [n for n in positive if not all(map(math.isfinite, numbers[n]))],
        shown,
    )
    table.refuse(
        f"a box without area or not inside the frame of {FRAME} x {FRAME} pixels",
        [n for n in positive if not _inside(*numbers[n])],
        shown,
    )
    targets: dict[str, int] = {}
    boxes: dict[str, list[tuple[float, ...]]] = {}
    doubled, contradicting = [], []
    seen: set[tuple[str, tuple[float, ...]]] = set()
    for n, (name, mark) in enumerate(zip(names, marks, strict=True)):
        target = int(mark)
        box = numbers[n] if target else ()
        if targets.setdefault(name, target) != target:
            contradicting.append(n)
        elif (name, box) in seen:
            doubled.append(n)
        elif target:
            boxes.setdefault(name, []).append(box)
        seen.add((name, box))
    table.refuse("another Target than an earlier row of the same patientId", contradicting, names)
    table.refuse("the same content as an earlier row", doubled, names)
    return targets, boxes


def _usable(name: str) -> bool:
    """Whether an id can be the name of a file in the folder of images."""
    return bool(name) and "/" not in name


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _inside(x: float, y: float, width: float, height: float) -> bool:
    return x >= 0 and y >= 0 and width > 0 and height > 0 and max(x + width, y + height) <= FRAME


def _classes(path: Path, targets: dict[str, int]) -> dict[str, str]:
    """patientId to the label of its detailed class ("" for opacities); empty without the table."""
    if path.name not in names_in(str(path.parent)):
        return {}
    table = read_table(path, ("patientId", "class"))
    names = [name.strip() for name in table.column("patientId")]
    classes = [name.strip() for name in table.column("class")]
    rows = range(len(names))
    table.refuse(
        f"a class other than {', '.join([*_NEGATIVE, _POSITIVE])}",
        [n for n in rows if classes[n] != _POSITIVE and classes[n] not in _NEGATIVE],
        classes,
    )
    table.refuse(
        f"a patientId that {TABLE} does not have",
        [n for n in rows if names[n] not in targets],
        names,
    )
    table.refuse(
        f"a class that contradicts the Target in {TABLE}",
        [n for n in rows if (classes[n] == _POSITIVE) != bool(targets[names[n]])],
        classes,
    )
    first = dict(zip(reversed(names), reversed(classes), strict=True))
    table.refuse(
        "another class than an earlier row of the same patientId",
        [n for n in rows if classes[n] != first[names[n]]],
        names,
    )
    without = [name for name in targets if name not in first]
    if without:
        raise DataError(
            f"{path} has no class for {len(without):,} images of {TABLE}, such as "
            f"'{without[0]}'. Copy it again, or remove it: it is optional."
        )
    return {name: _NEGATIVE.get(kind, "") for name, kind in first.items()}
