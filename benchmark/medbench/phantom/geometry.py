"""Closed-form cuts and chords of the solids the phantom is built from.

Coordinates are the patient's, in mm: x to the patient's left, y to the back, z to the head (the
axes of DICOM). Tensors broadcast; nothing here knows about patients or pixels.
"""

from __future__ import annotations

import torch

Interval = tuple[torch.Tensor, torch.Tensor]


def power(value: torch.Tensor, exponent: float) -> torch.Tensor:
    """``value ** exponent`` for value >= 0, with the cheap paths for the common exponents."""
    if exponent == 2.0:
        return value * value
    if exponent == 0.5:
        return value.sqrt()
    return value.clamp_min(1e-12) ** exponent


def superellipse_half(
    across: torch.Tensor, half_across: torch.Tensor, half_along: torch.Tensor, exponent: float
) -> torch.Tensor:
    """Half chord of ``|u/a|^n + |v/b|^n <= 1`` along v at offset u; 0 outside."""
    rest = (1.0 - power((across / half_across).abs(), exponent)).clamp_min(0.0)
    return half_along * power(rest, 1.0 / exponent) * (rest > 0)


def quadric_interval(
    offset: tuple[torch.Tensor, torch.Tensor], matrix: torch.Tensor, axes: tuple[int, int, int]
) -> Interval:
    """Where a line along one axis is inside the ellipsoid ``p' A p <= 1``.

    Args:
        offset: coordinates of the line relative to the centre along ``axes[0]`` and ``axes[1]``.
        matrix: A, [..., 3, 3], broadcasting against the offsets through two trailing axes.
        axes: indices of the two given coordinates and of the line's own direction.

    Returns:
        Start and end along the line, relative to the centre; an empty interval has end = start.
    """
    first, second, along = axes

    def entry(row: int, column: int) -> torch.Tensor:
        return matrix[..., row, column][..., None, None]

    u, v = offset
    a = entry(along, along)
    b = entry(along, first) * u + entry(along, second) * v
    c = entry(first, first) * u * u + 2 * entry(first, second) * u * v
    c = c + entry(second, second) * v * v - 1.0
    half = (b * b - a * c).clamp_min(0.0).sqrt() / a
    middle = -b / a
    return middle - half, middle + half


def overlap(first: Interval, second: Interval) -> Interval:
    """Intersection of two intervals; empty ones have end = start."""
    start = torch.maximum(first[0], second[0])
    return start, torch.maximum(start, torch.minimum(first[1], second[1]))


def length(interval: Interval) -> torch.Tensor:
    """Length of an interval, in mm."""
    return interval[1] - interval[0]


def union_length(parts: list[Interval]) -> torch.Tensor:
    """Length of the union of up to three intervals, by inclusion and exclusion."""
    total = sum((length(part) for part in parts), torch.zeros(()))
    for i in range(len(parts)):
        for j in range(i + 1, len(parts)):
            both = overlap(parts[i], parts[j])
            total = total - length(both)
            for k in range(j + 1, len(parts)):
                total = total + length(overlap(both, parts[k]))
    return total


def ellipsoid_matrix(radii: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """A of ``p' A p <= 1`` for semi-axes [..., 3] along the columns of ``rotation`` [..., 3, 3]."""
    return rotation @ torch.diag_embed(1.0 / (radii * radii)) @ rotation.transpose(-1, -2)


def rotation_z(angle: torch.Tensor) -> torch.Tensor:
    """Rotation about the head-foot axis, [..., 3, 3], angle in radians."""
    c, s, o, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, -s, o, s, c, o, o, o, one], -1).reshape(*angle.shape, 3, 3)


def rotation_y(angle: torch.Tensor) -> torch.Tensor:
    """Rotation about the front-back axis, [..., 3, 3], angle in radians."""
    c, s, o, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, o, s, o, one, o, -s, o, c], -1).reshape(*angle.shape, 3, 3)


def grid3(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Broadcast three coordinates against each other and stack them, [..., 3]."""
    zero = 0 * x + 0 * y + 0 * z
    return torch.stack([x + zero, y + zero, z + zero], -1)


def splat(
    canvas: torch.Tensor,
    plane: torch.Tensor,
    row: torch.Tensor,
    column: torch.Tensor,
    radius: torch.Tensor,
    weight: torch.Tensor,
    *,
    add: bool,
) -> None:
    """Draw discs into ``canvas`` [P, H, W], in place, touching only the pixels under each disc.

    A tube is drawn as discs along its axis. With ``add`` each disc spreads ``weight`` over its
    pixels: the line integral of uniform discs is the tube's chord length. Without, the canvas
    keeps the largest coverage times weight: the cut of a tube by a slice.

    Args:
        canvas: [P, H, W], contiguous.
        plane: index of the canvas plane, int64 [N].
        row, column: centre in pixels, [N].
        radius: in pixels, [N].
        weight: [N].
        add: accumulate, or keep the maximum.
    """
    _, height, width = canvas.shape
    if plane.numel() == 0:
        return
    disc = radius.clamp_min(0.6)
    if not add:
        # A tube thinner than a pixel fills only a part of it.
        weight = weight * (radius / 0.5).clamp_max(1.0)
    # A pixel at distance n from the rounded centre may be n - 1/2 from the centre itself.
    reach = torch.ceil(disc + 1).long() - 1
    base_row, base_column = row.round().long(), column.round().long()
    inside = (base_row >= reach) & (base_row < height - reach)
    inside &= (base_column >= reach) & (base_column < width - reach)
    flat = canvas.view(-1)
    for size in range(1, int(reach.max()) + 1):
        span = torch.arange(-size, size + 1, device=canvas.device)
        # Some 100,000 pixels at a time stay in the processor's cache.
        batch = max(1, 100_000 // len(span) ** 2)
        for some in torch.split(torch.nonzero(inside & (reach == size))[:, 0], batch):
            r, c = base_row[some, None] + span, base_column[some, None] + span
            dr, dc = (r - row[some, None]) ** 2, (c - column[some, None]) ** 2
            distance = (dr[:, :, None] + dc[:, None, :]).sqrt_()
            coverage = (disc[some, None, None] + 0.5 - distance).clamp_(0.0, 1.0)
            if add:
                # Whatever the pixels cut off its rim, a disc carries its whole mass.
                coverage /= coverage.sum((1, 2), keepdim=True)
            coverage *= weight[some, None, None]
            index = ((plane[some, None] * height + r) * width)[:, :, None] + c[:, None, :]
            if add:
                flat.index_add_(0, index.view(-1), coverage.view(-1))
            else:
                values = coverage.view(-1)
                flat.scatter_reduce_(0, index.view(-1), values, "amax", include_self=True)
