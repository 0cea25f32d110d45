"""Chest studies of nobody, to make a gallery of that may be shown.

    python docs/galleries/made_up_studies.py FOLDER

writes 480 studies in the layout of IU X-Ray as R2Gen ships it: findings drawn by lot, two
radiographs rendered by medbench, and a report put together from the sentences below, which were
written for this file. No real report, label or patient is in them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from medbench.phantom.chest import Chest
from medbench.phantom.radiograph_files import draw_files
from medbench.phantom.version import RENDERER_VERSION

COUNTS = {"train": 360, "val": 40, "test": 80}
SIZE = 128
Side = Literal["left", "right"]

#: Of each drawn finding: its share of the studies, sentences that state it, and such that deny it.
SENTENCES: Mapping[str, tuple[float, tuple[str, ...], tuple[str, ...]]] = {
    "cardiomegaly": (
        0.3,
        ("The heart is enlarged.", "There is cardiomegaly.", "The heart is clearly enlarged."),
        ("Heart size is normal.", "The heart is normal in size.", "The heart is not enlarged."),
    ),
    "effusion": (
        0.3,
        ("There is a {side} pleural effusion.", "A {side} pleural effusion is seen."),
        ("No pleural effusion.", "There is no pleural effusion.", "No effusion is seen."),
    ),
    "pneumothorax": (
        0.15,
        ("There is a {side} pneumothorax.", "A {side} pneumothorax is present."),
        ("No pneumothorax.", "There is no pneumothorax."),
    ),
    "consolidation": (
        0.25,
        ("There is a consolidation in the {side} lung.", "A {side} sided consolidation is seen."),
        ("No consolidation.", "The lungs are clear of consolidation."),
    ),
}


def write(root: Path, seed: int = 0) -> None:
    """Write the studies into ``root``, marked as a phantom. Equal seeds give equal studies."""
    rng = np.random.default_rng(seed)
    entries: dict[str, list[dict[str, object]]] = {part: [] for part in COUNTS}
    chests: list[Chest] = []
    parts = [part for part, count in COUNTS.items() for _ in range(count)]
    for number, part in enumerate(parts):
        name = f"made-up-{number:03d}"
        sides: dict[str, Side] = {}
        said = []
        for finding, (share, present, absent) in SENTENCES.items():
            ill = rng.random() < share
            side: Side = "left" if rng.random() < 0.5 else "right"
            if ill:
                sides[finding] = side
            said.append(str(rng.choice(present if ill else absent)).format(side=side))
        paths = [f"{name}/{view}.png" for view in range(2)]
        findings = dict.fromkeys(sides, 1.0)
        sided = {f: s for f, s in sides.items() if f != "cardiomegaly"}
        chests += [
            Chest(name, path, name, view, findings=findings, sides=sided)
            for path, view in zip(paths, ("frontal", "lateral"), strict=True)
        ]
        text = " ".join(said)
        entries[part].append({"id": name, "report": text, "image_path": paths, "split": part})
    paths = [f"images/{chest.image}" for chest in chests]
    draw_files(root, "iu-xray", chests, paths, SIZE, lambda done, total: None)
    (root / "annotation.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")
    marker = {"dataset": "iu-xray", "preset": "tiny", "renderer": RENDERER_VERSION}
    (root / "medbench-phantom.json").write_text(json.dumps(marker), encoding="utf-8")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
