"""Every value that decides a RoentGen, each with its source.

The defaults are the published ones (Stable Diffusion v1-4, adapted for 60,000 steps), or, where a
field is marked ``assumed``, our choice for what the paper leaves open. A field with ``published``
metadata whose value differs from it (at ``tiny`` and ``small``) is our choice as well.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from medbench.models.base_diffusion import BaseDiffusionConfig
from medbench.models.base_text import BaseTextConfig
from medbench.models.clip import ASSUMED, published

_PAPER = "Chambon et al., arXiv:2211.12737"


class TrainConfig(BaseModel):
    """Adaptation to radiographs and their impressions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unet: bool = Field(
        True, description="the U-Net is trained", json_schema_extra=published(_PAPER, True)
    )
    text_encoder: bool = Field(
        True, description="the text encoder is trained", json_schema_extra=published(_PAPER, True)
    )
    steps: int = Field(
        60_000,
        ge=1,
        description="of the optimiser (1,000, 12,500 and 60,000 were compared)",
        json_schema_extra=published(_PAPER, 60_000),
    )
    batch: int = Field(
        256, ge=1, description="images of a step", json_schema_extra=published(_PAPER, 256)
    )
    accumulation: int = Field(
        32,
        ge=1,
        description="parts that a batch is computed in, one after another: eight images at a time, "
        "as on each GPU of the paper's",
        json_schema_extra=published(_PAPER, 32),
    )
    lr: float = Field(
        5e-5,
        gt=0,
        description="of AdamW (1e-4 is the paper's stronger setting)",
        json_schema_extra=published(_PAPER, 5e-5),
    )
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the rate", json_schema_extra=ASSUMED
    )
    warmup: float = Field(
        0.0, ge=0, lt=1, description="share of steps with a rising rate", json_schema_extra=ASSUMED
    )
    weight_decay: float = Field(
        0.01, ge=0, description="AdamW's, on everything", json_schema_extra=ASSUMED
    )
    gradient_clip: float = Field(
        1.0, gt=0, description="greatest norm of a gradient", json_schema_extra=ASSUMED
    )
    drop: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of prompts left out, for guidance (Stable Diffusion v1-4: 0.1)",
        json_schema_extra=ASSUMED,
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the running mean of weights that is kept; 0: the last weights are",
        json_schema_extra=ASSUMED,
    )
    gradient_checkpointing: bool = Field(
        False,
        description="activations are computed again, not kept: less memory, the same result",
        json_schema_extra=ASSUMED,
    )
    block: int = Field(
        500, ge=1, description="steps between two saved states", json_schema_extra=ASSUMED
    )

    @model_validator(mode="after")
    def _trains(self) -> TrainConfig:
        if not (self.unet or self.text_encoder):
            raise ValueError("neither U-Net nor text encoder is trained; use the variant @base")
        if self.batch % self.accumulation:
            raise ValueError("batch is not a multiple of accumulation")
        return self


class SamplingConfig(BaseModel):
    """Drawing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(75, ge=2, description="of PNDM", json_schema_extra=published(_PAPER, 75))
    guidance: float = Field(
        4.0,
        ge=0,
        description="weight of the prompt; at 1 no more than a condition",
        json_schema_extra=published(_PAPER, 4.0),
    )
    prompted: bool = Field(
        True,
        description="prompts are used; False: the empty one for every image, without guidance",
        json_schema_extra=published(_PAPER, True),
    )
    batch: int = Field(8, ge=1, description="images at a time", json_schema_extra=ASSUMED)
    bf16: bool = Field(
        False, description="on a GPU, the U-Net in bfloat16", json_schema_extra=ASSUMED
    )


class RoentGenConfig(BaseDiffusionConfig):
    """The latent diffusion model (inherited fields), its adaptation, and its drawing."""

    # What it starts from, and what is done to it: these tell the variants apart.
    start: Literal["published", "scenes"] = Field(
        "published",
        description="Stable Diffusion's weights, given with --weights; or a model pre-trained here",
        json_schema_extra=published(_PAPER, "published"),
    )
    adapted: bool = Field(
        True,
        description="adapted to radiographs; False: as it starts",
        json_schema_extra=published(_PAPER, True),
    )
    prompts: Literal["clip", "domain"] = Field(
        "clip",
        description="text encoder: the one the model starts with; or one of the domain, a BERT",
        json_schema_extra=published(_PAPER, "clip"),
    )
    train: TrainConfig = TrainConfig()
    sampling: SamplingConfig = SamplingConfig()
    domain: BaseTextConfig = Field(
        BaseTextConfig(), description="what stands for the domain's BERT where none is given"
    )

    @model_validator(mode="after")
    def _domain_fits(self) -> RoentGenConfig:
        stands_in = self.prompts == "domain" and self.start == "scenes"
        if stands_in and self.domain.text_width != self.text_width:
            raise ValueError("domain.text_width is not text_width, which the U-Net attends to")
        return self

    def adaptation(self) -> dict[str, Any]:
        """The values that decide the stage ``adapt``: not how images are drawn from it."""
        return self.model_dump(mode="json", exclude={"sampling"})
