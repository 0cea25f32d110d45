"""The frozen encoders: the published ones, or what stands where they stand."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from medbench.errors import UsageError, unknown_name
from medbench.models.base_text import BaseText, base_text_stage
from medbench.models.base_vision import BaseVision, BaseVisionConfig, base_vision_stage
from medbench.models.capabilities import Stage, State
from medbench.models.text_encoder import TextEncoder
from medbench.models.vision_encoder import VisionEncoder
from medbench_adaptor.config import AdaptorConfig
from medbench_adaptor.other_vision import other_vision

#: A text encoder of whatever size the ``config.json`` beside its weights gives; until these are
#: loaded BERT-base stands for it.
ANY_BERT = "transformers:bert"


def build_vision_encoder(config: AdaptorConfig) -> VisionEncoder:
    """Untrained. Raises UsageError for one that cannot be."""
    if config.encoders == "published":
        from medbench.models.backbones import VISION, build_vision

        return (
            build_vision(config.vision) if config.vision in VISION else other_vision(config.vision)
        )
    return BaseVision(_vision_stand_in(config).model_dump()).encoder


def build_text_encoder(config: AdaptorConfig) -> TextEncoder:
    """Untrained. Raises UsageError for one that cannot be."""
    if config.encoders == "published":
        from medbench.models.backbones import TEXT, build_text

        if config.text not in (*TEXT, ANY_BERT):
            raise unknown_name("text encoder", config.text, (*TEXT, ANY_BERT))
        return build_text("bert" if config.text == ANY_BERT else config.text)
    _text_corpus(config)
    return BaseText(config.text_stand_in.model_dump()).encoder


def load_text_encoder(config: AdaptorConfig, encoder: TextEncoder, state: State) -> TextEncoder:
    """The encoder with these weights: itself, or one of their size. Raises WeightsError."""
    if config.encoders == "published" and config.text == ANY_BERT:
        from medbench.models.backbones import text_of

        return text_of(state)
    encoder.load(state)
    return encoder


def vision_stage(config: AdaptorConfig) -> Stage:
    """Weights given as ``--weights adaptor@vision=PATH`` stand for it. A published encoder is never
    trained here; a stand-in is, on ``scenes``."""
    if config.encoders == "published":
        return _given("vision", config.vision)
    return replace(base_vision_stage(_vision_stand_in(config)), weights="vision")


def text_stage(config: AdaptorConfig) -> Stage:
    """Likewise for ``adaptor@text``; the domain's stand-in is trained on the training reports."""
    if config.encoders == "published":
        return _given("text", config.text)
    corpus = _text_corpus(config)
    return replace(base_text_stage(config.text_stand_in, corpus), weights="text")


def _given(part: str, name: str) -> Stage:
    return Stage(
        name=part,
        corpus="scenes",  # never opened: nothing is trained
        config={"encoder": name},
        title=f"the frozen {part} encoder {name}",
        weights=part,
    )


def _vision_stand_in(config: AdaptorConfig) -> BaseVisionConfig:
    """What it learns from, and for the smaller DINOv2 half the width."""
    base = config.vision_stand_in
    if config.vision == "dinov2-b":
        return base.model_copy(update={"vision_kind": "contrastive"})
    if config.vision == "dinov2-s":
        half = {"vision_width": base.vision_width // 2, "vision_dim": base.vision_dim // 2}
        return base.model_copy(update={"vision_kind": "contrastive", **half})
    if config.vision == "resnet-ae":
        return base.model_copy(update={"vision_kind": "autoencoder"})
    raise _no_stand_in("image", config.vision, "dinov2-b, dinov2-s and resnet-ae")


def _text_corpus(config: AdaptorConfig) -> Literal["scenes", "mimic-cxr"]:
    if config.text == "bert":
        return "scenes"
    if config.text == "cxr-bert":
        return "mimic-cxr"
    raise _no_stand_in("text", config.text, "bert and cxr-bert")


def _no_stand_in(kind: str, name: str, known: str) -> UsageError:
    return UsageError(
        f"The {kind} encoder '{name}' has no stand-in at presets tiny and small: nothing that is "
        f"trained on phantoms would tell it from {known}, which have one. Choose one of these, or "
        "run at --preset paper with published weights."
    )
