"""IU X-Ray on disk as R2Gen has it: ``annotation.json`` and two images of each study.

Real: the studies, their reports, ages, sexes where reports say them, and which image is lateral
where the tables know. By rule: the split, and what is drawn, which is what the report and its MeSH
terms state.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from medbench.data.r2gen import FILE, SPLITS
from medbench.phantom.chest import Chest, render
from medbench.phantom.openi_reports import Study, drawn, studies
from medbench.phantom.parallel import in_order
from medbench.phantom.scanner import XRAY_UNITS
from medbench.phantom.subset import stratified
from medbench.phantom.version import RENDERER_VERSION

DATASET = "iu-xray"
#: Side of an image in pixels. Every preset has all 2,955 studies.
PRESETS = {"tiny": 128, "small": 256, "paper": 512}
#: Studies in a batch at 128 px; temporaries stay in the cache.
_BATCH = 24


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the phantom of iu-xray into ``root`` (see docs/phantoms.md)."""
    size = PRESETS[preset]
    chosen = choose(limit)
    (root / "images").mkdir()
    step = max(1, round(_BATCH * (128 / size) ** 2))
    batches = [chosen[start : start + step] for start in range(0, len(chosen), step)]
    done, written = 0, 0

    def batch(some: Sequence[Study]) -> tuple[int, int]:
        return len(some), _write_images(root / "images", some, size)

    for number, count in in_order(batch, batches):
        done, written = done + number, written + count
        advance(2 * done, 2 * len(chosen))
    annotation = {
        split: [_entry(study) for study in chosen if study.split == split] for split in SPLITS
    }
    (root / FILE).write_text(json.dumps(annotation, ensure_ascii=False), encoding="utf-8")
    return {
        "renderer": RENDERER_VERSION,
        "studies": dict(Counter(study.split for study in chosen)),
        "images": 2 * len(chosen),
        "image_size": size,
        "bytes": written,
        "subset": "all studies of R2Gen: reports with two or more images and a findings section",
        "real": [
            "study ids, reports (findings section), MeSH terms",
            "age and sex where header and report say them (they shape the body)",
            "which image is lateral, where the tables know",
        ],
        "by_rule": [
            "findings and their sides: read from findings, impression and MeSH terms",
            "split: studies in the order of a hash, in R2Gen's proportions; R2Gen's own list is "
            "not in the package",
            "where the tables do not know: the first image is frontal, the second lateral",
        ],
    }


def choose(limit: int | None) -> list[Study]:
    """The studies of a phantom with at most ``limit`` images, by number."""
    everyone = studies()
    if limit is None or limit >= 2 * len(everyone):
        return list(everyone)
    strata = [(study.split, study.findings.labels["no-finding"]) for study in everyone]
    kept = sorted(stratified(DATASET, strata)[: limit // 2])
    return [everyone[row] for row in kept]


def chests(study: Study) -> list[Chest]:
    """What is drawn of a study: its two images."""
    findings, sides = drawn(study.findings, study.report.terms)
    return [
        Chest(
            patient=study.report.id,
            image=f"{study.id}/{number}",
            study=study.id,
            view="lateral" if lateral else "frontal",
            age=study.age,
            female=study.female,
            findings=findings,
            sides=sides,
        )
        for number, lateral in enumerate(study.lateral)
    ]


def _entry(study: Study) -> dict[str, Any]:
    return {
        "id": study.id,
        "report": study.report.sections["findings"],
        "image_path": [f"{study.id}/{number}.png" for number in range(2)],
        "split": study.split,
    }


def _write_images(folder: Path, some: Sequence[Study], size: int) -> int:
    """Draw and write the images of some studies; returns their bytes."""
    planned = [chest for study in some for chest in chests(study)]
    pictures = render(DATASET, planned, size, XRAY_UNITS[DATASET])
    written = 0
    for study in some:
        (folder / study.id).mkdir()
    for chest, picture in zip(planned, pictures, strict=True):
        path = folder / f"{chest.image}.png"
        Image.fromarray(picture).save(path, compress_level=1)
        written += path.stat().st_size
    return written
