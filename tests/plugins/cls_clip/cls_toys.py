"""A small corpus of images and reports, a small CLS-CLIP, and a fit that can be killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medbench.data.samples import Corpus, Pixels, Sample
from medbench.models.contrastive import seeded
from medbench_cls_clip.config import ClsClipConfig
from medbench_cls_clip.model import ClsClip
from toy_run import ToyRun

State = dict[str, torch.Tensor]
SIDES = ("upper", "lower", "left", "right")


class ToyReader:
    """Draws each sample from its number: a disc at a side, over noise."""

    def __init__(self, root: Path = Path()) -> None:
        self.decoded: list[str] = []

    def samples(self) -> Sequence[Sample]:
        return ()

    def pixels(self, sample: Sample) -> Pixels:
        self.decoded.append(sample.id)
        number = int(sample.id.split("-")[1])
        y, x = np.mgrid[0:48, 0:48].astype(np.float32)
        cy, cx = ((12, 24), (36, 24), (24, 12), (24, 36))[number % 4]
        picture = 0.3 + 0.5 * (np.hypot(y - cy, x - cx) < 7)
        picture += 0.05 * np.random.default_rng(number).standard_normal((48, 48))
        return np.clip(picture, 0, 1).astype(np.float32)


def toy_samples(images: int, silent: int = 0) -> list[Sample]:
    """Two images for each patient; the last ``silent`` ones have no report."""
    return [
        Sample(
            id=f"image-{i}",
            patient=f"p{i // 2}",
            files=(),
            split="train",
            sections={}
            if i >= images - silent
            else {
                "technique": "Portable toy of everything.",
                "findings": f"There is a disc on the {SIDES[i % 4]} side. Case {i % 7} of some.",
                "impression": f"Disc, {SIDES[i % 4]}.",
            },
        )
        for i in range(images)
    ]


def toy_corpus(images: int = 40, silent: int = 0, name: str = "mimic-cxr") -> Corpus:
    return Corpus(
        name=name,
        samples=toy_samples(images, silent),
        reader=ToyReader(),
        manifest_sha256="0" * 64,
        track="phantom",
    )


def toy_config(**values: Any) -> ClsClipConfig:
    """A CLS-CLIP of seconds, with values laid over by dotted key (a dot is ``__``)."""
    small: dict[str, Any] = {
        "embed_dim": 32,
        "image_size": 32,
        "vision_layers": (1, 1, 1, 1),
        "vision_width": 8,
        "text_layers": 1,
        "text_width": 32,
        "text_heads": 2,
        "context": 32,
        "base_epochs": 1,
        "adapter_size": 8,
        "statistics_images": 32,
        "pretrain": {"epochs": 2, "batch": 16, "lr": 1e-3, "tokens": 32},
        "guidance": {"steps": 4, "crops": 2},
    }
    for key, value in values.items():
        part, _, inner = key.partition("__")
        if inner:
            small[part] = {**small[part], inner: value}
        else:
            small[part] = value
    return ClsClipConfig.model_validate(small)


def make(config: ClsClipConfig, seed: int = 0) -> ClsClip:
    """Constructed as the harness does it: seeded first."""
    with seeded(seed):
        return ClsClip(config)


def fit(model: ClsClip, name: str, folder: Path, images: int = 40, **run: int) -> State:
    """Train one stage and give its checkpoint."""
    stage = next(s for s in model.stages(None) if s.name == name)
    model.fit(stage, toy_corpus(images), ToyRun(folder, **run))
    return model.state(name)


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
