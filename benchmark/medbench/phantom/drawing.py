"""Draws tubes and focal lesions into stacks of CT slices, inside their bounding boxes only."""

from __future__ import annotations

import torch

from medbench.phantom.anatomy import Points
from medbench.phantom.findings import BAND, CONSOLIDATION, CRAZY_PAVING, GROUND_GLASS, Lesions
from medbench.phantom.geometry import splat
from medbench.phantom.patient import Patients
from medbench.phantom.tissue import SHIFT_Y


def starts(owner: torch.Tensor, count: int) -> torch.Tensor:
    """First slice of every patient, [B + 1]."""
    return torch.searchsorted(owner.contiguous(), torch.arange(count + 1, device=owner.device))


def draw_points(
    canvas: torch.Tensor, points: Points, start: torch.Tensor, z: torch.Tensor, slab: float,
    axis: torch.Tensor,
) -> None:  # fmt: skip
    """Cut tubes by the slices: each point lands on the slice nearest to it, if within the slab."""
    owner = points.owner
    valid, plane = _nearest_slice(points.position[:, 2], owner, start, z)
    reach = torch.maximum(torch.full_like(points.radius, slab / 2), points.radius)
    valid &= (points.position[:, 2] - z[plane]).abs() <= reach
    origin, pixel = float(axis[0]), float(axis[1] - axis[0])
    splat(
        canvas,
        plane[valid],
        (points.position[valid, 1] - SHIFT_Y - origin) / pixel,
        (points.position[valid, 0] - origin) / pixel,
        points.radius[valid] / pixel,
        torch.ones_like(points.radius[valid]),
        add=False,
    )


def _nearest_slice(
    height: torch.Tensor, owner: torch.Tensor, start: torch.Tensor, z: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of the patient's slice nearest to each height, and whether the patient has slices.

    Slices run from head to feet within a patient. Adding a large step for each patient makes one
    sorted list of all slices, so that a single binary search serves every patient.
    """
    first, last = start[:-1][owner], start[1:][owner] - 1
    step = 1e4
    patient = torch.repeat_interleave(
        torch.arange(len(start) - 1, device=z.device), start[1:] - start[:-1]
    )
    keys = patient.double() * step - z.double()
    index = torch.searchsorted(keys, owner.double() * step - height.double())
    after = torch.minimum(index, last).maximum(first)
    before = (index - 1).maximum(first).minimum(last)
    nearer = (z[after] - height).abs() < (z[before] - height).abs()
    return last >= first, torch.where(nearer, after, before)


def draw_lesions(
    canvas: torch.Tensor, lesions: Lesions, patients: Patients, owner: torch.Tensor,
    z: torch.Tensor, corner: tuple[float, float], pixel: float, coarse: torch.Tensor,
    fine: torch.Tensor,
) -> None:  # fmt: skip
    """Add focal lesions to ``canvas`` [S, h, w] (HU), each inside its own bounding box.

    ``corner`` is x and y of the canvas's first pixel in mm; ``coarse`` and ``fine`` are textures of
    the canvas's shape.
    """
    if len(lesions) == 0:
        return
    size = max(canvas.shape[1:])
    lesion, plane = torch.nonzero(
        (lesions.owner[:, None] == owner[None])
        & ((z[None] - lesions.centre[:, 2:]).abs() < lesions.radii[:, 2:] * 1.35),
        as_tuple=True,
    )
    reach = lesions.radii[:, :2].amax(1) * 1.45 / pixel + 1
    for low, high in ((0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 128), (128, 999)):
        group = (reach[lesion] > low) & (reach[lesion] <= high)
        if not bool(group.any()):
            continue
        box = min(high, size)
        for part in torch.split(torch.nonzero(group)[:, 0], max(1, 300_000 // (2 * box + 1) ** 2)):
            _draw_boxes(
                canvas,
                lesions[lesion[part]],
                patients,
                plane[part],
                z,
                corner,
                pixel,
                coarse,
                fine,
                box,
            )


def _draw_boxes(
    canvas: torch.Tensor, own: Lesions, patients: Patients, plane: torch.Tensor,
    z: torch.Tensor, corner: tuple[float, float], pixel: float, coarse: torch.Tensor,
    fine: torch.Tensor, box: int,
) -> None:  # fmt: skip
    """Add N cuts of lesions, each within ``box`` pixels of its centre."""
    rows, columns = canvas.shape[1:]
    span = torch.arange(-box, box + 1, device=z.device)
    column = ((own.centre[:, 0] - corner[0]) / pixel).round().long()[:, None, None] + span.view(
        1, 1, -1
    )
    row = ((own.centre[:, 1] - corner[1]) / pixel).round().long()[:, None, None] + span.view(
        1, -1, 1
    )
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    flat = (plane[:, None, None] * rows + row.clamp(0, rows - 1)) * columns
    flat = flat + column.clamp(0, columns - 1)
    px, py = corner[0] + column * pixel, corner[1] + row * pixel
    dx, dy = px - own.centre[:, 0, None, None], py - own.centre[:, 1, None, None]
    c, s = own.angle.cos()[:, None, None], own.angle.sin()[:, None, None]
    u = (dx * c + dy * s) / own.radii[:, 0, None, None]
    v = (dy * c - dx * s) / own.radii[:, 1, None, None]
    w = ((z[plane] - own.centre[:, 2]) / own.radii[:, 2])[:, None, None]
    rough, grain = coarse.reshape(-1)[flat], fine.reshape(-1)[flat]
    ragged = own.ragged[:, None, None] * (0.30 * rough + 0.16 * grain)
    edge = (1 - (u * u + v * v + w * w).sqrt() + ragged) / own.soft[:, None, None]
    profile = edge.clamp(0, 1)
    profile = profile * profile * (3 - 2 * profile)
    kind = own.kind[:, None, None]
    mottle = torch.ones_like(profile)
    mottle = torch.where(kind == GROUND_GLASS, 1 + 0.22 * rough + 0.12 * grain, mottle)
    # Crazy paving: septal lines over ground glass. Consolidation: dark air bronchograms.
    mottle = torch.where(kind == CRAZY_PAVING, 0.85 + 0.5 * (grain.abs() < 0.35), mottle)
    bronchogram = 1 - 0.55 * ((grain > 1.25) & (rough > -0.4))
    mottle = torch.where(kind == CONSOLIDATION, bronchogram, mottle)
    mottle = torch.where(kind == BAND, 1 + 0.15 * grain, mottle)
    value = own.height[:, None, None] * profile * mottle * inside
    lobar = own.lobe[:, None, None]
    fissure = patients.fissure[own.owner][:, :, None, None]
    height = z[plane][:, None, None]
    below = ((fissure[:, 0] + fissure[:, 1] * py - height) / pixel + 0.5).clamp(0, 1)
    under = ((fissure[:, 2] - height) / pixel + 0.5).clamp(0, 1)
    share = torch.where((lobar == 0) | (lobar == 2), below, 1 - below)
    share = torch.where(lobar == 3, share * under, share)
    share = torch.where(lobar == 4, share * (1 - under), share)
    value = torch.where(lobar >= 0, value * share, value)
    # A lobar lesion may not cross the midline either.
    value = value * ((px > 0) == (own.centre[:, 0, None, None] > 0))
    canvas.view(-1).index_add_(0, flat.reshape(-1), value.reshape(-1))
