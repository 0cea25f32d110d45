"""RSNA Pneumonia on disk: two tables and a folder of DICOM radiographs.

Rows, boxes, age, sex, view and pixel spacing are the real ones that torchxrayvision ships. It does
not ship the detailed classes of the negatives, so these are drawn in their published proportion.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medbench.data.samples import Box
from medbench.phantom.chest import Chest
from medbench.phantom.dicom import Radiograph
from medbench.phantom.dicom_challenges import FRAME, PRESETS, Case, write_cases
from medbench.phantom.scanner import XRAY_UNITS
from medbench.phantom.shipped import shipped
from medbench.phantom.subset import chance, pick, stratified
from medbench.phantom.version import RENDERER_VERSION

#: A row of the table of labels, as text: column to cell.
Row = dict[str, str]

DATASET = "rsna-pneumonia"
OPACITY, ABNORMAL, NORMAL = "Lung Opacity", "No Lung Opacity / Not Normal", "Normal"
#: Published numbers of negative images by detailed class.
NEGATIVES = {NORMAL: 8_851, ABNORMAL: 11_821}
#: What an image without opacity that is not normal shows, and what an image with one may show
#: besides. The weights are a judgement.
OTHERS = {"cardiomegaly": 4.0, "effusion": 3.0, "nodule": 2.0, "atelectasis": 2.0}
#: Share of not normal negatives with a second other finding, and of positives with one.
SECOND, BESIDES = 0.25, 0.35
#: Ages above this are slips of the keyboard: written into the header as they are, not drawn.
_OLDEST = 110


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the phantom of RSNA Pneumonia into ``root`` (see docs/phantoms.md).

    The images of a preset are a stratified part of the real ones: by opacity, detailed class and
    view, one image a patient.
    """
    import pandas as pd

    size, count = PRESETS[preset]
    table = pd.read_csv(shipped("kaggle_stage_2_train_labels.csv.zip"), dtype=str).fillna("")
    headers = pd.read_csv(
        shipped("kaggle_stage_2_train_images_dicom_headers.csv.gz"), dtype=str
    ).set_index("PatientID")
    columns = list(table.columns)
    of_image: dict[str, list[Row]] = {}
    for values in table.to_numpy().tolist():
        of_image.setdefault(values[0], []).append(dict(zip(columns, values, strict=True)))
    ids = list(of_image)
    headers = headers.loc[ids]
    classes = [
        OPACITY if of_image[name][0]["Target"] == "1" else pick(DATASET, "class", row, NEGATIVES)
        for row, name in enumerate(ids)
    ]
    order = stratified(DATASET, list(zip(classes, headers["ViewPosition"], strict=True)))
    rows = sorted(order[: count if limit is None else min(count, limit)])
    ages, sexes = headers["PatientAge"].tolist(), headers["PatientSex"].tolist()
    views, spacings = headers["ViewPosition"].tolist(), headers["PixelSpacing"].tolist()

    def case(row: int) -> Case:
        name, age = ids[row], float(ages[row])
        boxes = tuple(
            Box("pneumonia", *(float(box[side]) / FRAME for side in ("x", "y", "width", "height")))
            for box in of_image[name]
            if box["Target"] == "1"
        )
        chest = Chest(
            patient=name,
            image=name,
            age=age if age <= _OLDEST else None,
            female=sexes[row] == "F",
            findings=findings(row, classes[row]),
            boxes=boxes,
        )
        header = Radiograph(
            dataset=DATASET,
            image=name,
            unit=XRAY_UNITS[DATASET],
            female=sexes[row] == "F",
            age=ages[row],
            view="AP" if views[row] == "AP" else "PA",
            # The same field of view in fewer pixels.
            spacing=float(spacings[row]) * FRAME / size,
        )
        return Case(chest, header, f"stage_2_train_images/{name}.dcm")

    written = write_cases(root, DATASET, rows, case, size, advance)
    _write_tables(root, [(of_image[ids[row]], classes[row]) for row in rows])
    chosen = [classes[row] for row in rows]
    return {
        "renderer": RENDERER_VERSION,
        "images": len(rows),
        "image_size": size,
        "bytes": written,
        "positive": chosen.count(OPACITY),
        "real": "patientId, boxes, Target, age, sex, view; pixel spacing, times 1024 / image size",
        "drawn": "detailed class of negatives (published 8,851 : 11,821); other findings",
        "subset": "stratified by detailed class and view",
        "frame": "boxes in pixels of 1024 x 1024 as published, whatever the image size",
    }


def findings(row: int, detailed: str) -> dict[str, float]:
    """What the image of a row shows: its opacity, and other findings by its detailed class."""
    found = {"pneumonia": 1.0} if detailed == OPACITY else {}
    if detailed == ABNORMAL or (detailed == OPACITY and chance(DATASET, "besides", row) < BESIDES):
        found[pick(DATASET, "other", row, OTHERS)] = 1.0
    if detailed == ABNORMAL and chance(DATASET, "second", row) < SECOND:
        found[pick(DATASET, "second other", row, OTHERS)] = 1.0
    return found


def _write_tables(root: Path, images: list[tuple[list[Row], str]]) -> None:
    """Both have one row per box; so several rows of one image repeat its class."""
    with (
        (root / "stage_2_train_labels.csv").open("w", newline="", encoding="utf-8") as boxes,
        (root / "stage_2_detailed_class_info.csv").open("w", newline="", encoding="utf-8") as info,
    ):
        labels, classes = csv.writer(boxes), csv.writer(info)
        labels.writerow(["patientId", "x", "y", "width", "height", "Target"])
        classes.writerow(["patientId", "class"])
        for rows, detailed in images:
            for row in rows:
                labels.writerow(row.values())
                classes.writerow([row["patientId"], detailed])
