"""Chest radiographs from annotations: each finding is drawn where its annotation says.

`chest_plan` turns annotations into bodies, lesions and lines in the patient's own anatomy,
`chest_devices` adds tubes and wires, `chest_image` projects them and develops the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from medbench.data.samples import Box
from medbench.phantom.scanner import XRayUnit

if TYPE_CHECKING:
    import torch

#: What can be drawn. Layout writers map their dataset's labels to these.
FINDINGS = (
    "atelectasis", "calcification", "cardiomegaly", "consolidation", "edema", "effusion",
    "emphysema", "enlarged-cardiomediastinum", "fibrosis", "fracture", "hernia", "infiltration",
    "lung-lesion", "lung-opacity", "mass", "nodule", "pleural-other", "pleural-thickening",
    "pneumonia", "pneumothorax", "support-devices",
)  # fmt: skip

#: Severity of a finding that is annotated as uncertain: it is drawn faintly.
UNCERTAIN = 0.4

#: Pixels drawn at a time: few enough for a processor's cache, many enough for a GPU.
_PIXELS_CPU, _PIXELS_GPU = 16 * 224 * 224, 256 * 224 * 224


@dataclass(frozen=True)
class Chest:
    """One radiograph to be drawn.

    Attributes:
        patient: identifier of the patient: the same one has the same body in every image.
        image: identifier of the image, seed of its noise and position.
        study: identifier of the examination: images of one study show the same findings in the
            same places. Empty: the image is its own study.
        view: frontal or lateral.
        age: years, or None (drawn).
        female: or None (drawn).
        findings: name of `FINDINGS` to severity: 1 as annotated, `UNCERTAIN` for uncertain ones.
        sides: finding to "left", "right" or "both", where the annotation says.
        boxes: places of findings (label: a name of `FINDINGS`) in the frontal image. A finding
            with a box is drawn in its boxes and nowhere else, at severity 1 if none is given.
        mask: bool [H, W] of the frontal image: where a pneumothorax lies, or None.
    """

    patient: str
    image: str
    study: str = ""
    view: Literal["frontal", "lateral"] = "frontal"
    age: float | None = None
    female: bool | None = None
    findings: Mapping[str, float] = field(default_factory=dict)
    sides: Mapping[str, Literal["left", "right", "both"]] = field(default_factory=dict)
    boxes: tuple[Box, ...] = ()
    mask: npt.NDArray[np.bool_] | None = None


def render(
    dataset: str, chests: Sequence[Chest], size: int, unit: XRayUnit, device: str = "cpu"
) -> npt.NDArray[np.uint8]:
    """Draw radiographs, uint8 [N, size, size], bone white. Order and batching change nothing.

    Frontal images have the patient's right on the left, lateral ones the front. A call uses one
    thread's worth of torch: callers that want all cores hand batches to `parallel.in_order`.

    Args:
        dataset: name of the dataset, part of every seed.
        chests: what to draw.
        size: rows and columns in pixels.
        unit: signature of the radiography unit.
        device: where to draw, such as "cuda"; random numbers come from the CPU in any case.

    Raises:
        ValueError: a finding or a box names something that is not in `FINDINGS`.
    """
    return (_draw(dataset, chests, size, unit, device, noisy=True) * 255).round().astype(np.uint8)


def expected(
    dataset: str, chests: Sequence[Chest], size: int, unit: XRayUnit, device: str = "cpu"
) -> npt.NDArray[np.float32]:
    """The same images without photon noise, float32 [N, size, size] in [0, 1]: what an observer
    who knows the renderer expects to see."""
    return _draw(dataset, chests, size, unit, device, noisy=False)


def _draw(
    dataset: str, chests: Sequence[Chest], size: int, unit: XRayUnit, device: str, *, noisy: bool
) -> npt.NDArray[np.float32]:
    from medbench.phantom.chest_image import draw
    from medbench.phantom.chest_plan import plan

    _check(chests)
    out = np.empty((len(chests), size, size), dtype=np.float32)
    pixels = _PIXELS_CPU if device == "cpu" else _PIXELS_GPU
    batch = max(1, pixels // size**2)
    for view in ("frontal", "lateral"):
        mine = [i for i, chest in enumerate(chests) if chest.view == view]
        for start in range(0, len(mine), batch):
            some = mine[start : start + batch]
            scene = plan(dataset, [chests[i] for i in some], unit)
            image: torch.Tensor = draw(scene.to(device), size, unit, noisy=noisy)
            out[some] = image.cpu().numpy()
    return out


def _check(chests: Sequence[Chest]) -> None:
    for chest in chests:
        named = {*chest.findings, *chest.sides, *(box.label for box in chest.boxes)}
        if unknown := named - set(FINDINGS):
            raise ValueError(
                f"Radiograph {chest.image} has findings that cannot be drawn: "
                f"{', '.join(sorted(unknown))}. Known: {', '.join(FINDINGS)}."
            )
