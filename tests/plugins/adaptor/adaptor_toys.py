"""A small corpus of radiographs with reports, a small Adaptor, and a fit that can be killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medbench.data.samples import Corpus, Pixels, Sample
from medbench.models.contrastive import seeded
from medbench_adaptor.config import AdaptorConfig
from medbench_adaptor.model import AdaptorModel

FINDINGS = ("effusion", "edema", "pneumonia", "no finding")
View = Literal["PA", "AP", "frontal", "lateral"]


class ToyReader:
    """Draws each sample from its id: where it is bright says what its report says."""

    def __init__(self, root: Path = Path()) -> None:
        self.decoded: list[str] = []

    def samples(self) -> Sequence[Sample]:
        return ()

    def pixels(self, sample: Sample) -> Pixels:
        self.decoded.append(sample.id)
        number = int(sample.id.split("-")[1])
        picture = 0.3 + 0.05 * np.random.default_rng(number).standard_normal((32, 32))
        top, left = divmod(number % 4, 2)
        picture[16 * top : 16 * top + 16, 16 * left : 16 * left + 16] += 0.4
        return np.clip(picture, 0, 1).astype(np.float32)


def toy_sample(number: int, view: View | None = "PA", report: bool = True) -> Sample:
    """Two images a patient."""
    finding = FINDINGS[number % 4]
    sections = {"impression": f"{finding} seen.", "findings": f"There is {finding}, {number % 5}."}
    return Sample(
        id=f"image-{number}",
        patient=f"p{number // 2}",
        files=(),
        text="whole report" if report else None,
        split="train",
        view=view,
        sections=sections if report else {},
    )


def toy_corpus(samples: Sequence[Sample] | None = None, count: int = 120) -> Corpus:
    return Corpus(
        name="mimic-cxr",
        samples=samples if samples is not None else [toy_sample(i) for i in range(count)],
        reader=ToyReader(),
        manifest_sha256="0" * 64,
        track="phantom",
    )


def toy_config(**values: Any) -> AdaptorConfig:
    """An Adaptor of seconds, with values laid over."""
    small = {
        "encoders": "stand-in",
        "vision_stand_in": {"image_size": 32, "vision_width": 16, "vision_dim": 16},
        "text_stand_in": {"text_layers": 1, "text_width": 12, "text_heads": 2, "context": 24},
        "dim": 16,
        "heads": 2,
        "hidden": 32,
        "batch": 16,
        "epochs": 4,
        "lr": 1e-3,
    }
    return AdaptorConfig.model_validate(small | values)


def make(config: AdaptorConfig, seed: int = 0) -> AdaptorModel:
    with seeded(seed):
        return AdaptorModel(config)
