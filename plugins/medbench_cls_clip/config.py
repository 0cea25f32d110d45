"""Every value that decides a CLS-CLIP, each with its source.

The defaults are the published ones (ViT-B/32, all weights trained), or, where a field is marked
``assumed``, our choice for what the paper and its code leave open. A field with ``published``
metadata whose value differs from it (at ``tiny`` and ``small``) is our choice as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medbench.models.base_clip import BaseClipConfig
from medbench.models.clip import ASSUMED, published

_VIT_B = "openai/clip-vit-base-patch32"
_PAPER = "Wiehe et al., 2022"
_CODE = "official code"


class PretrainConfig(BaseModel):
    """Contrastive language supervision."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    done: bool = Field(
        False,
        description="the weights given are those of a finished CLS-CLIP, and are used as they are; "
        "none are published",
        json_schema_extra=published(_PAPER, False),
    )
    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the corpus, by patient and nested (the code draws images)",
        json_schema_extra=published(_PAPER, 1.0),
    )
    epochs: int = Field(10, ge=1, description="", json_schema_extra=published(_CODE, 10))
    batch: int = Field(
        128,
        ge=2,
        description="where all weights are trained; adapters: 192 unless set",
        json_schema_extra=published(_CODE, 128),
    )
    lr: float = Field(
        1e-5,
        gt=0,
        description="peak of AdamW's where all weights are trained; adapters: 3e-4 unless set",
        json_schema_extra=published(_CODE, 1e-5),
    )
    rise: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of steps with a rising rate, of PyTorch's OneCycleLR",
        json_schema_extra=published(_CODE, 0.05),
    )
    weight_decay: float = Field(
        0.2,
        ge=0,
        description="AdamW, every trained parameter",
        json_schema_extra=published(_CODE, 0.2),
    )
    beta2: float = Field(
        0.98,
        gt=0,
        lt=1,
        description="AdamW (CLIP's); the first beta, given as 0.9, is overridden by OneCycleLR, "
        "which takes it from 0.95 to 0.85 and back",
        json_schema_extra=published(_CODE, 0.98),
    )
    eps: float = Field(
        1e-6, gt=0, description="AdamW (CLIP's)", json_schema_extra=published(_CODE, 1e-6)
    )
    sentence_fraction: float = Field(
        0.8,
        gt=0,
        le=1,
        description="share of a report's sentences that an epoch sees: the default of the code's "
        "data module, which the training script uses; a configuration file says 1.0",
        json_schema_extra=published(_CODE, 0.8),
    )
    sentence_length: int = Field(
        5,
        ge=1,
        description="characters of a sentence, below which it is dropped",
        json_schema_extra=published(_CODE, 5),
    )
    shuffle: bool = Field(
        True,
        description="sentences in another order each epoch",
        json_schema_extra=published(_CODE, True),
    )
    tokens: int = Field(
        77,
        ge=3,
        description="at which a report is cut, at most the context of the text tower",
        json_schema_extra=published(_CODE, 77),
    )
    rotation: float = Field(
        45.0,
        ge=0,
        le=180,
        description="degrees, either way",
        json_schema_extra=published(_CODE, 45.0),
    )
    shift: float = Field(
        0.15,
        ge=0,
        lt=1,
        description="share of the side, either way, on each axis",
        json_schema_extra=published(_CODE, 0.15),
    )
    scale: tuple[float, float] = Field(
        (0.9, 1.1),
        description="range of the zoom",
        json_schema_extra=published(_CODE, (0.9, 1.1)),
    )

    @model_validator(mode="after")
    def _possible(self) -> PretrainConfig:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} is not a range of positive numbers")
        return self


class GuidanceConfig(BaseModel):
    """Images from texts, by gradient ascent on pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(100, ge=1, description="", json_schema_extra=published(_CODE, 100))
    lr: float = Field(
        0.03, gt=0, description="AdamW, on pixels", json_schema_extra=published(_CODE, 0.03)
    )
    batch: int = Field(
        16, ge=1, description="images at a time", json_schema_extra=published(_CODE, 16)
    )
    crops: int = Field(
        8, ge=1, description="views of an image in each step", json_schema_extra=ASSUMED
    )
    least_area: float = Field(
        0.5, gt=0, le=1, description="of a view, of the image's", json_schema_extra=ASSUMED
    )
    noise: float = Field(
        0.1,
        ge=0,
        description="deviation of the first pixels around 0.5",
        json_schema_extra=ASSUMED,
    )


class ClsClipConfig(BaseClipConfig):
    """The general CLIP (inherited fields), its training on reports, and its drawing."""

    embed_dim: int = Field(
        512, ge=1, description="shared space", json_schema_extra=published(_VIT_B, 512)
    )
    vision_layers: int | tuple[int, int, int, int] = Field(
        12,
        description="transformer layers, or the blocks of a ModifiedResNet's four stages",
        json_schema_extra=published(_VIT_B, 12),
    )
    vision_width: int = Field(
        768,
        ge=8,
        description="width of the transformer, or of the ResNet's first stage",
        json_schema_extra=published(_VIT_B, 768),
    )
    vision_patch: int = Field(
        32,
        ge=1,
        description="patch of the transformer, unused by a ResNet",
        json_schema_extra=published(_VIT_B, 32),
    )
    text_width: int = Field(
        512, ge=8, description="text transformer", json_schema_extra=published(_VIT_B, 512)
    )
    text_heads: int = Field(
        8, ge=1, description="text transformer", json_schema_extra=published(_VIT_B, 8)
    )

    # What is trained: these tell the variants apart.
    general: bool = Field(
        True,
        description="start from the general-domain CLIP; False: from random weights",
        json_schema_extra=published(_PAPER, True),
    )
    language: bool = Field(
        True,
        description="train on images and reports; False: the network as it starts",
        json_schema_extra=published(_PAPER, True),
    )
    trained: Literal["full", "adapters"] = Field(
        "full",
        description="all weights; or bottleneck adapters and normalisation layers alone",
        json_schema_extra=published(_PAPER, "full"),
    )
    adapter_size: int = Field(
        256,
        ge=1,
        description="inner width of an adapter (16, 64 and 256 were tried)",
        json_schema_extra=published(_CODE, 256),
    )
    adapter_std: float = Field(
        0.02,
        gt=0,
        description="of an adapter's first weights (BERT's)",
        json_schema_extra=published(_CODE, 0.02),
    )
    statistics_images: int = Field(
        2048,
        ge=2,
        description="corpus images, evenly spread, over which BatchNorm statistics are averaged "
        "(for towers that have them; the published one has none)",
        json_schema_extra=ASSUMED,
    )
    pretrain: PretrainConfig = PretrainConfig()
    guidance: GuidanceConfig = GuidanceConfig()

    @model_validator(mode="before")
    @classmethod
    def _published_for_adapters(cls, data: Any) -> Any:
        """Adapters have a rate and a batch of their own (official code)."""
        if not isinstance(data, Mapping) or data.get("trained") != "adapters":
            return data
        given = data.get("pretrain", {})
        if not isinstance(given, Mapping):
            return data
        return {**data, "pretrain": {"lr": 3e-4, "batch": 192, **given}}

    @model_validator(mode="after")
    def _possible(self) -> ClsClipConfig:
        if self.trained == "adapters" and not self.general:
            raise ValueError("adapters on a network that is neither trained nor given")
        if self.language and self.pretrain.tokens > self.context:
            raise ValueError(
                f"pretrain.tokens {self.pretrain.tokens} is above context {self.context}"
            )
        return self

    def values(self, *names: str) -> dict[str, Any]:
        """Those values as JSON types, for a stage's configuration."""
        return self.model_dump(mode="json", include=set(names))
