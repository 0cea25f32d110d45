"""Small drawn studies with short reports, a small UniCrossAdapter, and a fit that can be killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medbench.data.samples import Corpus, Pixels, Sample
from medbench.models.contrastive import seeded
from medbench_unicrossadapter.config import UniCrossAdapterConfig
from medbench_unicrossadapter.model import UniCrossAdapter
from toy_run import ToyRun

SIDES = ("left", "right")
SIZES = ("small", "large")


class ToyReader:
    """Draws an image from its id, ``<study>-<view>``: a bright disc, left or right, large or small;
    a second view shows it upside down."""

    def __init__(self, root: Path = Path()) -> None:
        self.decoded: list[str] = []

    def samples(self) -> Sequence[Sample]:
        return ()

    def pixels(self, sample: Sample) -> Pixels:
        self.decoded.append(sample.id)
        number, view = map(int, sample.id.split("-"))
        y, x = np.mgrid[0:32, 0:32].astype(np.float32)
        radius = 3 + 5 * (number // 2 % 2)
        disc = np.hypot(y - 12, x - (8 + 16 * (number % 2))) < radius
        noise = 0.05 * np.random.default_rng(number).standard_normal((32, 32))
        picture = np.clip(0.2 + 0.6 * disc + noise, 0, 1).astype(np.float32)
        return picture[::-1] if view else picture


def report(number: int) -> str:
    """What `ToyReader` draws of a study, in words."""
    return f"There is a {SIZES[number // 2 % 2]} disc. It is on the {SIDES[number % 2]}."


def toy_samples(studies: int, views: int = 2) -> list[Sample]:
    """Studies numbered from 0, lateral view first; every fourth is of the validation part."""
    return [
        Sample(
            id=f"{number}-{view}",
            patient=str(number),
            files=(),
            text=report(number),
            split="val" if number // 4 % 4 == 3 else "train",
            study=f"s{number}",
            view="PA" if view == 0 else "lateral",
        )
        for number in range(studies)
        for view in reversed(range(views))
    ]


def toy_corpus(samples: Sequence[Sample] | None = None) -> Corpus:
    return Corpus(
        name="iu-xray",
        samples=toy_samples(16) if samples is None else samples,
        reader=ToyReader(),
        manifest_sha256="0" * 64,
        track="phantom",
    )


def toy_config(**values: Any) -> UniCrossAdapterConfig:
    """A UniCrossAdapter of seconds, with values laid over."""
    small = {
        "embed_dim": 32,
        "image_size": 32,
        "vision_layers": (1, 1, 1, 1),
        "vision_width": 8,
        "text_layers": 2,
        "text_width": 32,
        "text_heads": 2,
        "context": 24,
        "quick_gelu": False,
        "bottleneck": 16,
        "adapter_heads": 2,
        "adapter_hidden": 32,
        "layers": 1,
        "heads": 2,
        "feed_forward": 64,
        "min_frequency": 1,
        "max_length": 16,
        "train_size": 36,
        "flip": False,
        "epochs": 3,
        "batch": 4,
        "lr": 3e-3,
    }
    return UniCrossAdapterConfig.model_validate(small | values)


def make(seed: int = 0, **values: Any) -> UniCrossAdapter:
    """An untrained model of `toy_config`, of these random weights."""
    with seeded(seed):
        return UniCrossAdapter(toy_config(**values))


def fitted(folder: Path, *, corpus: Corpus | None = None, seed: int = 0, **values: Any) -> Any:
    """A model trained on the toy studies, and its run."""
    folder.mkdir(exist_ok=True)
    model, run = make(**values), ToyRun(folder, seed)
    stage = next(s for s in model.stages(None) if s.name == "reports")
    model.fit(stage, corpus or toy_corpus(), run)
    return model, run


def stirred(model: UniCrossAdapter, seed: int = 1) -> UniCrossAdapter:
    """The same with random weights in what starts at zero, so that every adapter does something,
    and a vocabulary of letters."""
    from medbench_unicrossadapter.network import ReportNetwork
    from medbench_unicrossadapter.vocabulary import Vocabulary

    with seeded(seed), torch.no_grad():
        model.vocabulary = Vocabulary("words", list("abcdefghijklmnop"))
        model.network = ReportNetwork(
            model.config, len(model.vocabulary), model.network.clip
        ).eval()
        for name, parameter in model.network.named_parameters():
            if not name.startswith("clip."):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def toy_views(studies: int = 5, size: int = 32, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise as images float32 [B, 2, 3, size, size], and bool [B, 2]: every other study has two."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(studies, 2, dtype=torch.bool)
    mask[1::2, 1] = False
    images = torch.rand(studies, 2, 3, size, size, generator=generator)
    return images * mask[:, :, None, None, None], mask
