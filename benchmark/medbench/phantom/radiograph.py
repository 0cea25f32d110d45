"""Frontal and lateral chest radiographs: closed-form chord lengths, Beer-Lambert, photon noise.

Parallel rays run along y (frontal) or x (lateral) through the same solids that `ct` cuts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn import functional

from medbench.phantom.anatomy import (
    Points,
    arch_solid,
    body_axes,
    girdle_points,
    rib_points,
    vessel_points,
)
from medbench.phantom.draws import noise
from medbench.phantom.findings import Findings, Lesions
from medbench.phantom.geometry import (
    Interval,
    ellipsoid_matrix,
    length,
    overlap,
    power,
    quadric_interval,
    rotation_z,
    splat,
    superellipse_half,
    union_length,
)
from medbench.phantom.patient import CAGE_LONG, CAGE_PLANE, Patients
from medbench.phantom.scanner import XRayUnit

View = Literal["frontal", "lateral"]

#: Linear attenuation of water at a chest tube voltage, per mm, and what bone adds to it.
MU_WATER = 0.0185
_BONE_EXCESS = 2.3
#: Height in mm of the image's centre.
_CENTRE_Z = -24.0


def _grid(size: int, unit: XRayUnit, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns [1, 1, W] and heights [1, H, 1] in mm."""
    pixel = unit.field_of_view / size
    axis = (torch.arange(size, device=device) + 0.5) * pixel - unit.field_of_view / 2
    return axis.view(1, 1, -1), _CENTRE_Z - axis.view(1, -1, 1)


def _c(value: torch.Tensor) -> torch.Tensor:
    return value[:, None, None]


def _ellipse(
    across: torch.Tensor, half_across: torch.Tensor, centre: torch.Tensor, half: torch.Tensor
) -> Interval:
    reach = superellipse_half(across, half_across, half, 2.0)
    return centre - reach, centre + reach


def _sides(patients: Patients, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Scale, half width and half depth of the cage at heights z [1, H, 1], each [N, H, 1]."""
    offset = z - _c(patients.cage_z)
    half = torch.where(offset > 0, _c(patients.cage[:, 2]), _c(patients.cage[:, 3]))
    rest = (1 - power((offset / half).abs(), CAGE_LONG)).clamp_min(1e-5)
    scale = power(rest, 1 / CAGE_LONG)
    return scale, _c(patients.cage[:, 0]) * scale, _c(patients.cage[:, 1]) * scale


def _dome(
    patients: Patients, side: int, across: torch.Tensor, z: torch.Tensor, axis: int
) -> Interval:
    """Interval of one hemidiaphragm along x (axis 0) or y (axis 1)."""
    other = 1 - axis
    centre, radius = patients.dome[:, side], patients.dome_radii[:, side]
    up = z.maximum(_c(centre[:, 2]))
    widen = 1 + 0.004 * (_c(centre[:, 2]) - z).clamp_min(0)
    rest = 1 - ((across - _c(centre[:, other])) / (_c(radius[:, other]) * widen)) ** 2
    rest = rest - ((up - _c(centre[:, 2])) / _c(radius[:, 2])) ** 2
    half = _c(radius[:, axis]) * widen * rest.clamp_min(0).sqrt()
    return _c(centre[:, axis]) - half, _c(centre[:, axis]) + half


def _heart(patients: Patients, across: torch.Tensor, z: torch.Tensor, axis: int) -> Interval:
    other = 1 - axis
    offset = across - _c(patients.heart[:, other]), z - _c(patients.heart[:, 2])
    low, high = quadric_interval(offset, patients.heart_matrix, (other, 2, axis))
    centre = _c(patients.heart[:, axis])
    return low + centre, high + centre


def _arch(patients: Patients, across: torch.Tensor, z: torch.Tensor, axis: int) -> Interval:
    centre, radius = arch_solid(patients)
    other = 1 - axis
    rest = 1 - ((across - _c(centre[:, other])) / _c(radius[:, other])) ** 2
    rest = rest - ((z - _c(centre[:, 2])) / _c(radius[:, 2])) ** 2
    half = _c(radius[:, axis]) * rest.clamp_min(0).sqrt()
    return _c(centre[:, axis]) - half, _c(centre[:, axis]) + half


def lung_frontal(patients: Patients, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Length of lung along y at columns x and heights z, [N, H, W] in mm, in closed form."""
    _, wide, deep = _sides(patients, z)
    half = superellipse_half(x, wide, deep, CAGE_PLANE)
    cage = (-half, half)
    taper = column_taper(z)
    middle = _ellipse(
        x, _c(patients.column[:, 0]) * taper, _c(patients.column[:, 2]), _c(patients.column[:, 1])
    )
    spine = _ellipse(
        x, torch.full_like(x, 25.0), _c(patients.spine_y + 6), torch.full_like(x, 24.0)
    )
    # Mediastinum and spine touch: one interval from the first's front to the second's back.
    back = torch.where(length(spine) > 0, spine[1], middle[1])
    front = torch.where(length(middle) > 0, middle[0], spine[0])
    middle = (front, torch.maximum(front, torch.maximum(middle[1], back)))
    right, left = (_dome(patients, side, x, z, 1) for side in (0, 1))
    dome = torch.where(x > 0, left[0], right[0]), torch.where(x > 0, left[1], right[1])
    blockers = [overlap(cage, part) for part in (middle, _heart(patients, x, z, 1), dome)]
    arch = overlap(cage, _arch(patients, x, z, 1))
    blocked = union_length(blockers) + length(arch) - length(overlap(arch, blockers[0]))
    envelope = 1 - ((x.abs() - _c(patients.lung[:, 0])) / _c(patients.lung[:, 1])) ** 2
    envelope = envelope - ((z - _c(patients.lung[:, 2])) / _c(patients.lung[:, 3])) ** 2
    inside = (envelope * 12 + 0.5).clamp(0, 1)
    return (length(cage) - blocked).clamp_min(0) * inside


def lung_lateral(patients: Patients, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Length of both lungs along x at columns y and heights z, [N, H, W] in mm."""
    _, wide, deep = _sides(patients, z)
    reach = superellipse_half(y, deep, wide, CAGE_PLANE)
    rest = (1 - ((z - _c(patients.lung[:, 2])) / _c(patients.lung[:, 3])) ** 2).clamp_min(0)
    outer = _c(patients.lung[:, 0]) + _c(patients.lung[:, 1]) * rest.sqrt()
    inner = _c(patients.lung[:, 0]) - _c(patients.lung[:, 1]) * rest.sqrt()
    reach, start = torch.minimum(reach, outer) * (rest > 0), inner.clamp_min(0)
    rest = (1 - ((y - _c(patients.column[:, 2])) / _c(patients.column[:, 1])) ** 2).clamp_min(0)
    middle = _c(patients.column[:, 0]) * column_taper(z) * rest.sqrt()
    rest = (1 - ((y - _c(patients.spine_y + 6)) / 24) ** 2).clamp_min(0)
    middle = middle.maximum(25 * rest.sqrt())
    heart, arch = _heart(patients, y, z, 0), _arch(patients, y, z, 0)
    total = torch.zeros(())
    for side, sign in ((0, -1.0), (1, 1.0)):
        cage = torch.minimum(start, reach), reach
        dome = _dome(patients, side, y, z, 0)
        parts = [(torch.zeros_like(middle), middle)]
        for solid in (heart, dome):
            parts.append(solid if sign > 0 else (-solid[1], -solid[0]))
        parts = [overlap(cage, part) for part in parts]
        blocked = union_length(parts)
        if sign > 0:
            knob = overlap(cage, arch)
            blocked = blocked + length(knob) - length(overlap(knob, parts[0]))
        total = total + (length(cage) - blocked).clamp_min(0)
    return total


def column_taper(z: torch.Tensor) -> torch.Tensor:
    """Width of the mediastinum by height, relative to its middle."""
    return 1.0 + 0.35 * ((z - 40) / 90).clamp(0, 1) ** 2 - 0.25 * ((-z - 20) / 90).clamp(0, 1)


def _lesion_depth(
    lesions: Lesions, patients: Patients, across: torch.Tensor, z: torch.Tensor, axis: int
) -> torch.Tensor:
    """Water-equivalent mm that each of L lesions adds, [L, H, W]; clipped to cage and lobe."""
    other = 1 - axis
    own = patients[lesions.owner]
    matrix = ellipsoid_matrix(lesions.radii, rotation_z(lesions.angle))
    offset = across - _c(lesions.centre[:, other]), z - _c(lesions.centre[:, 2])
    low, high = quadric_interval(offset, matrix, (other, 2, axis))
    chord = (low + _c(lesions.centre[:, axis]), high + _c(lesions.centre[:, axis]))
    full = length(chord)
    longest = 2 / matrix[:, axis, axis].sqrt()
    _, wide, deep = _sides(own, z)
    if axis == 1:
        half = superellipse_half(across, wide, deep, CAGE_PLANE)
    else:
        half = superellipse_half(across, deep, wide, CAGE_PLANE)
    clipped = overlap(chord, (-half, half))
    oblique, slope, horizontal = (_c(v) for v in own.fissure.unbind(-1))
    lobe = _c(lesions.lobe)
    lower = (lobe == 0) | (lobe == 2)
    if axis == 1:
        plane = (z - oblique) / slope
        below = overlap(clipped, (plane.expand_as(full), torch.full_like(full, 1e4)))
        above = overlap(clipped, (torch.full_like(full, -1e4), plane.expand_as(full)))
        part = torch.where(lower, length(below), length(above))
    else:
        part = length(clipped) * torch.where(
            lower, (z < oblique + slope * across), (z >= oblique + slope * across)
        )
    part = torch.where(lobe == 3, part * (z < horizontal), part)
    part = torch.where(lobe == 4, part * (z >= horizontal), part)
    part = torch.where(lobe >= 0, part, length(clipped))
    # Half uniform, half falling to the rim: the line integral of 1 - q is 2/3 of chord times depth.
    fall = 0.5 + 0.5 * (2 / 3) * (full / _c(longest)) ** 2 * 1.5
    return part * fall * _c(lesions.height) / 1000


def _tubes(
    points: Points, count: int, size: int, unit: XRayUnit, axis: int, share: float
) -> torch.Tensor:
    """Chord length of tubes, [N, H, W] in mm times ``share`` (how solid the tube is)."""
    pixel = unit.field_of_view / size
    canvas = torch.zeros(count, size, size, device=points.radius.device)
    across = points.position[:, 1 - axis]
    mass = torch.pi * points.radius**2 * points.step * share / pixel**2
    splat(
        canvas,
        points.owner,
        (_CENTRE_Z - points.position[:, 2] + unit.field_of_view / 2) / pixel - 0.5,
        (across + unit.field_of_view / 2) / pixel - 0.5,
        points.radius / pixel,
        mass,
        add=True,
    )
    return canvas


def render_radiographs(
    patients: Patients,
    findings: Findings,
    view: View,
    size: int,
    unit: XRayUnit,
    dataset: str,
    rows: Sequence[int],
) -> torch.Tensor:
    """Draw one radiograph of each patient, [N, size, size] in [0, 1], bone white.

    Args:
        patients, findings: N patients.
        view: frontal (patient's right on the image's left) or lateral (front on the left).
        size: rows and columns.
        unit: signature of the radiography unit.
        dataset, rows: seed of the photon noise and of the interstitial texture.
    """
    device, count = patients.age.device, len(patients)
    axis = 1 if view == "frontal" else 0
    across, z = _grid(size, unit, device)
    pixel = unit.field_of_view / size
    lung = (lung_frontal if axis == 1 else lung_lateral)(patients, across, z)
    lung = _smooth(lung, 0.35)
    scale, wide, _ = _sides(patients, z)
    body_a, body_b = body_axes(patients, z, scale)
    if axis == 1:
        body = 2 * superellipse_half(across, body_a, body_b, 2.3)
    else:
        body = 2 * superellipse_half(across - 6, body_b, body_a, 2.3)
        body = body - 0.75 * (body_a - _c(patients.cage[:, 0]) - 30).clamp_min(0) * (body > 0)
    neck = torch.sigmoid((z - _c(patients.cage_z + patients.cage[:, 2]) - 8) / 7)
    body = body * (1 - 0.30 * neck)
    breast = patients.female * (22 + 0.6 * patients.fat)
    reach = _c(breast) * (1 - ((z - _c(patients.cage_z) + 18) / 55) ** 2).clamp_min(0).sqrt()
    if axis == 1:
        body = body + 0.9 * superellipse_half(
            across.abs() - 0.55 * wide, reach * 1.9 + 1, reach, 2.0
        )
    else:
        body = body + 1.1 * superellipse_half(across + 0.9 * body_b, reach + 1, reach * 1.9, 2.0)

    # Lung tissue, its vessels and what fills it.
    field = torch.stack([noise(dataset, f"xray-texture-{view}", row, (1, 48, 48)) for row in rows])
    rough = functional.interpolate(
        field.to(device), (size, size), mode="bilinear", align_corners=False
    )[:, 0]
    congestion = findings.congestion
    density = 1 + _c(patients.density[:, 0]) / 1000 + 0.03
    aerated = lung * (1 - density)
    swell = 1 + 0.4 * congestion
    vessels = _tubes(vessel_points(patients, pixel * 1.1, swell), count, size, unit, axis, 0.85)
    vessels = vessels * (lung > 4)
    interstitium = lung * rough * (0.012 + 0.035 * _c(congestion))
    filled = torch.zeros_like(lung)
    if len(findings.lesions):
        # Faint scars and tiny nodules vanish in a projection.
        lesions = findings.lesions
        seen = torch.nonzero(lesions.marked | (lesions.radii.amin(1) * lesions.height > 1500))[:, 0]
        for part in torch.split(seen, max(1, 48 * 4096 // size**2)):
            some = lesions[part]
            depth = _lesion_depth(some, patients, across, z, axis)
            filled.index_add_(0, some.owner, depth)
    filled = filled * (1 + 0.25 * rough) * (lung / 60).clamp(0, 1)
    fluid, free, line = _pleura(patients, findings, lung, across, z, wide, axis, pixel)
    solid = torch.minimum(vessels * (1 - 0.5 * free) * (1 - free) + interstitium + filled, aerated)
    air = aerated * (1 - fluid) + free * lung * (density - 0.02) - solid * (1 - fluid)
    tissue = body - air + line * 7

    # Bone, airway, gas.
    ribs = _tubes(rib_points(patients, pixel * 1.1), count, size, unit, axis, 0.50)
    girdle = _tubes(girdle_points(patients, pixel * 1.1), count, size, unit, axis, 0.22)
    bones = ribs + girdle + _midline(patients, across, z, axis)
    if axis == 1:
        windpipe = 2 * superellipse_half(
            across, torch.full_like(across, 8.8), 8.8 + 0 * across, 2.0
        )
    else:
        middle = 12 + 0.06 * z
        windpipe = 2 * superellipse_half(across - middle, 8.8 + 0 * across, 8.8 + 0 * across, 2.0)
    tissue = tissue - windpipe * ((z - 4) / 8).clamp(0, 1)
    gas_at = 62.0 if axis == 1 else -38.0
    gas_wide = 34.0 if axis == 1 else 22.0
    rest = (
        1
        - ((across - gas_at) / gas_wide) ** 2
        - ((z - _c(patients.dome[:, 1, 2] + patients.dome_radii[:, 1, 2]) + 26) / 18) ** 2
    )
    tissue = tissue - 34 * rest.clamp_min(0).sqrt() * _c(
        (torch.remainder(patients.spine_phase, 2) > 0.7).float()
    )
    depth = tissue.clamp_min(0) + _BONE_EXCESS * bones
    return _develop(depth, body > 8, unit, size, dataset, rows, view)


def _pleura(
    patients: Patients, findings: Findings, lung: torch.Tensor, across: torch.Tensor,
    z: torch.Tensor, wide: torch.Tensor, axis: int, pixel: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Share of the lung's chord that is fluid, share that is free air, and the pleural line."""
    fluid, free, line = (torch.zeros_like(lung) for _ in range(3))
    if not bool((findings.effusion > 0).any()) and not bool((findings.pneumothorax > 0).any()):
        return fluid, free, line
    for side in (0, 1):
        here = torch.ones_like(across)
        if axis == 1:
            here = ((across > 0) if side else (across < 0)).float()
        share = 1.0 if axis == 1 else 0.5
        depth = _c(findings.effusion[:, side])
        top = _c(patients.dome[:, side, 2] + patients.dome_radii[:, side, 2])
        # The meniscus climbs along the chest wall.
        rim = (across.abs() / wide if axis == 1 else across / _c(patients.cage[:, 1])).clamp(0, 1)
        level = top - 42 + depth * (0.9 + 1.5 * rim**4)
        fluid = fluid + here * share * ((level - z) / 14 + 0.5).clamp(0, 1) * (depth > 0)
        gap = _c(findings.pneumothorax[:, side])
        inner = 1 - (across.abs() / wide) ** 2 if axis == 1 else torch.ones_like(lung)
        apex = _c(patients.cage_z + patients.cage[:, 2]) - z
        margin = torch.minimum(inner * 0.5 * wide, apex * 0.8) - gap * (
            0.6 + 0.6 * (z / 80).clamp(-1, 1)
        )
        outside = ((-margin) / pixel + 0.5).clamp(0, 1) * here * (gap > 0)
        free = free + share * outside
        line = line + here * (1 - margin.abs() / (0.7 * pixel)).clamp_min(0) * (gap > 0) * (
            lung > 5
        )
    return fluid.clamp(0, 1), free.clamp(0, 1), line.clamp(0, 1)


def _midline(patients: Patients, across: torch.Tensor, z: torch.Tensor, axis: int) -> torch.Tensor:
    """Spine and sternum as bone mm, [N, H, W]."""
    gap = (torch.remainder(z + _c(patients.spine_phase), 25.0) < 4.5).float()
    bone = _c(0.30 - 0.0018 * (patients.age - 50)) * (1 - 0.75 * gap)
    ring = 1 + 0.5 * ((torch.remainder(z + _c(patients.spine_phase) + 2, 25.0) < 8.5).float() - gap)
    if axis == 1:
        body = 2 * superellipse_half(across, torch.full_like(across, 18.0), 14.0 + 0 * across, 2.0)
        arch = 2 * superellipse_half(across, torch.full_like(across, 4.0), 13.0 + 0 * across, 2.0)
        sternum = (
            2
            * superellipse_half(across, torch.full_like(across, 19.0), 6.5 + 0 * across, 2.0)
            * 0.12
        )
    else:
        sy = _c(patients.spine_y)
        body = 2 * superellipse_half(across - sy - 2, 14.0 + 0 * across, 18.0 + 0 * across, 2.0)
        arch = 1.2 * superellipse_half(across - sy - 30, 18.0 + 0 * across, 12.0 + 0 * across, 2.0)
        front = -_c(patients.cage[:, 1]) - 9
        sternum = (
            2 * superellipse_half(across - front, 6.5 + 0 * across, 19.0 + 0 * across, 2.0) * 0.3
        )
    in_range = ((z > _c(patients.cage_z) - 55) & (z < _c(patients.cage_z) + 105)).float()
    return body * bone * ring + arch * 0.5 * (1 - gap) + sternum * in_range


def _smooth(image: torch.Tensor, side: float) -> torch.Tensor:
    """Three-tap blur for anti-aliasing."""
    side = side / 2
    padded = functional.pad(image[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = side * (padded[:, :-2] + padded[:, 2:]) + (1 - 2 * side) * padded[:, 1:-1]
    return side * (rows[..., :-2] + rows[..., 2:]) + (1 - 2 * side) * rows[..., 1:-1]


def _develop(
    depth: torch.Tensor, exposed: torch.Tensor, unit: XRayUnit, size: int, dataset: str,
    rows: Sequence[int], view: str,
) -> torch.Tensor:  # fmt: skip
    """From water-equivalent mm to a displayed image: photons, scatter, noise, log, window."""
    clean = torch.exp(-MU_WATER * depth)
    small = functional.avg_pool2d(clean[:, None], max(1, size // 16))
    haze = functional.interpolate(small, (size, size), mode="bilinear", align_corners=False)[:, 0]
    photons = unit.photons * (64 / size) ** 2
    mean = photons * ((1 - unit.scatter) * clean + unit.scatter * haze)
    grain = torch.stack([noise(dataset, f"photons-{view}", row, (size, size)) for row in rows])
    # Photon counts are Poisson; at these means their normal limit is exact to a grey level.
    counted = (mean + mean.sqrt() * grain.to(depth.device)).clamp_min(1.0)
    seen = -torch.log(counted / photons) / MU_WATER
    weight = exposed.float()
    number = weight.sum((1, 2), keepdim=True).clamp_min(1)
    centre = (seen * weight).sum((1, 2), keepdim=True) / number
    spread = (((seen - centre) ** 2 * weight).sum((1, 2), keepdim=True) / number).sqrt()
    value = (seen - centre) / spread
    return torch.sigmoid(value * 1.55 + 0.15).clamp(0, 1) ** unit.gamma
