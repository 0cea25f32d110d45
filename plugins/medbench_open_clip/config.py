"""Which network is run. It is evaluated as it was published, so there is little to choose."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator

from medbench.models.base_clip import BaseClipConfig
from medbench.models.clip import ASSUMED

#: Values of `OpenClipConfig.model` that are no architecture.
BASE, AUTO = "base", "auto"


class BaseConfig(BaseClipConfig):
    """The general-domain CLIP that stands for a published one on phantoms."""

    statistics_images: int = Field(
        2048,
        ge=2,
        description="radiology images, evenly spread, over which BatchNorm statistics are averaged",
        json_schema_extra=ASSUMED,
    )


class OpenClipConfig(BaseModel):
    """The architecture; everything else comes with the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        AUTO,
        min_length=1,
        description="an architecture that open_clip lists, such as ViT-B-32-quickgelu or "
        "coca_ViT-B-32; pmc-clip; auto: as the folder of the weights says; base: the "
        "general-domain CLIP, pre-trained here",
    )
    image_size: int | None = Field(
        None,
        ge=16,
        description="pixels a side of the images; needed only with auto and another size than 224",
    )
    base: BaseConfig = Field(
        default_factory=BaseConfig, description="dimensions and training, for model base"
    )

    @model_validator(mode="after")
    def _size(self) -> OpenClipConfig:
        if self.image_size is not None and self.model == BASE:
            raise ValueError("the size of model base is base.image_size")
        return self

    @field_serializer("base")
    def _only_where_it_is_used(self, base: BaseConfig) -> dict[str, Any] | None:
        """Left out of records of published models, which these values do not describe."""
        return base.model_dump(mode="json") if self.model == BASE else None
