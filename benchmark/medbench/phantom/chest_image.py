"""Projects a planned scene and develops it: the fast path for annotated radiographs.

Parallel rays run through the same solids as in `radiograph`. What is smooth (lung, heart, soft
tissue, opacities, fluid) is drawn on a coarser grid and scaled up; tubes are point masses that one
filter spreads for all tubes of a radius. Everything is batched over images, so the same code runs
on a CPU and on a GPU.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from medbench.phantom.anatomy import (
    body_axes,
    cage_scale,
    girdle_points,
    rib_points,
    vessel_points,
)
from medbench.phantom.chest_devices import Strokes
from medbench.phantom.chest_plan import CENTRE_Z, Blobs, Scene
from medbench.phantom.draws import noise
from medbench.phantom.patient import CAGE_PLANE, RIBS
from medbench.phantom.radiograph import MU_WATER, column_taper
from medbench.phantom.scanner import XRayUnit

#: What bone adds to the attenuation of water.
_BONE_EXCESS = 2.3
#: Radius in mm of ribs and clavicles.
_RIB_RADIUS = 5.2
#: Vessels above this radius in mm are drawn on the coarse grid.
_WIDE = 2.0
#: Stands for 0 under roots and logarithms, which take some twenty times as long for 0 itself.
_TINY = 1e-12
#: Strokes whose ends are nearer than this, in mm, are sampled with few points.
_SHORT = 30.0
#: 5 x 7 letters of the lead markers.
_LETTERS = {
    "R": ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#"),
    "L": ("#....", "#....", "#....", "#....", "#....", "#....", "#####"),
    "P": ("####.", "#...#", "#...#", "####.", "#....", "#....", "#...."),
}


def draw(scene: Scene, size: int, unit: XRayUnit, *, noisy: bool) -> torch.Tensor:
    """Draw a scene, [N, size, size] in [0, 1], bone white, on the device of its tensors."""
    if scene.frame.dx.device.type == "cpu":
        # Once a large block has been freed, glibc keeps the pages of smaller ones instead of
        # handing them back after every operation, which costs more than most operations do.
        torch.empty(31 << 18)
    small = _Grid(scene, size if size <= 160 else -(-size // 2), unit)
    full = _Grid(scene, size, unit)
    still, gate, air = _still(scene, small)
    sharp = _canvas(len(scene), size, still.device)
    still = still + _BONE_EXCESS * _bones(scene, small, sharp, full)
    wide, thin = _vessels(scene, small, full)
    _strokes(thin, scene.lines, scene, full)
    depth = _scale(torch.addcmul(still, wide, gate), size)
    depth.addcmul_(_gauss(_inner(thin), full.variance(0.45)), _scale(gate, size))
    if air is not None:
        rows, share, lung = air
        share = _scale(share, size)
        # The thin white line of the pleura, where the edge of the free air meets lung.
        line = 4 * share * (1 - share) * _scale(lung, size)
        depth = depth.index_add(0, rows, line, alpha=9.0)
    _strokes(sharp, scene.metal, scene, full)
    _calcium(sharp, scene, full)
    _marker(sharp, scene, full, unit)
    depth += _gauss(_inner(sharp), full.variance(0.8))
    return _develop(depth, scene, size, unit, noisy=noisy)


class _Grid:
    """Pixel centres in the patient's mm: across [N, H, W], z [N, H, 1]; and the way back."""

    def __init__(self, scene: Scene, size: int, unit: XRayUnit) -> None:
        frame = scene.frame
        self.size = size
        self.pixel = unit.field_of_view / size
        self.axis = 1 if scene.view == "frontal" else 0
        self._half = unit.field_of_view / 2
        self._frame = frame
        line = (torch.arange(size, device=frame.dx.device) + 0.5) * self.pixel - self._half
        self.z = CENTRE_Z + _c(frame.dz) - line.view(1, -1, 1) * _c(frame.zoom)
        lean = _c(frame.shear) * (self.z - CENTRE_Z)
        self.across = line.view(1, 1, -1) * _c(frame.zoom) + _c(frame.dx) + lean

    def project(
        self, points: torch.Tensor, owner: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and column in pixels of points [N, P, 3], or [P, ..., 3] with owners [P]."""
        frame = self._frame
        values = [frame.zoom, frame.dx, frame.dz, frame.shear, frame.turn]
        if owner is not None:
            values = [v[owner] for v in values]
        shape = (-1,) + (1,) * (points.dim() - 2)
        zoom, dx, dz, shear, turn = (v.view(shape) for v in values)
        across = points[..., 0] + turn * points[..., 1] if self.axis == 1 else points[..., 1]
        z = points[..., 2]
        across = (across - dx - shear * (z - CENTRE_Z)) / zoom
        down = (CENTRE_Z + dz - z) / zoom
        return (down + self._half) / self.pixel - 0.5, (across + self._half) / self.pixel - 0.5

    def variance(self, deviation: float) -> float:
        """Variance in pixels of a deviation in mm."""
        return (deviation / self.pixel) ** 2


def _c(value: torch.Tensor) -> torch.Tensor:
    return value[:, None, None]


def _scale(image: torch.Tensor, size: int) -> torch.Tensor:
    """[N, h, w] to [N, size, size]."""
    if image.shape[-1] == size:
        return image
    return functional.interpolate(
        image[:, None], (size, size), mode="bilinear", align_corners=False
    )[:, 0]


def _gauss(image: torch.Tensor, variance: float) -> torch.Tensor:
    """Blur [N, H, W] by a variance in pixels; the edge is repeated outwards.

    Passes of three taps that lie 1, 2, 3, ... pixels apart: together nearly Gaussian.
    """
    step = 1
    while variance > 0.02 and 2 * step < min(image.shape[1:]):
        share = min(variance / step**2, 0.6)
        image = _taps(_taps(image, share, step, 1), share, step, 2)
        variance -= share * step**2
        step += 1
    return image


def _taps(image: torch.Tensor, share: float, step: int, dim: int) -> torch.Tensor:
    """One pass along one axis: ``share`` of each pixel goes to those ``step`` pixels away."""
    side, number = share / 2, image.shape[dim]
    out = image * (1 - share)
    rest = number - step
    out.narrow(dim, step, rest).add_(image.narrow(dim, 0, rest), alpha=side)
    out.narrow(dim, 0, rest).add_(image.narrow(dim, step, rest), alpha=side)
    out.narrow(dim, 0, step).add_(image.narrow(dim, 0, 1), alpha=side)
    out.narrow(dim, rest, step).add_(image.narrow(dim, number - 1, 1), alpha=side)
    return out


def _points(
    canvas: torch.Tensor, plane: torch.Tensor, row: torch.Tensor, column: torch.Tensor,
    mass: torch.Tensor,
) -> None:  # fmt: skip
    """Add point masses to a canvas [N, H + 2, W + 2] with a border, shared among four pixels."""
    _, height, width = canvas.shape
    row = (row + 1).clamp(0, height - 1.001)
    column = (column + 1).clamp(0, width - 1.001)
    top, left = row.floor(), column.floor()
    down, right = row - top, column - left
    index = (plane * height + top.long()) * width + left.long()
    flat = canvas.view(-1)
    lower, upper = mass * down, mass * (1 - down)
    for offset, part in (
        (0, upper * (1 - right)), (1, upper * right),
        (width, lower * (1 - right)), (width + 1, lower * right),
    ):  # fmt: skip
        flat.index_add_(0, (index + offset).reshape(-1), part.reshape(-1))


def _solid(canvas: torch.Tensor, grid: _Grid, place: torch.Tensor, mass: torch.Tensor) -> None:
    """Add points of mass [N, P] in cubic mm of water at positions [N, P, 3]."""
    row, column = grid.project(place)
    _points(canvas, _planes(mass), row, column, mass / grid.pixel**2)


def _canvas(count: int, size: int, device: torch.device) -> torch.Tensor:
    """Zeros [N, size + 2, size + 2]: what falls outside lands on the border."""
    return torch.zeros(count, size + 2, size + 2, device=device)


def _inner(canvas: torch.Tensor) -> torch.Tensor:
    return canvas[:, 1:-1, 1:-1]


def _planes(points: torch.Tensor) -> torch.Tensor:
    count, number = points.shape
    return torch.arange(count, device=points.device)[:, None].expand(count, number)


# ---------------------------------------------------------------- soft tissue, lung, opacities

_FreeAir = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _still(scene: Scene, grid: _Grid) -> tuple[torch.Tensor, torch.Tensor, _FreeAir | None]:
    """Everything smooth: depth in mm of water, weight of vessels, and the free air."""
    patients = scene.patients
    scale = cage_scale(patients, grid.z.expand(len(patients), -1, 1)).clamp_min(0.02)
    wide, deep = _c(patients.cage[:, 0]) * scale, _c(patients.cage[:, 1]) * scale
    body = _body(scene, grid, scale, wide)
    lung = _lung(scene, grid, wide, deep)
    rough = _rough(scene, grid.size)
    density = 1.03 + _c(patients.density[:, 0] + scene.density) / 1000
    aerated = lung * (1 - density)
    inside = (lung / 60).clamp(0, 1)
    bound, free, free_inside = _blobs(scene, grid, rough)
    filled = torch.minimum(bound * inside, 0.95 * aerated)
    share = filled / aerated.clamp_min(1)
    tissue = body - aerated + filled + free + free_inside * inside
    tissue = tissue + lung * rough * 0.010
    fluid = _fluid(scene, grid, wide, deep)
    if fluid is not None:
        rows, part = fluid
        tissue = tissue.index_add(0, rows, (aerated - filled)[rows] * part)
        share = share.index_add(0, rows, part * (1 - share[rows]))
    rim = _rim(scene, grid, wide, deep)
    if rim is not None:
        tissue = tissue.index_add(0, *rim)
    gate = inside * (1 - 0.9 * share)
    air = _free_air(scene, grid, lung, wide)
    if air is not None:
        rows, part, _ = air
        # Where this patient's lung is not, the annotated air still shows.
        emptied = 0.65 * (density * lung)[rows] + 4 + 28 * (1 - inside[rows])
        tissue = tissue.index_add(0, rows, -emptied * part)
        gate = gate.index_add(0, rows, -gate[rows] * part)
    tissue = tissue + _gas(scene, grid)
    return tissue.clamp_min(0) + _BONE_EXCESS * _spine(scene, grid), gate, air


def _half(across: torch.Tensor, wide: torch.Tensor, exponent: float) -> torch.Tensor:
    """Half chord of a superellipse of unit half depth, (1 - |u|^n)^(1/n), 0 outside."""
    u = (across / wide).abs_().clamp_min_(1e-6)
    rest = u.log_().mul_(exponent).exp_().neg_().add_(1).clamp_min_(_TINY)
    return rest.log_().div_(exponent).exp_()


def _round(across: torch.Tensor, wide: torch.Tensor | float) -> torch.Tensor:
    """Half chord of an ellipse of unit half depth, 0 outside."""
    return (across / wide).square_().neg_().add_(1).clamp_min_(_TINY).sqrt_()


def _body(scene: Scene, grid: _Grid, scale: torch.Tensor, wide: torch.Tensor) -> torch.Tensor:
    """Chord of the whole body."""
    patients, across, z = scene.patients, grid.across, grid.z
    half_wide, half_deep = body_axes(patients, z, scale)
    top = _c(patients.cage_z + patients.cage[:, 2])
    breast = patients.female * (20 + 0.6 * patients.fat)
    rise = 1 - ((z - _c(patients.cage_z) + 18) / 55) ** 2
    reach = _c(breast) * rise.clamp_min(_TINY).sqrt()
    neck = 1 - 0.30 * torch.sigmoid((z - top - 8) / 7)
    if grid.axis == 1:
        body = _half(across, half_wide, 2.3) * (2 * half_deep * neck)
        # Above the shoulders only the neck is left.
        slope = 58 + 2.1 * (top + 34 - z)
        body = body * torch.sigmoid((slope - across.abs()) / 4)
        side = across.abs() - 0.55 * wide
        return body + 0.9 * reach * _round(side, reach * 1.9 + 1)
    body = _half(across - 6, half_deep, 2.3) * (2 * half_wide)
    arms = 0.9 * (half_wide - _c(patients.cage[:, 0]) - 30).clamp_min(0)
    body = (body - arms).clamp_min_(0) * neck
    return body + 2.1 * reach * _round(across + 0.9 * half_deep, reach + 1)


def _ellipsoid(
    grid: _Grid, centre: tuple[torch.Tensor, ...], radii: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Half chord of an ellipsoid along x, y, z; centres and radii [N]."""
    other = 1 - grid.axis
    q = ((grid.across - _c(centre[other])) / _c(radii[other])).square_()
    q = q.add_(((grid.z - _c(centre[2])) / _c(radii[2])) ** 2)
    return q.neg_().add_(1).clamp_min_(_TINY).sqrt_() * _c(radii[grid.axis])


def _heart(scene: Scene, grid: _Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre and half chord of the heart, an oblique ellipsoid."""
    patients, along, other = scene.patients, grid.axis, 1 - grid.axis

    def entry(row: int, column: int) -> torch.Tensor:
        return _c(patients.heart_matrix[:, row, column])

    u, v = grid.across - _c(patients.heart[:, other]), grid.z - _c(patients.heart[:, 2])
    a = entry(along, along)
    b = entry(along, other) * u + entry(along, 2) * v
    c = (entry(other, other) * u + 2 * entry(other, 2) * v) * u
    c = c + (entry(2, 2) * v * v - 1.0)
    half = (b * b - a * c).clamp_min_(_TINY).sqrt_() / a
    return _c(patients.heart[:, along]) - b / a, half


def _dome(scene: Scene, grid: _Grid, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre and half chord of one hemidiaphragm and what lies under it."""
    patients, along, other = scene.patients, grid.axis, 1 - grid.axis
    centre, radius = patients.dome[:, side], patients.dome_radii[:, side]
    widen = 1 + 0.004 * (_c(centre[:, 2]) - grid.z).clamp_min(0)
    up = ((grid.z - _c(centre[:, 2])).clamp_min(0) / _c(radius[:, 2])) ** 2
    rest = ((grid.across - _c(centre[:, other])) / (_c(radius[:, other]) * widen)).square_()
    rest = rest.add_(up).neg_().add_(1).clamp_min_(_TINY).sqrt_()
    return _c(centre[:, along]), rest * (_c(radius[:, along]) * widen)


def _lung(scene: Scene, grid: _Grid, wide: torch.Tensor, deep: torch.Tensor) -> torch.Tensor:
    """Length of lung along the rays in mm, [N, H, W].

    Solids that lie behind one another overlap, so what they take from the lung is the distance
    from the first one's front to the last one's back.
    """
    patients, across, z = scene.patients, grid.across, grid.z
    column = 0.80 * _c(patients.column[:, 0] * scene.column) * column_taper(z)
    if grid.axis == 1:
        cage = _half(across, wide, CAGE_PLANE) * deep
        envelope = ((across.abs() - _c(patients.lung[:, 0])) / _c(patients.lung[:, 1])).square_()
        envelope = envelope + ((z - _c(patients.lung[:, 2])) / _c(patients.lung[:, 3])) ** 2
        left = (across > 0).float()
        right, other = _dome(scene, grid, 0), _dome(scene, grid, 1)
        solids = [
            (_c(patients.column[:, 2]), _round(across, column) * _c(patients.column[:, 1])),
            (_c(patients.spine_y + 6), 24 * _round(across, 25.0)),
            _heart(scene, grid),
            (torch.lerp(right[0], other[0], left), torch.lerp(right[1], other[1], left)),
        ]
        front = back = torch.zeros_like(cage)
        for centre, half in solids:
            # An empty interval shrinks to the middle of the chest, where it adds nothing.
            centre = centre * (half / 12).clamp_(max=1)
            front, back = torch.minimum(front, centre - half), torch.maximum(back, centre + half)
        lung = 2 * cage - (torch.minimum(back, cage) - torch.maximum(front, -cage))
        lung = lung * envelope.neg_().mul_(12).add_(12.5).clamp_(0, 1)
    else:
        cage = _half(across, deep, CAGE_PLANE) * wide
        rest = (1 - ((z - _c(patients.lung[:, 2])) / _c(patients.lung[:, 3])) ** 2).clamp_min(_TINY)
        reach = _c(patients.lung[:, 1]) * rest.sqrt()
        cage = torch.minimum(cage, _c(patients.lung[:, 0]) + reach)
        start = (_c(patients.lung[:, 0]) - reach).clamp_min(0)
        middle = _round(across - _c(patients.column[:, 2]), _c(patients.column[:, 1])) * column
        spine = 25 * _round(across - _c(patients.spine_y + 6), 24.0)
        middle = torch.maximum(torch.maximum(middle, spine), start)
        centre, half = _heart(scene, grid)
        centre = centre * (half / 12).clamp_(max=1)
        lung = torch.zeros_like(cage)
        for side, sign in ((0, -1.0), (1, 1.0)):
            part = (cage - torch.maximum(middle, sign * centre + half)).clamp_min_(0)
            lung = lung + (part - 2 * _dome(scene, grid, side)[1]).clamp_min_(0)
    one, heart = torch.ones_like(patients.age), patients.heart
    grow = (patients.heart_radii[:, 0] / 65).clamp(0.7, 1.8)
    knob = patients.aorta + scene.knob
    bulges = (
        # Right atrium, superior vena cava, pulmonary trunk, aortic arch, right and left hilum.
        ((-9 * one, -18 * one, heart[:, 2] - 2), (25 * grow, 30 * grow, 42 * grow)),
        ((-20 * scene.column, -6 * one, 46 * one), (13 * scene.column, 20 * one, 52 * one)),
        ((24 * scene.column, -14 * one, 14 * one), (17 * scene.column, 20 * one, 24 * one)),
        ((10 + knob, 14 * one, 44 * one), (5 + knob, 40 * one, 1.3 * knob)),
        ((-34 * one, 6 * one, -14 * one), (13 * one, 16 * one, 24 * one)),
        ((35 * one, 8 * one, -4 * one), (12 * one, 16 * one, 22 * one)),
    )
    for place, radii in bulges:
        lung.sub_(_ellipsoid(grid, place, radii), alpha=2)
    return lung.clamp_min_(0)


def _rough(scene: Scene, size: int) -> torch.Tensor:
    """Noise of two scales, [N, size, size], deviation about 0.7."""
    first, second = (
        functional.interpolate(field[:, None], (size, size), mode="bilinear", align_corners=False)
        for field in scene.rough
    )
    return torch.add(first, second, alpha=0.45)[:, 0]


def _blobs(
    scene: Scene, grid: _Grid, rough: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Depth of opacities, each drawn within a window around it; all [N, H, W].

    Returns mm of air that lesions of the lung replace; mm of water of free ones, first what they
    keep everywhere, then what they have within the lung only.
    """
    count, size = len(scene), grid.size
    sums = torch.zeros(3, count * size * size, device=rough.device)
    blobs = scene.blobs
    row, column = grid.project(blobs.centre, blobs.owner)
    zoom = scene.frame.zoom[blobs.owner] * grid.pixel
    across = blobs.radii[:, 1 - grid.axis] / zoom
    tall = blobs.radii[:, 2] / zoom
    reach = 2 * torch.maximum(across, tall + blobs.tilt.abs() * across) + 3
    done = torch.zeros(len(blobs), dtype=torch.bool, device=rough.device)
    width = 12
    # Windows of a few sizes: a lesion is drawn in the smallest that holds it.
    while not (last := width >= size) or not bool(done.all()):
        width = min(width, size)
        fits = ~done if last else (reach < width) & ~done
        done = done | fits
        for some in torch.split(torch.nonzero(fits)[:, 0], max(1, 100_000 // width**2)):
            place = (row[some], column[some], across[some], tall[some])
            _window(sums, blobs[some], place, width, grid, rough)
        if last:
            break
        width *= 2
    bound, free, inside = sums.view(3, count, size, size)
    return bound, free, inside


def _window(
    sums: torch.Tensor, blobs: Blobs, place: tuple[torch.Tensor, ...], width: int, grid: _Grid,
    rough: torch.Tensor,
) -> None:  # fmt: skip
    """Add blobs to ``sums`` in windows of ``width`` pixels."""
    size = grid.size
    row, column, across, tall = place
    span = torch.arange(width, device=row.device)
    top = (row - width / 2 + 0.5).round().long().clamp(0, size - width)
    left = (column - width / 2 + 0.5).round().long().clamp(0, size - width)
    rows, columns = top[:, None] + span, left[:, None] + span
    index = (blobs.owner[:, None] * size + rows)[:, :, None] * size + columns[:, None, :]
    u = ((columns - column[:, None]) / across[:, None])[:, None, :]
    v = ((row[:, None] - rows) / tall[:, None])[:, :, None]
    v = v - u * _c(blobs.tilt * across / tall)
    half = _c(blobs.power / 2)
    q = (u * u) ** half + (v * v) ** half
    # Noise only eats into a lesion, so that it never leaves its box.
    q = q + _c(blobs.ragged) * 0.5 * rough.reshape(-1)[index].abs_()
    rest = (1 - q).clamp_min_(_TINY)
    chord = rest.sqrt() * _c(2 * blobs.radii[:, grid.axis] * blobs.height)
    part = chord * (rest / _c(blobs.soft.clamp_min(0.02))).clamp_(max=1)
    free, keep, flat = _c(blobs.free.float()), _c(blobs.floor), index.view(-1)
    sums[0].index_add_(0, flat, (part * (1 - free)).view(-1))
    sums[1].index_add_(0, flat, (part * (free * keep)).view(-1))
    sums[2].index_add_(0, flat, (part * (free * (1 - keep))).view(-1))


# ---------------------------------------------------------------- pleura


def _some(flag: torch.Tensor) -> torch.Tensor | None:
    """Indices of the images for which anything of a row is above 0, or None."""
    rows = torch.nonzero(flag.amax(1) > 0)[:, 0]
    return rows if len(rows) else None


def _fluid(
    scene: Scene, grid: _Grid, wide: torch.Tensor, deep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Share of the lung's chord that is fluid, of the images that have any."""
    rows = _some(scene.effusion)
    if rows is None:
        return None
    patients = scene.patients[rows]
    across, z = grid.across[rows], grid.z[rows]
    fluid = torch.zeros(len(rows), grid.size, grid.size, device=z.device)
    frontal = grid.axis == 1
    for side in (0, 1):
        depth = _c(scene.effusion[rows, side])
        top = _c(patients.dome[:, side, 2] + patients.dome_radii[:, side, 2])
        if frontal:
            rim = (across.abs() / wide[rows]).clamp(0, 1)
            here = ((across > 0) if side else (across < 0)).float()
        else:
            rim = (across / deep[rows]).clamp(0, 1)
            here, top = torch.full_like(z, 0.5), top + 14
        # The angle beside the dome fills first; the meniscus climbs along the wall.
        level = top - 46 + 1.1 * depth + (14 + 1.3 * depth) * rim**4
        fluid = fluid + here * ((level - z) / 9 + 0.5).clamp(0, 1) * (depth > 0)
    return rows, fluid.clamp(0, 1)


def _rim(
    scene: Scene, grid: _Grid, wide: torch.Tensor, deep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Water mm of thickened pleura along the wall, of the images that have any."""
    rows = _some(scene.rim)
    if rows is None:
        return None
    patients = scene.patients[rows]
    across, z = grid.across[rows], grid.z[rows]
    total = torch.zeros(len(rows), grid.size, grid.size, device=z.device)
    frontal = grid.axis == 1
    wall = (wide if frontal else deep)[rows]
    top = _c(patients.cage_z + patients.cage[:, 2])
    for side in (0, 1):
        thick = _c(scene.rim[rows, side])
        if frontal:
            # Its medial border lies where the wall itself is that much narrower.
            inner = wall - across.abs()
            here = ((across > 0) if side else (across < 0)).float()
        else:
            inner, here = wall - across, torch.full_like(z, 0.5)
        inner = torch.minimum(inner, 0.6 * (top - z))
        uneven = thick * (1 + 0.25 * torch.sin(z / 17 + side))
        layer = ((uneven - inner) / 3 + 0.5).clamp(0, 1) * ((inner + 2) / 3).clamp(0, 1)
        band = ((z + 108) / 14).clamp(0, 1) * ((top - 6 - z) / 14).clamp(0, 1)
        # A layer seen edge on is deep along the ray.
        total = total + here * band * layer * (10 + 2.6 * thick) * (thick > 0)
    return rows, total


def _free_air(
    scene: Scene, grid: _Grid, lung: torch.Tensor, wide: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Images with free pleural air, how much of the lung it displaces, where its edge shows."""
    parts = []
    rows = _some(scene.gap)
    if rows is not None:
        patients = scene.patients[rows]
        across, z = grid.across[rows], grid.z[rows]
        top = _c(patients.cage_z + patients.cage[:, 2])
        air = torch.zeros(len(rows), grid.size, grid.size, device=z.device)
        for side in (0, 1):
            gap = _c(scene.gap[rows, side])
            here = torch.ones_like(across)
            inner = 0.55 * (top - z)
            if grid.axis == 1:
                here = ((across > 0) if side else (across < 0)).float()
                # A smooth minimum of the distances from the wall and from the apex.
                wall = 1.15 * (wide[rows] - across.abs())
                inner = -9 * torch.logaddexp(-wall / 9, -inner / 9) + 6
            # Wide at the apex, thin at the base.
            depth = gap * (0.55 + 0.45 * ((z + 30) / 90).clamp(-1, 1))
            share = 1.0 if grid.axis == 1 else 0.6
            air = air + share * here * ((depth - inner) / 2.5 + 0.5).clamp(0, 1) * (gap > 0)
        weight = _c((scene.gap[rows].amax(1) / 14).clamp(0, 1))
        parts.append((rows, air.clamp(0, 1) * weight * (lung[rows] / 12).clamp(0, 1)))
    if len(scene.masked):
        parts.append((scene.masked, _scale(scene.masks, grid.size)))
    if not parts:
        return None
    rows, air = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    return rows, air, ((lung[rows] - 15) / 40).clamp(0, 1)


# ---------------------------------------------------------------- midline


def _gas(scene: Scene, grid: _Grid) -> torch.Tensor:
    """Airway and stomach gas as negative mm of water."""
    patients, across, z = scene.patients, grid.across, grid.z
    frontal = grid.axis == 1
    pipe = 17.6 * _round(across if frontal else across - (12 + 0.06 * z), 8.8)
    gas = pipe * ((z - 4) / 8).clamp(0, 1)
    if frontal:
        for x, low in ((-36.0, -24.0), (44.0, -20.0)):
            # Main bronchi: oblique tubes from the carina.
            t = across / x
            tube = (36 - (z - 8 - t * low).square_()).clamp_min_(_TINY).sqrt_()
            gas = gas + 1.3 * tube * ((1 - t) * 5).clamp_(0, 1) * (t * 20).clamp_(0, 1)
    place, wide = (60.0, 34.0) if frontal else (-38.0, 22.0)
    top = _c(patients.dome[:, 1, 2] + patients.dome_radii[:, 1, 2])
    rest = 1 - ((across - place) / wide).square_() - ((z - top + 26) / 17) ** 2
    return -gas - 34 * rest.clamp_min_(_TINY).sqrt_() * _c(scene.gas)


def _spine(scene: Scene, grid: _Grid) -> torch.Tensor:
    """Vertebrae and sternum as mm of bone."""
    patients, across, z = scene.patients, grid.across, grid.z
    phase = _c(patients.spine_phase)
    wave = torch.cos((z + phase) * (2 * math.pi / 25))
    gap = ((wave - 0.78) / 0.22).clamp(0, 1)  # discs
    solid = _c(0.30 - 0.0018 * (patients.age - 50)) * (1 - 0.7 * gap)
    level = z - _c(patients.cage_z)
    band = ((level + 55) / 6).clamp(0, 1) * ((105 - level) / 6).clamp(0, 1)
    if grid.axis == 1:
        x = across - _c(scene.frame.turn * patients.spine_y) - 4 * torch.sin(z / 85 + phase)
        bone = _round(x, 18.0) * (28 * solid) + _round(x, 4.0) * (10 * (0.4 + 0.6 * (wave > 0)))
        front = across + _c(scene.frame.turn * patients.cage[:, 1])
        return bone + _round(front, 18.0) * (1.6 * band)
    y = across - _c(patients.spine_y)
    bone = _round(y - 2, 14.0) * (36 * solid) + _round(y - 30, 18.0) * (6 * (1 - 0.6 * gap))
    return bone + _round(across + _c(patients.cage[:, 1]) + 9, 6.5) * (11 * band)


# ---------------------------------------------------------------- tubes, lines, metal


def _bones(scene: Scene, grid: _Grid, fine: torch.Tensor, full: _Grid) -> torch.Tensor:
    """Ribs, clavicles and scapulae as mm of bone; rims of ribs go to ``fine`` as mm of water."""
    patients, count = scene.patients, len(scene)
    device = patients.age.device
    spacing = max(2.2, 1.2 * full.pixel)
    ribs = rib_points(patients, spacing)
    number = len(ribs.radius) // (count * 2 * RIBS)
    place = ribs.position.view(count, 2, RIBS, number, 3)
    mass = (torch.pi * ribs.radius**2 * ribs.step).view(count, 2, RIBS, number)
    along = (torch.arange(number, device=device) + 0.5) / number
    # Towards the front a rib turns into cartilage.
    mass = mass * 0.58 * (1 - 0.65 * along)
    place, mass = _break(scene, place, mass, along)
    place, mass = place.reshape(count, -1, 3), mass.reshape(count, -1)
    canvas = _canvas(count, grid.size, device)
    _solid(canvas, grid, place, 0.6 * mass)
    for edge in (-0.9, 0.9):  # dense cortex above and below spongy bone
        rim = place + torch.tensor([0.0, 0.0, edge * _RIB_RADIUS], device=device)
        _solid(fine, full, rim, (0.2 * _BONE_EXCESS) * mass)
    girdle = girdle_points(patients, spacing)
    thick = girdle.radius.view(count, -1)
    mass = torch.where(thick > 5, 0.30 * torch.pi * thick**2 * spacing, 1.4 * spacing**2)
    _solid(canvas, grid, girdle.position.view(count, -1, 3), mass)
    return _inner(_gauss(canvas, grid.variance(0.48 * _RIB_RADIUS)))


def _break(
    scene: Scene, place: torch.Tensor, mass: torch.Tensor, along: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Displace the outer part of broken ribs [N, side, rib, point] and leave a gap."""
    if not bool((scene.broken[..., 2] > 0).any()):
        return place, mass
    rib, spot, shift = scene.broken.unbind(-1)
    index = torch.arange(RIBS, device=place.device)
    which = ((index == rib[..., None]) & (shift[..., None] > 0)).float()[..., None]
    beyond = along - spot[..., None, None]
    # The displaced end comes back to its place towards the front.
    move = which * (beyond > 0) * shift[..., None, None] * (1 - beyond / 0.3).clamp(0, 1)
    down = torch.stack([torch.zeros_like(move), torch.zeros_like(move), -move], -1)
    gap = which * (beyond.abs() < 0.013)
    ends = which * ((beyond.abs() > 0.013) & (beyond.abs() < 0.04))
    return place + down, mass * (1 - gap) * (1 + 1.6 * ends)


def _vessels(scene: Scene, small: _Grid, full: _Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Chord of the lung vessels: wide ones on the small grid; thin ones, unblurred, on a canvas
    of the full grid. Wider ones are put down first and blurred with all that follow."""
    patients, count = scene.patients, len(scene)
    points = vessel_points(patients, max(1.8, 1.3 * full.pixel))
    place = points.position.view(count, -1, 3)
    mass = (torch.pi * points.radius**2 * points.step).view(count, -1) * 1.4
    boost = 1 + scene.upper[:, None] * ((place[..., 2] + 10) / 50).clamp(0, 1)
    mass = mass * boost * scene.vessels[:, None]
    levels = torch.unique_consecutive(points.radius[: mass.shape[1]], return_counts=True)
    wide, thin = (_canvas(count, grid.size, place.device) for grid in (small, full))
    start, last = 0, 0.0
    for radius, number in zip(levels[0].tolist(), levels[1].tolist(), strict=True):
        some = slice(start, start + number)
        start += number
        if radius <= _WIDE:
            _solid(thin, full, place[:, some], mass[:, some])
            continue
        if last:
            wide = _gauss(wide, (last**2 - radius**2) / 4 / small.pixel**2)
        _solid(wide, small, place[:, some], mass[:, some])
        last = radius
    return _inner(_gauss(wide, small.variance(last / 2))), thin


def _strokes(canvas: torch.Tensor, strokes: Strokes, scene: Scene, grid: _Grid) -> None:
    """Add lines to a canvas of mm of water, unblurred."""
    if not len(strokes):
        return
    device = canvas.device
    short = (strokes.points[:, 3] - strokes.points[:, 0]).norm(dim=-1) < _SHORT
    for flag, longest in ((short, 1.3 * _SHORT), (~short, 300.0)):
        some = torch.nonzero(flag)[:, 0]
        number = max(8, math.ceil(longest / (0.8 * grid.pixel)))
        t = ((torch.arange(number, device=device) + 0.5) / number)[:, None]
        a, b, c, d = strokes.points[some][:, None].unbind(2)
        curve = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
        pace = 3 * ((1 - t) ** 2 * (b - a) + 2 * (1 - t) * t * (c - b) + t**2 * (d - c))
        mass = strokes.weight[some][:, None] * pace.norm(dim=-1) / number
        owner = strokes.owner[some]
        row, column = grid.project(curve, owner)
        _points(canvas, owner[:, None].expand_as(row), row, column, mass / grid.pixel**2)


def _calcium(canvas: torch.Tensor, scene: Scene, grid: _Grid) -> None:
    """Add small calcifications to a canvas of mm of water."""
    row, column = grid.project(scene.dots, scene.dot_owner)
    _points(canvas, scene.dot_owner, row, column, scene.dot_mass / grid.pixel**2)


def _marker(canvas: torch.Tensor, scene: Scene, grid: _Grid, unit: XRayUnit) -> None:
    """Add the lead letter beside the shoulder."""
    if not unit.marker:
        return
    device = canvas.device
    cells = _LETTERS[unit.marker if scene.view == "frontal" else "L"]
    spots = [(x, y) for y, line in enumerate(cells) for x, cell in enumerate(line) if cell == "#"]
    quarters = [(x + i, y + j) for x, y in spots for i in (0.25, 0.75) for j in (0.25, 0.75)]
    pieces = (torch.tensor(quarters, device=device) - torch.tensor([2.5, 3.5], device=device)) * 2
    half = grid.pixel * grid.size / 2
    column = (scene.letter[:, :1] + pieces[:, 0] + half) / grid.pixel - 0.5
    row = (half - scene.letter[:, 1:] + pieces[:, 1]) / grid.pixel - 0.5
    mass = torch.full_like(row, 110.0 / grid.pixel**2)
    _points(canvas, _planes(row), row, column, mass)


# ---------------------------------------------------------------- the image


def _develop(
    depth: torch.Tensor, scene: Scene, size: int, unit: XRayUnit, *, noisy: bool
) -> torch.Tensor:
    """From mm of water to a displayed image: scatter, photon noise, logarithm, post-processing.

    Exposure and window depend on the body's build and the image alone, so that a finding changes
    the image only where it lies.
    """
    patients = scene.patients
    clean = torch.exp(-MU_WATER * depth)
    coarse = functional.avg_pool2d(clean[:, None], max(1, size // 16))
    haze = functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)[:, 0]
    photons = unit.photons * (64 / size) ** 2
    counted = photons * ((1 - unit.scatter) * clean + unit.scatter * haze)
    if noisy:
        grain = torch.stack(
            [noise(scene.dataset, f"chest-{scene.view}", row, (size, size)) for row in scene.grain]
        )
        # Photon counts are Poisson; at these means their normal limit is exact to a grey level.
        counted = counted + counted.sqrt() * grain.to(depth.device)
    seen = -torch.log(counted.clamp_min(1.0) / photons) / MU_WATER
    if unit.sharpness:
        soft = _gauss(seen, max(0.4, (2.2 * size / unit.field_of_view) ** 2))
        seen = seen + unit.sharpness * (seen - soft)
    build = patients.cage[:, 1] + 22 + 0.7 * patients.fat
    if scene.view == "frontal":
        centre, spread = 2 * 0.66 * build, 2 * 0.26 * build
    else:
        centre = 2 * 0.61 * (patients.cage[:, 0] + 17 + patients.fat)
        spread = 0.30 * centre
    shift, slope = scene.exposure.unbind(-1)
    value = (seen - _c(centre)) / _c(spread)
    if unit.equalise:
        rough = functional.avg_pool2d(value[:, None].clamp(-2, 2), max(1, size // 8))
        shade = functional.interpolate(rough, (size, size), mode="bilinear", align_corners=False)
        value = value - unit.equalise * shade[:, 0]
    image = torch.sigmoid(value * (unit.contrast * _c(slope)) + _c(shift))
    image = image.log_().mul_(unit.gamma).exp_()
    return image * _collimated(scene, size, unit) if unit.collimation else image


def _collimated(scene: Scene, size: int, unit: XRayUnit) -> torch.Tensor:
    """0 in the shadow of the collimator, 1 elsewhere."""
    axis = (torch.arange(size, device=scene.border.device) + 0.5) * (unit.field_of_view / size)
    back = unit.field_of_view - axis
    left, right, above, below = (b[:, None] for b in scene.border.unbind(1))
    x = (axis - left).clamp(0, 1) * (back - right).clamp(0, 1)
    y = (axis - above).clamp(0, 1) * (back - below).clamp(0, 1)
    return y[:, :, None] * x[:, None, :]
