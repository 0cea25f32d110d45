"""The frozen image encoder that stands where a published one stands at the published size.

It is pre-trained on the images of the dataset ``scenes`` alone, without their texts. Its stage is
the same for every plugin that asks for it with the same values, so they share one checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional as F

from medbench.data.samples import Corpus
from medbench.errors import DataError
from medbench.models.batchnorm import recalibrate
from medbench.models.capabilities import FitRun, Stage, State
from medbench.models.clip import ASSUMED, check_fit
from medbench.models.contrastive import Pairs, info_nce, seeded
from medbench.models.descent import Recipe, descend
from medbench.models.pairs import evenly
from medbench.models.prefetch import Pictures
from medbench.models.vision_encoder import VisionEncoder

#: Images over which BatchNorm statistics are averaged in the end, and the batches they come in.
_STATISTICS, _FORWARD_BATCH = 512, 128


class BaseVisionConfig(BaseModel):
    """A small convolutional encoder and how it is pre-trained where no weights are given.

    None of it comes from a paper: at the published size the weights are the published ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    vision_kind: Literal["contrastive", "autoencoder"] = Field(
        "contrastive",
        description="what it learns from: two views of an image against those of others (where "
        "DINOv2 stands), or to restore the image (where torchxrayvision's ResNetAE stands)",
        json_schema_extra=ASSUMED,
    )
    image_size: int = Field(
        64, ge=32, multiple_of=16, description="pixels a side", json_schema_extra=ASSUMED
    )
    vision_width: int = Field(
        24, ge=8, description="channels of the first stage", json_schema_extra=ASSUMED
    )
    vision_dim: int = Field(
        128,
        ge=8,
        description="channels of the last stage: the feature",
        json_schema_extra=ASSUMED,
    )
    vision_epochs: int = Field(2, ge=1, description="passes over scenes", json_schema_extra=ASSUMED)
    vision_batch: int = Field(128, ge=2, description="images in a batch", json_schema_extra=ASSUMED)
    vision_lr: float = Field(
        2e-3, gt=0, description="peak rate of AdamW, cosine to 0", json_schema_extra=ASSUMED
    )
    vision_weight_decay: float = Field(
        0.01, ge=0, description="AdamW's, on everything", json_schema_extra=ASSUMED
    )
    vision_warmup: float = Field(
        0.1, ge=0, lt=1, description="share of steps with a rising rate", json_schema_extra=ASSUMED
    )
    vision_temperature: float = Field(
        0.2, gt=0, description="of the contrastive loss, fixed", json_schema_extra=ASSUMED
    )


def base_vision_stage(config: BaseVisionConfig) -> Stage:
    """The stage, from those values alone that decide its result."""
    names = set(BaseVisionConfig.model_fields)
    if config.vision_kind == "autoencoder":
        names.remove("vision_temperature")
    return Stage(
        name="vision",
        corpus="scenes",
        cls="medbench.models.base_vision:BaseVision",
        config=config.model_dump(mode="json", include=names),
        title=f"image encoder on scenes ({config.vision_kind})",
        epochs=config.vision_epochs,
        together=True,
    )


class ConvEncoder(VisionEncoder):
    """A small residual network: a stem and three stages, each at half the side of the one before.

    Four maps, at 1/2, 1/4, 1/8 and 1/16 of the image's side, with ``width``, ``width``,
    2 ``width`` and ``dim`` channels; the vector is the spatial mean of the last. Colour is not
    seen: radiographs have none, and pre-training would lean on that of the scenes.
    """

    def __init__(self, image_size: int, width: int, dim: int) -> None:
        super().__init__()
        self.image_size, self.dim = image_size, dim
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        widths = (width, width, 2 * width, dim)
        self.stages = nn.ModuleList(_Block(given, made) for given, made in pairwise(widths))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in [0, 1] -> float32 [B, dim]."""
        return self.maps(images)[-1].mean(dim=(2, 3))

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The stem's output and the stages', finest first, as the class says."""
        x = self.stem(grey(images) * 2 - 1)
        found = [x]
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return [m.float() for m in found]

    def load(self, state: State) -> None:
        """Load what `BaseVision.state` gave, and freeze. Raises WeightsError naming keys."""
        check_fit("the base image encoder", self.state_dict(), state)
        self.load_state_dict(dict(state))
        self.freeze()


def grey(images: torch.Tensor) -> torch.Tensor:
    """float [B, 3, H, W] -> [B, 1, H, W], the mean of the channels."""
    return images.mean(dim=1, keepdim=True)


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, at half the side."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, made, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(made)
        self.conv2 = nn.Conv2d(made, made, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(made)
        self.shortcut = nn.Conv2d(given, made, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(F.avg_pool2d(x, 2)))


class Decoder(nn.Module):
    """The last map of a `ConvEncoder` -> a grey image [B, 1, H, W]: four times twice the side."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        widths = (dim, 2 * width, width, width, max(8, width // 2))
        parts: list[nn.Module] = []
        for given, made in pairwise(widths):
            parts += [
                nn.ConvTranspose2d(given, made, 2, stride=2, bias=False),
                nn.BatchNorm2d(made),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*parts, nn.Conv2d(widths[-1], 1, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image: torch.Tensor = self.layers(x)
        return image.float()


def two_views(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random views float32 [B, C, H, W] of each image in [0, 1].

    Each a crop of 40 to 100 % of the area, maybe mirrored. SimCLR (Chen et al., 2020, appendix A)
    changes brightness and contrast as well; here they stay, since in a radiograph they are the
    finding, and an encoder taught to overlook them would serve it badly. Drawn from torch's CPU
    generator.
    """
    return _view(images), _view(images)


def _view(images: torch.Tensor) -> torch.Tensor:
    count = len(images)
    side = (0.4 + 0.6 * torch.rand(count)).sqrt()
    mirror = 1 - 2 * (torch.rand(count) < 0.5).float()
    theta = torch.zeros(count, 2, 3)  # output coordinates in [-1, 1] -> input coordinates
    theta[:, 0, 0], theta[:, 1, 1] = side * mirror, side
    theta[:, :, 2] = (1 - side)[:, None] * (2 * torch.rand(count, 2) - 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False).to(images.device)
    view = F.grid_sample(images, grid, align_corners=False, padding_mode="border")
    return view.clamp(0, 1)


class BaseVision:
    """Trains, keeps and loads the base image encoder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = BaseVisionConfig.model_validate(dict(config))
        self.encoder = self._new()

    def _new(self) -> ConvEncoder:
        config = self.config
        return ConvEncoder(config.image_size, config.vision_width, config.vision_dim)

    def stages(self, weights: State | None) -> tuple[Stage, ...]:
        """The one stage, or none when its weights are given."""
        return () if weights is not None else (base_vision_stage(self.config),)

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """Train the encoder, with a head that is thrown away, on every image of the corpus.

        Raises DataError when there are fewer than two images.
        """
        from medbench.data.images import Images

        config = self.config
        samples = [
            s for s in corpus.samples if s.kind == "image" and s.split in (None, "", "train")
        ]
        if len(samples) < 2:
            raise DataError(
                f"Corpus '{corpus.name}' has {len(samples)} images to train on (their split is "
                "empty or 'train'); the image encoder needs at least 2. Add images."
            )
        images = Images(corpus.reader, samples, config.image_size)
        images.warm(run.advance)
        with seeded(run.seed):
            self.encoder = self._new()
            head = self._head()
        encoder = self.encoder.to(run.device)
        head.to(run.device)
        pictures = Pictures(images, run.device)

        def views(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            one, two = two_views(grey(pictures(chosen)))
            with run.autocast():
                return head(encoder(one)), head(encoder(two))

        def contrast(features: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            return info_nce(*features, 1 / config.vision_temperature)

        def restore(chosen: torch.Tensor) -> torch.Tensor:
            batch = pictures(chosen)
            with run.autocast():
                restored = head(encoder.maps(batch)[-1])
            return F.mse_loss(restored, grey(batch))

        recipe = Recipe(
            epochs=config.vision_epochs,
            batch=config.vision_batch,
            lr=config.vision_lr,
            weight_decay=config.vision_weight_decay,
            schedule="cosine",
            warmup=config.vision_warmup,
        )
        parts = Pairs(views, contrast, run)
        descend(
            parts if config.vision_kind == "contrastive" else restore,
            len(samples),
            modules=[encoder, head],
            recipe=recipe,
            run=run,
            stage=stage.name,
            in_parts=parts.in_parts if config.vision_kind == "contrastive" else None,
            pictures=pictures,
        )
        chosen = torch.tensor(evenly(len(samples), _STATISTICS))
        size = min(_FORWARD_BATCH, len(chosen))
        recalibrate(
            encoder,
            (
                pictures(chosen[start : start + size])
                for start in range(0, len(chosen) - size + 1, size)
            ),
        )
        encoder.freeze()

    def _head(self) -> nn.Module:
        dim, width = self.config.vision_dim, self.config.vision_width
        if self.config.vision_kind == "autoencoder":
            return Decoder(dim, width)
        return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def state(self, stage: str) -> dict[str, torch.Tensor]:
        """The encoder alone, contiguous, on the CPU."""
        return {k: v.detach().cpu().contiguous() for k, v in self.encoder.state_dict().items()}

    def load(self, stage: str, state: State) -> None:
        """Load `state` and freeze. Raises WeightsError naming keys that do not fit."""
        self.encoder.load(state)
