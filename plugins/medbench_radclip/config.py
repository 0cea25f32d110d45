"""Every value that decides a RadCLIP, each with its source.

The defaults are the published ones, or, where a field is marked ``assumed``, our choice for what
the paper and its code leave open. A field with ``published`` metadata whose value differs from it
(at ``tiny`` and ``small``) is our choice as well.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from medbench.models.base_clip import BaseClipConfig
from medbench.models.clip import ASSUMED, published

_CODE = "official code, 2-D training script"
_PAPER = "arXiv 2403.09948"


class RadclipConfig(BaseClipConfig):
    """The general CLIP (inherited fields) and the two stages of RadCLIP on it."""

    # What is trained, and how slices are pooled: these tell the variants apart.
    general: bool = Field(
        True,
        description="start from the general-domain CLIP; False: from random weights",
        json_schema_extra=published(_PAPER, True),
    )
    adapted: bool = Field(
        True,
        description="fine-tune the image tower on radiology pairs; False: the base model as it is",
        json_schema_extra=published(_PAPER, True),
    )
    pooling: Literal["attention", "mean", "max", "mean-head"] = Field(
        "attention",
        description="how slice embeddings become a volume's",
        json_schema_extra=published(_PAPER, "attention"),
    )

    # Both contrastive stages.
    temperature: float = Field(
        0.07, gt=0, description="fixed", json_schema_extra=published(_CODE, 0.07)
    )
    weight_decay: float = Field(
        0.01,
        ge=0,
        description="AdamW, every parameter (PyTorch's default)",
        json_schema_extra=published(_CODE, 0.01),
    )

    # Stage 1, on 2-D pairs: image tower and projection against the frozen text tower.
    pairs_epochs: int = Field(
        10, ge=1, description="no schedule, no augmentation", json_schema_extra=published(_CODE, 10)
    )
    pairs_batch: int = Field(
        54, ge=2, description="over two GPUs", json_schema_extra=published(_CODE, 54)
    )
    pairs_lr: float = Field(
        1e-5, gt=0, description="AdamW, constant", json_schema_extra=published(_CODE, 1e-5)
    )
    statistics_images: int = Field(
        2048,
        ge=2,
        description="corpus images, evenly spread, over which BatchNorm statistics are averaged "
        "(for towers that have them; the published one has none)",
        json_schema_extra=ASSUMED,
    )

    # Slice pooling adapter: V = MHSA(I + PE), then a readout. The paper fixes no more than that.
    heads: int = Field(8, ge=1, description="of the self-attention", json_schema_extra=ASSUMED)
    max_slices: int = Field(
        64,
        ge=1,
        description="positions; of a longer volume as many slices are sampled uniformly",
        json_schema_extra=ASSUMED,
    )
    readout: Literal["mean"] = Field(
        "mean", description="over the slices that exist", json_schema_extra=ASSUMED
    )
    position_std: float = Field(
        0.02,
        gt=0,
        description="of the random initial positional encoding, for slice embeddings whose "
        "elements have mean square 1",
        json_schema_extra=ASSUMED,
    )

    # Stage 2, on volumes: the adapter on frozen slice embeddings. No training script is public.
    volumes_epochs: int = Field(40, ge=1, description="", json_schema_extra=ASSUMED)
    volumes_batch: int = Field(64, ge=2, description="", json_schema_extra=ASSUMED)
    volumes_lr: float = Field(1e-4, gt=0, description="AdamW, constant", json_schema_extra=ASSUMED)

    @model_validator(mode="after")
    def _possible(self) -> RadclipConfig:
        if self.embed_dim % self.heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of heads {self.heads}")
        if not (self.general or self.adapted):
            raise ValueError("general=False with adapted=False would leave nothing trained")
        return self

    def values(self, *names: str) -> dict[str, Any]:
        """Those values as JSON types, for a stage's configuration."""
        return self.model_dump(mode="json", include=set(names))
