"""Diseases and appearances: how many lesions, where, how dense. Each draws for all patients of a
batch and is switched on by a mask, so that streams of random numbers never depend on the class.
"""

from __future__ import annotations

import numpy as np

from medbench.phantom.draws import Draws, Floats, Mask
from medbench.phantom.findings import CONSOLIDATION, CRAZY_PAVING, GROUND_GLASS, NODULE, Plan

#: Slots of the multifocal pattern.
MULTIFOCAL = 18


def multifocal_ground_glass(plan: Plan, draws: Draws, on: Mask, faint: float = 1.0) -> Floats:
    """COVID-19: peripheral, mostly bilateral and lower-lobe ground glass in patches.

    Shares follow published chest CT series (see docs/phantoms.md): bilateral 0.80, peripheral
    0.78, lower lobes 0.70, posterior 0.80, some consolidation 0.30, crazy paving 0.15. Severity
    is skewed so that many patients have little disease.

    Returns severity in [0, 1] of each patient [B].
    """
    slots = MULTIFOCAL
    severity = draws.uniform() ** 1.25
    number = 1 + np.floor(severity * (slots - 1) + draws.uniform(0, 2.5))
    present = on[:, None] & (np.arange(slots) < number[:, None])
    bilateral = draws.below(0.80)
    main = np.where(draws.below(0.55), -1.0, 1.0)
    flip = draws.below(0.45, (slots,)) & bilateral[:, None]
    peripheral = draws.below(0.78, (slots,))
    lower = draws.below(0.70, (slots,))
    posterior = draws.below(0.80, (slots,))
    depth = np.where(
        peripheral, draws.uniform(0.84, 1.0, (slots,)), draws.uniform(0.4, 0.8, (slots,))
    )
    dense, paved = draws.below(0.30)[:, None], draws.below(0.15)[:, None]
    pick = draws.uniform(shape=(slots,))
    kind = np.where(
        dense & (pick < 0.45),
        CONSOLIDATION,
        np.where(paved & (pick > 0.5), CRAZY_PAVING, GROUND_GLASS),
    )
    contrast = draws.uniform(0.7, 1.3)[:, None] * faint
    height = contrast * np.where(
        kind == CONSOLIDATION, draws.uniform(380, 620, (slots,)), draws.uniform(220, 470, (slots,))
    )
    grow = (1.6 + 1.1 * severity)[:, None]
    plan.add(
        present,
        kind=kind.astype(float),
        side=main[:, None] * np.where(flip, -1.0, 1.0),
        angle=np.where(
            posterior, draws.uniform(0.2, 1.35, (slots,)), draws.uniform(-1.2, 0.3, (slots,))
        ),
        z=np.where(lower, draws.uniform(-108, -35, (slots,)), draws.uniform(-35, 70, (slots,))),
        depth=depth,
        radii=np.stack(
            [
                grow * draws.uniform(7, 16, (slots,)),
                grow * draws.uniform(11, 26, (slots,)),
                grow * draws.uniform(11, 24, (slots,)),
            ],
            -1,
        ),
        height=height,
        soft=0.65,
        ragged=0.8,
    )
    return np.asarray(severity)


def lobar_consolidation(plan: Plan, draws: Draws, on: Mask, faint: float = 1.0) -> Floats:
    """CAP: consolidation of one or two lobes, with a ground-glass rim and satellites.

    One lobe in 0.72, one side in 0.82; a fifth is ground glass without consolidation and overlaps
    with the multifocal pattern; parapneumonic effusion in 0.25.

    Returns depth of effusion in mm, right and left [B, 2].
    """
    side = np.where(draws.below(0.58), -1.0, 1.0)
    second = draws.below(0.28)
    other_side = draws.below(0.6)
    glassy = draws.below(0.20)
    low = draws.below(0.62, (2,))
    z = np.where(low, draws.uniform(-100, -40, (2,)), draws.uniform(-25, 55, (2,)))
    sides = np.stack([side, np.where(other_side, -side, side)], -1)
    angle = np.where(low, draws.uniform(0.1, 1.3, (2,)), draws.uniform(-1.2, 1.0, (2,)))
    depth = draws.uniform(0.5, 0.88, (2,))
    size = draws.uniform(1.05, 1.75, (2,)) * np.array([1.0, 0.75])
    radii = size[..., None] * np.stack(
        [draws.uniform(22, 36, (2,)), draws.uniform(22, 38, (2,)), draws.uniform(18, 34, (2,))], -1
    )
    present = on[:, None] & np.stack([np.ones_like(second), second], -1)
    contrast = draws.uniform(0.8, 1.2)[:, None] * faint
    plan.add(
        present & ~glassy[:, None],
        kind=CONSOLIDATION,
        radii=radii,
        height=contrast * draws.uniform(430, 800, (2,)),
        soft=0.45,
        ragged=0.6,
        lobar=True,
        side=sides,
        angle=angle,
        z=z,
        depth=depth,
    )
    plan.add(
        present,
        kind=GROUND_GLASS,
        radii=radii * 1.45,
        height=contrast * draws.uniform(140, 340, (2,)),
        soft=0.8,
        ragged=0.9,
        lobar=True,
        side=sides,
        angle=angle,
        z=z,
        depth=depth,
    )
    slots = 4
    spread = draws.normal(0, 1, (slots, 3))
    scattered = on[:, None] & draws.below(0.45, (slots,))
    plan.add(
        scattered,
        kind=np.where(draws.below(0.35, (slots,)), CONSOLIDATION, GROUND_GLASS).astype(float),
        side=sides[:, :1] * np.ones(slots),
        angle=np.clip(angle[:, :1] + 0.35 * spread[..., 0], -1.4, 1.45),
        z=np.clip(z[:, :1] + 28 * spread[..., 1], -108, 85),
        depth=np.clip(depth[:, :1] + 0.12 * spread[..., 2], 0.3, 0.98),
        radii=draws.uniform(7, 17, (slots, 3)),
        height=contrast * draws.uniform(160, 420, (slots,)),
        soft=0.65,
        ragged=0.8,
    )
    effusion = on & draws.below(0.25)
    fluid = (effusion * draws.uniform(10, 30))[:, None] * (sides[:, :1] == np.array([-1.0, 1.0]))
    return np.asarray(fluid)


def nodules(plan: Plan, draws: Draws, on: Mask, slots: int = 2) -> tuple[Floats, Floats]:
    """One or a few round nodules of 4 to 14 mm radius. Returns side and z of the first [B]."""
    number = np.where(draws.below(0.7), 1, slots)
    side = np.where(draws.below(0.5, (slots,)), -1.0, 1.0)
    z = draws.uniform(-85, 75, (slots,))
    radius = draws.uniform(4, 14, (slots, 1))
    plan.add(
        on[:, None] & (np.arange(slots) < number[:, None]),
        kind=NODULE,
        side=side,
        angle=draws.uniform(-1.3, 1.4, (slots,)),
        z=z,
        depth=draws.uniform(0.35, 0.9, (slots,)),
        radii=np.repeat(radius, 3, -1) * draws.uniform(0.9, 1.1, (slots, 3)),
        height=draws.uniform(700, 900, (slots,)),
        soft=0.3,
        ragged=0.15,
    )
    return side[:, 0], z[:, 0]
