"""A small synthetic corpus, a small RadCLIP, and a fit's surroundings that can be killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medbench.data.samples import Corpus, Pixels, Sample
from medbench_radclip.config import RadclipConfig

SHAPES = ("disc", "bar", "ring", "cross")
SIDES = ("upper", "lower", "left", "right")


class ToyReader:
    """Draws each sample from its id: a shape at a place, over noise."""

    def __init__(self, root: Path = Path()) -> None:
        self.decoded: list[str] = []

    def samples(self) -> Sequence[Sample]:
        return ()

    def pixels(self, sample: Sample) -> Pixels:
        self.decoded.append(sample.id)
        kind, number = sample.id.split("-")
        rng = np.random.default_rng(int(number))
        shape, side = int(number) % 4, int(number) // 4 % 4
        y, x = np.mgrid[0:64, 0:64].astype(np.float32)
        cy, cx = ((16, 32), (48, 32), (32, 16), (32, 48))[side]
        r = np.hypot(y - cy, x - cx)
        drawn = (
            r < 8,
            (abs(y - cy) < 3) & (abs(x - cx) < 12),
            abs(r - 8) < 2,
            (abs(y - cy) < 2) | (abs(x - cx) < 2),
        )[shape]
        picture = 0.3 + 0.5 * drawn + 0.05 * rng.standard_normal((64, 64))
        if kind == "volume":
            depth = 4 + int(number) % 5
            ramp = np.linspace(0.5, 1, depth)[:, None, None]
            picture = picture[None] * ramp
        return np.clip(picture, 0, 1).astype(np.float32)


def toy_samples(images: int, volumes: int) -> list[Sample]:
    """Pairs whose text names shape, place and a number that tells them apart."""
    result = []
    for kind, count in (("image", images), ("volume", volumes)):
        for i in range(count):
            text = f"Toy CT, {SHAPES[i % 4]} in the {SIDES[i // 4 % 4]} part, case {i % 7}"
            result.append(
                Sample(id=f"{kind}-{i}", patient=None, files=(), text=text, kind=kind)  # type: ignore[arg-type]
            )
    return result


def toy_corpus(images: int = 48, volumes: int = 10, name: str = "image-text-pairs") -> Corpus:
    return Corpus(
        name=name,
        samples=toy_samples(images, volumes),
        reader=ToyReader(),
        manifest_sha256="0" * 64,
        track="phantom",
    )


def toy_config(**values: Any) -> RadclipConfig:
    """A RadCLIP of seconds, with values laid over."""
    small = {
        "embed_dim": 32,
        "image_size": 32,
        "vision_layers": (1, 1, 1, 1),
        "vision_width": 8,
        "text_layers": 1,
        "text_width": 32,
        "text_heads": 2,
        "context": 24,
        "base_epochs": 1,
        "base_batch": 16,
        "pairs_epochs": 3,
        "pairs_batch": 16,
        "pairs_lr": 1e-3,
        "statistics_images": 32,
        "heads": 4,
        "max_slices": 6,
        "volumes_epochs": 3,
        "volumes_batch": 4,
        "volumes_lr": 1e-3,
    }
    return RadclipConfig.model_validate(small | values)
