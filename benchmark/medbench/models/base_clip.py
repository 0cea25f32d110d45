"""The general-domain CLIP that stands where OpenAI's CLIP stands at the published size.

It is pre-trained on the dataset ``scenes`` with CLIP's own objective. Its stage is the same for
every plugin that asks for it with the same values, so they share one checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field

from medbench.data.samples import Corpus
from medbench.models.capabilities import FitRun, Stage, State
from medbench.models.clip import (
    ASSUMED,
    ClipConfig,
    build_clip,
    image_features,
    load_clip,
    text_features,
)
from medbench.models.contrastive import seeded, train_contrastive
from medbench.models.descent import Recipe
from medbench.models.pairs import texts_of, training_pairs
from medbench.models.prefetch import Pictures
from medbench.models.tokenizer import tokenize


class BaseClipConfig(ClipConfig):
    """A CLIP and how it is pre-trained where no published weights are given.

    None of it comes from a paper: at the published size the weights are OpenAI's.
    """

    base_epochs: int = Field(3, ge=1, description="passes over scenes", json_schema_extra=ASSUMED)
    base_batch: int = Field(128, ge=2, description="pairs in a batch", json_schema_extra=ASSUMED)
    base_lr: float = Field(
        5e-4, gt=0, description="peak rate (CLIP, appendix F)", json_schema_extra=ASSUMED
    )
    base_weight_decay: float = Field(
        0.2,
        ge=0,
        description="of matrices; gains and biases have none (CLIP, appendix F)",
        json_schema_extra=ASSUMED,
    )
    base_warmup: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of steps with a rising rate, then a cosine to 0",
        json_schema_extra=ASSUMED,
    )


def base_stage(config: BaseClipConfig) -> Stage:
    """The stage, from those values alone that decide its result."""
    names = BaseClipConfig.model_fields
    values = {k: v for k, v in config.model_dump(mode="json").items() if k in names}
    return Stage(
        name="base",
        corpus="scenes",
        cls="medbench.models.base_clip:BaseClip",
        config=values,
        title="general CLIP on scenes",
        epochs=config.base_epochs,
        together=True,
    )


class BaseClip:
    """Trains, keeps and loads the general-domain CLIP."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = BaseClipConfig.model_validate(dict(config))
        self.clip = build_clip(self.config)

    def stages(self, weights: State | None) -> tuple[Stage, ...]:
        """The one stage, or none when its weights are given."""
        return () if weights is not None else (base_stage(self.config),)

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """Train both towers and the temperature, which starts at 0.07."""
        from medbench.data.images import Images

        config = self.config
        samples = training_pairs(corpus, "image")
        images = Images(corpus.reader, samples, config.image_size)
        images.warm(run.advance)
        tokens = tokenize(texts_of(samples), config.context)  # [N, context]
        with seeded(run.seed):
            self.clip = build_clip(config).to(run.device)
        clip, pictures = self.clip, Pictures(images, run.device)
        train_contrastive(
            lambda chosen: image_features(clip, pictures(chosen)),
            lambda chosen: text_features(clip, tokens[chosen].to(run.device)),
            len(samples),
            modules=[clip],
            recipe=Recipe(
                epochs=config.base_epochs,
                batch=config.base_batch,
                lr=config.base_lr,
                weight_decay=config.base_weight_decay,
                decay_vectors=False,
                betas=(0.9, 0.98),
                eps=1e-6,
                schedule="cosine",
                warmup=config.base_warmup,
            ),
            run=run,
            stage=stage.name,
            logit_scale=clip.logit_scale,  # type: ignore[arg-type]
            pictures=pictures,
        )

    def state(self, stage: str) -> dict[str, torch.Tensor]:
        """All of it, contiguous, on the CPU."""
        return {k: v.detach().cpu().contiguous() for k, v in self.clip.state_dict().items()}

    def load(self, stage: str, state: State) -> None:
        """Load `state`, or a user's checkpoint. Raises WeightsError naming keys that do not fit."""
        load_clip(self.clip, state)
