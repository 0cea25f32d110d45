"""CheXpert 5x200 on disk: a CheXpert folder with the 1,000 images that the rule picks from the real
train table, and the list of their paths.

They are real rows. No patient of theirs is in the phantom of CheXpert, which is trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medbench.data.chexpert_5x200 import LIST
from medbench.data.five_by_200 import CLASSES, PER_CLASS, choose
from medbench.errors import UsageError
from medbench.phantom.layouts import chexpert
from medbench.phantom.radiograph_files import draw_files
from medbench.phantom.version import RENDERER_VERSION

#: Preset to side of the images in pixels. Every preset has all images.
PRESETS = {"tiny": 128, "small": 256, "paper": 390}


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the phantom of CheXpert 5x200 into ``root`` (see docs/phantoms.md).

    Raises:
        UsageError: a limit below 5 images, one of each class.
    """
    size, each = PRESETS[preset], per_class(limit)
    table = chexpert.real_table()
    # The first of each class by hash: a limited phantom has the first of the whole one.
    chosen = [s for found in choose(table.samples, each).values() for s in found]
    kept = {sample.id for sample in chosen}
    rows = [
        chexpert.Row(line, sample.id, chexpert.chest_of(sample))
        for line, sample in zip(table.lines, table.samples, strict=True)
        if sample.id in kept
    ]
    chexpert.write_table(root / "train.csv", table.header, rows)
    paths = {row.path: row.line.partition(",")[0] for row in rows}
    listed = "\n".join(["Path", *(paths[sample.id] for sample in chosen)]) + "\n"
    (root / LIST).write_text(listed, encoding="utf-8")
    del table  # hundreds of megabytes
    written = draw_files(
        root, chexpert.DATASET, [row.chest for row in rows], [row.path for row in rows], size,
        advance,
    )  # fmt: skip
    return {
        "renderer": RENDERER_VERSION,
        "images": len(rows),
        "per_class": each,
        "patients": len({row.chest.patient for row in rows}),
        "image_size": size,
        "bytes": written,
        "subset": "of each class the first images by hash that the 5x200 rule allows",
        "real": ["rows of train.csv: paths, labels, age, sex, views"],
        "drawn": [],
    }


def per_class(limit: int | None) -> int:
    """Images of each class under a limit. Raises UsageError when there would be none."""
    if limit is None:
        return PER_CLASS
    if limit < len(CLASSES):
        raise UsageError(
            f"A limit of {limit} images is less than one of each of the {len(CLASSES)} classes. "
            f"Give at least {len(CLASSES)}."
        )
    return min(PER_CLASS, limit // len(CLASSES))
