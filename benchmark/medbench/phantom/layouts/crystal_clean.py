"""Crystal Clean on disk: folders of brain MR pictures, some of them altered copies of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from medbench.data.crystal_clean import FOLDERS, SUFFIXES
from medbench.phantom.brain import CRYSTAL_MR, FINDINGS, render_brains, sample_brains
from medbench.phantom.draws import Draws
from medbench.phantom.parallel import in_order
from medbench.phantom.subset import chance, pick, stratified
from medbench.phantom.version import RENDERER_VERSION

DATASET = "crystal-clean"
#: Preset to side of the images in pixels, and number of images.
PRESETS = {"tiny": (128, 1_200), "small": (224, 2_400), "paper": (224, 3_264)}
#: Number of pictures of each class, as the dataset's page gives it.
PUBLISHED = {"normal": 500, "glioma": 926, "meningioma": 937, "pituitary": 901}
#: Share of pictures that are altered copies: a judgement; the page does not say.
COPIES = 0.15
#: What normal slices show: things that come with age and are no tumour. A judgement.
NORMAL = {"clear": 0.7, "white matter": 0.15, "atrophy": 0.15}
#: Share of slices at the skull base where the pituitary gland does not decide it: a judgement,
#: without which the level alone would give the adenoma away.
AT_BASE = 0.35

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """One file: its class, the number in its name, its own row, its original's, its suffix."""

    kind: str
    number: int
    row: int
    original: int
    suffix: str = ""

    @property
    def path(self) -> str:
        """Below the root."""
        tail = f"_{self.suffix}_" if self.suffix else ""
        return f"Data/{FOLDERS[self.kind]}/{self.kind[0].upper()}_{self.number}{tail}.jpg"


def pictures() -> list[Picture]:
    """All pictures of the published size. A copy's original is drawn among those of its class."""
    found: list[Picture] = []
    for kind, count in PUBLISHED.items():
        first = len(found)
        copies = round(count * COPIES)
        found += [Picture(kind, n + 1, first + n, first + n) for n in range(count - copies)]
        taken: set[tuple[int, str]] = set()
        for row in range(len(found), first + count):
            original = int(chance(DATASET, "original", row) * (count - copies))
            weights = {s: 1.0 for s in SUFFIXES if (original, s) not in taken}
            suffix = pick(DATASET, "suffix", row, weights)
            taken.add((original, suffix))
            found.append(Picture(kind, original + 1, row, first + original, suffix))
    return found


def chosen(count: int) -> list[Picture]:
    """At most ``count`` pictures, an original with all its copies, stratified by class."""
    groups: dict[int, list[Picture]] = {}
    for picture in pictures():
        groups.setdefault(picture.original, []).append(picture)
    members = list(groups.values())
    found: list[Picture] = []
    for index in stratified(DATASET, [group[0].kind for group in members]):
        if len(found) + len(members[index]) > count:
            break
        found += members[index]
    return sorted(found, key=lambda picture: (picture.original, picture.row))


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the phantom of Crystal Clean into ``root`` (see docs/phantoms.md)."""
    size, count = PRESETS[preset]
    files = chosen(count if limit is None else min(count, limit))
    for folder in FOLDERS.values():
        (root / "Data" / folder).mkdir(parents=True)
    rows = sorted({picture.original for picture in files})
    kinds = {picture.original: picture.kind for picture in files}
    copies: dict[int, list[Picture]] = {}
    for picture in files:
        copies.setdefault(picture.original, []).append(picture)
    step = max(1, round(50 * (64 / size) ** 2))

    def batch(start: int) -> tuple[int, int]:
        part = rows[start : start + step]
        images = render([kinds[row] for row in part], part, size)
        number = written = 0
        for row, image in zip(part, images, strict=True):
            for picture in copies[row]:
                written += _save(root / picture.path, altered(image, picture))
                number += 1
        return number, written

    done = total = 0
    for number, written in in_order(batch, range(0, len(rows), step)):
        done, total = done + number, total + written
        advance(done, len(files))
    return {
        "renderer": RENDERER_VERSION,
        "images": len(files),
        "image_size": size,
        "bytes": total,
        "classes": {kind: sum(p.kind == kind for p in files) for kind in FOLDERS},
        "copies": sum(bool(p.suffix) for p in files),
        "real": "numbers of the classes (500, 926, 937, 901)",
        "drawn": "everything else; the share of altered copies is a judgement",
        "subset": "stratified by class, originals with all their copies",
    }


def render(kinds: Sequence[str], rows: Sequence[int], size: int) -> Bytes:
    """Originals, uint8 [N, size, size]; each depends on its class and row alone."""
    shown = [pick(DATASET, "normal", r, NORMAL) if k == "normal" else k
             for k, r in zip(kinds, rows, strict=True)]  # fmt: skip
    base = [k == "pituitary" or chance(DATASET, "base", r) < AT_BASE
            for k, r in zip(kinds, rows, strict=True)]  # fmt: skip
    brains = replace(
        sample_brains(DATASET, rows),
        finding=np.array([FINDINGS.index(name) for name in shown]),
        base=np.array(base),
    )
    images = render_brains(DATASET, brains, size, scanner=CRYSTAL_MR)
    return np.asarray((images * 255).round().byte().numpy())


def altered(image: Bytes, picture: Picture) -> Bytes:
    """The copy that a picture's suffix names; the image itself without one."""
    draws = Draws(DATASET, [picture.row], "copy", 8)
    if picture.suffix == "VF":
        return image[::-1]
    if picture.suffix == "HF":
        return image[:, ::-1]
    if picture.suffix == "RO":
        angle = float(draws.uniform(5, 20)[0]) * (1 if draws.below(0.5)[0] else -1)
        turned = Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR)
        return np.asarray(turned)
    if picture.suffix == "SP":
        dots = Draws(DATASET, [picture.row], "dots", image.size).uniform(shape=image.shape)[0]
        spoilt = np.where(dots < 0.02, 0, np.where(dots > 0.98, 255, image))
        return np.asarray(spoilt, np.uint8)
    if picture.suffix == "BR":
        factor = float(draws.uniform(0.6, 1.5)[0])
        return np.asarray(np.clip(image * factor, 0, 255), np.uint8)
    return image


def _save(path: Path, image: Bytes) -> int:
    """As the published files: JPEG with three channels, here all alike. Returns its bytes."""
    Image.fromarray(np.ascontiguousarray(image)).convert("RGB").save(
        path, quality=92, comment="PHANTOM medbench: not a patient"
    )
    return path.stat().st_size
