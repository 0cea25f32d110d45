"""Every value that decides a UniCrossAdapter, each with its source.

The defaults are the published ones for IU X-ray, or, where a field is marked ``assumed``, our
choice for what paper and code leave open. A field with ``published`` metadata whose value differs
from it (at ``tiny`` and ``small``) is our choice as well.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from medbench.models.base_clip import BaseClipConfig
from medbench.models.clip import ASSUMED, published

_RN101 = "OpenAI CLIP RN101"
_CODE = "official code (MRG-CLIP), IU X-ray"
_PAPER = "arXiv 2503.15940"


class UniCrossAdapterConfig(BaseClipConfig):
    """The general CLIP (inherited fields; here RN101, 119.7 M parameters) and what is put on it.

    The width of the Transformer encoder and decoder is that of the text tower, whose tokens the
    decoder reads.
    """

    embed_dim: int = Field(
        512, ge=1, description="shared space", json_schema_extra=published(_RN101, 512)
    )
    vision_layers: int | tuple[int, int, int, int] = Field(
        (3, 4, 23, 3),
        description="blocks of the four stages of a ModifiedResNet",
        json_schema_extra=published(_RN101, (3, 4, 23, 3)),
    )
    vision_width: int = Field(
        64, ge=8, description="of the first stage", json_schema_extra=published(_RN101, 64)
    )
    vision_patch: int = Field(
        14, ge=1, description="unused by a ResNet", json_schema_extra=published(_RN101, 14)
    )
    text_width: int = Field(
        512,
        ge=8,
        description="text transformer, encoder and decoder",
        json_schema_extra=published(_RN101, 512),
    )
    text_heads: int = Field(
        8, ge=1, description="text transformer", json_schema_extra=published(_RN101, 8)
    )

    # What there is: these tell the variants apart.
    general: bool = Field(
        True,
        description="the general-domain CLIP; False: frozen random weights",
        json_schema_extra=published(_PAPER, True),
    )
    image_adapters: bool = Field(
        True, description="in the image encoder", json_schema_extra=published(_PAPER, True)
    )
    text_adapters: bool = Field(
        True, description="in the text encoder", json_schema_extra=published(_PAPER, True)
    )
    interaction: bool = Field(
        True,
        description="adapters of the two encoders attend to each other, where both have some",
        json_schema_extra=published(_PAPER, True),
    )
    leaks: bool = Field(
        False,
        description="text adapters see later words and image adapters all words, in training, as "
        "in the released code; False: causal, and no word to be predicted reaches an image",
        json_schema_extra=ASSUMED,
    )

    # Adapters.
    bottleneck: int = Field(64, ge=1, description="width", json_schema_extra=published(_CODE, 64))
    adapter_heads: int = Field(4, ge=1, description="", json_schema_extra=published(_CODE, 4))
    adapter_hidden: int = Field(
        128, ge=1, description="of the feed-forward", json_schema_extra=published(_CODE, 128)
    )
    adapter_dropout: float = Field(
        0.1, ge=0, lt=1, description="", json_schema_extra=published(_CODE, 0.1)
    )

    # Encoder and decoder.
    layers: int = Field(
        3, ge=1, description="of each; 6 on MIMIC-CXR", json_schema_extra=published(_CODE, 3)
    )
    heads: int = Field(8, ge=1, description="of each", json_schema_extra=published(_CODE, 8))
    feed_forward: int = Field(
        2048, ge=1, description="hidden width", json_schema_extra=published(_CODE, 2048)
    )
    dropout: float = Field(
        0.09, ge=0, lt=1, description="0.1 on MIMIC-CXR", json_schema_extra=published(_CODE, 0.09)
    )

    whiten: int = Field(
        0,
        ge=0,
        description="principal components of each map, for each view of a study, that are scaled "
        "to one variance before the neck, by statistics of training studies; 0: maps as they are",
        json_schema_extra=published(_CODE, 0),
    )
    standardise: bool = Field(
        False,
        description="each value of the neck's map, for each view of a study, to mean 0 and "
        "variance 1 over studies before the encoder",
        json_schema_extra=published(_CODE, False),
    )

    # Words.
    vocabulary: Literal["words", "bpe"] = Field(
        "words",
        description="words of the training reports with an embedding of their own, or CLIP's "
        "byte pairs with CLIP's (the released code looks word ids up in CLIP's byte-pair table)",
        json_schema_extra=ASSUMED,
    )
    min_frequency: int = Field(
        3,
        ge=1,
        description="words, or byte pairs, seen less often in training are unknown; 10 on "
        "MIMIC-CXR",
        json_schema_extra=published(_CODE, 3),
    )
    max_length: int = Field(
        60,
        ge=3,
        description="tokens of a report, start token included; 78 on MIMIC-CXR",
        json_schema_extra=published(_CODE, 60),
    )

    # Training.
    views: int = Field(
        2, ge=1, description="of a study; 1 on MIMIC-CXR", json_schema_extra=published(_CODE, 2)
    )
    train_size: int = Field(
        256,
        ge=32,
        description="side that training images are scaled to before a square of image_size is "
        "cropped from them at random",
        json_schema_extra=published(_CODE, 256),
    )
    flip: bool = Field(
        True,
        description="mirror half of the training images (which puts hearts on the other side)",
        json_schema_extra=published(_CODE, True),
    )
    epochs: int = Field(
        25, ge=1, description="2 on MIMIC-CXR", json_schema_extra=published(_CODE, 25)
    )
    batch: int = Field(16, ge=1, description="studies", json_schema_extra=published(_CODE, 16))
    lr: float = Field(
        1e-5, gt=0, description="Adam with amsgrad", json_schema_extra=published(_CODE, 1e-5)
    )
    weight_decay: float = Field(
        5e-5,
        ge=0,
        description="Adam's; 4e-5 on MIMIC-CXR",
        json_schema_extra=published(_CODE, 5e-5),
    )
    lr_step: int = Field(
        50,
        ge=1,
        description="epochs after which the rate is multiplied by lr_factor",
        json_schema_extra=published(_CODE, 50),
    )
    lr_factor: float = Field(
        0.1, gt=0, le=1, description="", json_schema_extra=published(_CODE, 0.1)
    )
    schedule: Literal["step", "cosine"] = Field(
        "step",
        description="of the rate: lr_step and lr_factor, or up from 0 over the first twentieth of "
        "all steps and down to 0 along a cosine",
        json_schema_extra=published(_CODE, "step"),
    )
    alike: bool = Field(
        False,
        description="batches of reports of like length, which are less filling and so cost less",
        json_schema_extra=published(_CODE, False),
    )
    gradient_clip: float = Field(
        0.1, gt=0, description="of each value", json_schema_extra=published(_CODE, 0.1)
    )
    statistics_studies: int = Field(
        512,
        ge=1,
        description="training studies, evenly spread, over which the neck's BatchNorm statistics "
        "are averaged after each epoch: running averages lag behind weights that change fast",
        json_schema_extra=ASSUMED,
    )
    selection: Literal["val-loss"] = Field(
        "val-loss",
        description="the epoch that is kept (the released code: the best on test)",
        json_schema_extra=ASSUMED,
    )

    # Decoding.
    beam: int = Field(3, ge=1, description="width", json_schema_extra=published(_CODE, 3))
    block_trigrams: bool = Field(
        False,
        description="discount words that repeat a trigram, by 2 log 2 for each earlier time. The "
        "released code asks for it, but R2Gen's beam search, which it decodes with, ignores it",
        json_schema_extra=ASSUMED,
    )

    @model_validator(mode="after")
    def _possible(self) -> UniCrossAdapterConfig:
        if not isinstance(self.vision_layers, tuple):
            raise ValueError("vision_layers has to name the four stages of a ResNet")
        if self.max_length - 1 > self.context:
            raise ValueError(
                f"max_length {self.max_length} needs {self.max_length - 1} positions of text; the "
                f"text tower's context has {self.context}"
            )
        if self.bottleneck % self.adapter_heads or self.text_width % self.heads:
            raise ValueError(
                "bottleneck is not a multiple of adapter_heads, or text_width of heads"
            )
        if self.text_width % 4:
            raise ValueError("text_width is not a multiple of 4, as positions in 2-D need")
        if self.train_size < self.image_size:
            raise ValueError("train_size is less than image_size, which is cropped from it")
        return self

    @property
    def crosses(self) -> bool:
        """Whether adapters attend to the other encoder."""
        return self.interaction and self.image_adapters and self.text_adapters

    def values(self) -> dict[str, Any]:
        """What decides the trained network, as JSON types: all but the base's training, which has
        a stage of its own, and decoding."""
        return {
            key: value
            for key, value in self.model_dump(mode="json").items()
            if not key.startswith("base_") and key not in ("beam", "block_trigrams")
        }
