"""CT slices in Hounsfield units, cut from the parametric patient.

Slices of many patients are drawn together: every tensor has the slices S first, each with an
owner. Lung is drawn in the cage's bounding box, tubes and lesions in their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from medbench.phantom.anatomy import girdle_points, rib_points, vessel_points
from medbench.phantom.drawing import draw_lesions, draw_points, starts
from medbench.phantom.draws import noise
from medbench.phantom.findings import Findings
from medbench.phantom.patient import Patients
from medbench.phantom.scanner import CTScanner
from medbench.phantom.tissue import (
    Frame,
    Organs,
    column,
    draw_airway,
    draw_spine,
    draw_table,
    member,
    organs,
    paint,
    soft_tissue,
)

#: Half width and half depth of a box that holds every cage, in mm.
_WIDE, _DEEP = 165.0, 126.0
#: Texture lattices: spacing in mm across and along z, knots along z; both cover _EXTENT mm.
_COARSE, _FINE, _EXTENT = (21.0, 21.0, 20), (6.5, 13.1, 32), 420.0


@dataclass
class Texture:
    """Correlated noise of B patients, on lattices in mm, so it does not depend on the image size.

    coarse [B, Z, N, N] and fine [B, Z', M, M], both with unit variance at the knots.
    """

    coarse: torch.Tensor
    fine: torch.Tensor

    @staticmethod
    def draw(dataset: str, rows: Sequence[int], device: torch.device | str) -> Texture:
        """The texture of the given rows."""
        lattices = []
        for name, (gap, _, planes) in (("coarse", _COARSE), ("fine", _FINE)):
            number = math.ceil(_EXTENT / gap)
            shape = (planes, number, number)
            lattices.append(
                torch.stack([noise(dataset, name, row, shape) for row in rows]).to(device)
            )
        return Texture(*lattices)

    def cut(
        self, owner: torch.Tensor, frame: Frame, rows: slice, columns: slice
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Coarse and fine field on a window of the slices, [S, h, w], about unit variance."""
        fields = []
        for lattice, (gap, gap_z, _) in ((self.coarse, _COARSE), (self.fine, _FINE)):
            depth = ((frame.z + _EXTENT / 2) / gap_z).clamp(0, lattice.shape[1] - 1.001)
            low, t = depth.floor().long(), column(depth - depth.floor())
            plane = lattice[owner, low] * (1 - t) + lattice[owner, low + 1] * t
            plane = plane * (1.4 / (t * t + (1 - t) ** 2).sqrt())
            for axis, part in ((1, rows), (2, columns)):
                at = (frame.axis[part] + _EXTENT / 2) / gap
                at = at.clamp(0, lattice.shape[2] - 1.001)
                first = at.floor().long()
                share = (at - first).view((-1, 1) if axis == 1 else (-1,))
                plane = torch.lerp(
                    plane.index_select(axis, first), plane.index_select(axis, first + 1), share
                )
            fields.append(plane)
        return fields[0], fields[1]


@dataclass
class Volume:
    """Rendered slices.

    Attributes:
        hu: [S, H, W] with noise; clean: the same without quantum noise.
        lung: share of each pixel that is lung, [S, H, W].
        disease: HU that marked findings added, [S, H, W].
    """

    hu: torch.Tensor
    clean: torch.Tensor
    lung: torch.Tensor
    disease: torch.Tensor


def render_ct(
    patients: Patients,
    findings: Findings,
    owner: torch.Tensor,
    z: torch.Tensor,
    size: int,
    scanner: CTScanner,
    texture: Texture,
    quantum: torch.Tensor | None,
) -> Volume:
    """Draw CT slices.

    Args:
        patients, findings: B patients.
        owner: patient of each slice, int64 [S], ascending.
        z: height of each slice in mm [S], falling within a patient.
        size: rows and columns.
        scanner: signature.
        texture: parenchymal texture of the B patients.
        quantum: standard normal noise [S, size, size], or None for a noise-free image.
    """
    own = patients[owner]
    frame = Frame.of(own, z, size, scanner.field_of_view)
    pixel, first = frame.pixel, starts(owner, len(patients))
    # Any cage fits; the box must not depend on who shares the batch.
    rows, columns = frame.window(-_WIDE, _WIDE, -_DEEP, _DEEP)
    parts = organs(frame, rows, columns)
    air, share, disease = _lung(
        patients, findings, owner, frame, parts, scanner, texture, first, rows, columns
    )
    clean = soft_tissue(frame, parts, rows, columns)
    clean[:, rows, columns] = clean[:, rows, columns].lerp(air, share)

    bones = torch.zeros_like(clean)
    for points in (rib_points(patients, pixel * 0.8), girdle_points(patients, pixel * 0.8)):
        draw_points(bones, points, first, z, scanner.thickness * 1.5, frame.axis)
    bones[:, rows, columns] *= 1 - share
    paint(clean, bones, 430.0)
    draw_spine(clean, frame)
    draw_airway(clean, frame)
    draw_table(clean, frame, scanner)

    moving = findings.motion[owner] * ((40 - z) / 60).clamp(0, 1)
    some = torch.nonzero(moving > 0)[:, 0]
    if len(some):
        # Breathing during the scan: the front of the chest is seen twice.
        still = clean[some]
        moved = torch.roll(still, max(1, round(5 / pixel)), dims=1)
        clean[some] = still + column(0.5 * moving[some]) * (moved - still)
    clean = _kernel(clean, scanner.blur / pixel).add_(scanner.offset)
    hu = clean
    if quantum is not None:
        # More tissue in the beam, more noise.
        strength = column(scanner.noise * (0.8 + 0.012 * own.fat))
        hu = clean + _kernel(quantum, scanner.grain) * strength
    lung = torch.zeros_like(clean)
    lung[:, rows, columns] = share
    drawn = torch.zeros_like(clean)
    drawn[:, rows, columns] = disease * share
    return Volume(hu, clean, lung, drawn)


def _lung(
    patients: Patients, findings: Findings, owner: torch.Tensor, frame: Frame, parts: Organs,
    scanner: CTScanner, texture: Texture, first: torch.Tensor, rows: slice, columns: slice,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """HU of the lung in a window, its share of each pixel, and what disease added, [S, h, w]."""
    own, z, pixel = frame.own, frame.z, frame.pixel
    x, y = frame.x[..., columns], frame.y[:, rows]
    cage_q = frame.cage_q(rows, columns)
    share = member(cage_q.clone(), 90.0, pixel).mul_(parts.lung_share())
    height = column(((z - own.lung[:, 2]) / own.lung[:, 3]) ** 2)
    envelope = ((x.abs() - column(own.lung[:, 0])) / column(own.lung[:, 1])) ** 2 + height
    share.mul_(member(envelope, 60.0, pixel))

    # Parenchyma: gravity, texture, dependent density.
    coarse, fine = texture.cut(owner, frame, rows, columns)
    slope = column(0.5 * own.density[:, 1] / own.cage[:, 1]) * y
    base = column(own.density[:, 0] + findings.motion[owner] * 15) + slope
    grain = column(own.density[:, 2])
    air = fine * (0.9 * grain)
    air.add_(coarse * (0.6 * grain)).add_(base)
    haze = findings.dependent[owner] * (0.25 + 0.75 * ((10 - z) / 90).clamp(0, 1))
    posterior = ((y / column(frame.deep) - 0.45) * 4).clamp(0, 1) * column(haze)
    rim = cage_q.mul(2.6).sub_(1.6).clamp_(min=0).mul_(posterior)
    air.add_(rim.mul_(coarse.mul(0.35).add_(1)))
    wet = torch.nonzero(findings.congestion[owner] > 0)[:, 0]
    if len(wet):
        septa = (fine[wet] - 0.7).clamp_min(0) * 160 + 60
        air[wet] += column(findings.congestion[owner[wet]]) * septa

    disease, minor = torch.zeros_like(air), torch.zeros_like(air)
    corner = float(frame.axis[columns.start]), float(y[0, 0, 0])
    for marked, canvas in ((True, disease), (False, minor)):
        some = findings.lesions[findings.lesions.marked == marked]
        draw_lesions(canvas, some, patients, owner, z, corner, pixel, coarse, fine)
    air.add_(disease.clamp_(min=-200)).add_(minor).clamp_(-1000, 70)

    tree = torch.zeros(len(z), len(frame.axis), len(frame.axis), device=z.device)
    tubes = vessel_points(patients, pixel * 0.9, 1 + 0.35 * findings.congestion)
    draw_points(tree, tubes, first, z, scanner.thickness, frame.axis)
    paint(air, tree[:, rows, columns] * 0.95, 45.0)
    _pleura(air, findings, owner, frame, cage_q, x, y)
    return air, share, disease


def _pleura(
    air: torch.Tensor, findings: Findings, owner: torch.Tensor, frame: Frame,
    cage_q: torch.Tensor, x: torch.Tensor, y: torch.Tensor,
) -> None:  # fmt: skip
    """Fluid behind and free air in front of the lung, with the pleura between, in place."""
    pixel = frame.pixel
    left = x > 0
    some = torch.nonzero(findings.effusion[owner].amax(1) > 0)[:, 0]
    if len(some):
        own, z, mine = frame.own[some], frame.z[some], findings.effusion[owner[some]]
        depth = torch.where(left, column(mine[:, 1]), column(mine[:, 0]))
        present = (depth > 0).float()
        lift = column(1.15 * ((-z - 10) / 80 + 0.35).clamp(0, 1.3))
        bow = 0.0009 * (x.abs() - column(own.lung[:, 0])) ** 2
        level = column(frame.deep[some]) * 0.94 - depth * lift - bow
        fluid = ((y - level) / pixel + 0.5).clamp(0, 1) * present * (lift > 0.02)
        # The lung above the fluid is squeezed.
        collapse = (1 - (level - y).clamp_min(0) / 12).clamp_min(0) * present * (lift > 0.05)
        part = air[some] + collapse * 420 * (1 - fluid)
        air[some] = (part + fluid * (12 - part)).clamp(max=80)
    some = torch.nonzero(findings.pneumothorax[owner].amax(1) > 0)[:, 0]
    if len(some):
        z, mine = frame.z[some], findings.pneumothorax[owner[some]]
        depth = torch.where(left, column(mine[:, 1]), column(mine[:, 0]))
        line = depth * column(1.0 + 0.5 * (z / 90).clamp(-1, 1)) - column(frame.deep[some])
        edge = (1 - cage_q[some]) * 45
        beside = (edge < depth * 0.35 * column(((z + 20) / 60).clamp(0, 1))).float()
        free = ((line - y) / pixel + 0.5).clamp(0, 1).maximum(beside) * (depth > 0)
        pleura = (1 - (y - line).abs() / (0.8 * pixel)).clamp_min(0) * (depth > 0)
        part = air[some]
        air[some] = (part + free * (-1000 - part) + pleura * 350).clamp(-1005, 80)


def _kernel(image: torch.Tensor, width: float) -> torch.Tensor:
    """Blur [S, H, W] with a three-tap kernel of about the given width in pixels; a new tensor."""
    side = min(0.25, 0.5 * width * width)
    if side < 0.01:
        return image.clone()
    padded = functional.pad(image[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = padded[:, 1:-1] * (1 - 2 * side)
    rows.add_(padded[:, :-2], alpha=side).add_(padded[:, 2:], alpha=side)
    out = rows[..., 1:-1] * (1 - 2 * side)
    return out.add_(rows[..., :-2], alpha=side).add_(rows[..., 2:], alpha=side)


def slice_heights(patients: Patients, counts: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Owner [S] and height in mm [S] of evenly spaced slices from above the apex to the recess."""
    owners, heights = [], []
    top = patients.cage_z + patients.cage[:, 2] + 12
    bottom = patients.dome[:, :, 2].amin(1) + patients.dome_radii[:, 0, 2] - 62
    for index, count in enumerate(counts):
        t = (torch.arange(count) + 0.5) / count
        heights.append(torch.lerp(top[index].cpu(), bottom[index].cpu(), t))
        owners.append(torch.full((count,), index))
    device = patients.age.device
    return torch.cat(owners).to(device), torch.cat(heights).to(device)
