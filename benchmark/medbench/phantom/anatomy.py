"""Tubes and landmarks of a patient: vessel trees, ribs, clavicles, scapulae, lobes.

A tube is a set of points along its axis, dense enough for the pixel size at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from medbench.phantom.geometry import grid3, power
from medbench.phantom.patient import CAGE_LONG, CAGE_PLANE, RIBS, VESSEL_LEVELS, Patients

#: How far from hilum to target each generation of vessels ends, its usual length and radius in mm.
_REACH = (0.30, 0.46, 0.60, 0.72, 0.83, 0.92, 1.0)
_LENGTH = (42.0, 36.0, 32.0, 26.0, 22.0, 18.0, 16.0)
_RADIUS = (5.6, 4.2, 3.1, 2.3, 1.7, 1.25, 0.9)

#: The five lobes in the order of COVID-CT-MD's lobe labels.
LOBES = ("left lower", "left upper", "right lower", "right middle", "right upper")


@dataclass
class Points:
    """Points on tubes: owner int64 [N], position mm [N, 3], radius mm [N], step mm [N], hu [N]."""

    owner: torch.Tensor
    position: torch.Tensor
    radius: torch.Tensor
    step: torch.Tensor
    hu: torch.Tensor


def cage_scale(patients: Patients, z: torch.Tensor) -> torch.Tensor:
    """Size of the cage's axial section at height z relative to its widest, [B, ...] in [0, 1]."""
    shape = (-1,) + (1,) * (z.dim() - 1)
    offset = z - patients.cage_z.view(shape)
    half = torch.where(offset > 0, patients.cage[:, 2].view(shape), patients.cage[:, 3].view(shape))
    rest = (1.0 - power((offset / half).abs(), CAGE_LONG)).clamp_min(0.0)
    return power(rest, 1.0 / CAGE_LONG) * (rest > 0)


def wall_point(
    patients: Patients, side: torch.Tensor, angle: torch.Tensor, z: torch.Tensor
) -> torch.Tensor:
    """Point of the inner chest wall, [B, ..., 3].

    Args:
        side: -1 right, +1 left, [B, ...].
        angle: 0 lateral, pi/2 posterior, -pi/2 anterior, [B, ...].
        z: height in mm, [B, ...].
    """
    shape = (-1,) + (1,) * (z.dim() - 1)
    size = cage_scale(patients, z)
    cosine, sine = angle.cos(), angle.sin()
    x = patients.cage[:, 0].view(shape) * size * power(cosine.abs(), 2 / CAGE_PLANE)
    y = patients.cage[:, 1].view(shape) * size * power(sine.abs(), 2 / CAGE_PLANE)
    return torch.stack([side * x * cosine.sign(), y * sine.sign(), z], -1)


def lobe_of(patients: Patients, owner: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Lobe index (see ``LOBES``) of positions [N, 3] in patients ``owner`` [N]."""
    x, y, z = position.unbind(-1)
    oblique, slope, horizontal = patients.fissure[owner].unbind(-1)
    lower = z < oblique + slope * y
    left = torch.where(lower, 0, 1)
    right = torch.where(lower, 2, torch.where(z < horizontal, 3, 4))
    return torch.where(x > 0, left, right)


def vessel_points(patients: Patients, spacing: float, swell: torch.Tensor | None = None) -> Points:
    """The bifurcating lung vessels of both sides.

    Args:
        patients: B patients.
        spacing: largest distance of neighbouring points, in mm.
        swell: factor on the radii [B] (venous congestion).
    """
    count, device = len(patients), patients.age.device
    side = torch.tensor([-1.0, 1.0], device=device).view(1, 2, 1)
    u, v, w = patients.targets.unbind(-1)
    z = (-128 + (w * 232)) * (patients.cage[:, 2] / 158).view(-1, 1, 1)
    size = cage_scale(patients, z)
    front = (2 * v - 1) * 0.9
    depth = patients.cage[:, 1].view(-1, 1, 1) * size
    wide = patients.cage[:, 0].view(-1, 1, 1) * size
    lateral = 0.94 * wide * power((1 - power(front.abs(), CAGE_PLANE)), 1 / CAGE_PLANE)
    medial = patients.column[:, 0].view(-1, 1, 1) * 0.9
    ends = torch.stack(
        [side * torch.lerp(medial, lateral.maximum(medial), u), front * depth, z], -1
    )
    hilum = torch.stack(
        [
            side[..., 0] * (patients.column[:, :1] + 2),
            torch.zeros(count, 2, device=device) + 8,
            torch.tensor([-14.0, -8.0], device=device).expand(count, 2),
        ],
        -1,
    )
    start = hilum[:, :, None]
    positions, radii, steps = [], [], []
    for level in range(VESSEL_LEVELS):
        target = ends.reshape(count, 2, 2 ** (level + 1), -1, 3).mean(3)
        end = torch.lerp(hilum[:, :, None], target, _REACH[level])
        begin = start.repeat_interleave(2, 2)
        number = max(3, math.ceil(_LENGTH[level] / spacing))
        t = (torch.arange(number, device=device) + 0.5) / number
        # A slight bow, different for each branch, so that vessels do not look ruled.
        bow = torch.sin(torch.pi * t)[:, None] * (target - end)[..., None, :].roll(1, -1) * 0.12
        line = begin[..., None, :] + (end - begin)[..., None, :] * t[:, None] + bow
        radius = torch.full(line.shape[:-1], _RADIUS[level], device=device)
        if swell is not None:
            radius = radius * swell.view(-1, 1, 1, 1)
        step = ((end - begin).norm(dim=-1) / number)[..., None].expand_as(radius)
        positions.append(line.flatten(1, 3))
        radii.append(radius.flatten(1))
        steps.append(step.flatten(1))
        start = end
    return _flatten(torch.cat(positions, 1), torch.cat(radii, 1), torch.cat(steps, 1), 45.0)


def rib_points(patients: Patients, spacing: float) -> Points:
    """Ribs along the chest wall, falling from back to front."""
    count, device = len(patients), patients.age.device
    number = max(40, math.ceil(330 / spacing))
    t = (torch.arange(number, device=device) + 0.5) / number
    index = torch.arange(RIBS, device=device)
    # From beside the spine (t = 0, behind) round to the costal cartilage in front.
    angle = (torch.pi / 2 - 0.14) - t * torch.where(index < 7, 2.62, 2.62 - 0.22 * (index - 6))[
        :, None
    ]
    top = 112 - 23.5 * index + patients.cage_z[:, None] + 36
    along = t**1.25
    reach = torch.where(index == 0, 0.45, torch.where(index == 1, 0.75, 1.0)).to(device)
    z = top[..., None] - patients.rib_drop.view(-1, 1, 1) * along * reach[:, None]
    z = z.unsqueeze(1).expand(-1, 2, -1, -1)
    side = torch.tensor([-1.0, 1.0], device=device).view(1, 2, 1, 1)
    point = wall_point(patients, side.expand_as(z), angle.expand_as(z), z)
    outward = torch.stack(
        [side * angle.cos(), angle.sin().expand_as(side * angle), 0 * side * angle], -1
    )
    point = point + outward * 5.0
    step = (point[..., 1:, :] - point[..., :-1, :]).norm(dim=-1)
    step = torch.cat([step, step[..., -1:]], -1)
    radius = patients.rib_width.view(-1, 1, 1, 1).expand(count, 2, RIBS, number)
    return _flatten(point.flatten(1, 3), radius.flatten(1), step.flatten(1), 420.0)


def girdle_points(patients: Patients, spacing: float) -> Points:
    """Clavicles, and scapulae as sheets of short tubes."""
    device = patients.age.device
    wide, deep = patients.cage[:, 0], patients.cage[:, 1]
    top = patients.cage_z + patients.cage[:, 2]
    side = torch.tensor([-1.0, 1.0], device=device).view(1, 2, 1)
    number = math.ceil(150 / spacing)
    t = (torch.arange(number, device=device) + 0.5) / number
    x = side * (14 + t * (wide[:, None, None] * 1.12 - 14))
    y = -0.78 * deep[:, None, None] + t * (0.75 * deep[:, None, None]) - 14 * torch.sin(t * 6.0)
    z = (top[:, None, None] - 26) + 22 * t + 5 * torch.sin(t * 6.0)
    clavicle = grid3(x, y, z).flatten(1, 2)
    rows, columns = math.ceil(110 / spacing), math.ceil(62 / spacing)
    down = ((torch.arange(rows, device=device) + 0.5) / rows).view(-1, 1)
    across = ((torch.arange(columns, device=device) + 0.5) / columns).view(1, -1)
    width = 1 - 0.75 * down
    lateral = wide.view(-1, 1, 1, 1) * (0.98 - 0.30 * across * width)
    sx = side[..., None] * lateral
    sy = deep.view(-1, 1, 1, 1) * (0.62 + 0.42 * across * width) + 14
    sz = (top.view(-1, 1, 1, 1) - 30) - 105 * down
    scapula = grid3(sx, sy, sz).flatten(1, 3)
    point = torch.cat([clavicle, scapula], 1)
    radius = torch.cat(
        [
            torch.full(clavicle.shape[:2], 5.5, device=device),
            torch.full(scapula.shape[:2], 2.4, device=device),
        ],
        1,
    )
    return _flatten(point, radius, torch.full_like(radius, spacing), 380.0)


def _flatten(position: torch.Tensor, radius: torch.Tensor, step: torch.Tensor, hu: float) -> Points:
    """[B, N, 3] positions to one list of points with owners."""
    count, number = radius.shape
    owner = torch.arange(count, device=radius.device).repeat_interleave(number)
    flat = radius.reshape(-1)
    return Points(owner, position.reshape(-1, 3), flat, step.reshape(-1), torch.full_like(flat, hu))


def body_axes(
    patients: Patients, z: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half width and half depth of the body's outline at height z, shapes of z and the cage scale.

    Args:
        patients: N patients.
        z: heights, [N] or [1 or N, H, 1].
        scale: relative size of the cage there (see `cage_scale`).
    """
    shape = (-1,) + (1,) * (z.dim() - 1)
    fat = patients.fat.view(shape)
    shoulder = 46 * torch.sigmoid((z - patients.cage_z.view(shape) - 125) / 12)
    wide = patients.cage[:, 0].view(shape) * (0.35 + 0.65 * scale.clamp_min(0.75))
    deep = patients.cage[:, 1].view(shape) * (0.35 + 0.65 * scale.clamp_min(0.7))
    return wide + 17 + fat + shoulder, deep + 22 + 0.7 * fat


def arch_solid(patients: Patients) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre and radii [N, 3] of the aortic arch, an ellipsoid that forms the aortic knob."""
    one = torch.ones_like(patients.age)
    centre = torch.stack([12 + patients.aorta, 14 * one, 44 + 0 * one], -1)
    radii = torch.stack([4 + patients.aorta, 44 * one, 1.15 * patients.aorta], -1)
    return centre, radii
