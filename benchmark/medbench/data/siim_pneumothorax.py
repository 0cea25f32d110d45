"""SIIM-ACR Pneumothorax Segmentation, stage 1: radiographs with run-length encoded masks.

Layout, as Kaggle published it::

    <root>/train-rle.csv                  "ImageId", " EncodedPixels": one row per lesion
    <root>/dicom-images-train/<study>/<series>/<ImageId>.dcm      or flat: <ImageId>.dcm

The second column's name starts with a space; "-1" (or " -1") means no pneumothorax. Runs are in
the relative convention of `medbench.data.rle`, in the frame of 1024 x 1024, the size of every
published image, whatever size the images beside the table have.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medbench.data import rle
from medbench.data.dicom import SUFFIXES, read_image
from medbench.data.folders import names_in
from medbench.data.samples import Box, Pixels, Sample
from medbench.data.tables import find_base, read_table, some
from medbench.errors import DataError

logger = logging.getLogger("medbench")

TABLE = "train-rle.csv"
IMAGES = "dicom-images-train"
LAYOUT = f"'{TABLE}' beside '{IMAGES}/<study>/<series>/<ImageId>.dcm'"

#: Width and height of the frame that the table's runs go down.
FRAME = 1024
LABEL = "pneumothorax"


class SiimPneumothorax:
    """Reader of SIIM-ACR: a sample is an image, "pneumothorax" where it has a mask.

    ``root`` holds the table and the folder of images, or is the folder around the one that does.
    """

    def __init__(self, root: Path) -> None:
        self.root = find_base(
            Path(root), "SIIM-ACR Pneumothorax", LAYOUT, lambda names: TABLE in names
        )
        self._samples: tuple[Sample, ...] | None = None
        self._runs: dict[str, list[rle.Runs]] = {}

    def samples(self) -> Sequence[Sample]:
        """One sample per ImageId, in the table's order; its rows are joined.

        Patients are unknown: neither table nor folders name them. Study is the folder of the
        study where there is one. Images that the table does not name (the published folder has
        some) are no samples; a log line counts them.

        Raises:
            DataError: missing files or columns, masks that cannot be decoded, an image both with
                and without mask, doubled rows, a folder that cannot be read or leads in a circle,
                one image in two places.
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
        """The smallest box around each row's mask, as fractions of the frame."""
        self.samples()
        return tuple(_box(rle.fill([runs], (FRAME, FRAME))) for runs in self._of(sample))

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_]:
        """bool [1024, 1024], oriented as the pixels are; False throughout without a lesion."""
        self.samples()
        return rle.fill(self._of(sample), (FRAME, FRAME))

    def _of(self, sample: Sample) -> list[rle.Runs]:
        return self._runs.get(sample.id, [])

    def _list(self) -> list[Sample]:
        table = self.root / TABLE
        texts = _masks(table)
        files = _images(self.root / IMAGES)
        missing = [name for name in texts if name not in files]
        if missing:
            raise DataError(
                f"{self.root / IMAGES}: {len(missing):,} of {len(texts):,} images that {TABLE} "
                f"names are missing: {some([f'{name}.dcm' for name in missing])}. Copy them, or "
                "give a table of those that are there."
            )
        if len(files) > len(texts):
            logger.info(
                "%s: %s names none of %d images; left out.",
                self.root / IMAGES, TABLE, len(files) - len(texts),
            )  # fmt: skip
        for name, found in texts.items():
            self._runs[name] = [
                rle.runs(text, (FRAME, FRAME), "relative", f"{table}, row {row} ({name})")
                for row, text in found
            ]
        return [
            Sample(
                id=name,
                patient=None,
                files=(Path(files[name][0]),),
                labels={LABEL: int(bool(found))},
                study=files[name][1],
                annotation=hashlib.sha256(
                    "\n".join(text for _, text in found).encode()
                ).hexdigest(),
            )
            for name, found in texts.items()
        ]


def _masks(path: Path) -> dict[str, list[tuple[int, str]]]:
    """ImageId to its masks, each with its row from 1; none for an image without a lesion."""
    table = read_table(path, ("ImageId", "EncodedPixels"))
    names = [name.strip() for name in table.column("ImageId")]
    texts = [text.strip() for text in table.column("EncodedPixels")]
    rows = range(len(names))
    table.refuse("no usable ImageId", [n for n in rows if not names[n] or "/" in names[n]])
    table.refuse(
        "no EncodedPixels ('-1' where there is no lesion)", [n for n in rows if not texts[n]], names
    )
    found: dict[str, list[tuple[int, str]]] = {}
    seen: set[tuple[str, str]] = set()
    doubled = []
    for n in rows:
        if (names[n], texts[n]) in seen:
            doubled.append(n)
        seen.add((names[n], texts[n]))
        masks = found.setdefault(names[n], [])
        if texts[n] != rle.EMPTY:
            masks.append((n + 1, texts[n]))
    table.refuse("the same content as an earlier row", doubled, names)
    table.refuse(
        "no mask ('-1') although another row of its image has one",
        [n for n in rows if texts[n] == rle.EMPTY and found[names[n]]],
        names,
    )
    return found


def _images(folder: Path) -> dict[str, tuple[str, str | None]]:
    """ImageId to its file and study, from one walk through the folder. Links are followed."""

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename} cannot be listed: {error.strerror}. Check its permissions and links."
        ) from error

    found: dict[str, tuple[str, str | None]] = {}
    seen: dict[tuple[int, int], str] = {}
    base = str(folder)
    if folder.name not in names_in(str(folder.parent)):
        raise DataError(f"{folder} does not exist. Expected layout: {LAYOUT}.")
    for place, _, names in os.walk(base, onerror=refuse, followlinks=True):
        state = os.stat(place)
        key = (state.st_dev, state.st_ino)
        if key in seen:
            raise DataError(
                f"{place} leads back to {seen[key]} through a symbolic link, so its images would "
                "be found twice or forever. Remove the link."
            )
        seen[key] = place
        inner = place[len(base) + 1 :].split(os.sep)
        study = inner[0] if len(inner) > 1 else None
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in SUFFIXES or name.startswith("."):
                continue
            if stem in found:
                raise DataError(
                    f"Image {stem} is both {found[stem][0]} and {place}{os.sep}{name}. Keep one "
                    "of them."
                )
            found[stem] = (f"{place}{os.sep}{name}", study)
    if not found:
        raise DataError(f"{folder} holds no DICOM files (*.dcm). Expected layout: {LAYOUT}.")
    return found


def _box(mask: npt.NDArray[np.bool_]) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    width, height = int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top
    return Box(LABEL, left / FRAME, top / FRAME, width / FRAME, height / FRAME)
