"""Axial brain MR slices with a T1, T2 or FLAIR look: tumour, haemorrhage and other findings.

What was added for one dataset (the level of the skull base, the pituitary adenoma, scanners other
than the first) draws from streams of its own and is skipped where nothing asks for it, so that the
slices of older datasets keep their every pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from medbench.phantom.draws import Draws, Floats, Ints, Mask, noise, to_tensor

SEQUENCES = ("T1", "T2", "FLAIR")
FINDINGS = (
    "clear", "glioma", "meningioma", "metastases", "haemorrhage", "infarct", "white matter",
    "hydrocephalus", "atrophy", "pituitary",
)  # fmt: skip

#: Signal of fat, bone, cerebrospinal fluid, grey and white matter, lesion, its oedema, blood.
_SIGNAL = {
    "T1": (0.95, 0.08, 0.12, 0.46, 0.64, 0.36, 0.42, 0.90),
    "T2": (0.70, 0.08, 0.96, 0.56, 0.40, 0.78, 0.84, 0.22),
    "FLAIR": (0.62, 0.08, 0.10, 0.60, 0.48, 0.86, 0.92, 0.35),
}


@dataclass(frozen=True)
class MRScanner:
    """An MR scanner.

    Attributes:
        name: for people.
        noise: lowest and highest standard deviation of the noise in each channel.
        bias: deviation of the receive coil's slow shading.
        gain: lowest and highest overall brightness.
        gamma: exponent of the display curve.
    """

    name: str
    noise: tuple[float, float] = (0.015, 0.045)
    bias: float = 0.10
    gain: tuple[float, float] = (0.85, 1.1)
    gamma: float = 1.0


#: Pre-training pairs.
PAIRS_MR = MRScanner("PHANTOM-MR-A")
#: Crystal Clean: pictures of many sources, noisier, unevenly lit, brightened for display.
CRYSTAL_MR = MRScanner("PHANTOM-MR-B", (0.03, 0.075), 0.17, (0.8, 1.15), 0.82)


@dataclass
class Brains:
    """N slices: index into FINDINGS and SEQUENCES, side of the lesion (-1 right), lobe by y.

    ``base`` tells which lie at the skull base, where the pituitary gland is; None: none does.
    """

    rows: Sequence[int]
    finding: Ints
    sequence: Ints
    side: Floats
    front: Floats
    base: Mask | None = None


def sample_brains(dataset: str, rows: Sequence[int]) -> Brains:
    """Draw what the slices show: never a pituitary adenoma, which callers put in themselves."""
    draws = Draws(dataset, rows, "brain-finding", 16)
    return Brains(
        rows=rows,
        finding=draws.choice((26, 14, 12, 8, 10, 10, 8, 6, 6)),
        sequence=draws.integer(0, 3),
        side=np.where(draws.below(0.5), -1.0, 1.0),
        front=draws.uniform(-1, 1),
    )


def render_brains(
    dataset: str, brains: Brains, size: int, device: str = "cpu", scanner: MRScanner = PAIRS_MR
) -> torch.Tensor:
    """Draw the slices, [N, size, size] in [0, 1]; front up, the patient's right on the left."""
    draws = Draws(dataset, brains.rows, "brain-shape", 128)
    number = len(brains.rows)

    def col(values: object) -> torch.Tensor:
        return to_tensor(values, device)[:, None, None]

    axis = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    tilt = draws.normal(0, 0.06)
    shift = draws.normal(0, 0.03, (2,))
    zoom = draws.normal(0.80, 0.035)
    x0 = (axis.view(1, 1, -1) - col(shift[:, 0])) / col(zoom)
    y0 = (axis.view(1, -1, 1) - col(shift[:, 1])) / col(zoom)
    x = x0 * col(np.cos(tilt)) - y0 * col(np.sin(tilt))
    y = x0 * col(np.sin(tilt)) + y0 * col(np.cos(tilt))
    # The mean of the batch is what the first dataset was drawn with; later ones go by the row, so
    # that a slice does not depend on its neighbours.
    first = brains.base is None
    pixel: float | torch.Tensor = float(2 / size / zoom.mean()) if first else col(2 / size / zoom)
    lattice = torch.stack(
        [noise(dataset, "brain-texture", row, (3, 26, 26)) for row in brains.rows]
    )
    fields = functional.interpolate(
        lattice.to(device), (size, size), mode="bilinear", align_corners=False
    )
    slow = functional.interpolate(
        lattice[:, :1, :7, :7].to(device), (size, size), mode="bilinear", align_corners=False
    )[:, 0]
    fold, rough, grain = fields.unbind(1)

    def soft(q: torch.Tensor, radius: float) -> torch.Tensor:
        return ((1 - q) * (radius / (2 * pixel)) + 0.5).clamp(0, 1)

    def ellipse(cx: object, cy: object, a: object, b: object) -> torch.Tensor:
        return ((x - col(cx)) / col(a)) ** 2 + ((y - col(cy)) / col(b)) ** 2

    one = np.ones(number)
    level = draws.uniform(0, 1)
    wide = draws.normal(0.80, 0.025)
    head = ellipse(0 * one, 0 * one, wide, one)
    skull = ellipse(0 * one, 0 * one, wide - 0.055, one - 0.055)
    inner = ellipse(0 * one, 0 * one, wide - 0.115, one - 0.115)
    atrophy = np.where(brains.finding == FINDINGS.index("atrophy"), 1.0, 0.0)
    gap = 0.012 + 0.05 * atrophy + draws.uniform(0, 0.012)
    brain = ellipse(0 * one, 0 * one, wide - 0.125 - gap, one - 0.125 - gap)
    table = to_tensor([_SIGNAL[SEQUENCES[s]] for s in brains.sequence], device)[:, :, None, None]
    fat, bone, fluid, grey, white, mass, swelling, blood = table.unbind(1)
    image = torch.zeros(number, size, size, device=device)
    for q, value, radius in ((head, fat, 0.9), (skull, bone, 0.85), (inner, fluid, 0.8)):
        image = image + soft(q, radius) * (value - image)
    tissue = soft(brain, 0.75)
    # The cortex is a ribbon that folds inward: sulci of fluid, then grey, then white matter.
    angle = torch.atan2(y, x)
    phase = col(draws.uniform(0, 6.28))
    wave = torch.sin(angle * 17 + phase + 1.6 * fold) + 0.6 * torch.sin(angle * 31 - phase + rough)
    depth = (1 - brain) + 0.10 * wave - 0.04
    cortex = ((0.26 - depth) / 0.08).clamp(0, 1)
    sulcus = ((wave - 0.75) * 2).clamp(0, 1) * ((0.30 - (1 - brain)) / 0.06).clamp(0, 1)
    content = white + cortex * (grey - white)
    content = content + sulcus * (0.55 + 0.4 * col(atrophy)) * (fluid - content)
    cut = content  # what every level shares
    core = soft(((x.abs() - 0.20) / 0.13) ** 2 + ((y - 0.02) / 0.24) ** 2, 0.14) * col(level < 0.6)
    content = content + core * (grey - content)
    swollen = 1 + 0.9 * (brains.finding == FINDINGS.index("hydrocephalus")) + 0.4 * atrophy
    big = swollen * draws.uniform(0.8, 1.15)
    bend = 0.055 * col(big) + 0.24 * y.abs() ** 1.5
    ventricle = ((x.abs() - bend) / (0.055 * col(big))) ** 2 + (
        (y + 0.02) / (0.36 * col(big**0.5))
    ) ** 2
    content = content + soft(ventricle, 0.06) * (fluid - content)
    fissure = (1 - x.abs() / 0.022).clamp_min(0) * (y.abs() > 0.38)
    content = content + fissure * 0.7 * (fluid - content)
    if brains.base is not None and brains.base.any():
        at_base = _skull_base(cut, x, y, (bone, fluid, grey, white), fold, soft)
        content = content + col(brains.base) * (at_base - content)
    image = image + tissue * (content - image)

    image = _lesions(
        image, brains, draws, x, y, wide, tissue, (fluid, mass, swelling, blood), rough, soft
    )
    if (brains.finding == FINDINGS.index("pituitary")).any():
        image = _adenoma(image, dataset, brains, x, y, (fluid, mass), rough, soft)
    bias = 1 + scanner.bias * slow
    texture = 1 + 0.05 * grain * tissue
    spread = col(draws.uniform(*scanner.noise))
    pair = torch.stack([noise(dataset, "brain-noise", row, (2, size, size)) for row in brains.rows])
    pair = pair.to(device) * spread[:, None]
    # Magnitude images have Rician noise.
    seen = ((image * bias * texture * 0.9 + pair[:, 0]) ** 2 + pair[:, 1] ** 2).sqrt()
    seen = (seen * col(draws.uniform(*scanner.gain))).clamp(0, 1)
    return seen if scanner.gamma == 1 else seen**scanner.gamma


def _skull_base(
    cut: torch.Tensor, x: torch.Tensor, y: torch.Tensor, signals: tuple[torch.Tensor, ...],
    fold: torch.Tensor, soft: Callable[[torch.Tensor, float], torch.Tensor],
) -> torch.Tensor:  # fmt: skip
    """What lies inside the skull at the level of the sella: cerebellum and brain stem behind,
    temporal lobes beside the cistern, ridges of bone between them."""
    bone, fluid, grey, white = signals

    def band(x1: float, y1: float, x2: float, y2: float, half: float) -> torch.Tensor:
        """Nearness to a line on both sides of the midline, 1 on it."""
        along = (x2 - x1, y2 - y1)
        length = along[0] ** 2 + along[1] ** 2
        t = (((x.abs() - x1) * along[0] + (y - y1) * along[1]) / length).clamp(0, 1)
        away = ((x.abs() - x1 - t * along[0]) ** 2 + (y - y1 - t * along[1]) ** 2).sqrt()
        return ((1.4 - away / (half * (1.3 - 0.6 * t))) * 2.5).clamp(0, 1)

    folia = 0.5 + 0.5 * torch.sin((x * x + (y - 0.1) ** 2).sqrt() * 70 + 1.5 * fold)
    cerebellum = soft((x / 0.50) ** 2 + ((y - 0.44) / 0.30) ** 2, 0.3)
    cut = cut + cerebellum * (grey + 0.45 * folia * (white - grey) - cut)
    gap = band(0.14, 0.24, 0.58, 0.36, 0.03)
    cut = cut + gap * (1 - cerebellum) * (fluid - cut)
    stem = soft((x / 0.15) ** 2 + ((y - 0.12) / 0.14) ** 2, 0.14)
    around = soft((x / 0.21) ** 2 + ((y - 0.05) / 0.23) ** 2, 0.2)
    cut = cut + around * (fluid - cut)
    cut = cut + stem * (white - cut)
    ventricle = soft((x / 0.07) ** 2 + ((y - 0.30) / 0.04) ** 2, 0.05)
    cut = cut + ventricle * (fluid - cut)
    petrous = band(0.20, 0.10, 0.56, 0.28, 0.024)
    wing = band(0.16, -0.20, 0.52, -0.31, 0.016)
    return cut + torch.maximum(petrous, wing) * (bone - cut)


def _adenoma(
    image: torch.Tensor, dataset: str, brains: Brains, x: torch.Tensor, y: torch.Tensor,
    signals: tuple[torch.Tensor, ...], rough: torch.Tensor,
    soft: Callable[[torch.Tensor, float], torch.Tensor],
) -> torch.Tensor:  # fmt: skip
    """A bright mass in the sella: in the midline, before the brain stem, some with a cyst."""
    fluid, mass = signals
    draws = Draws(dataset, brains.rows, "brain-sella", 16)

    def col(values: object) -> torch.Tensor:
        return to_tensor(values, image.device)[:, None, None]

    here = col(brains.finding == FINDINGS.index("pituitary"))
    cx, cy = draws.normal(0, 0.025), draws.normal(-0.13, 0.03)
    radius, squash = draws.uniform(0.06, 0.16), draws.uniform(0.75, 1.15)
    q = ((x - col(cx)) / col(radius)) ** 2 + ((y - col(cy)) / col(radius * squash)) ** 2
    body = soft(q * (1 + 0.12 * rough), 0.12) * here
    image = image + body * (0.62 * mass + 0.33 - image)
    cyst = soft(q * 5, 0.05) * here * col(draws.below(0.25))
    return image + cyst * 0.7 * (fluid - image)


def _lesions(
    image: torch.Tensor, brains: Brains, draws: Draws, x: torch.Tensor, y: torch.Tensor,
    wide: Floats, tissue: torch.Tensor, signals: tuple[torch.Tensor, ...],
    rough: torch.Tensor, soft: Callable[[torch.Tensor, float], torch.Tensor],
) -> torch.Tensor:  # fmt: skip
    """Add the finding of each slice."""
    fluid, mass, swelling, blood = signals

    def col(values: object) -> torch.Tensor:
        return to_tensor(values, image.device)[:, None, None]

    kind = brains.finding
    radius = draws.uniform(0.13, 0.25)
    cx = brains.side * draws.uniform(0.25, 0.45)
    cy = -0.45 * brains.front

    def at(cx: Floats, cy: Floats, r: Floats, squash: Floats | float = 1.0) -> torch.Tensor:
        return ((x - col(cx)) / col(r)) ** 2 + ((y - col(cy)) / col(r * squash)) ** 2

    def on(*names: str) -> torch.Tensor:
        return col(np.isin(kind, [FINDINGS.index(n) for n in names]))

    squash = draws.uniform(0.8, 1.25)
    q = at(cx, cy, radius, squash)
    ragged = q.clamp_min(1e-6).sqrt() + 0.22 * rough
    glioma = on("glioma") * tissue
    halo = ((1.75 - ragged) * 2).clamp(0, 1) * glioma
    image = image + halo * (swelling - image) * 0.8
    body = ((1.0 - ragged) * 5).clamp(0, 1) * glioma
    image = image + body * (mass - image)
    ring = (1 - (ragged - 0.85).abs() * 7).clamp_min(0) * glioma
    image = image + ring * (0.95 - image) * 0.75
    necrosis = ((0.55 - ragged) * 5).clamp(0, 1) * glioma
    image = image + necrosis * (fluid - image) * 0.8
    theta = np.arctan2(cy, cx)
    ex, ey = (wide - 0.24) * np.cos(theta), 0.76 * np.sin(theta)
    menin = soft(at(ex, ey, radius * 0.85, squash), 0.18) * on("meningioma")
    image = image + menin * (0.62 * mass + 0.33 - image)
    for _index in range(4):
        mx, my = draws.uniform(-0.45, 0.45), draws.uniform(-0.6, 0.6)
        r = draws.uniform(0.045, 0.09)
        q = at(mx, my, r)
        edge = ((2.2 - q.sqrt()) * 1.5).clamp(0, 1) * on("metastases") * tissue
        image = image + edge * (swelling - image) * 0.7
        image = image + soft(q, 0.06) * on("metastases") * (0.9 - image)
        r2 = draws.uniform(0.02, 0.05)
        spot = soft(at(mx * 0.6, my * 0.6, r2, 1.4), 0.03) * on("white matter") * tissue
        image = image + spot * (swelling - image)
    bleed = ((1.0 - ragged) * 6).clamp(0, 1) * on("haemorrhage") * tissue
    rim = ((1.35 - ragged) * 4).clamp(0, 1) * on("haemorrhage") * tissue
    image = image + rim * (swelling - image) * 0.6
    image = image + bleed * (blood - image)
    # An arterial territory: a wedge that widens towards the cortex.
    angle = torch.atan2(y, x)
    turn = torch.remainder(angle - col(theta) + torch.pi, 2 * torch.pi) - torch.pi
    wedge = ((0.42 - turn.abs()) * 6 + 0.4 * rough).clamp(0, 1) * ((x * x + y * y).sqrt() > 0.30)
    return image + wedge * on("infarct") * tissue * (swelling - image) * 0.85
