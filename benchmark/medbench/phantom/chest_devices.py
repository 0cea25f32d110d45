"""Tubes, lines, wires and pacemakers in chest radiographs, as curves and plates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medbench.phantom.draws import Draws, Floats, Mask, to_tensor
from medbench.phantom.patient import Patients


@dataclass
class Strokes:
    """S cubic Bezier curves: owner int64 [S], control points mm [S, 4, 3], weight [S].

    The weight is mm of water times mm of width: the mass of one mm of the line.
    """

    owner: torch.Tensor
    points: torch.Tensor
    weight: torch.Tensor

    def __len__(self) -> int:
        return len(self.owner)

    def to(self, device: torch.device | str) -> Strokes:
        """The same strokes on another device."""
        return Strokes(self.owner.to(device), self.points.to(device), self.weight.to(device))

    @classmethod
    def joined(cls, parts: Sequence[Strokes]) -> Strokes:
        """All strokes of several lists."""
        return cls(
            torch.cat([p.owner for p in parts]),
            torch.cat([p.points for p in parts]),
            torch.cat([p.weight for p in parts]),
        )


class _Pen:
    """Collects strokes [N, 4, 3] and plates of those images that a mask switches on."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.owners: list[Floats] = [np.zeros(0)]
        self.points: list[Floats] = [np.zeros((0, 4, 3))]
        self.weights: list[Floats] = [np.zeros(0)]
        self.plates: list[Floats] = [np.zeros((0, 8))]

    def line(self, on: Mask, weight: Floats, *control: Floats, wall: float = 0.0) -> None:
        """A line through four control points [N, 3]; with ``wall`` the two walls of a tube."""
        rows = np.flatnonzero(on)
        base = np.stack(control, 1)[rows]
        for shift in (-wall, wall) if wall else (0.0,):
            self.owners.append(rows.astype(float))
            self.points.append(base + np.array([shift, 0.0, 0.0]))
            self.weights.append(weight[rows])

    def plate(self, on: Mask, centre: Floats, radii: Sequence[float], height: Floats) -> None:
        """A solid plate: centre [N, 3], half sizes, mm of water for a mm of depth [N]."""
        rows = np.flatnonzero(on)
        size = np.broadcast_to(np.asarray(radii), (len(rows), 3))
        self.plates.append(
            np.concatenate([rows[:, None], centre[rows], size, height[rows, None]], 1)
        )

    def finish(self) -> tuple[Strokes, Floats]:
        owner = torch.from_numpy(np.concatenate(self.owners).astype(np.int64))
        points = to_tensor(np.concatenate(self.points))
        weight = to_tensor(np.concatenate(self.weights))
        return Strokes(owner, points, weight), np.concatenate(self.plates)


def _at(x: Floats | float, y: Floats | float, z: Floats | float, count: int) -> Floats:
    """Points [N, 3]."""
    return np.stack([np.broadcast_to(np.asarray(v, float), (count,)) for v in (x, y, z)], -1)


def support_devices(patients: Patients, draws: Draws, severity: Floats) -> tuple[Strokes, Floats]:
    """One or more of six devices where the severity [N] is above 0. Returns lines and plates."""
    count = len(severity)
    pen = _Pen(count)
    wide, deep = patients.cage[:, 0].numpy(), patients.cage[:, 1].numpy()
    apex = (patients.cage_z + patients.cage[:, 2]).numpy()
    stomach = (patients.dome[:, 1, 2] + patients.dome_radii[:, 1, 2]).numpy() - 40
    heart = patients.heart.numpy()

    def at(x: Floats | float, y: Floats | float, z: Floats | float) -> Floats:
        return _at(x, y, z, count)

    have = draws.below(0.5) & (severity > 0)
    jugular = draws.below(0.6)
    tip, wander = draws.uniform(-5, 35), draws.normal(0, 4)
    others = {
        "airway": draws.below(0.28), "stomach": draws.below(0.28), "pacemaker": draws.below(0.22),
        "sternum": draws.below(0.22), "drain": draws.below(0.14),
    }  # fmt: skip
    none = ~np.any([have, *others.values()], axis=0)
    have = (have | none) & (severity > 0)
    others = {name: flag & (severity > 0) for name, flag in others.items()}
    side = np.where(draws.below(0.5), 1.0, -1.0)

    end = at(-19 + wander / 2, 5, tip)
    pen.line(
        have & jugular, 58 * severity,
        at(-42 + wander, 0, apex + 38), at(-33, 0, apex + 2), at(-24 + wander / 2, 0, 62), end,
    )  # fmt: skip
    pen.line(
        have & ~jugular, 52 * severity,
        at(-wide * 1.1, -10, apex - 48), at(-wide * 0.55, -30, apex + 26),
        at(-10, -5, apex - 30), end,
    )  # fmt: skip
    pen.line(
        others["airway"], 30 * severity,
        at(2 + wander, 10, apex + 42), at(wander / 2, 10, apex + 10), at(-1, 12, apex - 30),
        at(0, 12, 36 + wander), wall=4.0,
    )  # fmt: skip
    pen.line(
        others["stomach"], 42 * severity,
        at(3, 25, apex + 42), at(2 + wander, 34, 50), at(6, 34, -60), at(18, 20, -92),
    )  # fmt: skip
    pen.line(
        others["stomach"], 42 * severity,
        at(18, 20, -92), at(26, 12, stomach - 8), at(42, 5, stomach - 25),
        at(58 + wander, 0, stomach - 12),
    )  # fmt: skip
    can = at(0.66 * wide, -0.75 * deep, apex - 46)
    pen.plate(others["pacemaker"], can, (21.0, 4.0, 18.0), 11 * severity)
    entry = at(-16, -5, 52)
    pen.line(
        others["pacemaker"], 62 * severity,
        can + np.array([-12.0, 0, 14.0]), at(46, -40, apex - 6), at(-6, -20, apex - 14), entry,
    )  # fmt: skip
    right_atrium = at(-28 + wander, -20, heart[:, 2] + 8)
    pen.line(
        others["pacemaker"], 62 * severity,
        entry, at(-24, -10, 10), at(-30, -15, heart[:, 2] - 26), right_atrium,
    )  # fmt: skip
    pen.line(
        others["pacemaker"], 62 * severity,
        entry, at(-24, -12, -10), at(-18, -40, heart[:, 2] - 46),
        at(heart[:, 0] + 22, -48, heart[:, 2] - 30 + wander),
    )  # fmt: skip
    for number in range(5):
        z = 48.0 - 21 * number
        y = -deep - 8
        half = 8.0 + number % 2
        pen.line(
            others["sternum"], 58 * severity,
            at(-half, y, z), at(-half, y, z + 8), at(half, y, z + 8), at(half, y, z),
        )  # fmt: skip
        pen.line(
            others["sternum"], 58 * severity,
            at(-half, y, z), at(-half * 0.6, y, z - 5), at(half * 0.6, y, z - 5), at(half, y, z),
        )  # fmt: skip
    pen.line(
        others["drain"], 34 * severity,
        at(side * wide * 1.15, 10, -82), at(side * wide * 0.8, 20, -50),
        at(side * wide * 0.75, 15, 20), at(side * (wide * 0.45 + wander), 5, 78), wall=3.5,
    )  # fmt: skip
    return pen.finish()


def ecg_leads(patients: Patients, draws: Draws) -> tuple[Strokes, Floats]:
    """Wires and electrodes outside the body, in one image in eight, whatever the findings."""
    count = len(patients)
    pen = _Pen(count)
    on = draws.below(0.13)
    wide, deep = patients.cage[:, 0].numpy(), patients.cage[:, 1].numpy()
    sway = draws.normal(0, 9, (3,))
    one = np.ones(count)
    for number, (x, z) in enumerate(((-0.72, 70.0), (0.70, 66.0), (0.78, -70.0))):
        disc = _at(x * wide, -deep - 14, z + sway[:, number], count)
        pen.plate(on, disc, (6.0, 2.0, 6.0), 2.2 * one)
        pen.line(
            on, 13 * one, disc, disc + np.array([-20.0 * np.sign(x), 0, -25.0]),
            _at(0.3 * x * wide, -deep - 18, -60 + 2 * sway[:, number], count),
            _at(20 + sway[:, number], -deep - 18, -215, count),
        )  # fmt: skip
    return pen.finish()
