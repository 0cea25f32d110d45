"""SIIM-ACR Pneumothorax on disk: a table of masks and nested folders of DICOM radiographs.

Image ids and masks are the real ones that torchxrayvision ships; age, sex, view and pixel spacing,
which it does not, are drawn.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medbench.data import rle
from medbench.phantom.chest import Chest
from medbench.phantom.dicom import Radiograph, series_uid, study_uid
from medbench.phantom.dicom_challenges import FRAME, PRESETS, Case, write_cases
from medbench.phantom.draws import Draws
from medbench.phantom.scanner import XRAY_UNITS
from medbench.phantom.shipped import shipped
from medbench.phantom.subset import chance, pick, stratified
from medbench.phantom.version import RENDERER_VERSION

DATASET = "siim-pneumothorax"
#: Columns as published: the second starts with a space.
COLUMNS = ("ImageId", " EncodedPixels")
#: What an image with or without pneumothorax may show besides. Shares are a judgement, and the same
#: for both, so that none of these gives the answer away.
OTHERS = {"effusion": 3.0, "cardiomegaly": 3.0, "atelectasis": 2.0, "nodule": 2.0,
          "support-devices": 3.0, "emphysema": 1.0}  # fmt: skip
BESIDES = 0.45
#: Pixel spacings in mm of 1024-pixel radiographs of the same hospital, with their shares in the
#: headers of the RSNA challenge.
_SPACINGS = {"0.143": 9.0, "0.168": 9.0, "0.139": 5.5, "0.171": 2.0, "0.194311": 1.3}
_PA = 0.6


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the phantom of SIIM-ACR into ``root`` (see docs/phantoms.md).

    The images of a preset are a stratified part of the real ones: without a lesion, with one whose
    area is below or above the median, with several.
    """
    size, count = PRESETS[preset]
    texts = _real()
    ids = list(texts)
    order = stratified(DATASET, _strata(texts))
    rows = sorted(order[: count if limit is None else min(count, limit)])
    spacing = float(FRAME / size)

    def case(row: int) -> Case:
        name = ids[row]
        draws = Draws(DATASET, [row], "patient", 4)
        age = int(np.clip(draws.normal(47, 17)[0], 5, 92))
        female = bool(draws.below(0.43)[0])
        view: Literal["PA", "AP"] = "PA" if draws.below(_PA)[0] else "AP"
        masks = [rle.decode(text, (FRAME, FRAME), "relative") for text in texts[name]]
        found = {"pneumothorax": 1.0} if masks else {}
        if chance(DATASET, "besides", row) < BESIDES:
            found[pick(DATASET, "other", row, OTHERS)] = 1.0
        chest = Chest(
            patient=name,
            image=name,
            age=age,
            female=female,
            findings=found,
            mask=np.logical_or.reduce(masks) if masks else None,
        )
        header = Radiograph(
            dataset=DATASET,
            image=name,
            unit=XRAY_UNITS[DATASET],
            female=female,
            age=str(age),
            view=view,
            spacing=float(pick(DATASET, "spacing", row, _SPACINGS)) * spacing,
        )
        folder = f"{study_uid(DATASET, name)}/{series_uid(DATASET, name)}"
        return Case(chest, header, f"dicom-images-train/{folder}/{name}.dcm")

    written = write_cases(root, DATASET, rows, case, size, advance)
    with (root / "train-rle.csv").open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(COLUMNS)
        for row in rows:
            # Copies in circulation have values with and without a space before them.
            table.writerows([ids[row], f" {text}"] for text in texts[ids[row]] or [rle.EMPTY])
    return {
        "renderer": RENDERER_VERSION,
        "images": len(rows),
        "image_size": size,
        "bytes": written,
        "positive": sum(bool(texts[ids[row]]) for row in rows),
        "real": "ImageId, masks",
        "drawn": "age, sex, view, pixel spacing, study and series; other findings",
        "subset": "stratified by number of lesions, and by area of single ones",
        "frame": "masks in pixels of 1024 x 1024 as published, whatever the image size",
    }


def _real() -> dict[str, list[str]]:
    """ImageId to its encoded masks, in the table's order; none for an image without a lesion."""
    import pandas as pd

    table = pd.read_csv(shipped("siim-pneumothorax-train-rle.csv.gz"), dtype=str)
    found: dict[str, list[str]] = {}
    for name, text in zip(table[COLUMNS[0]], table[COLUMNS[1]].str.strip(), strict=True):
        masks = found.setdefault(str(name), [])
        if text != rle.EMPTY and text not in masks:
            masks.append(text)
    return found


def _strata(texts: dict[str, list[str]]) -> list[str]:
    areas = [
        sum(int(word) for word in masks[0].split()[1::2]) if len(masks) == 1 else 0
        for masks in texts.values()
    ]
    median = float(np.median([area for area in areas if area]))
    kinds = []
    for masks, area in zip(texts.values(), areas, strict=True):
        if len(masks) == 1:
            kinds.append("small" if area < median else "large")
        else:
            kinds.append("several" if masks else "none")
    return kinds
