"""The general-domain latent diffusion model that stands where Stable Diffusion v1-4 stands.

It is pre-trained on the dataset ``scenes``: first the autoencoder, on its images; then U-Net and
text encoder together, on images and captions, as the first latent diffusion from texts was
(Rombach et al., CVPR 2022, section 4.3.1; Stable Diffusion took CLIP's text encoder as it was).
Both stages are the same for every plugin that asks for them with the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from medbench.data.samples import Corpus
from medbench.models.capabilities import FitRun, Stage, State
from medbench.models.clip import ASSUMED
from medbench.models.contrastive import seeded
from medbench.models.descent import Recipe, descend
from medbench.models.latent_diffusion import (
    LatentDiffusion,
    LatentDiffusionConfig,
    new_autoencoder,
)
from medbench.models.pairs import evenly, texts_of, training_pairs
from medbench.models.prefetch import Pictures, ahead

#: Logarithm of the variance of latents around their mean at the start. At 0, as it would be drawn,
#: they are mostly noise, and the decoder learns nothing from them for long.
_FIRST_LOG_VARIANCE = -5.0
#: Images over which the deviation of latents is taken.
_MEASURED = 256
#: Images at a time where only forward passes are made.
_FORWARD_BATCH = 32


class BaseDiffusionConfig(LatentDiffusionConfig):
    """A latent diffusion model and how it is pre-trained where no published weights are given.

    None of it comes from a paper but ``base_drop``: at the published size the weights are Stable
    Diffusion's.
    """

    vae_crop: int = Field(
        32,
        ge=8,
        description="pixels a side of the crops that the autoencoder is trained on",
        json_schema_extra=ASSUMED,
    )
    vae_epochs: int = Field(1, ge=1, description="passes over scenes", json_schema_extra=ASSUMED)
    vae_batch: int = Field(8, ge=1, description="crops in a batch", json_schema_extra=ASSUMED)
    vae_lr: float = Field(
        3e-3, gt=0, description="peak rate of AdamW, cosine to 0", json_schema_extra=ASSUMED
    )
    vae_divergence: float = Field(
        1e-6,
        ge=0,
        description="weight of the Kullback-Leibler divergence to a standard normal (Rombach et "
        "al., 2022, appendix G, say that it is small)",
        json_schema_extra=ASSUMED,
    )
    base_epochs: int = Field(2, ge=1, description="passes over scenes", json_schema_extra=ASSUMED)
    base_batch: int = Field(32, ge=1, description="images in a batch", json_schema_extra=ASSUMED)
    base_lr: float = Field(
        1e-3, gt=0, description="peak rate of AdamW, cosine to 0", json_schema_extra=ASSUMED
    )
    base_warmup: float = Field(
        0.1, ge=0, lt=1, description="share of steps with a rising rate", json_schema_extra=ASSUMED
    )
    base_drop: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of captions left out, for guidance (Stable Diffusion v1-4: 0.1)",
        json_schema_extra=ASSUMED,
    )


_VAE = (
    "image_size", "latent_channels", "vae_channels", "vae_layers", "vae_attention", "norm_groups",
    "vae_crop", "vae_epochs", "vae_batch", "vae_lr", "vae_divergence",
    "unet_channels",  # which decide what image_size may be
)  # fmt: skip


def base_diffusion_stages(config: BaseDiffusionConfig) -> tuple[Stage, Stage]:
    """Autoencoder (``vae``) and the whole model (``base``), from those values alone that decide
    each. The second's state holds the first's."""
    names = set(BaseDiffusionConfig.model_fields)
    values = config.model_dump(mode="json", include=names)
    owner = "medbench.models.base_diffusion:BaseDiffusion"
    vae = Stage(
        name="vae",
        corpus="scenes",
        cls=owner,
        config={name: values[name] for name in _VAE},
        title="autoencoder on scenes",
        epochs=config.vae_epochs,
        together=True,
    )
    base = Stage(
        name="base",
        corpus="scenes",
        cls=owner,
        config=values,
        needs=("vae",),
        title="latent diffusion on scenes",
        epochs=config.base_epochs,
        together=True,
    )
    return vae, base


class BaseDiffusion:
    """Trains, keeps and loads the general-domain latent diffusion model."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        # Of the stage that trains the autoencoder alone the other values are not given. They stand
        # at Stable Diffusion's: the networks are not built before it is known which are needed.
        self.config = BaseDiffusionConfig.model_validate(dict(config))
        self.model: LatentDiffusion | None = None
        self._autoencoder: State = {}

    def stages(self, weights: State | None) -> tuple[Stage, ...]:
        """Both stages, or none when weights are given."""
        return () if weights is not None else base_diffusion_stages(self.config)

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """Train one stage in place on the training part of the corpus."""
        if stage.name == "vae":
            self._fit_vae(corpus, run)
        else:
            self._fit_base(corpus, run)

    def _fit_vae(self, corpus: Corpus, run: FitRun) -> None:
        """Restore random crops: squared error and a little of the divergence."""
        from medbench.data.images import Images

        config = self.config
        images = Images(corpus.reader, training_pairs(corpus, "image"), config.image_size)
        images.warm(run.advance)
        self.model = model = LatentDiffusion(config, empty=True)
        with seeded(run.seed):
            model.vae = new_autoencoder(config)
            _begin(model)
        model.scaling = model.scaling.to(run.device)
        vae = model.vae.to(run.device)
        pictures = Pictures(images, run.device)

        def restore(chosen: torch.Tensor) -> torch.Tensor:
            crops = _crops(pictures(chosen), config.vae_crop) * 2 - 1
            with run.autocast():
                found = vae.encode(crops).latent_dist
                drawn = found.mean + found.std * torch.randn(found.mean.shape).to(run.device)
                restored = vae.decode(drawn).sample
            divergence = found.kl().mean() / crops[0].numel()
            loss: torch.Tensor = (
                F.mse_loss(restored.float(), crops) + config.vae_divergence * divergence
            )
            return loss

        descend(
            restore,
            len(images),
            modules=[vae],
            recipe=Recipe(
                epochs=config.vae_epochs,
                batch=config.vae_batch,
                lr=config.vae_lr,
                schedule="cosine",
                warmup=0.1,
            ),
            run=run,
            stage="vae",
            pictures=pictures,
        )
        vae.requires_grad_(False)
        model.scaling.fill_(1.0)
        chosen = evenly(len(images), _MEASURED)
        model.scaling.fill_(1 / float(latents_of(model, images, chosen, run).std()))

    def _fit_base(self, corpus: Corpus, run: FitRun) -> None:
        """Noise is predicted in latents that are computed once; the text encoder learns, too."""
        from medbench.data.images import Images

        config = self.config
        samples = training_pairs(corpus, "image")
        captions = texts_of(samples)
        images = Images(corpus.reader, samples, config.image_size)
        with seeded(run.seed):
            self.model = model = LatentDiffusion(config)
        model.load(self._autoencoder, "vae", "scaling")
        model.to(run.device)
        latents = latents_of(model, images, list(range(len(images))), run)
        scheduler = model.noise_scheduler()
        steps = scheduler.config.num_train_timesteps
        model.unet.requires_grad_(True)
        model.text_encoder.requires_grad_(True)

        def predict(chosen: torch.Tensor) -> torch.Tensor:
            noise = torch.randn(len(chosen), *latents.shape[1:])
            times = torch.randint(steps, (len(chosen),))
            kept = torch.rand(len(chosen)) >= config.base_drop
            prompts = [captions[i] if k else "" for i, k in zip(chosen, kept, strict=True)]
            with run.autocast():
                return model.noise_loss(
                    scheduler,
                    latents[chosen].to(run.device),
                    model.text_encoder(prompts),
                    noise.to(run.device),
                    times.to(run.device),
                )

        descend(
            predict,
            len(images),
            modules=[model.unet, model.text_encoder],
            recipe=Recipe(
                epochs=config.base_epochs,
                batch=config.base_batch,
                lr=config.base_lr,
                schedule="cosine",
                warmup=config.base_warmup,
            ),
            run=run,
            stage="base",
        )
        model.requires_grad_(False)

    def state(self, stage: str) -> dict[str, torch.Tensor]:
        """Of ``vae`` the autoencoder and the scaling, of ``base`` everything."""
        assert self.model is not None
        return self.model.kept("vae", "scaling") if stage == "vae" else self.model.kept()

    def load(self, stage: str, state: State) -> None:
        """Load `state`. Raises WeightsError naming keys that do not fit."""
        if stage == "vae":
            self._autoencoder = state
        else:
            self.model = LatentDiffusion(self.config, empty=True)
            self.model.load(state)


@torch.no_grad()
def latents_of(model: LatentDiffusion, images: Any, rows: list[int], run: FitRun) -> torch.Tensor:
    """Scaled latents float32 [R, C, h, w], on the CPU, of some of `medbench.data.images.Images`."""
    from medbench.data.images import to_unit

    parts, done = [], 0
    batches = (
        images.stack(rows[start : start + _FORWARD_BATCH])
        for start in range(0, len(rows), _FORWARD_BATCH)
    )
    for batch in ahead(batches, run.device):
        with run.autocast():
            parts.append(model.encode(to_unit(batch)).float().cpu())
        done += len(batch)
        run.advance(done, len(rows))
    return torch.cat(parts)


@torch.no_grad()
def _begin(model: LatentDiffusion) -> None:
    """Draw an autoencoder that passes signals on from the start.

    PyTorch's own initialisation shrinks a signal at each convolution until biases are all that
    normalisation finds; so a short training would learn brightness and nothing else. Here no
    convolution has a bias, none changes the deviation of what it is given, and residual blocks add
    nothing yet. Drawn from torch's generator.
    """
    vae, channels = model.vae, model.config.latent_channels
    for name, module in vae.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith(".conv2"):
                nn.init.zeros_(module.weight)
    nn.init.zeros_(vae.quant_conv.weight[channels:])
    vae.quant_conv.bias[channels:] = _FIRST_LOG_VARIANCE


def _crops(images: torch.Tensor, side: int) -> torch.Tensor:
    """A square of each image [B, 3, H, W] at a place of its own; drawn from torch's generator."""
    room = images.shape[-1] - side
    if room <= 0:
        return images
    places = torch.randint(room + 1, (len(images), 2)).tolist()
    return torch.stack(
        [i[:, y : y + side, x : x + side] for i, (y, x) in zip(images, places, strict=True)]
    )
