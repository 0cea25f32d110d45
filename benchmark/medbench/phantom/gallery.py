"""A labelled contact sheet of the phantom world, for the eye: ``docs/phantoms.png``."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from medbench.phantom import abdomen, brain, captions
from medbench.phantom.cases import NAMES, Cases, sample_cases
from medbench.phantom.cohort import CAP, COVID, NORMAL, build, subjects
from medbench.phantom.ct import Texture, render_ct
from medbench.phantom.draws import noise
from medbench.phantom.hounsfield import to_unit
from medbench.phantom.radiograph import render_radiographs
from medbench.phantom.scanner import PAIRS_CT, PAIRS_XRAY
from medbench.phantom.scenes import caption, render_scenes, sample_scenes
from medbench.phantom.version import RENDERER_VERSION

Bytes = npt.NDArray[np.uint8]
Tile = tuple[Bytes, str]

_DATASET = "gallery"
_TILE, _COLUMNS, _TEXT, _MARGIN = 176, 8, 34, 4
_SHOWN = (
    "clear", "multifocal ground glass", "consolidation", "nodule", "effusion", "pneumothorax",
    "cardiomegaly", "edema",
)  # fmt: skip


def _grey(image: torch.Tensor) -> Bytes:
    return np.asarray((image.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def _cases(names: tuple[str, ...], first: int) -> Cases:
    return sample_cases(
        _DATASET, range(first, first + len(names)), np.array([NAMES.index(name) for name in names])
    )


def _best_height(cases: Cases, index: int) -> float:
    """A slice that shows the finding: the middle of the largest lesion, or a typical level."""
    lesions = cases.findings.lesions
    mine = torch.nonzero((lesions.owner == index) & lesions.marked)[:, 0]
    if len(mine):
        # Above the domes, where lung fills the slice.
        size = lesions.radii[mine].prod(1) * (lesions.centre[mine, 2] > -65)
        largest = mine[int(size.argmax())]
        return float(lesions.centre[largest, 2])
    levels = {"pneumothorax": 45.0, "effusion": -70.0, "clear": -30.0}
    return levels.get(cases.name(index), -45.0)


def _ct_row() -> list[Tile]:
    size = 2 * _TILE
    cases = _cases(_SHOWN, 20)
    z = torch.tensor([_best_height(cases, k) for k in range(len(_SHOWN))])
    owner = torch.arange(len(_SHOWN))
    quantum = torch.cat([noise(_DATASET, "quantum", row, (1, size, size)) for row in cases.rows])
    texture = Texture.draw(_DATASET, cases.rows, "cpu")
    hu = render_ct(
        cases.patients, cases.findings, owner, z, size, PAIRS_CT, texture, 1.4 * quantum
    ).hu
    images = _grey(to_unit(hu))
    return [(images[k], f"CT: {name}") for k, name in enumerate(_SHOWN)]


def _xray_rows() -> list[Tile]:
    cases = _cases(_SHOWN, 20)
    tiles = []
    for view in ("frontal", "lateral"):
        shot = render_radiographs(
            cases.patients,
            cases.findings,
            "frontal" if view == "frontal" else "lateral",
            2 * _TILE,
            PAIRS_XRAY,
            _DATASET,
            cases.rows,
        )
        images = _grey(shot)
        tiles += [(images[k], f"{view}: {name}") for k, name in enumerate(_SHOWN)]
    return tiles


def _brain_row() -> list[Tile]:
    brains = brain.sample_brains(_DATASET, range(_COLUMNS))
    brains.finding = np.arange(_COLUMNS)
    brains.sequence = np.array([0, 0, 1, 2, 1, 2, 2, 1])
    images = _grey(brain.render_brains(_DATASET, brains, 2 * _TILE))
    names = [
        f"MR {brain.SEQUENCES[s]}: {brain.FINDINGS[f]}"
        for s, f in zip(brains.sequence, brains.finding, strict=True)
    ]
    return list(zip(images, names, strict=True))


def _abdomen_row() -> list[Tile]:
    slices = abdomen.sample_abdomens(_DATASET, range(_COLUMNS))
    slices.finding = np.array([0, 1, 3, 4, 5, 6, 7, 8])
    hu = abdomen.render_abdomens(_DATASET, slices, 2 * _TILE)
    images = _grey(to_unit(hu, abdomen.WINDOW))
    return [(images[k], f"abdomen CT: {abdomen.FINDINGS[f]}") for k, f in enumerate(slices.finding)]


def _task_rows() -> list[Tile]:
    """Eight slices, head to feet, of one subject of each class of the task covid-ct."""
    tiles = []
    for label, name in ((COVID, "COVID-19"), (CAP, "CAP"), (NORMAL, "normal")):
        subject = next(s for s in subjects() if s.label == label and s.number == 4)
        cohort = build([subject], 2 * _COLUMNS + 6, 2 * _COLUMNS + 6)
        some = slice(3, 3 + 2 * _COLUMNS, 2)
        cohort.owner, cohort.z = cohort.owner[some], cohort.z[some]
        images = _grey(to_unit(cohort.render(2 * _TILE).hu))
        tiles += [(image, f"{name} subject, slice {k + 1}") for k, image in enumerate(images)]
    return tiles


def _scene_row() -> list[Tile]:
    scenes = sample_scenes(range(_COLUMNS))
    images = render_scenes(scenes, 2 * _TILE).numpy()
    return [(images[k], caption(scenes, k)) for k in range(_COLUMNS)]


def _caption_row() -> list[Tile]:
    """Corpus images at the size of the tiny preset, with the texts they are paired with."""
    rows = range(100, 100 + _COLUMNS)
    cases = sample_cases(_DATASET, rows)
    lesions = captions.spots(cases)
    z = torch.tensor([_best_height(cases, k) for k in range(_COLUMNS)])
    quantum = torch.cat([noise(_DATASET, "quantum", row, (1, 64, 64)) for row in rows])
    texture = Texture.draw(_DATASET, rows, "cpu")
    owner = torch.arange(_COLUMNS)
    hu = render_ct(cases.patients, cases.findings, owner, z, 64, PAIRS_CT, texture, quantum).hu
    images = _grey(to_unit(hu))
    return [
        (images[k], captions.describe_slice(_DATASET, cases, lesions[k], k, float(z[k]), 0))
        for k in range(_COLUMNS)
    ]


def tiles() -> list[tuple[str, list[Tile]]]:
    """Sections of the sheet: a heading and its tiles."""
    return [
        ("Chest CT, findings", _ct_row()),
        ("Chest radiographs of the same patients, frontal and lateral", _xray_rows()),
        ("Brain MR", _brain_row()),
        ("Abdomen CT", _abdomen_row()),
        ("Task covid-ct: one subject of each class, from head to feet", _task_rows()),
        ("Pre-training pairs at 64 x 64 pixels, with their texts", _caption_row()),
        ("Scenes: the general domain, with captions", _scene_row()),
    ]


def draw(path: Path) -> None:
    """Draw the contact sheet and save it as PNG."""
    sections = tiles()
    font = ImageFont.load_default(11)
    large = ImageFont.load_default(15)
    width = _COLUMNS * (_TILE + _MARGIN) + _MARGIN
    heights = [30 + -(-len(t) // _COLUMNS) * (_TILE + _TEXT + _MARGIN) for _, t in sections]
    sheet = Image.new("RGB", (width, sum(heights) + 30), "white")
    pen = ImageDraw.Draw(sheet)
    title = f"medbench phantoms, renderer {RENDERER_VERSION}: rendered, no patient anywhere"
    pen.text((_MARGIN, 6), title, fill="black", font=large)
    top = 30
    for (heading, some), height in zip(sections, heights, strict=True):
        pen.text((_MARGIN, top + 6), heading, fill="black", font=large)
        for index, (image, text) in enumerate(some):
            x = _MARGIN + index % _COLUMNS * (_TILE + _MARGIN)
            y = top + 30 + index // _COLUMNS * (_TILE + _TEXT + _MARGIN)
            picture: Any = Image.fromarray(image).convert("RGB")
            sheet.paste(picture.resize((_TILE, _TILE), Image.Resampling.BICUBIC), (x, y))
            lines = textwrap.wrap(text, 31)[:3]
            pen.text((x, y + _TILE), "\n".join(lines), fill="black", font=font, spacing=0)
        top += height
    # 256 colours are plenty, and keep the file small enough to commit.
    sheet.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
