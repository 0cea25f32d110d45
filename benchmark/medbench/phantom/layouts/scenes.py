"""Scenes on disk: ``pairs.csv`` and RGB images, the layout of image-text pairs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from medbench.phantom.parallel import in_order
from medbench.phantom.scenes import caption, render_scenes, sample_scenes
from medbench.phantom.version import RENDERER_VERSION

#: Preset: image size and number of scenes.
PRESETS = {"tiny": (64, 4_000), "small": (128, 20_000), "paper": (224, 50_000)}
_CHUNK = 100


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the scenes into ``root``."""
    size, total = PRESETS[preset]
    total = total if limit is None else min(limit, total)
    (root / "images").mkdir()
    with (root / "pairs.csv").open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["image", "text", "patient", "split"])
        batches = (range(k, min(k + _CHUNK, total)) for k in range(0, total, _CHUNK))
        done = 0
        for pairs in in_order(lambda rows: _write_batch(root, rows, size), batches):
            table.writerows(pairs)
            done += len(pairs)
            advance(done, total)
    return {
        "renderer": RENDERER_VERSION,
        "images": total,
        "image_size": size,
        "annotations": "none",
    }


def _write_batch(root: Path, rows: range, size: int) -> list[tuple[str, str, str, str]]:
    scenes = sample_scenes(rows)
    pixels = render_scenes(scenes, size).numpy()
    pairs = []
    for index, row in enumerate(rows):
        path = f"images/{row:06d}.png"
        Image.fromarray(pixels[index]).save(root / path, compress_level=0)
        split = "validate" if row % 20 == 19 else "train"
        pairs.append((path, caption(scenes, index), f"SCENE-{row:06d}", split))
    return pairs
