"""COVIDx on disk, in the layout of version 9A: two label lists and two folders of PNG files.

No annotation of it can be taken from a package, so all of it is drawn, in the published proportions
of the classes.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medbench.data.samples import Box
from medbench.phantom.chest import Chest
from medbench.phantom.draws import Draws
from medbench.phantom.radiograph_files import draw_files
from medbench.phantom.version import RENDERER_VERSION

DATASET = "covidx"
#: Preset to side of the images in pixels, and number of images of the train list.
PRESETS = {"tiny": (128, 1_400), "small": (256, 5_600), "paper": (512, 19_600)}
#: Published images of version 9A by class.
TRAIN = {"normal": 8_085, "pneumonia": 5_555, "COVID-19": 16_490}
TEST = {"normal": 100, "pneumonia": 100, "COVID-19": 200}
#: Images of COVID-19 patients: 1 to 6, 3 in the mean (published: 16,490 images of 2,808 patients).
_MOST_IMAGES = 6

#: Shares of patients, round figures after published series: COVID-19 is bilateral, peripheral and
#: lower; bacterial pneumonia a consolidation of one lobe. Both have exceptions.
_COVID_BILATERAL, _PNEUMONIA_UNILATERAL, _PERIPHERAL = 0.80, 0.85, 0.75

#: Rows of the patients of each class and list: a number of their own, whatever the preset.
_FIRST_ROW = {
    ("train", "normal"): 0, ("train", "pneumonia"): 1_000_000, ("train", "COVID-19"): 2_000_000,
    ("test", "normal"): 3_000_000, ("test", "pneumonia"): 4_000_000,
    ("test", "COVID-19"): 5_000_000,
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """One line of a list: the file's name, class and source, and what is drawn."""

    split: str
    kind: str
    source: str
    file: str
    chest: Chest


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the phantom of COVIDx 9A into ``root`` (see docs/phantoms.md)."""
    size, count = PRESETS[preset]
    chosen = pictures(count, limit)
    for split in ("train", "test"):
        lines = [
            f"{picture.chest.patient} {picture.file} {picture.kind} {picture.source}\n"
            for picture in chosen
            if picture.split == split
        ]
        (root / f"{split}_COVIDx9A.txt").write_text("".join(lines), encoding="utf-8")
    written = draw_files(
        root, DATASET, [picture.chest for picture in chosen],
        [f"{picture.split}/{picture.file}" for picture in chosen], size, advance,
    )  # fmt: skip
    return {
        "renderer": RENDERER_VERSION,
        "images": len(chosen),
        "classes": {
            split: dict(Counter(p.kind for p in chosen if p.split == split))
            for split in ("train", "test")
        },
        "patients": len({picture.chest.patient for picture in chosen}),
        "image_size": size,
        "bytes": written,
        "real": [],
        "drawn": [
            "patients, files and sources; classes in the published proportions, the test list in "
            "its published numbers",
            "COVID-19: patches, mostly of both lungs, peripheral and low; pneumonia: a "
            "consolidation, mostly of one lung; normal: none of these",
        ],
    }


def pictures(count: int, limit: int | None) -> list[Picture]:
    """The lines of the train list, then of the test list, by class and patient.

    Args:
        count: images of the train list in the whole phantom.
        limit: at most this many images of both; they are among those of the whole.
    """
    parts = {"train": _shares(TRAIN, count), "test": dict(TEST)}
    total = sum(sum(part.values()) for part in parts.values())
    if limit is not None and limit < total:
        # Both lists must hold something, and every class where there is room for it.
        parts = {
            split: {kind: max(1, number * limit // total) for kind, number in part.items()}
            for split, part in parts.items()
        }
        while sum(sum(part.values()) for part in parts.values()) > max(limit, 2):
            largest = max(parts.values(), key=lambda part: (sum(part.values()), max(part.values())))
            kind = max(largest, key=lambda name: largest[name])
            largest[kind] -= 1
    return [
        picture
        for split, part in parts.items()
        for kind, number in part.items()
        for picture in _of_class(split, kind, number)
    ]


def _shares(weights: Mapping[str, int], count: int) -> dict[str, int]:
    """``count`` in the proportions of the weights; what rounding leaves goes to the last."""
    total = sum(weights.values())
    found = {name: weight * count // total for name, weight in weights.items()}
    found[list(weights)[-1]] += count - sum(found.values())
    return found


def _of_class(split: str, kind: str, number: int) -> list[Picture]:
    """The first ``number`` images of the patients of a class."""
    first = _FIRST_ROW[split, kind]
    draws = Draws(DATASET, range(first, first + number), "patient", 64)
    images = draws.integer(1, _MOST_IMAGES)
    lean = draws.uniform()
    findings = _Findings.draw(draws, kind)
    found: list[Picture] = []
    for k in range(number):
        row = first + k
        patient, source = _patient(kind, row, float(lean[k]))
        several = int(images[k]) if kind == "COVID-19" else 1
        for index in range(min(several, number - len(found))):
            name = f"{patient}-{index}.png" if kind == "COVID-19" else f"{patient}.png"
            chest = Chest(
                patient=patient,
                image=name,
                study=name,
                findings=findings.severity[k],
                sides=findings.sides[k],
                boxes=findings.boxes[k],
            )
            found.append(Picture(split, kind, source, name, chest))
        if len(found) == number:
            break
    return found


def _patient(kind: str, row: int, lean: float) -> tuple[str, str]:
    """Identifier and source. Real identifiers of the RSNA are UUIDs of version 4, these of 5."""
    if kind == "COVID-19":
        return f"PHANTOM-{row - 2_000_000:07d}", "bimcv" if lean < 0.8 else "ricord"
    digest = hashlib.sha256(f"{DATASET}|{row}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5)), "rsna"


@dataclass(frozen=True)
class _Findings:
    """What patients of one class show, one entry each."""

    severity: Sequence[Mapping[str, float]]
    sides: Sequence[Mapping[str, Literal["left", "right", "both"]]]
    boxes: Sequence[tuple[Box, ...]]

    @staticmethod
    def draw(draws: Draws, kind: str) -> _Findings:
        if kind == "normal":
            return _Findings([{}] * draws.rows, [{}] * draws.rows, [()] * draws.rows)
        name = "lung-opacity" if kind == "COVID-19" else "consolidation"
        strength = draws.uniform(0.6, 1.0)
        one_sided = draws.below(
            1 - _COVID_BILATERAL if kind == "COVID-19" else _PNEUMONIA_UNILATERAL
        )
        right = draws.below(0.55)  # the right lung is the larger one
        if kind == "COVID-19":
            boxes = _patches(draws, name, one_sided.tolist(), right.tolist())
        else:
            boxes = [()] * draws.rows  # a lobe of the renderer's choice
        sides: list[Mapping[str, Literal["left", "right", "both"]]] = [
            {name: ("right" if r else "left") if one else "both"}
            for one, r in zip(one_sided.tolist(), right.tolist(), strict=True)
        ]
        severity = [{name: float(value)} for value in strength]
        return _Findings(severity, sides, boxes)


def _patches(
    draws: Draws, name: str, one_sided: Sequence[bool], right: Sequence[bool]
) -> list[tuple[Box, ...]]:
    """One to three patches in each affected lung, mostly near the chest wall and low.

    In a frontal image the patient's right lung is on the left.
    """
    counts = draws.integer(1, 4, shape=(2,))
    peripheral = draws.below(_PERIPHERAL, shape=(2, 3))
    x, y = draws.uniform(shape=(2, 3)), draws.uniform(shape=(2, 3))
    width, height = draws.uniform(0.09, 0.17, (2, 3)), draws.uniform(0.10, 0.20, (2, 3))
    found = []
    for k in range(draws.rows):
        boxes = []
        for side in range(2):  # 0: the patient's right lung
            if one_sided[k] and right[k] != (side == 0):
                continue
            for n in range(int(counts[k, side])):
                w, h = float(width[k, side, n]), float(height[k, side, n])
                # Distance of the patch's outer edge from the image's, and its top.
                away = 0.12 + (0.06 if peripheral[k, side, n] else 0.16) * float(x[k, side, n])
                top = 0.80 - h - 0.42 * float(y[k, side, n]) ** 1.7
                boxes.append(Box(name, away if side == 0 else 1 - away - w, top, w, h))
        found.append(tuple(boxes))
    return found
