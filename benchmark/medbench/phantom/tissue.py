"""Everything in a CT slice but lung: body, mediastinum, abdomen, spine, airways, couch.

Functions draw into a stack of slices [S, H, W] in HU, in place where they touch a part of it only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from medbench.phantom.anatomy import arch_solid, body_axes
from medbench.phantom.geometry import power
from medbench.phantom.patient import CAGE_LONG, CAGE_PLANE, Patients
from medbench.phantom.scanner import CTScanner

#: The image's centre lies this far behind the patient's origin, as the spine reaches back, in mm.
SHIFT_Y = 8.0


def column(values: torch.Tensor) -> torch.Tensor:
    """[S] as [S, 1, 1]."""
    return values[:, None, None]


def member(q: torch.Tensor, radius: float, pixel: float) -> torch.Tensor:
    """Anti-aliased membership of a solid from its quadratic ``q`` (1 on the rim), in place."""
    slope = radius / (2 * pixel)
    return q.mul_(-slope).add_(slope + 0.5).clamp_(0.0, 1.0)


def paint(image: torch.Tensor, mask: torch.Tensor, value: torch.Tensor | float) -> None:
    """Move ``image`` towards ``value`` where ``mask`` is 1, in place."""
    if not isinstance(value, torch.Tensor):
        value = torch.tensor(value, device=image.device)
    image.lerp_(value, mask)


@dataclass
class Frame:
    """Geometry of a stack of S slices.

    Attributes:
        own: patient of each slice.
        z: height of each slice [S].
        axis: coordinate of the columns in mm [W]; rows lie ``SHIFT_Y`` further back.
        pixel: mm.
        scale, wide, deep: size of the cage in each slice, relative and in mm [S].
    """

    own: Patients
    z: torch.Tensor
    axis: torch.Tensor
    pixel: float
    scale: torch.Tensor
    wide: torch.Tensor
    deep: torch.Tensor

    @staticmethod
    def of(own: Patients, z: torch.Tensor, size: int, field_of_view: float) -> Frame:
        """The frame of slices at heights z of the patients ``own``."""
        pixel = field_of_view / size
        axis = (torch.arange(size, device=z.device) + 0.5) * pixel - field_of_view / 2
        offset = z - own.cage_z
        half = torch.where(offset > 0, own.cage[:, 2], own.cage[:, 3])
        rest = (1 - power((offset / half).abs(), CAGE_LONG)).clamp_min(1e-4)
        scale = power(rest, 1 / CAGE_LONG)
        return Frame(own, z, axis, pixel, scale, own.cage[:, 0] * scale, own.cage[:, 1] * scale)

    @property
    def x(self) -> torch.Tensor:
        """Columns in mm [1, 1, W]."""
        return self.axis.view(1, 1, -1)

    @property
    def y(self) -> torch.Tensor:
        """Rows in mm [1, H, 1]."""
        return self.axis.view(1, -1, 1) + SHIFT_Y

    def window(self, x0: float, x1: float, y0: float, y1: float) -> tuple[slice, slice]:
        """Rows and columns that cover a box in mm, with a margin of a pixel."""

        def cut(low: float, high: float, shift: float) -> slice:
            first = int((low - shift - float(self.axis[0])) / self.pixel) - 1
            last = int((high - shift - float(self.axis[0])) / self.pixel) + 3
            return slice(max(0, first), max(1, min(len(self.axis), last)))

        return cut(y0, y1, SHIFT_Y), cut(x0, x1, 0.0)

    def cage_q(self, rows: slice, columns: slice) -> torch.Tensor:
        """The cage's quadratic form in a window: below 1 inside."""
        across = power((self.x[..., columns] / column(self.wide)).abs(), CAGE_PLANE)
        return across + power((self.y[:, rows] / column(self.deep)).abs(), CAGE_PLANE)


@dataclass
class Organs:
    """Membership of what takes the lung's place in a window [S, h, w], each in [0, 1]."""

    mediastinum: torch.Tensor
    heart: torch.Tensor
    abdomen: torch.Tensor
    vessel: torch.Tensor
    spine: torch.Tensor

    def lung_share(self) -> torch.Tensor:
        """What they leave."""
        left = (1 - self.mediastinum).mul_(1 - self.heart).mul_(1 - self.abdomen)
        return left.mul_(1 - self.vessel).mul_(1 - self.spine)


def organs(frame: Frame, rows: slice, columns: slice) -> Organs:
    """Mediastinum, heart, upper abdomen, aorta and paraspinal tissue in a window."""
    own, z, pixel = frame.own, frame.z, frame.pixel
    x, y = frame.x[..., columns], frame.y[:, rows]
    taper = 1.0 + 0.35 * ((z - 40) / 90).clamp(0, 1) ** 2 - 0.25 * ((-z - 20) / 90).clamp(0, 1)
    q = (x / column(own.column[:, 0] * taper)) ** 2
    q = q + ((y - column(own.column[:, 2])) / column(own.column[:, 1])) ** 2
    mediastinum = member(q, 40.0, pixel)

    a = own.heart_matrix
    hx, hy, hz = x - column(own.heart[:, 0]), y - column(own.heart[:, 1]), z - own.heart[:, 2]
    along_x = column(a[:, 0, 0]) * hx**2 + column(2 * a[:, 0, 2] * hz) * hx
    along_y = column(a[:, 1, 1]) * hy**2 + column(2 * a[:, 1, 2] * hz) * hy
    q = (column(2 * a[:, 0, 1]) * hx) * hy
    heart = member(q.add_(along_x + column(a[:, 2, 2] * hz**2)).add_(along_y), 50.0, pixel)

    left = x > 0

    def side(values: torch.Tensor) -> torch.Tensor:
        return torch.where(left, column(values[:, 1]), column(values[:, 0]))

    # Below the dome's equator the abdomen fills the cage down to the recess.
    height, reach = own.dome[:, :, 2], own.dome_radii[:, :, 2]
    up = (torch.maximum(z[:, None], height) - height) / reach
    widen = 1 + 0.004 * (height - z[:, None]).clamp_min(0)
    q_x = ((x - side(own.dome[:, :, 0])) / side(own.dome_radii[:, :, 0] * widen)) ** 2 + side(
        up
    ) ** 2
    if rows.stop - rows.start == 0:
        raise ValueError("an empty window")
    halves = []
    middle = int(left.long().argmax()) if bool(left.any()) else left.shape[-1]
    for index, part in ((0, slice(0, middle)), (1, slice(middle, left.shape[-1]))):
        across = (y - column(own.dome[:, index, 1])) / column(
            own.dome_radii[:, index, 1] * widen[:, index]
        )
        halves.append(q_x[..., part] + across**2)
    abdomen = member(torch.cat(halves, -1), 75.0, pixel)

    centre, radius = arch_solid(own)
    rest = (1 - ((z - centre[:, 2]) / radius[:, 2]) ** 2).clamp_min(1e-3)
    q = ((x - column(centre[:, 0])) / column(radius[:, 0])) ** 2
    q = (q + ((y - column(centre[:, 1])) / column(radius[:, 1])) ** 2) / column(rest)
    arch = member(q, 18.0, pixel)
    # The descending aorta runs beside the spine from the arch down.
    size = torch.where(z < 44, own.aorta, torch.full_like(z, 0.5))
    q = ((x - 24) / column(size)) ** 2 + ((y - column(own.spine_y - 20)) / column(size)) ** 2
    vessel = arch.maximum(member(q, 12.0, pixel))
    q = (x / 25.0) ** 2 + ((y - column(own.spine_y + 6)) / 24.0) ** 2
    return Organs(mediastinum, heart, abdomen, vessel, member(q, 25.0, pixel))


def soft_tissue(frame: Frame, parts: Organs, rows: slice, columns: slice) -> torch.Tensor:
    """Air around the body, fat, muscle, mediastinum and upper abdomen, [S, H, W] in HU."""
    own, z, pixel = frame.own, frame.z, frame.pixel
    x, y = frame.x, frame.y
    body_a, body_b = body_axes(own, z, frame.scale)

    def outline(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return power((x / column(a)).abs(), 2.3) + power(((y - 6) / column(b)).abs(), 2.3)

    body = member(outline(body_a, body_b), 120.0, pixel)
    offset = (z - own.cage_z + 8) / 55
    size = own.female * (22 + 0.6 * own.fat) * (1 - offset**2).clamp_min(0).sqrt()
    some = torch.nonzero(size > 4)[:, 0]
    if len(some):
        r, _ = frame.window(-1, 1, -float(body_b.max() + size.max()), 0)
        q = ((x.abs() - column(0.55 * frame.wide[some])) / column(size[some] * 1.9)) ** 2
        q = q + ((y[:, r] + column(0.83 * body_b[some])) / column(size[some])) ** 2
        body[some, r] = body[some, r].maximum(member(q, 30.0, pixel))
    muscle = member(outline(body_a - 4 - 0.8 * own.fat, body_b - 4 - 0.55 * own.fat), 110.0, pixel)
    hu = muscle.mul_(150).sub_(100)
    inner = hu[:, rows, columns]
    xi, yi = x[..., columns], y[:, rows]
    inner.sub_(parts.mediastinum * ((-yi - 20) / 30).clamp(0, 1), alpha=80)
    paint(inner, parts.heart, 44.0)
    organ = torch.where(xi > 0, 46.0, 62.0)
    paint(inner, parts.abdomen, organ.expand_as(inner))
    low = torch.nonzero(z < -95)[:, 0]
    if len(low):
        q = ((xi - 62) / 34) ** 2 + ((yi + 38) / 22) ** 2 + column(((z[low] + 128) / 22) ** 2)
        gas = member(q, 28.0, pixel) * parts.abdomen[low]
        hu[low, rows, columns] = inner[low].lerp(torch.tensor(-900.0, device=z.device), gas)
    paint(inner, parts.vessel, 48.0)
    return hu.add_(1000).mul_(body).sub_(1000)


def draw_spine(hu: torch.Tensor, frame: Frame) -> None:
    """Vertebral body with cortex and disc, arch, canal, processes; sternum in front. In place."""
    own, z, pixel = frame.own, frame.z, frame.pixel
    sy = own.spine_y
    r, c = frame.window(-40, 40, float(sy.min()) - 18, float(sy.max()) + 62)
    view, x, y = hu[:, r, c], frame.x[..., c], frame.y[:, r]
    gap = (torch.remainder(z + own.spine_phase, 25.0) < 5).float()
    body = (x / 18) ** 2 + ((y - column(sy + 2)) / 14) ** 2
    rim = (1 - (1 - body).abs() * 3).clamp_min(0)
    value = column(torch.where(gap > 0, 85.0, 190 - 1.2 * (own.age - 50))) + rim * 180
    paint(view, member(body, 16.0, pixel), value)
    arch = member((x / 15) ** 2 + ((y - column(sy + 24)) / 15) ** 2, 15.0, pixel)
    paint(view, arch * column(1 - 0.6 * gap), 420.0)
    paint(view, member((x / 9.5) ** 2 + ((y - column(sy + 23)) / 9.5) ** 2, 9.5, pixel), 25.0)
    spinous = member((x / 4) ** 2 + ((y - column(sy + 46)) / 13) ** 2, 6.0, pixel)
    wings = member(((x.abs() - 24) / 13) ** 2 + ((y - column(sy + 26)) / 5) ** 2, 8.0, pixel)
    paint(view, spinous.maximum(wings) * column(1 - gap), 400.0)
    front = -own.cage[:, 1] - 9
    r, c = frame.window(-22, 22, float(front.min()) - 8, float(front.max()) + 8)
    x, y = frame.x[..., c], frame.y[:, r]
    in_range = ((z > own.cage_z - 55) & (z < own.cage_z + 105)).float()
    q = (x / 19) ** 2 + ((y - column(front)) / 6.5) ** 2
    paint(hu[:, r, c], member(q, 9.0, pixel) * column(in_range), 210.0)


def draw_airway(hu: torch.Tensor, frame: Frame) -> None:
    """Trachea above the carina, main bronchi below it, in place."""
    z = frame.z
    r, c = frame.window(-48, 48, -8, 36)
    x, y = frame.x[..., c], frame.y[:, r]
    above = column((z > 6).float())
    apart = column(torch.where(z > 6, 0.0, 7 + (6 - z).clamp(0, 38) * 0.75))
    centre = column(torch.where(z > 6, 12 + 0.06 * z, 12 + 0 * z))
    radius = 7.0 + 1.8 * above
    q = ((x.abs() - apart) / radius) ** 2 + ((y - centre) / radius) ** 2
    paint(hu[:, r, c], member(q, 8.0, frame.pixel) * column((z > -28).float()), -985.0)


def draw_table(hu: torch.Tensor, frame: Frame, scanner: CTScanner) -> None:
    """The curved couch under the patient, in place."""
    own = frame.own
    back = own.cage[:, 1] + 26 + 0.7 * own.fat + scanner.table
    r, c = frame.window(-190, 190, float(back.min()) - 42, float(back.max()) + 28)
    view, x, y = hu[:, r, c], frame.x[..., c], frame.y[:, r]
    depth = (y + 0.0011 * x * x) - column(back)
    line = (1 - depth.abs() / frame.pixel).clamp_(min=0)
    second = (1 - (depth - 22).abs() / frame.pixel).clamp_(min=0) * 0.6
    air = ((-view - 700) / 300).clamp_(0, 1)
    view.add_(line.maximum(second) * air, alpha=620)
