"""NIH ChestX-ray14: frontal chest radiographs with 14 text-mined findings, some with boxes.

Layout, as published (Wang et al., CVPR 2017, doi 10.1109/CVPR.2017.369)::

    <root>/images/00000001_000.png                       or images_001/images/ .. images_012/images/
    <root>/Data_Entry_2017_v2020.csv                     or the older Data_Entry_2017.csv
    <root>/train_val_list.txt, <root>/test_list.txt      optional, both or neither
    <root>/BBox_List_2017.csv                            optional: boxes in pixels of 1024
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from medbench.data.folders import names_in
from medbench.data.pictures import read_picture
from medbench.data.samples import Box, Pixels, Sample
from medbench.data.tables import (
    Table,
    collector_off,
    find_base,
    read_lines,
    read_table,
    refuse_rows,
    repeated,
    some,
)
from medbench.errors import DataError

#: The 14 findings as the table spells them.
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
#: Their names as labels of a sample.
LABELS = tuple(name.lower().replace("_", "-") for name in FINDINGS)
#: Width and height of the published images, to which the boxes refer.
FRAME = 1024
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
BOXES = "BBox_List_2017.csv"
LISTS: Mapping[str, Literal["train", "test"]] = {
    "train_val_list.txt": "train", "test_list.txt": "test",
}  # fmt: skip
LAYOUT = "'Data_Entry_2017_v2020.csv' beside 'images/*.png' or 'images_001/images/*.png' .."

_COLUMNS = (
    "Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position",
)  # fmt: skip
#: The header has one name, "Bbox [x,y,w,h]", whose commas make four columns of it.
_BOX_COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
_NO_FINDING = "No Finding"
#: The box list's own word for one finding.
_BOX_NAMES = {"Infiltrate": "Infiltration"}
_NAMES = dict(zip(FINDINGS, LABELS, strict=True))
_NAME = re.compile(r"[^/\\]+\.png", re.IGNORECASE)
#: The first release has ages such as 058Y, 011M (months) and 003D (days).
_AGE = re.compile(r"(\d+)([YMD]?)")
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}
_SEXES: Mapping[str, Literal["F", "M"] | None] = {"F": "F", "M": "M", "": None}
_VIEWS: Mapping[str, Literal["PA", "AP", "frontal"]] = {"PA": "PA", "AP": "AP", "": "frontal"}


class NihChestXray14:
    """Reader of NIH ChestX-ray14.

    ``root`` is the folder that holds the table, or the folder around it.
    """

    def __init__(self, root: Path) -> None:
        self.root = find_base(
            Path(root), "NIH ChestX-ray14", LAYOUT, lambda names: not names.isdisjoint(TABLES)
        )
        self._samples: tuple[Sample, ...] | None = None
        self._boxes: dict[str, tuple[Box, ...]] = {}

    def samples(self) -> Sequence[Sample]:
        """One sample per image, in the table's order.

        Id is the file name, patient the number of eight digits that begins it. Labels (`LABELS`)
        are 1 or 0. Split is "test" for ``test_list.txt``, "train" for ``train_val_list.txt`` (no
        validation list was published) and None without lists. Ages are as the table has them, in
        years, impossible ones included.

        Raises:
            DataError: missing or renamed columns, unknown findings, images twice, missing or in no
                list, a patient in both lists, boxes outside their image or of no image.
        """
        if self._samples is None:
            with collector_off():
                self._samples = tuple(self._list())
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """float32 [H, W] in [0, 1]. Raises DataError for a missing or damaged file."""
        return read_picture(sample.files[0])

    def boxes(self, sample: Sample) -> tuple[Box, ...]:
        """The boxes of an image, in the list's order; its labels are those of the sample."""
        self.samples()
        return self._boxes.get(sample.id, ())

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_]:
        """Bool [1024, 1024]: pixels inside any box. All False for an image without boxes."""
        mask = np.zeros((FRAME, FRAME), np.bool_)
        for box in self.boxes(sample):
            left, top = round(box.x * FRAME), round(box.y * FRAME)
            right, bottom = round((box.x + box.width) * FRAME), round((box.y + box.height) * FRAME)
            mask[top:bottom, left:right] = True
        return mask

    def _list(self) -> list[Sample]:
        names = names_in(str(self.root))
        table = read_entries(self.root / next(name for name in TABLES if name in names))
        images = table.column("Image Index")
        splits = _splits(self.root, names, images)
        folders = _folders(self.root, names)
        missing = [image for image in images if image not in folders]
        if missing:
            raise DataError(
                f"{self.root}: {len(missing):,} of the {len(images):,} images that "
                f"{table.path.name} names are missing: {some(missing)}. The images come in twelve "
                "parts (images_001 to images_012): unpack them all, or give a table of those that "
                "are there."
            )
        annotations: dict[str, str] = {}
        if BOXES in names:
            self._boxes, annotations = read_boxes(self.root / BOXES, set(images))
        return to_samples(table, folders, splits, annotations)


def read_entries(path: Path) -> Table:
    """The table of images, whether they exist or not. Raises DataError."""
    table = read_table(path, _COLUMNS)
    images = table.column("Image Index")
    table.refuse(
        "an image name that is not like '00000001_000.png'",
        [number for number, image in enumerate(images) if not _NAME.fullmatch(image)],
        images,
    )
    table.refuse("an image that another row has too", repeated(images), images)
    return table


def to_samples(
    table: Table,
    folders: Mapping[str, str],
    splits: Mapping[str, Literal["train", "test"]],
    annotations: Mapping[str, str],
) -> list[Sample]:
    """The samples of a table.

    Args:
        table: of images.
        folders: image to the folder it is in.
        splits: image to its split, where it has one.
        annotations: image to the hash of its boxes, where it has some.

    Raises:
        DataError: see `NihChestXray14.samples`.
    """
    images = table.column("Image Index")
    labels, patients, ages = _labels(table), _patients(table), _ages(table)
    sexes = table.mapped("Patient Gender", _SEXES, "a gender that is neither M nor F")
    views = table.mapped("View Position", _VIEWS, "a view that is neither PA nor AP")
    nothing: dict[str, str] = {}
    return [
        Sample(
            image, patients[n], (Path(f"{folders[image]}/{image}"),), labels[n], None,
            splits.get(image), "image", None, views[n], ages[n], sexes[n], nothing,
            annotations.get(image),
        )
        for n, image in enumerate(images)
    ]  # fmt: skip


def _labels(table: Table) -> list[Mapping[str, int | None]]:
    """Labels of each row; rows with the same findings share a mapping."""
    known: dict[str, Mapping[str, int | None]] = {}
    for cell in set(table.column("Finding Labels")):
        found = cell.split("|")
        if set(found) <= _NAMES.keys() or found == [_NO_FINDING]:
            known[cell] = {label: int(name in found) for name, label in _NAMES.items()}
    what = "findings other than the 14 of the dataset, or 'No Finding' beside one"
    return table.mapped("Finding Labels", known, what)


def _patients(table: Table) -> list[str]:
    cells = set(table.column("Patient ID"))
    known = {cell: f"{int(cell):08d}" for cell in cells if cell.isdecimal()}
    return table.mapped("Patient ID", known, "a patient that is not a number")


def _ages(table: Table) -> list[float | None]:
    known: dict[str, float | None] = {"": None}
    for cell in set(table.column("Patient Age")):
        match = _AGE.fullmatch(cell)
        if match:
            known[cell] = int(match[1]) * _YEARS[match[2]]
    what = "an age that is not a number (of years, or with Y, M or D)"
    return table.mapped("Patient Age", known, what)


def _splits(
    root: Path, names: set[str], images: Sequence[str]
) -> Mapping[str, Literal["train", "test"]]:
    """Split of each image; none without the lists."""
    there = [name for name in LISTS if name in names]
    if not there:
        return {}
    if len(there) < len(LISTS):
        raise DataError(
            f"{root} has {there[0]} without its counterpart. Both {' and '.join(LISTS)} are "
            "needed, or neither."
        )
    known = set(images)
    splits: dict[str, Literal["train", "test"]] = {}
    for name, split in LISTS.items():
        listed = read_lines(root / name)
        refuse_rows(root / name, "an image twice", repeated(listed), listed)
        refuse_rows(
            root / name, "an image that the table does not have",
            [number for number, image in enumerate(listed) if image not in known], listed,
        )  # fmt: skip
        refuse_rows(
            root / name, "an image that is in the other list too",
            [number for number, image in enumerate(listed) if image in splits], listed,
        )  # fmt: skip
        splits.update(dict.fromkeys(listed, split))
    left = [image for image in images if image not in splits]
    if left:
        raise DataError(
            f"{root}: {len(left):,} images are neither in {' nor in '.join(LISTS)}: {some(left)}. "
            "Copy the lists again, or remove both."
        )
    return splits


def _folders(root: Path, names: set[str]) -> dict[str, str]:
    """Folder of each image file, from one listing of each folder."""
    found: dict[str, str] = {}
    for name in sorted(name for name in names if name.startswith("images")):
        folder = str(root / name)
        inside = names_in(folder)
        if "images" in inside:
            folder = f"{folder}/images"
            inside = names_in(folder)
        twice = sorted(image for image in inside if image in found)
        if twice:
            raise DataError(
                f"{folder} and {found[twice[0]]} both hold {some(twice)}. Keep one of them."
            )
        found.update(dict.fromkeys(inside, folder))
    return found


def read_boxes(path: Path, images: set[str]) -> tuple[dict[str, tuple[Box, ...]], dict[str, str]]:
    """The list of boxes.

    Args:
        path: the list.
        images: those that the table of images has.

    Returns:
        Image to its boxes, and image to the hash of its rows.

    Raises:
        DataError: boxes outside their image, of no image, or of an unknown finding.
    """
    table = read_table(path, _BOX_COLUMNS)
    owners = table.column("Image Index")
    table.refuse(
        "a box of an image that the other table does not have",
        [number for number, image in enumerate(owners) if image not in images],
        owners,
    )
    findings = [_BOX_NAMES.get(name, name) for name in table.column("Finding Label")]
    table.refuse(
        "a box of an unknown finding",
        [number for number, name in enumerate(findings) if name not in _NAMES],
        findings,
    )
    cells = list(zip(*(table.column(name) for name in _BOX_COLUMNS[2:]), strict=True))
    places = [_numbers(cell) for cell in cells]
    table.refuse(
        f"a box that is empty, no box, or outside the image of {FRAME} x {FRAME} pixels",
        [number for number, place in enumerate(places) if place is None],
        [", ".join(cell) for cell in cells],
    )
    boxes: dict[str, tuple[Box, ...]] = {}
    digests: dict[str, str] = {}
    for image, finding, place, cell in zip(owners, findings, places, cells, strict=True):
        if place is None:
            continue
        x, y, width, height = (value / FRAME for value in place)
        boxes[image] = (*boxes.get(image, ()), Box(_NAMES[finding], x, y, width, height))
        row = f"{digests.get(image, '')}\n{finding},{','.join(cell)}"
        digests[image] = hashlib.sha256(row.encode()).hexdigest()
    return boxes, digests


def _numbers(cells: tuple[str, ...]) -> tuple[float, ...] | None:
    """x, y, width, height in pixels; None when they are no box inside the image."""
    try:
        x, y, width, height = (float(cell) for cell in cells)
    except ValueError:
        return None
    fits = x >= 0 and y >= 0 and width > 0 and height > 0
    inside = x + width <= FRAME and y + height <= FRAME
    return (x, y, width, height) if fits and inside and math.isfinite(x + y) else None
