"""Every value that decides an Adaptor, each with its source.

The defaults are the published ones, or, where a field is marked ``assumed``, our choice for what
the paper and its code leave open. A field with ``published`` metadata whose value differs from it
(at ``tiny`` and ``small``) is our choice as well.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medbench.models.base_text import BaseTextConfig
from medbench.models.base_vision import BaseVisionConfig
from medbench.models.clip import ASSUMED, published

_CODE = "official code"
_PAPER = "arXiv 2401.01179"


class Pretrain(BaseModel):
    """What part of the corpus is trained on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the patients whose pairs are trained on; smaller shares are part of "
        "larger ones",
        json_schema_extra=published(_PAPER, 1.0),
    )


class AdaptorConfig(BaseModel):
    """Two frozen encoders, the module between them, and how it is pre-trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The frozen encoders: these and `adapted` tell the variants apart.
    encoders: Literal["published", "stand-in"] = Field(
        "published",
        description="the named encoders, from given weights; or small ones trained on phantoms "
        "that stand where they stand",
        json_schema_extra=published(_PAPER, "published"),
    )
    vision: str = Field(
        "dinov2-b",
        description="image encoder: dinov2-b, dinov2-s or resnet-ae; with published encoders also "
        "open-clip:ARCHITECTURE and torchxrayvision:densenet121",
        json_schema_extra=published(_PAPER, "dinov2-b"),
    )
    text: str = Field(
        "bert",
        description="text encoder: bert, biobert, clinicalbert, pubmedbert or cxr-bert; with "
        "published encoders also transformers:bert, of the size that its folder says",
        json_schema_extra=published(_PAPER, "bert"),
    )
    adapted: bool = Field(
        True,
        description="train the Adaptor module; False: the frozen image encoder alone",
        json_schema_extra=published(_PAPER, True),
    )
    vision_stand_in: BaseVisionConfig = Field(
        default_factory=BaseVisionConfig, description="unused with published encoders"
    )
    text_stand_in: BaseTextConfig = Field(
        default_factory=BaseTextConfig, description="unused with published encoders"
    )

    # The module.
    dim: int = Field(
        768, ge=1, description="width of the shared space", json_schema_extra=published(_CODE, 768)
    )
    layers: int = Field(
        2, ge=1, description="one set of weights for both modalities",
        json_schema_extra=published(_PAPER, 2),
    )  # fmt: skip
    heads: int = Field(
        12, ge=1, description="of the attention", json_schema_extra=published(_CODE, 12)
    )
    hidden: int = Field(
        2048, ge=1, description="feed-forward width, ReLU", json_schema_extra=published(_CODE, 2048)
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="", json_schema_extra=published(_CODE, 0.1))

    # Its pre-training on stored vectors.
    alpha: float = Field(
        0.75,
        gt=0,
        lt=1,
        description="weight of the image-to-text loss; text-to-image has the rest",
        json_schema_extra=published(_PAPER, 0.75),
    )
    epochs: int = Field(50, ge=1, description="at most", json_schema_extra=published(_PAPER, 50))
    batch: int = Field(
        1024, ge=2, description="pairs in a batch", json_schema_extra=published(_PAPER, 1024)
    )
    lr: float = Field(
        2e-5, gt=0, description="AdamW's peak rate", json_schema_extra=published(_PAPER, 2e-5)
    )
    weight_decay: float = Field(
        0.01, ge=0, description="AdamW's", json_schema_extra=published(_CODE, 0.01)
    )
    warmup: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="share of steps with a rising rate, then a line to 0",
        json_schema_extra=published(_CODE, 0.02),
    )
    patience: int = Field(
        10,
        ge=1,
        description="epochs without a lower validation loss, then training stops",
        json_schema_extra=published(_CODE, 10),
    )
    validation: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of the corpus' patients for that loss (the paper validates on the "
        "official val and test parts together, which are not to be seen here)",
        json_schema_extra=ASSUMED,
    )
    pretrain: Pretrain = Field(default_factory=Pretrain, description="")

    @model_validator(mode="after")
    def _possible(self) -> AdaptorConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if "vision_kind" in self.vision_stand_in.model_fields_set:
            raise ValueError("vision_stand_in.vision_kind follows from vision; leave it out")
        return self

    def values(self, *names: str) -> dict[str, Any]:
        """Those values as JSON types, for a stage's configuration."""
        return self.model_dump(mode="json", include=set(names))
