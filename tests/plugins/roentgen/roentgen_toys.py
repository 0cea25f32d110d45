"""A small corpus of images and impressions, a small RoentGen, and folders in diffusers' layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medbench.data.samples import Corpus, Pixels, Reader, Sample
from medbench.models.contrastive import seeded
from medbench.models.latent_diffusion import LatentDiffusion
from medbench_roentgen.config import RoentGenConfig
from medbench_roentgen.model import RoentGen

State = dict[str, torch.Tensor]
SIDES = ("upper", "lower", "left", "right")

SMALL: dict[str, Any] = {
    "start": "scenes",
    "image_size": 32,
    "latent_channels": 4,
    "vae_channels": (8, 8),
    "vae_layers": 1,
    "vae_attention": False,
    "unet_channels": (16, 16),
    "unet_layers": 1,
    "unet_heads": 2,
    "norm_groups": 4,
    "text_layers": 1,
    "text_width": 16,
    "text_heads": 2,
    "window": 16,
    "quick_gelu": False,
    "vae_crop": 16,
    "base_batch": 8,
}
TRAIN = {"steps": 6, "batch": 4, "accumulation": 1, "lr": 1e-3, "block": 2}
SAMPLING = {"steps": 4, "batch": 4}
DOMAIN = {"text_layers": 1, "text_width": 16, "text_heads": 2, "context": 16}


class Discs(Reader):
    """Draws each sample from its number: a disc at a side."""

    def __init__(self, root: Path = Path()) -> None: ...

    def samples(self) -> tuple[Sample, ...]:
        return ()

    def pixels(self, sample: Sample) -> Pixels:
        number = int(sample.id.split("-")[1])
        y, x = np.mgrid[0:32, 0:32].astype(np.float32)
        cy, cx = ((8, 16), (24, 16), (16, 8), (16, 24))[number % 4]
        return (0.2 + 0.6 * (np.hypot(y - cy, x - cx) < 5)).astype(np.float32)


def toy_samples(images: int = 12, silent: int = 0) -> list[Sample]:
    """The last ``silent`` ones have no report."""
    return [
        Sample(
            id=f"image-{i}",
            patient=f"p{i}",
            files=(),
            split="train",
            text=f"A disc on the {SIDES[i % 4]} side.",
            sections={"impression": f"Disc, {SIDES[i % 4]}."},
        )
        if i < images - silent
        else Sample(id=f"image-{i}", patient=f"p{i}", files=(), split="train")
        for i in range(images)
    ]


def toy_corpus(images: int = 12, silent: int = 0, name: str = "task") -> Corpus:
    return Corpus(
        name=name,
        samples=toy_samples(images, silent),
        reader=Discs(),
        manifest_sha256="0" * 64,
        track="phantom",
    )


def toy_config(**values: Any) -> RoentGenConfig:
    """A RoentGen of seconds, with values laid over by dotted key (a dot is ``__``)."""
    nested: dict[str, Any] = {
        **SMALL, "train": dict(TRAIN), "sampling": dict(SAMPLING), "domain": dict(DOMAIN)
    }  # fmt: skip
    for key, value in values.items():
        *path, last = key.split("__")
        place = nested
        for name in path:
            place = place[name]
        place[last] = value
    return RoentGenConfig.model_validate(nested)


def base_state(seed: int = 0, **values: Any) -> State:
    """What stage ``base`` might have given, with random weights."""
    with seeded(seed):
        return LatentDiffusion(toy_config(**values)).kept()


def toy_model(**values: Any) -> RoentGen:
    """A RoentGen that starts from `base_state`."""
    model = RoentGen(toy_config(**values))
    model.load("base", base_state(**values))
    return model


def as_tensor(content: bytes | Mapping[str, Any]) -> torch.Tensor:
    """Bytes, or JSON, as a state holds a small file."""
    if not isinstance(content, bytes):
        content = json.dumps(dict(content)).encode()
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
