"""Findings: what is wrong with a patient, as solids placed in the patient's own anatomy.

One description is drawn by every modality, so a radiograph and a CT slice of a patient agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import torch

from medbench.phantom.anatomy import lobe_of, wall_point
from medbench.phantom.draws import Draws, Floats, Mask, to_tensor
from medbench.phantom.patient import Patients

#: Appearances that a focal lesion can have.
GROUND_GLASS, CONSOLIDATION, NODULE, BAND, SCAR, CRAZY_PAVING = range(6)
#: Lesion kinds that a radiologist would mark as infection.
INFECTION = (GROUND_GLASS, CONSOLIDATION, CRAZY_PAVING)


@dataclass
class Lesions:
    """L focal lesions of many patients: soft-edged ellipsoids that fill air spaces.

    Attributes:
        owner: patient index, int64 [L].
        kind: one of the kinds above, int64 [L].
        centre: mm [L, 3]; radii: mm along the lesion's own axes [L, 3].
        angle: turn about z that points the first axis outward, radians [L].
        height: HU added to the lung at the centre [L].
        soft: width of the edge as a share of the radius [L].
        ragged: how far noise displaces the edge, in radii [L].
        lobe: lobe it may not leave (index into ``LOBES``), or -1, int64 [L].
        marked: True for disease, False for a confounder, bool [L].
    """

    owner: torch.Tensor
    kind: torch.Tensor
    centre: torch.Tensor
    radii: torch.Tensor
    angle: torch.Tensor
    height: torch.Tensor
    soft: torch.Tensor
    ragged: torch.Tensor
    lobe: torch.Tensor
    marked: torch.Tensor

    def __len__(self) -> int:
        return len(self.owner)

    def __getitem__(self, index: torch.Tensor) -> Lesions:
        return Lesions(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> Lesions:
        """The same lesions on another device."""
        return Lesions(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass
class Findings:
    """All findings of B patients.

    Attributes:
        lesions: focal lesions.
        effusion: depth of pleural fluid in mm, right and left [B, 2].
        pneumothorax: depth of pleural air in mm, right and left [B, 2].
        dependent: HU added under the posterior pleura (dependent atelectasis) [B].
        congestion: 0 to 1, widened vessels and septal lines (edema) [B].
        motion: 0 to 1, blur by breathing [B].
    """

    lesions: Lesions
    effusion: torch.Tensor
    pneumothorax: torch.Tensor
    dependent: torch.Tensor
    congestion: torch.Tensor
    motion: torch.Tensor

    def __getitem__(self, index: slice) -> Findings:
        """Findings of a run of patients."""
        start, stop, _ = index.indices(len(self.dependent))
        keep = (self.lesions.owner >= start) & (self.lesions.owner < stop)
        lesions = self.lesions[keep]
        lesions.owner = lesions.owner - start
        rest = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "lesions"}
        return Findings(lesions=lesions, **rest)

    def without_disease(self) -> Findings:
        """The same patients with every confounder and no disease: the oracle's reference."""
        healthy = self.lesions[~self.lesions.marked]
        zero = torch.zeros_like(self.effusion)
        return Findings(
            healthy, zero, zero, self.dependent, torch.zeros_like(self.congestion), self.motion
        )


@dataclass
class Plan:
    """Builds `Lesions` from per-patient slots; an absent slot is dropped."""

    patients: Patients
    parts: list[Lesions] = field(default_factory=list)

    def add(
        self,
        present: Mask,
        *,
        kind: Floats | int,
        side: Floats,
        angle: Floats,
        z: Floats,
        depth: Floats,
        radii: Floats,
        height: Floats,
        soft: float,
        ragged: float,
        lobar: bool = False,
        marked: bool = True,
        turn: Floats | None = None,
    ) -> torch.Tensor:
        """Place lesions, arrays [B, K] unless said otherwise.

        Args:
            present: True where the slot is drawn.
            kind: lesion kind.
            side: -1 right, +1 left.
            angle: position round the wall: 0 lateral, pi/2 posterior.
            z: height in mm.
            depth: 0 at the hilum, 1 at the chest wall.
            radii: [B, K, 3] mm, the first towards the wall.
            height: HU added.
            soft, ragged: see `Lesions`.
            lobar: confine the lesion to the lobe of its centre.
            marked: disease, not confounder.
            turn: extra rotation about z in radians.

        Returns:
            Lobe index of every slot [B, K].
        """
        shape = present.shape

        def tensor(values: object) -> torch.Tensor:
            return to_tensor(np.broadcast_to(np.asarray(values, dtype=np.float32), shape).copy())

        sides, angles, heights = tensor(side), tensor(angle), tensor(z)
        wall = wall_point(self.patients, sides, angles, heights)
        inner = torch.stack(
            [sides * (self.patients.column[:, :1] + 4), torch.full_like(sides, 4.0), heights], -1
        )
        centre = torch.lerp(inner, wall, tensor(depth)[..., None])
        owner = torch.arange(shape[0])[:, None].expand(shape)
        lobe = lobe_of(self.patients, owner.reshape(-1), centre.reshape(-1, 3)).view(shape)
        outward = torch.atan2(wall[..., 1] - inner[..., 1], wall[..., 0] - inner[..., 0])
        if turn is not None:
            outward = outward + tensor(turn)
        keep = torch.from_numpy(np.ascontiguousarray(present, dtype=bool))
        number = int(keep.sum())
        self.parts.append(
            Lesions(
                owner=owner[keep],
                kind=tensor(kind).long()[keep],
                centre=centre[keep],
                radii=torch.from_numpy(np.asarray(radii, dtype=np.float32))[keep],
                angle=outward[keep],
                height=tensor(height)[keep],
                soft=torch.full((number,), soft),
                ragged=torch.full((number,), ragged),
                lobe=torch.where(torch.tensor(lobar), lobe, -1)[keep],
                marked=torch.full((number,), marked),
            )
        )
        return lobe

    def lesions(self) -> Lesions:
        """Everything placed so far."""
        return Lesions(
            **{f.name: torch.cat([getattr(p, f.name) for p in self.parts]) for f in fields(Lesions)}
        )


def confounders(plan: Plan, draws: Draws, amount: float = 1.0) -> dict[str, torch.Tensor]:
    """What every class shares: old scars, bands, small nodules, dependent density, motion.

    Returns the per-patient fields of `Findings` that are confounders.
    """
    count = draws.rows
    age = plan.patients.age.numpy().astype(float)
    scar = draws.below((0.25 + 0.004 * (age - 20))[:, None] * amount, (3,))
    apical = draws.below(0.6, (3,))
    plan.add(
        scar,
        kind=SCAR,
        side=np.where(draws.below(0.5, (3,)), -1.0, 1.0),
        angle=draws.uniform(-1.2, 1.3, (3,)),
        z=np.where(apical, draws.uniform(45, 95, (3,)), draws.uniform(-90, 45, (3,))),
        depth=draws.uniform(0.7, 0.98, (3,)),
        radii=np.stack(
            [draws.uniform(8, 18, (3,)), draws.uniform(1.5, 4, (3,)), draws.uniform(5, 14, (3,))],
            -1,
        ),
        height=draws.uniform(200, 550, (3,)),
        soft=0.5,
        ragged=0.5,
        marked=False,
        turn=draws.uniform(-0.8, 0.8, (3,)),
    )
    plan.add(
        draws.below(0.22 * amount, (2,)),
        kind=BAND,
        side=np.where(draws.below(0.5, (2,)), -1.0, 1.0),
        angle=draws.uniform(0.2, 1.4, (2,)),
        z=draws.uniform(-105, -60, (2,)),
        depth=draws.uniform(0.65, 0.95, (2,)),
        radii=np.stack(
            [draws.uniform(6, 12, (2,)), draws.uniform(16, 34, (2,)), draws.uniform(5, 12, (2,))],
            -1,
        ),
        height=draws.uniform(120, 420, (2,)),
        soft=0.7,
        ragged=0.4,
        marked=False,
    )
    plan.add(
        draws.below(0.15 * amount, (2,)),
        kind=NODULE,
        side=np.where(draws.below(0.5, (2,)), -1.0, 1.0),
        angle=draws.uniform(-1.3, 1.4, (2,)),
        z=draws.uniform(-90, 80, (2,)),
        depth=draws.uniform(0.4, 0.95, (2,)),
        radii=np.repeat(draws.uniform(2.0, 4.0, (2, 1)), 3, -1),
        height=draws.uniform(500, 850, (2,)),
        soft=0.4,
        ragged=0.1,
        marked=False,
    )
    dependent = draws.below(0.65) * draws.uniform(40, 330) * amount
    motion = draws.below(0.22) * draws.uniform(0.3, 1.0)
    return {
        "dependent": torch.from_numpy(dependent.astype(np.float32)),
        "motion": torch.from_numpy(motion.astype(np.float32)),
        "congestion": torch.zeros(count),
    }
