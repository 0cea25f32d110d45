"""RadCLIP's pre-training corpus on disk: ``pairs.csv``, 2-D images and chest CT volumes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from medbench.phantom import abdomen, brain, captions
from medbench.phantom.cases import APPEARANCES, Cases, sample_cases
from medbench.phantom.ct import Texture, render_ct, slice_heights
from medbench.phantom.draws import Draws, noise
from medbench.phantom.hounsfield import LUNG_WINDOW, to_unit
from medbench.phantom.parallel import in_order
from medbench.phantom.radiograph import render_radiographs
from medbench.phantom.scanner import PAIRS_CT, PAIRS_XRAY
from medbench.phantom.version import RENDERER_VERSION

DATASET = "image-text-pairs"
_SLICES_PER_PATIENT = 6
#: First row of each kind; rows seed patients, so kinds and presets never share one by accident.
_VOLUME_ROWS, _BRAIN_ROWS, _ABDOMEN_ROWS = 1_000_000, 2_000_000, 3_000_000


@dataclass(frozen=True)
class Amounts:
    """Image size and number of CT patients, radiographed patients, brains, abdomens, volumes."""

    size: int
    ct: int
    xray: int
    brain: int
    abdomen: int
    volumes: int
    fewest: int
    most: int

    @property
    def pairs(self) -> int:
        """Rows of the table."""
        flat = self.ct * _SLICES_PER_PATIENT + 2 * self.xray + self.brain + self.abdomen
        return flat + self.volumes

    def limited(self, limit: int | None) -> Amounts:
        """The same mixture cut down to at most ``limit`` rows of the table."""
        if limit is None or limit >= self.pairs:
            return self
        share = limit / self.pairs
        names = ("ct", "xray", "brain", "abdomen", "volumes")
        part = {name: int(getattr(self, name) * share) for name in names}
        if limit >= _SLICES_PER_PATIENT + 5:
            part = {name: max(1, number) for name, number in part.items()}
        while replace(self, **part).pairs > limit:
            part[max(part, key=lambda name: part[name])] -= 1
        return replace(self, **part)


PRESETS = {
    "tiny": Amounts(64, 560, 620, 700, 600, 300, 18, 30),
    "small": Amounts(128, 2_000, 3_000, 3_000, 3_000, 600, 32, 48),
    "paper": Amounts(224, 1_000, 2_000, 3_000, 2_500, 300, 48, 64),
}


def write(
    root: Path, *, preset: str, limit: int | None, advance: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the corpus into ``root`` (see docs/phantoms.md).

    Volumes are NIfTI, int16 HU with axes [x, y, z] = patient's left, back, head increasing with
    the index, as their RAS affine says; a reader that wants slices from the feet to the head takes
    the last axis in order, and rows and columns of an image are [y, x].
    """
    amounts = PRESETS[preset].limited(limit)
    (root / "images").mkdir()
    (root / "volumes").mkdir()
    total = amounts.ct + amounts.xray + amounts.brain + amounts.abdomen + amounts.volumes
    done, pairs = 0, 0
    batches = _batches(amounts)
    with (root / "pairs.csv").open("w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["image", "text", "patient", "split"])
        for units, rows in in_order(
            lambda job: (len(job[1]), job[0](root, amounts, job[1])), batches
        ):
            table.writerows(rows)
            done, pairs = done + units, pairs + len(rows)
            advance(done, total)
    return {
        "renderer": RENDERER_VERSION,
        "pairs": pairs,
        "images": pairs - amounts.volumes,
        "volumes": amounts.volumes,
        "image_size": amounts.size,
        "appearances": APPEARANCES,
        "lung_window_hu": list(LUNG_WINDOW),
        "annotations": "none: texts are generated, and name appearances only",
    }


Rows = list[tuple[str, str, str, str]]
Bytes = npt.NDArray[np.uint8]


Writer = Callable[[Path, Amounts, range], Rows]


def _batches(amounts: Amounts) -> list[tuple[Writer, range]]:
    """What to draw, in the order of the table; batches keep temporaries in the cache."""
    kinds: tuple[tuple[Writer, int, int, int], ...] = (
        (_ct_slices, 0, amounts.ct, 16),
        (_radiographs, 0, amounts.xray, 48),
        (_brains, _BRAIN_ROWS, amounts.brain, 50),
        (_abdomens, _ABDOMEN_ROWS, amounts.abdomen, 50),
        (_volumes, _VOLUME_ROWS, amounts.volumes, 20),
    )
    found = []
    for writer, first, count, at_64 in kinds:
        step = max(1, round(at_64 * (64 / amounts.size) ** 2))
        for start in range(first, first + count, step):
            found.append((writer, range(start, min(start + step, first + count))))
    return found


def _patient(row: int) -> tuple[str, str]:
    """Identifier and split of a patient: one in twenty validates."""
    return f"PAIRS-{row:07d}", "validate" if row % 20 == 19 else "train"


def _save(root: Path, name: str, image: Bytes) -> str:
    path = f"images/{name}.png"
    Image.fromarray(image).save(root / path, compress_level=0)
    return path


def _bytes(image: torch.Tensor) -> Bytes:
    return np.asarray((image.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def _ct_slices(root: Path, amounts: Amounts, rows: range) -> Rows:
    size = amounts.size
    cases = sample_cases(DATASET, rows)
    picks = Draws(DATASET, rows, "slices", 8).uniform(shape=(_SLICES_PER_PATIENT,))
    lesions = captions.spots(cases)
    heights = [captions.lesion_heights(cases, lesions[k], k, picks[k]) for k in range(len(rows))]
    # Heights are not evenly spaced, so every slice is a volume of its own.
    owner = torch.arange(len(rows)).repeat_interleave(_SLICES_PER_PATIENT)
    z = torch.tensor([h for some in heights for h in some])
    quantum = torch.cat(
        [noise(DATASET, "quantum", row, (_SLICES_PER_PATIENT, size, size)) for row in rows]
    )
    texture = Texture.draw(DATASET, rows, "cpu")
    volume = render_ct(cases.patients, cases.findings, owner, z, size, PAIRS_CT, texture, quantum)
    # As stored CT: nothing below -1024 HU.
    images = _bytes(to_unit(volume.hu.clamp_min(-1024)))
    found: Rows = []
    for k, row in enumerate(rows):
        patient, split = _patient(row)
        for number in range(_SLICES_PER_PATIENT):
            index = k * _SLICES_PER_PATIENT + number
            path = _save(root, f"ct-{row:07d}-{number}", images[index])
            text = captions.describe_slice(
                DATASET, cases, lesions[k], k, heights[k][number], number
            )
            found.append((path, text, patient, split))
    return found


def _radiographs(root: Path, amounts: Amounts, rows: range) -> Rows:
    cases = sample_cases(DATASET, rows)
    lesions = captions.spots(cases)
    found: Rows = []
    for view in ("frontal", "lateral"):
        images = _bytes(_radiograph(cases, view, amounts.size))
        for k, row in enumerate(rows):
            patient, split = _patient(row)
            path = _save(root, f"xray-{row:07d}-{view}", images[k])
            text = captions.describe_radiograph(DATASET, cases, lesions[k], k, view)
            found.append((path, text, patient, split))
    return found


def _radiograph(cases: Cases, view: str, size: int) -> torch.Tensor:
    return render_radiographs(
        cases.patients, cases.findings, "frontal" if view == "frontal" else "lateral", size,
        PAIRS_XRAY, DATASET, cases.rows,
    )  # fmt: skip


def _brains(root: Path, amounts: Amounts, rows: range) -> Rows:
    brains = brain.sample_brains(DATASET, rows)
    images = _bytes(brain.render_brains(DATASET, brains, amounts.size))
    found: Rows = []
    for k, row in enumerate(rows):
        path = _save(root, f"brain-{row:07d}", images[k])
        found.append((path, captions.describe_brain(DATASET, brains, k), *_patient(row)))
    return found


def _abdomens(root: Path, amounts: Amounts, rows: range) -> Rows:
    slices = abdomen.sample_abdomens(DATASET, rows)
    hu = abdomen.render_abdomens(DATASET, slices, amounts.size)
    images = _bytes(to_unit(hu, abdomen.WINDOW))
    found: Rows = []
    for k, row in enumerate(rows):
        path = _save(root, f"abdomen-{row:07d}", images[k])
        found.append((path, captions.describe_abdomen(DATASET, slices, k), *_patient(row)))
    return found


def _volumes(root: Path, amounts: Amounts, rows: range) -> Rows:
    size = amounts.size
    everyone = sample_cases(DATASET, rows)
    lesions = captions.spots(everyone)
    every_count = Draws(DATASET, rows, "count", 4).integer(amounts.fewest, amounts.most + 1)
    found: Rows = []
    # Sampling pays in large batches, rendering in ones that fit the cache.
    step = max(1, round(4 * (64 / size) ** 2))
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        mine, counts = rows[part], every_count[part]
        patients, findings = everyone.patients[part], everyone.findings[part]
        owner, z = slice_heights(patients, counts.tolist())
        quantum = torch.cat(
            [
                noise(DATASET, "quantum", row, (int(number), size, size))
                for row, number in zip(mine, counts, strict=True)
            ]
        )
        texture = Texture.draw(DATASET, mine, "cpu")
        volume = render_ct(patients, findings, owner, z, size, PAIRS_CT, texture, quantum)
        for k, row in enumerate(mine):
            slices = owner == k
            path = f"volumes/ct-{row:07d}.nii"
            save_volume(root / path, volume.hu[slices].numpy(), z[slices].tolist())
            index = start + k
            text = captions.describe_volume(DATASET, everyone, lesions[index], index)
            found.append((path, text, *_patient(row)))
    return found


def save_volume(path: Path, hu: npt.NDArray[np.float32], heights: list[float]) -> None:
    """Write slices [S, H, W], head first, as NIfTI [x, y, z] with z towards the head."""
    pixel = PAIRS_CT.field_of_view / hu.shape[-1]
    gap = abs(heights[0] - heights[1]) if len(heights) > 1 else PAIRS_CT.thickness
    data = np.clip(np.rint(hu[::-1]), -1024, 3071).astype(np.int16).transpose(2, 1, 0)
    half = PAIRS_CT.field_of_view / 2
    # NIfTI is RAS: x to the right and y to the front are negative steps here.
    affine = np.array(
        [[-pixel, 0, 0, half], [0, -pixel, 0, half], [0, 0, gap, heights[-1]], [0, 0, 0, 1.0]]
    )
    image: Any = nib.Nifti1Image(data, affine)  # type: ignore[no-untyped-call]
    image.header["descrip"] = b"PHANTOM medbench renderer " + RENDERER_VERSION.encode()
    image.header.set_xyzt_units("mm")
    path.write_bytes(image.to_bytes())
