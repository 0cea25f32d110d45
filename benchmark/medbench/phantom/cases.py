"""Chest patients of the pre-training corpus: one main appearance each, many kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medbench.phantom.disease import lobar_consolidation, multifocal_ground_glass, nodules
from medbench.phantom.draws import Draws, Ints, Mask
from medbench.phantom.findings import BAND, GROUND_GLASS, SCAR, Findings, Plan, confounders
from medbench.phantom.patient import Patients, sample_patients

#: Appearances and how often each is the main one. They are appearances, not diagnoses.
APPEARANCES: dict[str, float] = {
    "clear": 0.20,
    "multifocal ground glass": 0.13,
    "focal ground glass": 0.07,
    "consolidation": 0.14,
    "nodule": 0.10,
    "effusion": 0.09,
    "pneumothorax": 0.06,
    "cardiomegaly": 0.06,
    "atelectasis": 0.07,
    "edema": 0.05,
    "scar": 0.03,
}
NAMES = tuple(APPEARANCES)


@dataclass
class Cases:
    """B chest patients: rows, bodies, findings, index of the main appearance in ``NAMES`` [B]."""

    rows: Sequence[int]
    patients: Patients
    findings: Findings
    appearance: Ints

    def name(self, index: int) -> str:
        """Main appearance of one patient."""
        return NAMES[int(self.appearance[index])]


def sample_cases(dataset: str, rows: Sequence[int], appearance: Ints | None = None) -> Cases:
    """Draw chest patients; ``appearance`` fixes the main appearance (the gallery does)."""
    draws = Draws(dataset, rows, "case", 256)
    drawn = draws.choice(tuple(APPEARANCES.values()))
    main = drawn if appearance is None else np.asarray(appearance)

    def on(*names: str) -> Mask:
        return np.isin(main, [NAMES.index(name) for name in names])

    count = len(rows)
    side = np.where(draws.below(0.5), -1.0, 1.0)
    per_side = side[:, None] == np.array([-1.0, 1.0])
    rise = (on("atelectasis") * draws.uniform(8, 24))[:, None] * per_side
    heart = 1 + on("cardiomegaly") * draws.uniform(0.22, 0.45) + on("edema") * draws.uniform(0, 0.3)
    patients = sample_patients(Draws(dataset, rows, "body", 900), heart_scale=heart, dome_rise=rise)
    plan = Plan(patients)
    rest = confounders(plan, Draws(dataset, rows, "confounders", 128))
    multifocal_ground_glass(
        plan, Draws(dataset, rows, "multifocal", 384), on("multifocal ground glass"), 1.1
    )
    fluid = lobar_consolidation(plan, Draws(dataset, rows, "lobar", 160), on("consolidation"), 1.1)
    nodules(plan, Draws(dataset, rows, "nodules", 48), on("nodule"))
    one = side[:, None]
    plan.add(
        on("focal ground glass")[:, None],
        kind=GROUND_GLASS,
        side=one,
        angle=draws.uniform(-1.1, 1.3, (1,)),
        z=draws.uniform(-95, 70, (1,)),
        depth=draws.uniform(0.4, 0.95, (1,)),
        radii=draws.uniform(14, 30, (1, 3)),
        height=draws.uniform(200, 420, (1,)),
        soft=0.6,
        ragged=0.7,
    )
    # Collapsed lung: a plate above a raised diaphragm.
    plan.add(
        np.repeat(on("atelectasis")[:, None], 2, 1),
        kind=BAND,
        side=np.repeat(one, 2, 1),
        angle=np.stack([draws.uniform(0.4, 1.3), draws.uniform(-0.4, 0.6)], -1),
        z=draws.uniform(-80, -55, (2,)),
        depth=draws.uniform(0.6, 0.9, (2,)),
        radii=np.stack(
            [draws.uniform(14, 26, (2,)), draws.uniform(26, 46, (2,)), draws.uniform(5, 9, (2,))],
            -1,
        ),
        height=draws.uniform(550, 820, (2,)),
        soft=0.5,
        ragged=0.25,
    )
    # Edema: haze around both hila, with widened vessels and septal lines.
    plan.add(
        np.repeat(on("edema")[:, None], 2, 1),
        kind=GROUND_GLASS,
        side=np.tile([-1.0, 1.0], (count, 1)),
        angle=draws.uniform(-0.2, 0.5, (2,)),
        z=draws.uniform(-35, 5, (2,)),
        depth=draws.uniform(0.25, 0.45, (2,)),
        radii=draws.uniform(38, 58, (2, 3)),
        height=draws.uniform(160, 330, (2,)),
        soft=0.95,
        ragged=0.6,
    )
    plan.add(
        np.repeat(on("scar")[:, None], 3, 1),
        kind=SCAR,
        side=np.repeat(one, 3, 1),
        angle=draws.uniform(-0.9, 1.2, (3,)),
        z=draws.uniform(40, 92, (3,)),
        depth=draws.uniform(0.7, 0.98, (3,)),
        radii=np.stack(
            [draws.uniform(14, 26, (3,)), draws.uniform(3, 6, (3,)), draws.uniform(9, 18, (3,))], -1
        ),
        height=draws.uniform(350, 650, (3,)),
        soft=0.5,
        ragged=0.6,
        turn=draws.uniform(-0.8, 0.8, (3,)),
    )
    both = draws.below(0.35)[:, None]
    own = on("effusion")[:, None] * (per_side | both) * draws.uniform(14, 46, (2,))
    small = (on("edema") & draws.below(0.5))[:, None] * draws.uniform(8, 20, (2,))
    rest["congestion"] = torch.from_numpy(
        (on("edema") * draws.uniform(0.5, 1.0)).astype(np.float32)
    )
    findings = Findings(
        lesions=plan.lesions(),
        effusion=torch.from_numpy((fluid + own + small).astype(np.float32)),
        pneumothorax=torch.from_numpy(
            (on("pneumothorax")[:, None] * per_side * draws.uniform(14, 42, (1,))).astype(
                np.float32
            )
        ),
        **rest,
    )
    return Cases(rows, patients, findings, main.astype(np.int64))
