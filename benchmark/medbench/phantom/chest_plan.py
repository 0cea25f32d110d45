"""From annotations to a scene: bodies, positions, lesions, fluid, air and lines of N radiographs.

Streams of random numbers never depend on the findings: the body comes from the patient's id, the
places of findings from the study's, position and exposure from the image's. So an image with and
one without a finding differ by that finding alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from medbench.phantom.chest_devices import Strokes, ecg_leads, support_devices
from medbench.phantom.draws import Draws, Floats, Mask, noise, to_tensor
from medbench.phantom.findings import (
    BAND,
    CONSOLIDATION,
    GROUND_GLASS,
    NODULE,
    SCAR,
    Lesions,
    Plan,
    confounders,
)
from medbench.phantom.patient import Patients, sample_patients
from medbench.phantom.scanner import XRayUnit

if TYPE_CHECKING:
    from medbench.phantom.chest import Chest

#: Height in mm of the image's centre above the patient's origin, before positioning.
CENTRE_Z = -15.0
#: Cells of the noise fields that give opacities their ragged edges: coarse and fine.
_CELLS = (24, 72)
_SIDES = np.array([-1.0, 1.0])


def row_of(name: str) -> int:
    """A row number for an identifier, the same on every platform."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


@dataclass
class Tensors:
    """A dataclass of tensors that moves between devices as one."""

    def to(self, device: torch.device | str) -> Any:
        """The same on another device."""
        moved: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if hasattr(value, "to"):
                moved[f.name] = value.to(device)
            elif isinstance(value, tuple):
                moved[f.name] = tuple(part.to(device) for part in value)
        return replace(self, **moved)


@dataclass
class Frame(Tensors):
    """How each patient stands before the detector, all [N].

    Attributes:
        zoom: mm of patient for a mm of detector.
        dx, dz: mm of patient at the image's centre.
        shear: sideways lean, mm across for a mm of height.
        turn: rotation about the long axis, mm across for a mm of depth.
    """

    zoom: torch.Tensor
    dx: torch.Tensor
    dz: torch.Tensor
    shear: torch.Tensor
    turn: torch.Tensor


@dataclass
class Blobs(Tensors):
    """L soft-edged ellipsoids whose axes lie along x, y, z.

    Attributes:
        owner: image index, int64 [L].
        centre, radii: mm [L, 3].
        height: share of the air replaced, or, for free blobs, mm of water for a mm of depth [L].
        soft: width of the edge as a share of the radius [L].
        ragged: how far noise pulls the edge inwards, in squared radii [L].
        tilt: slope in the image plane, mm of height for a mm across [L].
        power: 2 for an ellipse, more for a box with round corners [L].
        free: not bound to the lung, bool [L].
        floor: share of the height that a free blob keeps outside the lung [L].
    """

    owner: torch.Tensor
    centre: torch.Tensor
    radii: torch.Tensor
    height: torch.Tensor
    soft: torch.Tensor
    ragged: torch.Tensor
    tilt: torch.Tensor
    power: torch.Tensor
    free: torch.Tensor
    floor: torch.Tensor

    def __len__(self) -> int:
        return len(self.owner)

    def __getitem__(self, index: torch.Tensor) -> Blobs:
        return Blobs(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass
class Scene(Tensors):
    """Everything that N radiographs of one view show; [N] or [N, right and left].

    Attributes:
        view: frontal or lateral.
        patients, frame: bodies and positions.
        column: factor on the mediastinum's width; knob: mm added to the aortic arch.
        vessels: weight of the lung vessels; upper: extra weight of those of the upper zones.
        density: HU added to the lung (emphysema is negative).
        effusion: mm of fluid; rim: mm of thickened pleura; gap: mm of free pleural air.
        masks: free air in the frontal image [N, h, w], empty without any; masked: image indices.
        rough: noise fields [N, cells, cells], coarse and fine.
        broken: rib and place of the break in [0, 1], displacement in mm [N, 2, 3].
        blobs, lines, metal: lesions, lines within the lung, things of metal and plastic.
        dots: small calcifications [P, 3] in mm, their owner [P] and mass [P] in cubic mm of water.
        exposure: shift and slope of the display curve [N, 2]; border: mm of collimation [N, 4].
        letter: place of the marker in mm [N, 2].
        grain: seeds of the photon noise [N].
        gas: gas in the stomach [N], 0 or 1.
    """

    view: Literal["frontal", "lateral"]
    dataset: str
    patients: Patients
    frame: Frame
    column: torch.Tensor
    knob: torch.Tensor
    vessels: torch.Tensor
    upper: torch.Tensor
    density: torch.Tensor
    effusion: torch.Tensor
    rim: torch.Tensor
    gap: torch.Tensor
    masks: torch.Tensor
    masked: torch.Tensor
    rough: tuple[torch.Tensor, torch.Tensor]
    broken: torch.Tensor
    blobs: Blobs
    lines: Strokes
    metal: Strokes
    dots: torch.Tensor
    dot_owner: torch.Tensor
    dot_mass: torch.Tensor
    exposure: torch.Tensor
    border: torch.Tensor
    letter: torch.Tensor
    gas: torch.Tensor
    grain: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.patients)


@dataclass
class _Annotations:
    """Severities and sides as arrays, boxes by finding."""

    chests: Sequence[Chest]
    boxed: dict[str, list[tuple[int, Floats]]]  # finding -> [(image, x0 z0 x1 z1 fractions)]

    def severity(self, name: str) -> Floats:
        """Of what is to be drawn without a box, [N]."""
        value = np.array([float(c.findings.get(name, 0.0)) for c in self.chests])
        for index, _ in self.boxed.get(name, ()):
            value[index] = 0.0
        return np.asarray(np.clip(value, 0.0, 1.5))

    def sides(self, name: str, draws: Draws, both: float) -> Floats:
        """Which sides, 0 or 1 [N, right and left]: as annotated, else drawn."""
        left, two = draws.below(0.46), draws.below(both)
        table = {"right": (1, 0), "left": (0, 1), "both": (1, 1)}
        drawn = np.where(two[:, None], 1.0, np.stack([~left, left], -1))
        for index, chest in enumerate(self.chests):
            if name in chest.sides:
                drawn[index] = table[chest.sides[name]]
        return np.asarray(drawn)


def _read(chests: Sequence[Chest]) -> _Annotations:
    boxed: dict[str, list[tuple[int, Floats]]] = {}
    for index, chest in enumerate(chests):
        for box in chest.boxes:
            corners = np.array([box.x, box.y, box.x + box.width, box.y + box.height])
            boxed.setdefault(box.label, []).append((index, corners))
    return _Annotations(chests, boxed)


def plan(dataset: str, chests: Sequence[Chest], unit: XRayUnit) -> Scene:
    """Plan radiographs of one view. Tensors are on the CPU."""
    view = chests[0].view
    said = _read(chests)
    persons = [row_of(c.patient) for c in chests]
    studies = [row_of(c.study or c.image) for c in chests]
    images = [row_of(c.image) for c in chests]
    frame, supine, gap_extra = _position(dataset, images, unit, view)
    person = Draws(dataset, persons, "chest-person", 16)
    draws = Draws(dataset, studies, "chest-study", 2400)
    level = {name: said.severity(name) for name in _PLANNED}
    side = {
        name: said.sides(name, draws, both) * (level[name] > 0)[:, None]
        for name, both in _PLANNED.items()
    }

    patients = _bodies(dataset, persons, chests, draws, level, side, supine)
    _fit_hearts(patients, said, frame, unit)
    patients.heart[:, 0] += frame.turn * patients.heart[:, 1]
    blobs = [
        _blobs(_lesions(dataset, studies, patients, draws, level, side, person)),
        _hernia(patients, draws, level["hernia"]),
        _boxed(said, frame, unit, draws),
    ]
    shown, plates = support_devices(patients, draws, level["support-devices"])
    leads, discs = ecg_leads(patients, draws)
    blobs += [_plates(plates), _plates(discs)]
    dots, owner, mass = _calcifications(patients, draws, level["calcification"], person)
    swell = level["edema"] * draws.uniform(0.6, 1.0)
    prominent = person.uniform(0.7, 1.35)
    masks, masked = _masks(chests, said, view)
    gap = (
        side["pneumothorax"] * (level["pneumothorax"] * (13 + 24 * draws.uniform() ** 1.5))[:, None]
    )
    gap[masked] = 0.0
    fluid = (
        side["effusion"] * level["effusion"][:, None] * (8 + 40 * draws.uniform(0, 1, (2,)) ** 2)
    )
    # Angles blunted by old scars are no effusion.
    blunt = person.below(0.15, (2,)) * person.uniform(3, 11, (2,))
    fluid = np.maximum(fluid, blunt)
    rim = side["pleural-thickening"] * level["pleural-thickening"][:, None]
    return Scene(
        view=view,
        dataset=dataset,
        patients=patients,
        frame=frame,
        column=to_tensor(
            person.normal(1.0, 0.13)
            * (1 + level["enlarged-cardiomediastinum"] * draws.uniform(0.12, 0.40))
        ),
        knob=to_tensor(level["enlarged-cardiomediastinum"] * draws.uniform(1, 5)),
        vessels=to_tensor(prominent * (1 + 0.45 * swell) * (1 - 0.4 * level["emphysema"])),
        upper=to_tensor(0.9 * swell),
        density=to_tensor(
            person.normal(0, 24) + 16 * swell - level["emphysema"] * draws.uniform(40, 70)
        ),
        effusion=to_tensor(fluid),
        rim=to_tensor(rim * draws.uniform(6, 12, (2,))),
        gap=to_tensor(gap),
        masks=masks,
        masked=masked,
        rough=_rough(dataset, studies, view),
        broken=_fracture(draws, level["fracture"], side["fracture"]),
        blobs=_joined(blobs),
        lines=_reticulation(patients, draws, level["fibrosis"], swell),
        metal=Strokes.joined([shown, leads]),
        dots=dots,
        dot_owner=owner,
        dot_mass=mass,
        exposure=gap_extra[0],
        border=gap_extra[1],
        letter=gap_extra[2],
        gas=to_tensor(person.below(0.65)),
        grain=images,
    )


#: Findings that are planned in the patient's anatomy, and how often they are on both sides.
_PLANNED: dict[str, float] = {
    "atelectasis": 0.30, "calcification": 0.4, "cardiomegaly": 1.0, "consolidation": 0.25,
    "edema": 1.0, "effusion": 0.35, "emphysema": 1.0, "enlarged-cardiomediastinum": 1.0,
    "fibrosis": 0.75, "fracture": 0.1, "hernia": 1.0, "infiltration": 0.35, "lung-lesion": 0.2,
    "lung-opacity": 0.35, "mass": 0.0, "nodule": 0.25, "pleural-other": 0.35,
    "pleural-thickening": 0.3, "pneumonia": 0.2, "pneumothorax": 0.0, "support-devices": 1.0,
}  # fmt: skip


def _position(
    dataset: str, images: Sequence[int], unit: XRayUnit, view: str
) -> tuple[Frame, Mask, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Frames, who lies supine; exposure, collimation and the marker's place."""
    draws = Draws(dataset, images, f"chest-position-{view}", 24)
    supine = draws.below(unit.supine) & (view == "frontal")
    frame = Frame(
        zoom=to_tensor(draws.normal(1.0, 0.035) * np.where(supine, 0.95, 1.0)),
        dx=to_tensor(draws.normal(0, 5.0)),
        dz=to_tensor(draws.normal(0, 7.0) + np.where(supine, 5.0, 0.0)),
        shear=to_tensor(draws.normal(0, 0.025)),
        turn=to_tensor(draws.normal(0, 0.05)),
    )
    exposure = to_tensor(np.stack([draws.normal(0, 0.22), draws.normal(1.0, 0.08)], -1))
    border = to_tensor(np.abs(draws.normal(1.0, 0.6, (4,))) * unit.collimation)
    side = {"R": -1.0, "P": -1.0, "L": 1.0}.get(unit.marker, 0.0)
    if view == "lateral":
        side = 1.0
    half = unit.field_of_view / 2
    letter = np.stack(
        [side * half * draws.uniform(0.74, 0.88), half * draws.uniform(0.70, 0.88)], -1
    )
    return frame, supine, (exposure, border, to_tensor(letter))


def _bodies(
    dataset: str, persons: Sequence[int], chests: Sequence[Chest], draws: Draws,
    level: dict[str, Floats], side: dict[str, Floats], supine: Mask,
) -> Patients:  # fmt: skip
    """Bodies with what findings change in them: heart, domes, depth of the chest."""
    own = Draws(dataset, persons, "chest-age", 4)
    age = np.clip(own.normal(56, 17), 18, 92)
    female = own.below(0.46).astype(float)
    for index, chest in enumerate(chests):
        if chest.age is not None:
            age[index] = np.clip(chest.age, 16, 100)  # bodies of small children are not modelled
        if chest.female is not None:
            female[index] = chest.female
    heart = 1 + level["cardiomegaly"] * draws.uniform(0.12, 0.38) - 0.10 * level["emphysema"]
    heart = heart * np.where(supine, 1.06, 1.0) * own.normal(1.0, 0.07)
    rise = side["atelectasis"] * level["atelectasis"][:, None] * draws.uniform(8, 22, (2,))
    rise = rise + side["fibrosis"] * level["fibrosis"][:, None] * draws.uniform(4, 12, (2,))
    rise = rise - (level["emphysema"] * draws.uniform(14, 24))[:, None]
    rise = rise + np.where(supine, 7.0, 0.0)[:, None]
    patients = sample_patients(
        Draws(dataset, persons, "body", 900),
        age=age, female=female, heart_scale=heart, dome_rise=rise,
    )  # fmt: skip
    # A hyperinflated chest is deep and its domes are flat.
    full = to_tensor(level["emphysema"])
    flat = 1 - 0.45 * full
    top = patients.dome[..., 2] + patients.dome_radii[..., 2]
    patients.dome_radii[..., 2] *= flat[:, None]
    patients.dome[..., 2] = top - patients.dome_radii[..., 2]
    patients.cage[:, 1] *= 1 + 0.08 * full
    patients.heart[:, 2] -= 7.0
    return patients


def _fit_hearts(patients: Patients, said: _Annotations, frame: Frame, unit: XRayUnit) -> None:
    """Give the enlarged hearts with a box the place and width of their box."""
    for index, corners in said.boxed.get("cardiomegaly", ()):
        x0, z1, x1, z0 = (float(v) for v in _mm(corners, index, frame, unit))
        matrix = patients.heart_matrix[index]
        half = torch.linalg.inv(matrix)[0, 0].sqrt()
        grow = ((x1 - x0) / 2 / half).clamp(0.85, 2.2)
        patients.heart_matrix[index] = matrix / grow**2
        patients.heart_radii[index] *= grow
        patients.heart[index, 0] = (x0 + x1) / 2
        patients.heart[index, 2] = (z0 + z1) / 2


def _mm(corners: Floats, index: int, frame: Frame, unit: XRayUnit) -> Floats:
    """Fractions x0, y0, x1, y1 of the image to patient's x0, z of the top, x1, z of the bottom."""
    half = unit.field_of_view / 2
    zoom, dx, dz, shear = (float(v[index]) for v in (frame.zoom, frame.dx, frame.dz, frame.shear))
    z = CENTRE_Z + dz - (corners[1::2] * 2 - 1) * half * zoom
    lean = shear * (z.mean() - CENTRE_Z)
    x = (corners[0::2] * 2 - 1) * half * zoom + dx + lean
    return np.array([x[0], z[0], x[1], z[1]])


def _lesions(
    dataset: str, studies: Sequence[int], patients: Patients, draws: Draws,
    level: dict[str, Floats], side: dict[str, Floats], person: Draws,
) -> Lesions:  # fmt: skip
    """Focal lesions of findings and of no finding, in the lungs."""
    flow = Plan(patients)
    confounders(flow, Draws(dataset, studies, "chest-confounders", 128))
    two = np.broadcast_to(_SIDES, (draws.rows, 2))

    def focal(
        name: str, slots: int, share: float, kind: int, z: tuple[float, float],
        angle: tuple[float, float], depth: tuple[float, float], radii: Floats,
        height: tuple[float, float], soft: float, ragged: float, spread: float = 0.0,
    ) -> None:  # fmt: skip
        """``slots`` lesions a side: the first one always, the others with probability ``share``,
        within ``spread`` of the first one when it is not 0."""
        shape = (2, slots)
        more = draws.below(share, shape) | (np.arange(slots) == 0)
        present = (side[name][..., None] > 0) & more
        heights, angles, depths = (draws.uniform(*bounds, shape) for bounds in (z, angle, depth))
        if spread:
            heights, angles, depths = (
                v[..., :1] + spread * (v - v[..., :1]) for v in (heights, angles, depths)
            )
        flat = (draws.rows, 2 * slots)
        flow.add(
            present.reshape(flat),
            kind=kind,
            side=np.repeat(two, slots, 1),
            angle=angles.reshape(flat),
            z=heights.reshape(flat),
            depth=depths.reshape(flat),
            radii=radii.reshape(*flat, 3),
            height=(draws.uniform(*height, shape) * level[name][:, None, None]).reshape(flat),
            soft=soft,
            ragged=ragged,
        )

    def ball(low: float, high: float, slots: int, uneven: float) -> Floats:
        size = draws.uniform(low, high, (2, slots, 1))
        return size * draws.uniform(1 - uneven, 1 + uneven, (2, slots, 3))

    def oval(slots: int, *bounds: tuple[float, float]) -> Floats:
        return np.stack([draws.uniform(*b, (2, slots)) for b in bounds], -1)

    lower, whole, back = (-95.0, -40.0), (-85.0, 60.0), (-0.3, 1.2)
    focal("atelectasis", 2, 0.7, BAND, (-80, -58), (-0.6, 1.2), (0.5, 0.85),
          oval(2, (18, 30), (26, 44), (3.5, 6.5)), (600, 850), 0.5, 0.2)  # fmt: skip
    focal("consolidation", 2, 0.5, CONSOLIDATION, (-90, 40), back, (0.45, 0.8),
          oval(2, (24, 38), (24, 38), (22, 36)), (620, 850), 0.4, 0.6, 0.35)  # fmt: skip
    focal("pneumonia", 3, 0.6, CONSOLIDATION, (-95, 30), back, (0.4, 0.8),
          oval(3, (20, 36), (20, 36), (18, 32)), (460, 720), 0.7, 0.7, 0.35)  # fmt: skip
    focal("infiltration", 4, 0.75, GROUND_GLASS, (-95, 40), (-0.8, 1.2), (0.3, 0.75),
          oval(4, (18, 32), (18, 32), (16, 30)), (360, 580), 0.9, 0.7, 0.5)  # fmt: skip
    focal("lung-opacity", 2, 0.4, GROUND_GLASS, (-95, 50), (-0.8, 1.2), (0.35, 0.8),
          oval(2, (22, 38), (22, 38), (20, 34)), (520, 780), 0.8, 0.6, 0.6)  # fmt: skip
    focal("edema", 2, 1.0, GROUND_GLASS, (-45, 15), (-0.2, 0.5), (0.2, 0.5),
          oval(2, (26, 50), (28, 50), (28, 50)), (110, 260), 0.95, 0.6)  # fmt: skip
    focal("fibrosis", 3, 0.8, GROUND_GLASS, lower, (-0.9, 1.2), (0.7, 0.95),
          oval(3, (12, 20), (22, 36), (18, 30)), (160, 320), 0.9, 0.8)  # fmt: skip
    focal("mass", 1, 1.0, NODULE, whole, (-1.2, 1.3), (0.35, 0.8),
          ball(17, 30, 1, 0.15), (850, 980), 0.22, 0.25)  # fmt: skip
    focal("nodule", 2, 0.35, NODULE, whole, (-1.2, 1.3), (0.35, 0.8),
          ball(7, 14, 2, 0.1), (950, 1100), 0.2, 0.1)  # fmt: skip
    focal("lung-lesion", 1, 1.0, NODULE, whole, (-1.2, 1.3), (0.35, 0.8),
          ball(9, 25, 1, 0.12), (870, 1000), 0.22, 0.2)  # fmt: skip
    focal("pleural-other", 3, 0.7, SCAR, (-70, 60), (-0.6, 0.6), (0.84, 0.93),
          oval(3, (7, 12), (20, 34), (14, 30)), (900, 1300), 0.3, 0.4)  # fmt: skip
    return flow.lesions()


def _blobs(lesions: Lesions) -> Blobs:
    """Lesions as ellipsoids along x, y, z; scars too faint for a projection are left out."""
    seen = lesions.marked | (lesions.radii.amin(1) * lesions.height > 1200)
    lesions = lesions[torch.nonzero(seen)[:, 0]]
    cosine, sine = lesions.angle.cos(), lesions.angle.sin()
    first, second, third = lesions.radii.unbind(1)
    wide = torch.hypot(first * cosine, second * sine)
    # Turned ellipsoids keep their volume.
    deep = first * second / wide
    plate = (lesions.kind == BAND) | (lesions.kind == SCAR)
    tilt = torch.where(plate, 0.25 * torch.sin(37.0 * third + second), torch.zeros_like(third))
    some = torch.ones_like(third)
    return Blobs(
        owner=lesions.owner,
        centre=lesions.centre,
        radii=torch.stack([wide, deep, third], 1),
        height=lesions.height / 1000,
        soft=lesions.soft,
        ragged=lesions.ragged,
        tilt=tilt,
        power=2 * some,
        free=torch.zeros_like(lesions.marked),
        floor=some,
    )


def _free(
    owner: npt.ArrayLike, centre: npt.ArrayLike, radii: npt.ArrayLike, height: npt.ArrayLike,
    *, soft: float, ragged: float, power: float, floor: float,
) -> Blobs:  # fmt: skip
    """Blobs that are not bound to the lung."""
    index = torch.from_numpy(np.asarray(owner, dtype=np.int64).reshape(-1))
    one = torch.ones(len(index))
    return Blobs(
        owner=index,
        centre=to_tensor(centre).reshape(-1, 3),
        radii=to_tensor(radii).reshape(-1, 3),
        height=to_tensor(height).reshape(-1),
        soft=soft * one,
        ragged=ragged * one,
        tilt=0 * one,
        power=power * one,
        free=torch.ones(len(index), dtype=torch.bool),
        floor=floor * one,
    )


def _joined(parts: Sequence[Blobs]) -> Blobs:
    return Blobs(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Blobs)})


def _plates(parts: Floats) -> Blobs:
    """Solid things: owner, centre, radii, height in rows of 8."""
    return _free(
        parts[:, 0], parts[:, 1:4], parts[:, 4:7], parts[:, 7],
        soft=0.06, ragged=0.0, power=4.0, floor=1.0,
    )  # fmt: skip


def _hernia(patients: Patients, draws: Draws, severity: Floats) -> Blobs:
    """A sliding hiatus hernia: a round shadow behind the heart with gas in its upper part."""
    on = np.flatnonzero(severity > 0)
    size = draws.uniform(24, 36)
    x, lift = draws.uniform(-4, 22), draws.uniform(6, 16)
    top = (patients.dome[..., 2] + patients.dome_radii[..., 2]).mean(1).numpy()
    centre = np.stack([x, np.full_like(x, 34.0), top + lift], -1)
    radii = size[:, None] * np.array([1.15, 1.0, 1.0])
    shadow = _free(
        on, centre[on], radii[on], 0.75 * severity[on],
        soft=0.15, ragged=0.1, power=2.0, floor=0.8,
    )  # fmt: skip
    above = centre + size[:, None] * np.array([0.0, 0.0, 0.38])
    gas = _free(
        on, above[on], (radii * np.array([0.66, 0.8, 0.42]))[on], -1.25 * severity[on],
        soft=0.12, ragged=0.1, power=2.5, floor=1.0,
    )  # fmt: skip
    return _joined([shadow, gas])


#: Findings drawn as an opacity that fills its box: density, softness, raggedness, roundness.
_BOX_LOOK: dict[str, tuple[float, float, float, float]] = {
    "atelectasis": (0.75, 0.45, 0.4, 3.0),
    "consolidation": (0.85, 0.45, 0.5, 2.6),
    "effusion": (0.85, 0.35, 0.2, 4.0),
    "infiltration": (0.55, 0.85, 0.7, 2.6),
    "lung-opacity": (0.68, 0.65, 0.6, 2.6),
    "mass": (0.90, 0.25, 0.25, 2.0),
    "nodule": (1.10, 0.20, 0.1, 2.0),
    "lung-lesion": (0.95, 0.25, 0.2, 2.0),
    "pneumonia": (0.70, 0.65, 0.6, 2.6),
}
_BOX_OTHER = (0.65, 0.6, 0.5, 2.6)
#: Findings whose boxes are handled as a heart or as free air.
_BOX_ELSEWHERE = ("cardiomegaly", "pneumothorax")


def _boxed(said: _Annotations, frame: Frame, unit: XRayUnit, draws: Draws) -> Blobs:
    """Opacities that lie within their boxes."""
    deep = draws.uniform(10, 40)
    vary = draws.uniform(0.85, 1.15)
    parts = []
    for name, places in sorted(said.boxed.items()):
        if name in _BOX_ELSEWHERE:
            continue
        height, soft, ragged, power = _BOX_LOOK.get(name, _BOX_OTHER)
        for index, corners in places:
            x0, z1, x1, z0 = _mm(corners, index, frame, unit)
            wide, tall = (x1 - x0) / 2, (z1 - z0) / 2
            thick = float(np.clip((wide + tall) / 2, 7.0, 42.0))
            severity = said.chests[index].findings.get(name, 1.0) or 1.0
            parts.append(
                _free(
                    [index], [(x0 + x1) / 2, deep[index], (z0 + z1) / 2], [wide, thick, tall],
                    [height * vary[index] * severity],
                    soft=soft, ragged=ragged, power=power, floor=0.55,
                )
            )  # fmt: skip
    empty = _free([], [], [], [], soft=0, ragged=0, power=2, floor=1)
    return _joined([empty, *parts])


def _masks(
    chests: Sequence[Chest], said: _Annotations, view: str, grid: int = 256
) -> tuple[torch.Tensor, torch.Tensor]:
    """Free air of the images that have a mask or a pneumothorax box, [M, grid, grid], and who."""
    rows: dict[int, torch.Tensor] = {}
    axis = (torch.arange(grid) + 0.5) / grid
    for index, corners in said.boxed.get("pneumothorax", ()):
        x0, y0, x1, y1 = (float(v) for v in corners)
        u = (2 * axis - x0 - x1) / (x1 - x0)
        v = (2 * axis - y0 - y1) / (y1 - y0)
        inside = u.abs() ** 3 + v[:, None].abs() ** 3 < 1
        rows[index] = rows.get(index, torch.zeros(grid, grid)).maximum(inside.float())
    for index, chest in enumerate(chests):
        if chest.mask is not None and chest.mask.any():
            drawn = torch.from_numpy(chest.mask.astype(np.float32))[None, None]
            small = torch.nn.functional.interpolate(drawn, (grid, grid), mode="area")[0, 0]
            rows[index] = rows.get(index, torch.zeros(grid, grid)).maximum(small)
    if view == "lateral" or not rows:
        return torch.zeros(0, grid, grid), torch.zeros(0, dtype=torch.long)
    order = sorted(rows)
    severity = [float(chests[i].findings.get("pneumothorax", 1.0)) or 1.0 for i in order]
    stack = torch.stack([rows[i] * s for i, s in zip(order, severity, strict=True)])
    return stack, torch.tensor(order)


def _rough(dataset: str, studies: Sequence[int], view: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise fields of unit deviation, coarse and fine."""
    first, second = (
        torch.stack([noise(dataset, f"chest-rough-{view}-{n}", row, (n, n)) for row in studies])
        for n in _CELLS
    )
    return first, second


def _fracture(draws: Draws, severity: Floats, side: Floats) -> torch.Tensor:
    """Broken rib, place along it and displacement, [N, 2, 3]."""
    rib = draws.integer(3, 8, (2,)).astype(float)
    place = draws.uniform(0.16, 0.36, (2,))
    shift = draws.uniform(9, 15, (2,)) * side * severity[:, None]
    return to_tensor(np.stack([rib, place, shift], -1))


def _calcifications(
    patients: Patients, draws: Draws, severity: Floats, person: Draws
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Small dense dots: a cluster where annotated, and the odd granuloma that nobody mentions."""
    slots = 7
    old = person.below(0.12)
    number = np.where(severity > 0, draws.integer(4, slots + 1), 0)
    present = np.arange(slots) < np.maximum(number, old)[:, None]
    left = np.where(draws.below(0.5), 1.0, -1.0)
    x = left[:, None] * (draws.uniform(38, 80)[:, None] + draws.normal(0, 12, (slots,)))
    z = draws.uniform(-40, 70)[:, None] + draws.normal(0, 16, (slots,))
    y = draws.uniform(-20, 40)[:, None] + draws.normal(0, 12, (slots,))
    radius = draws.uniform(1.3, 2.6, (slots,))
    strength = np.where(severity > 0, severity, 0.8)[:, None]
    mass = 4.19 * radius**3 * 9.0 * strength
    centre = np.stack([x, y, z], -1)
    owner = np.repeat(np.arange(len(severity))[:, None], slots, 1)
    return (
        to_tensor(centre[present]), torch.from_numpy(owner[present]), to_tensor(mass[present])
    )  # fmt: skip


def _reticulation(patients: Patients, draws: Draws, fibrosis: Floats, swell: Floats) -> Strokes:
    """A net of short lines at the bases (fibrosis); septal lines at the lateral bases (edema)."""
    net, septa = 110, 16
    count = net + septa
    present = np.concatenate(
        [np.repeat(fibrosis[:, None], net, 1), np.repeat(swell[:, None], septa, 1)], 1
    )
    owner, slot = np.nonzero(present > 0)
    left = np.where(draws.below(0.5, (count,)), 1.0, -1.0)
    wide = patients.cage[:, :1].numpy()
    out = np.sqrt(draws.uniform(0.16, 0.92, (count,)))
    low = draws.uniform(0, 1, (count,)) ** 1.4
    turn = draws.uniform(0, np.pi, (count,))
    long = draws.uniform(7, 15, (count,))
    y, bend = draws.uniform(-50, 60, (count,)), draws.uniform(-0.25, 0.25, (count,))
    septal = np.arange(count) >= net
    out = np.where(septal, 0.86 + 0.08 * out, out)
    turn = np.where(septal, 0.15 * (turn - 1.5), turn)
    z = np.where(septal, -95 + 55 * low, -108 + 95 * low)
    centre = np.stack([left * wide * out, y, z], -1)
    along = 0.5 * long[..., None] * np.stack([np.cos(turn), 0 * turn, np.sin(turn)], -1)
    aside = (
        bend[..., None] * long[..., None] * np.stack([-np.sin(turn), 0 * turn, np.cos(turn)], -1)
    )
    points = np.stack(
        [centre - along, centre - along / 3 + aside, centre + along / 3 + aside, centre + along], -2
    )
    weight = present * np.where(septal, 22.0, 30.0)
    return Strokes(
        torch.from_numpy(owner), to_tensor(points[owner, slot]), to_tensor(weight[owner, slot])
    )
