"""Axial abdomen CT slices at kidney level, soft-tissue window, with common findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medbench.phantom.draws import Draws, Floats, Ints, noise, to_tensor
from medbench.phantom.geometry import power

FINDINGS = (
    "clear", "liver lesion", "liver cyst", "kidney cyst", "kidney stone", "gallstone", "ascites",
    "splenomegaly", "hydronephrosis", "fatty liver",
)  # fmt: skip
#: Soft-tissue window in HU.
WINDOW = (-160.0, 240.0)


Number = float | npt.NDArray[np.floating[Any]]
Value = float | torch.Tensor


@dataclass
class Abdomens:
    """N slices: index into FINDINGS, side of a kidney finding (-1 right), contrast given or not."""

    rows: Sequence[int]
    finding: Ints
    side: Floats
    contrast: npt.NDArray[np.bool_]


def sample_abdomens(dataset: str, rows: Sequence[int]) -> Abdomens:
    """Draw what the slices show."""
    draws = Draws(dataset, rows, "abdomen-finding", 8)
    return Abdomens(
        rows=rows,
        finding=draws.choice((24, 14, 9, 10, 9, 8, 9, 6, 6, 6)),
        side=np.where(draws.below(0.5), -1.0, 1.0),
        contrast=draws.below(0.6),
    )


def render_abdomens(dataset: str, slices: Abdomens, size: int, device: str = "cpu") -> torch.Tensor:
    """Draw the slices in HU, [N, size, size]; front up, the patient's right on the left."""
    draws = Draws(dataset, slices.rows, "abdomen-shape", 160)

    def col(values: object) -> torch.Tensor:
        return to_tensor(values, device)[:, None, None]

    field_of_view = 380.0
    pixel = field_of_view / size
    axis = (torch.arange(size, device=device) + 0.5) * pixel - field_of_view / 2
    scale = draws.normal(1.0, 0.05)
    x = axis.view(1, 1, -1) / col(scale)
    y = (axis.view(1, -1, 1) + 4) / col(scale)
    lattice = torch.stack(
        [noise(dataset, "abdomen-texture", row, (2, 40, 40)) for row in slices.rows]
    )
    fields = functional.interpolate(
        lattice.to(device), (size, size), mode="bicubic", align_corners=False
    )
    rough, grain = fields.unbind(1)
    count = len(slices.rows)
    one = np.ones(count)

    def q(
        cx: Number, cy: Number, a: Number, b: Number, turn: Number = 0.0, bend: float = 0.0
    ) -> torch.Tensor:
        dx, dy = x - col(cx * one), y - col(cy * one)
        c, s = np.cos(turn * one), np.sin(turn * one)
        u = (dx * col(c) + dy * col(s)) / col(a * one)
        v = (dy * col(c) - dx * col(s)) / col(b * one)
        return u * u + v * v + bend * rough

    def put(
        image: torch.Tensor, form: torch.Tensor, radius: float, value: Value, share: Value = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mask = ((1 - form) * (radius / (2 * pixel)) + 0.5).clamp(0, 1) * share
        return image + mask * (value - image), mask

    def shape(
        cx: Number, cy: Number, a: Number, b: Number, turn: Number = 0.0, bend: float = 0.0
    ) -> tuple[Number, Number, Number, Number, Number, float]:
        return cx, cy, a, b, turn, bend

    def oval(
        image: torch.Tensor,
        form: tuple[Number, Number, Number, Number, Number, float],
        radius: float,
        value: Value,
        share: Value = 1.0,
    ) -> None:
        """`put` of one ellipse, in place and inside a box that holds it in every slice."""
        cx, cy, a, b, turn, bend = form
        reach = 1.25 * np.maximum(a * one, b * one)
        spans = []
        for centre, shift in ((cy * one, 4.0), (cx * one, 0.0)):
            low = float(((centre - reach) * scale).min()) - shift
            high = float(((centre + reach) * scale).max()) - shift
            first = max(0, int((low - float(axis[0])) / pixel) - 1)
            spans.append(slice(first, max(first + 1, int((high - float(axis[0])) / pixel) + 3)))
        rows, columns = spans

        def part(values: Value) -> Value:
            if isinstance(values, torch.Tensor) and values.shape[-1] == size:
                return values[:, rows, columns]
            return values

        dx, dy = x[..., columns] - col(cx * one), y[:, rows] - col(cy * one)
        c, s = np.cos(turn * one), np.sin(turn * one)
        u = (dx * col(c) + dy * col(s)) / col(a * one)
        v = (dy * col(c) - dx * col(s)) / col(b * one)
        inner = 1 - u * u - v * v
        if bend:
            inner = inner - bend * rough[:, rows, columns]
        mask = (inner * (radius / (2 * pixel)) + 0.5).clamp(0, 1) * part(share)
        view = image[:, rows, columns]
        view += mask * (part(value) - view)

    def on(*names: str) -> torch.Tensor:
        return col(np.isin(slices.finding, [FINDINGS.index(n) for n in names]))

    enhanced = col(slices.contrast)
    fat = np.clip(draws.normal(20, 9), 5, 42)
    a, b = 148 + fat, 104 + 0.8 * fat
    hu = torch.full((count, size, size), -1000.0, device=device)
    outline = power((x / col(a)).abs(), 2.4) + power((y / col(b)).abs(), 2.4)
    hu, _ = put(hu, outline, 120, -100 + 6 * rough)
    wall = power((x / col(a - 0.75 * fat - 4)).abs(), 2.4)
    wall = wall + power((y / col(b - 0.6 * fat - 3)).abs(), 2.4)
    hu, _ = put(hu, wall, 115, 52 + 4 * rough)
    cavity = power((x / col(a - 0.75 * fat - 17)).abs(), 2.3)
    cavity = cavity + power(((y + 8) / col(b - 0.6 * fat - 20)).abs(), 2.3)
    hu, inside = put(hu, cavity, 100, -95 + 8 * rough)
    ascites = on("ascites") * ((cavity - 0.62) * 5).clamp(0, 1) * inside * (y > -70)
    hu = hu + ascites * (8 - hu)
    # Back muscles, spine, great vessels.
    for sign in (-1.0, 1.0):
        oval(hu, shape(sign * 36, 76, 27, 18), 20, 55 + 4 * rough)
        oval(hu, shape(sign * 34, 38, 15, 20), 16, 55 + 3 * rough)
    vertebra = q(0, 52, 23, 18)
    hu, _ = put(hu, vertebra, 20, 190 + 170 * (1 - (1 - vertebra).abs() * 3).clamp_min(0))
    oval(hu, shape(0, 80, 17, 14), 15, 330.0)
    oval(hu, shape(0, 78, 9, 8), 8, 25.0)
    oval(hu, shape(0, 98, 4, 13), 6, 320.0)
    oval(hu, shape(11, 22, 10, 10), 10, 45 + 130 * enhanced)
    oval(hu, shape(-16, 24, 12, 9), 10, 42 + 105 * enhanced)
    # Bowel: loops with wall, fluid and gas.
    for _index in range(7):
        cx, cy = draws.uniform(-45, 85), draws.uniform(-62, 14)
        r = draws.uniform(10, 17)
        oval(hu, shape(cx, cy, r * 1.15, r), 12, 45 + 25 * enhanced)
        gas = draws.below(0.3)
        oval(hu, shape(cx, cy, r * 0.75, r * 0.6), 8, col(np.where(gas, -850, 18)))
    # Stomach in front on the left: fluid level under gas.
    stomach = q(48 + draws.normal(0, 6), -46, 40, 25, draws.normal(0.3, 0.1))
    hu, mask = put(hu, stomach, 30, 42.0)
    hu, mask = put(hu, stomach * 1.35, 27, 15.0)
    hu = hu + mask * (((-y - 52) / pixel + 0.5).clamp(0, 1)) * (-880 - hu)
    # Liver fills the right side; spleen behind on the left.
    liver_hu = 60 + 45 * enhanced - 72 * on("fatty liver") + 5 * rough
    liver = q(-68, -16, 72, 66, 0.25, 0.08)
    hu, in_liver = put(hu, torch.maximum(liver, cavity), 65, liver_hu)
    left_lobe = q(-10, -58, 52, 22, -0.12, 0.06)
    hu, _ = put(hu, torch.maximum(left_lobe, cavity), 28, liver_hu)
    for _index in range(5):
        vx, vy = draws.uniform(-110, -30), draws.uniform(-45, 30)
        vessel = shape(vx, vy, draws.uniform(8, 16), draws.uniform(2, 4), draws.uniform(-1, 1))
        oval(hu, vessel, 4, 45 + 110 * enhanced, in_liver * 0.8)
    grow = 1 + 0.45 * np.isin(slices.finding, [FINDINGS.index("splenomegaly")])
    spleen = q(104 - 10 * (grow - 1), 20, 24 * grow, 44 * grow, -0.35, 0.05)
    hu, _ = put(hu, torch.maximum(spleen, cavity * 0.96), 30, 52 + 55 * enhanced + 3 * rough)
    gall = q(-38, -36, 14, 20, 0.3)
    hu, in_gall = put(hu, gall, 15, 10.0)
    stones = shape(-38, -27, draws.uniform(4, 8), draws.uniform(3, 6))
    oval(hu, stones, 6, 280.0, in_gall * on("gallstone"))
    # Kidneys: cortex, sinus fat, pelvis.
    kidney_x = 66 + draws.normal(0, 3)
    tilt = draws.normal(0.5, 0.1)
    for sign in (-1.0, 1.0):
        here = col(slices.side == sign)
        cx, cy = sign * kidney_x, 42 + draws.normal(0, 3)
        kidney = q(cx, cy, 24, 33, sign * tilt)
        hu, _ = put(hu, kidney * 0.8, 30, -98.0, 0.8)
        hu, _ = put(hu, kidney, 28, 34 + 120 * enhanced * (0.8 + 0.25 * grain.abs()))
        wide = 1 + 1.3 * here * on("hydronephrosis")
        sinus = q(cx - sign * 6, cy, 8, 15, sign * tilt) / wide
        hu, _ = put(hu, sinus, 11, -60 + (66 * here * on("hydronephrosis")))
        cyst = shape(cx + sign * 15, cy + draws.uniform(-14, 14), 16, 15)
        oval(hu, cyst, 15, 6.0, here * on("kidney cyst"))
        stone = shape(cx - sign * 5, cy + draws.uniform(-9, 9), 4.5, 4.5)
        oval(hu, stone, 5, 700.0, here * on("kidney stone"))
    # Focal liver lesions.
    for _index in range(3):
        lx, ly = draws.uniform(-110, -45), draws.uniform(-50, 26)
        r = draws.uniform(8, 19)
        share = in_liver * col((_index == 0) | draws.below(0.4)) * on("liver lesion", "liver cyst")
        blob = q(lx, ly, r, r * draws.uniform(0.8, 1.2), 0.0, 0.12)
        cystic = on("liver cyst")
        hu, _ = put(hu, blob, 14, liver_hu - 52 * (1 - cystic) - (liver_hu - 5) * cystic, share)
        rim = (1 - (blob - 0.9).abs() * 4).clamp_min(0)
        hu = hu + rim * share * 40 * enhanced * (1 - cystic)
    for index in range(10):
        angle = (index - 4.5) * 0.30 + np.pi / 2
        rx, ry = np.cos(angle) * (a - 0.75 * fat - 10), np.sin(angle) * (b - 0.6 * fat - 11) - 2
        if abs(index - 4.5) > 1:
            oval(hu, shape(rx, ry, 8, 4.5, angle + np.pi / 2), 6, 420.0)
    spread = draws.uniform(9, 20)
    quantum = torch.stack(
        [noise(dataset, "abdomen-noise", row, (size, size)) for row in slices.rows]
    )
    return hu + quantum.to(device) * col(spread)
