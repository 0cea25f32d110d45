"""A contact sheet of one dataset as its reader gives it: a row per label, regions outlined."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from medbench.data.dataset import OpenDataset
from medbench.data.images import read, resize
from medbench.data.samples import Annotates, Sample

_COLUMNS, _ROWS = 6, 12
_TILE, _MARGIN, _TEXT = 112, 6, 14
_OUTLINE = (255, 196, 0)


def draw(dataset: OpenDataset, path: Path) -> None:
    """Draw images of each label, those with a region first, and save them as PNG.

    Tiles say id-free facts only: view, and how many labels the image has. No text of a report.

    Args:
        dataset: images; volumes are shown by their middle slice.
        path: where the sheet goes.
    """
    rows = _rows(dataset)
    font, large = ImageFont.load_default(10), ImageFont.load_default(14)
    height = _TILE + _TEXT + _MARGIN
    sheet = Image.new("RGB", (200 + _COLUMNS * (_TILE + _MARGIN), 34 + len(rows) * height), "white")
    pen = ImageDraw.Draw(sheet)
    what = "rendered, no patient anywhere" if dataset.track == "phantom" else "real data"
    pen.text((_MARGIN, 8), f"{dataset.spec.title}: {what}", fill="black", font=large)
    for number, (label, samples) in enumerate(rows):
        top = 34 + number * height
        pen.text((_MARGIN, top + 4), label.replace("-", " "), fill="black", font=large)
        for column, sample in enumerate(samples):
            left = 200 + column * (_TILE + _MARGIN)
            sheet.paste(_tile(dataset, sample), (left, top))
            others = sum(v == 1 for v in sample.labels.values()) - 1
            said = [sample.view or "", f"+{others}" if others > 0 else ""]
            pen.text((left, top + _TILE), " ".join(s for s in said if s), fill="black", font=font)
    sheet.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def _rows(dataset: OpenDataset) -> list[tuple[str, list[Sample]]]:
    """Labels by frequency, each with a few samples: those that have fewest other labels first."""
    present: dict[str, list[Sample]] = {"none": []}
    counts: Counter[str] = Counter()
    for sample in dataset.samples:
        found = [name for name, value in sample.labels.items() if value == 1]
        counts.update(found)
        for name in found or ["none"]:
            present.setdefault(name, []).append(sample)
    names = [name for name, _ in counts.most_common(_ROWS - 1)]
    rows = []
    for name in ["none", *names]:
        some = sorted(
            present[name],
            key=lambda s: (s.annotation is None, sum(v == 1 for v in s.labels.values())),
        )
        patients: dict[str, Sample] = {}
        for sample in some:  # a patient is shown once in a row
            patients.setdefault(sample.patient or sample.id, sample)
        if patients:
            rows.append((name, list(patients.values())[:_COLUMNS]))
    return rows


def _tile(dataset: OpenDataset, sample: Sample) -> Image.Image:
    pixels: Any = read(dataset.reader, sample)
    if sample.kind == "volume":
        pixels = pixels[len(pixels) // 2]
    picture = Image.fromarray(resize(pixels, _TILE)).convert("RGB")
    if sample.annotation is None or not isinstance(dataset.reader, Annotates):
        return picture
    mask = resize(dataset.reader.mask(sample).astype(np.uint8) * 255, _TILE) >= 128
    inner = mask.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            inner &= np.roll(mask, step, axis)
    array = np.array(picture)
    array[mask & ~inner] = _OUTLINE
    return Image.fromarray(array)
