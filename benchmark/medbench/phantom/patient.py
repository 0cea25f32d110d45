"""A parametric patient: body size, thoracic cage, heart, domes, spine, ribs and lung vessels.

All tensors are float32 with the patients B first, lengths in mm, coordinates as in
`medbench.phantom.geometry`. The origin lies mid-chest, about the level of the carina.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from medbench.phantom.draws import Draws, Floats
from medbench.phantom.geometry import ellipsoid_matrix, rotation_y, rotation_z

#: Exponents of the cage's superellipsoid, in the axial plane and along z.
CAGE_PLANE, CAGE_LONG = 2.4, 2.6
RIBS, VESSEL_LEVELS = 11, 7


@dataclass
class Patients:
    """B patients.

    Attributes:
        age: years [B]; female: 0 or 1 [B]; fat: extra subcutaneous fat in mm [B].
        cage: half width, half depth, half height above and below its centre [B, 4].
        cage_z: height of the cage's centre [B].
        lung: centre |x|, half width, centre z, half height of each lung's own envelope [B, 4].
        column: half width, half depth and centre y of the mediastinum [B, 3].
        heart: centre [B, 3]; heart_matrix: quadratic form [B, 3, 3]; heart_radii [B, 3].
        dome: centre [B, 2, 3] and dome_radii [B, 2, 3] of right and left hemidiaphragm.
        spine_y: centre of the vertebral bodies [B]; spine_phase: mm offset of the discs [B].
        aorta: radius of the aorta [B].
        fissure: height of the oblique fissure at y = 0, its slope, height of the horizontal [B, 3].
        density: HU of the lung, its change from front to back, sd of the texture [B, 3].
        targets: unit-cube end points of the vessel tree [B, 2, 2 ** VESSEL_LEVELS, 3].
        rib_drop: fall of a rib from back to front [B]; rib_width: radius [B].
    """

    age: torch.Tensor
    female: torch.Tensor
    fat: torch.Tensor
    cage: torch.Tensor
    cage_z: torch.Tensor
    lung: torch.Tensor
    column: torch.Tensor
    heart: torch.Tensor
    heart_matrix: torch.Tensor
    heart_radii: torch.Tensor
    dome: torch.Tensor
    dome_radii: torch.Tensor
    spine_y: torch.Tensor
    spine_phase: torch.Tensor
    aorta: torch.Tensor
    fissure: torch.Tensor
    density: torch.Tensor
    targets: torch.Tensor
    rib_drop: torch.Tensor
    rib_width: torch.Tensor

    def __len__(self) -> int:
        return len(self.age)

    def __getitem__(self, index: torch.Tensor | slice) -> Patients:
        return Patients(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to(self, device: torch.device | str) -> Patients:
        """The same patients on another device."""
        return Patients(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def _tensor(values: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def sample_patients(
    draws: Draws,
    *,
    age: Floats | None = None,
    female: Floats | None = None,
    heart_scale: Floats | None = None,
    dome_rise: Floats | None = None,
) -> Patients:
    """Draw B patients.

    Args:
        draws: source of random numbers with at least 900 columns left.
        age: years [B]; drawn about 52 +- 17 when absent.
        female: 0 or 1 [B]; drawn evenly when absent.
        heart_scale: factor on the heart's width and depth [B] (cardiomegaly), 1 when absent.
        dome_rise: mm by which right and left hemidiaphragm stand higher [B, 2] (volume loss).
    """
    count = draws.rows
    own_age = np.clip(draws.normal(52, 17), 18, 92)
    own_female = draws.below(0.46).astype(float)
    age = own_age if age is None else age
    female = own_female if female is None else female
    scale = 1.0 - 0.07 * female + draws.normal(0, 0.045)
    fat = np.clip(draws.normal(14, 7), 4, 34) + 4 * female
    inspiration = draws.normal(0, 9)
    cage = np.stack(
        [
            scale * draws.normal(132, 6),
            scale * draws.normal(92, 6) + 0.12 * (age - 50),
            scale * draws.normal(158, 6),
            scale * np.full(count, 230.0),
        ],
        -1,
    )
    cage_z = -38 * scale + draws.normal(0, 4)
    lung = np.stack(
        [
            0.52 * cage[:, 0],
            0.60 * cage[:, 0],
            cage_z - 60 * scale,
            cage[:, 2] + 60 * scale,
        ],
        -1,
    )
    column = np.stack(
        [
            scale * draws.normal(31, 3) + 0.05 * (age - 50),
            0.80 * cage[:, 1],
            0.10 * cage[:, 1],
        ],
        -1,
    )
    grow = np.ones(count) if heart_scale is None else heart_scale
    heart_radii = (
        np.stack([draws.normal(67, 4), draws.normal(47, 3), draws.normal(50, 3)], -1)
        * scale[:, None]
        * np.stack([grow, np.sqrt(grow), np.sqrt(grow)], -1)
    )
    heart = np.stack(
        [
            draws.normal(20, 4) + 10 * (grow - 1),
            -0.26 * cage[:, 1],
            -52 * scale + inspiration * 0.3 + draws.normal(0, 4),
        ],
        -1,
    )
    tilt, turn = draws.normal(0.42, 0.08), draws.normal(-0.55, 0.1)
    # The long axis points to the left, forward and down.
    rotation = rotation_z(_tensor(turn)) @ rotation_y(_tensor(tilt))
    rise = np.zeros((count, 2)) if dome_rise is None else dome_rise
    tops = np.stack([-82 * scale - inspiration, -93 * scale - inspiration], -1)
    tops = tops + draws.normal(0, 4, (2,)) + rise
    dome_radii = np.stack(
        [
            cage[:, :1] * np.array([0.60, 0.56]),
            cage[:, 1:2] * np.array([0.98, 0.92]),
            scale[:, None] * np.array([74.0, 72.0]),
        ],
        -1,
    )
    dome = np.stack(
        [
            cage[:, :1] * np.array([-0.46, 0.50]),
            cage[:, 1:2] * np.array([-0.06, 0.02]),
            tops - dome_radii[..., 2],
        ],
        -1,
    )
    cells = _unit_cells(VESSEL_LEVELS)
    jitter = draws.uniform(-0.5, 0.5, (2, len(cells), 3))
    targets = cells + jitter * np.array([0.25, 0.25, 0.125]) * 0.9
    return Patients(
        age=_tensor(age),
        female=_tensor(female),
        fat=_tensor(fat),
        cage=_tensor(cage),
        cage_z=_tensor(cage_z),
        lung=_tensor(lung),
        column=_tensor(column),
        heart=_tensor(heart),
        heart_matrix=ellipsoid_matrix(_tensor(heart_radii), rotation),
        heart_radii=_tensor(heart_radii),
        dome=_tensor(dome),
        dome_radii=_tensor(dome_radii),
        spine_y=_tensor(0.80 * cage[:, 1]),
        spine_phase=_tensor(draws.uniform(0, 25)),
        aorta=_tensor(12.0 + 0.06 * (age - 50) + draws.normal(0, 1)),
        fissure=_tensor(
            np.stack(
                [
                    draws.normal(-28, 8),
                    draws.normal(0.95, 0.1),
                    draws.normal(-2, 8),
                ],
                -1,
            )
        ),
        density=_tensor(
            np.stack(
                [
                    draws.normal(-852, 20) - 0.25 * (age - 50),
                    draws.normal(75, 22),
                    draws.normal(24, 4),
                ],
                -1,
            )
        ),
        targets=_tensor(targets),
        rib_drop=_tensor(draws.normal(78, 9)),
        rib_width=_tensor(draws.normal(5.2, 0.4)),
    )


def _unit_cells(levels: int) -> Floats:
    """Centres of 2 ** levels cells of the unit cube, ordered so that neighbours share parents.

    The bits of the index split z, x, y, z, ... in turn: averaging over the last bits gives the
    parent's cell, which is what a bifurcating tree needs.
    """
    centres = []
    for index in range(2**levels):
        low, high = np.zeros(3), np.ones(3)
        for level in range(levels):
            axis = (2, 0, 1)[level % 3]
            middle = (low[axis] + high[axis]) / 2
            if index >> (levels - 1 - level) & 1:
                low[axis] = middle
            else:
                high[axis] = middle
        centres.append((low + high) / 2)
    return np.array(centres)
