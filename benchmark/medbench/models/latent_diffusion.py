"""Latent diffusion of any size, of the classes and in the layout that Stable Diffusion v1 has.

An autoencoder turns images into latents, a U-Net takes noise out of them step by step, and the
states of a text encoder say what is to be drawn (Rombach et al., CVPR 2022). The networks and the
schedulers are diffusers' own, the text encoder is transformers'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.nn import functional as F

from medbench.errors import WeightsError
from medbench.models.capabilities import State
from medbench.models.clip import check_fit, published
from medbench.models.pairs import evenly
from medbench.models.tokenizer import END, START, VOCABULARY, tokenize, vocabulary_file

_SD = "CompVis/stable-diffusion-v1-4"

#: ``scheduler/scheduler_config.json`` of Stable Diffusion v1-4: noise in 1,000 steps, whose
#: variances rise from the first value to the last linearly in their square roots.
SCHEDULE: Mapping[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


class LatentDiffusionConfig(BaseModel):
    """Dimensions. The defaults are Stable Diffusion v1-4: a U-Net of 859.5 M parameters, CLIP
    ViT-L/14's text encoder of 123.1 M, an autoencoder of 83.7 M."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int = Field(
        512, ge=32, description="pixels a side", json_schema_extra=published(_SD, 512)
    )
    latent_channels: int = Field(
        4, ge=1, description="of the autoencoder", json_schema_extra=published(_SD, 4)
    )
    vae_channels: tuple[int, ...] = Field(
        (128, 256, 512, 512),
        min_length=2,
        description="of the autoencoder's levels, each at half the side of the one before",
        json_schema_extra=published(_SD, (128, 256, 512, 512)),
    )
    vae_layers: int = Field(
        2, ge=1, description="residual blocks of a level", json_schema_extra=published(_SD, 2)
    )
    vae_attention: bool = Field(
        True,
        description="self-attention in the autoencoder's middle",
        json_schema_extra=published(_SD, True),
    )
    unet_channels: tuple[int, ...] = Field(
        (320, 640, 1280, 1280),
        min_length=2,
        description="of the U-Net's levels; all but the last attend to the text",
        json_schema_extra=published(_SD, (320, 640, 1280, 1280)),
    )
    unet_layers: int = Field(
        2, ge=1, description="residual blocks of a level", json_schema_extra=published(_SD, 2)
    )
    unet_heads: int = Field(
        8, ge=1, description="of its attention", json_schema_extra=published(_SD, 8)
    )
    norm_groups: int = Field(
        32, ge=1, description="of group normalisation", json_schema_extra=published(_SD, 32)
    )
    text_layers: int = Field(
        12, ge=1, description="text encoder", json_schema_extra=published(_SD, 12)
    )
    text_width: int = Field(
        768, ge=8, description="text encoder", json_schema_extra=published(_SD, 768)
    )
    text_heads: int = Field(
        12, ge=1, description="text encoder", json_schema_extra=published(_SD, 12)
    )
    window: int = Field(
        77,
        ge=4,
        description="tokens of a prompt, start and end among them; what is longer is cut",
        json_schema_extra=published(_SD, 77),
    )
    quick_gelu: bool = Field(
        True,
        description="the activation of OpenAI's text encoder",
        json_schema_extra=published(_SD, True),
    )

    @model_validator(mode="after")
    def _fits(self) -> LatentDiffusionConfig:
        if self.text_width % self.text_heads:
            raise ValueError("text_width is not a multiple of text_heads")
        if self.image_size % (self.factor * 2 ** (len(self.unet_channels) - 1)):
            raise ValueError("image_size cannot be halved as often as the levels ask for")
        for name in ("vae_channels", "unet_channels"):
            if any(channels % self.norm_groups for channels in getattr(self, name)):
                raise ValueError(f"{name} are not multiples of norm_groups")
        return self

    @property
    def factor(self) -> int:
        """Pixels of an image on one of its latents, a side."""
        return 1 << (len(self.vae_channels) - 1)


def _diffusers() -> Any:
    """diffusers, whose import takes seconds and whose classes have no types."""
    import diffusers

    return diffusers


class States(NamedTuple):
    """What a text encoder says of B prompts: states float [B, L, W], and bool [B, L] which of them
    the U-Net may attend to; None: all, as in Stable Diffusion, padding included."""

    states: torch.Tensor
    mask: torch.Tensor | None = None

    def rows(self, part: slice) -> States:
        """Those of some prompts."""
        return States(self.states[part], None if self.mask is None else self.mask[part])


class PromptEncoder(nn.Module):
    """Prompts to states. The tokenizer is inside."""

    def forward(self, prompts: Sequence[str]) -> States:
        """B prompts, each cut at the window -> their states."""
        raise NotImplementedError

    def pooled(self, prompts: Sequence[str]) -> torch.Tensor:
        """B prompts -> float32 [B, W], one vector for each, not normalised."""
        raise NotImplementedError

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, start and end among them, were none cut."""
        raise NotImplementedError


class ClipPrompts(PromptEncoder):
    """CLIP's text encoder: the states after its last layer and normalisation, all ``window`` of
    them. What is left of the window is filled with end tokens, as CLIP's tokenizer pads."""

    def __init__(self, config: LatentDiffusionConfig) -> None:
        from transformers import CLIPTextConfig, CLIPTextModel  # takes seconds, so only here

        super().__init__()
        self.window = config.window
        self.model: Any = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=VOCABULARY,
                hidden_size=config.text_width,
                intermediate_size=4 * config.text_width,
                num_hidden_layers=config.text_layers,
                num_attention_heads=config.text_heads,
                max_position_embeddings=config.window,
                hidden_act="quick_gelu" if config.quick_gelu else "gelu",
                bos_token_id=START,
                eos_token_id=END,
                pad_token_id=END,
            )
        )

    def forward(self, prompts: Sequence[str]) -> States:
        """B prompts -> states float [B, window, W], no mask."""
        states, _ = self._states(prompts)
        return States(states)

    def pooled(self, prompts: Sequence[str]) -> torch.Tensor:
        """B prompts -> float32 [B, W]: the state of the end token, as CLIP reads a text."""
        states, ends = self._states(prompts)
        return states[torch.arange(len(ends), device=ends.device), ends].float()

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, start and end among them; counted up to 1,024."""
        return (tokenize(prompts, 1024).argmax(dim=1) + 1).tolist()

    def _states(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = tokenize(prompts, self.window).to(self.model.device)
        ends = tokens.argmax(dim=1)  # the end token has the highest id
        tokens[torch.arange(self.window, device=tokens.device) > ends[:, None]] = END
        return self.model(input_ids=tokens).last_hidden_state, ends


def new_autoencoder(config: LatentDiffusionConfig) -> Any:
    """diffusers' ``AutoencoderKL`` of these dimensions, untrained."""
    levels = len(config.vae_channels)
    return _diffusers().AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.vae_channels,
        layers_per_block=config.vae_layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
        sample_size=config.image_size,
        mid_block_add_attention=config.vae_attention,
    )


class LatentDiffusion(nn.Module):
    """The networks, and what is done with them.

    Attributes:
        vae: diffusers' ``AutoencoderKL``.
        unet: diffusers' ``UNet2DConditionModel``.
        text_encoder: a `PromptEncoder`; CLIP's unless another is put in its place.
        scaling: buffer, 0-d: latents are multiplied by it, so that their deviation is near 1.
        schedule: a scheduler's configuration, as diffusers keeps it.

    Args:
        config: dimensions.
        empty: parameters hold no values (and no memory) until `load` has brought all of them.
    """

    scaling: torch.Tensor

    def __init__(self, config: LatentDiffusionConfig, *, empty: bool = False) -> None:
        from accelerate import init_empty_weights  # takes seconds, so only here

        super().__init__()
        diffusers = _diffusers()
        self.config = config
        self.schedule: dict[str, Any] = dict(SCHEDULE)
        attending = len(config.unet_channels) - 1
        with init_empty_weights(include_buffers=False) if empty else nullcontext():
            self.vae: Any = new_autoencoder(config)
            self.unet: Any = diffusers.UNet2DConditionModel(
                sample_size=config.image_size // config.factor,
                in_channels=config.latent_channels,
                out_channels=config.latent_channels,
                down_block_types=("CrossAttnDownBlock2D",) * attending + ("DownBlock2D",),
                up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * attending,
                block_out_channels=config.unet_channels,
                layers_per_block=config.unet_layers,
                attention_head_dim=config.unet_heads,  # diffusers' name; it is their number
                norm_num_groups=config.norm_groups,
                cross_attention_dim=config.text_width,
            )
            self.text_encoder: PromptEncoder = ClipPrompts(config)
        self.register_buffer("scaling", torch.tensor(float(self.vae.config.scaling_factor)))
        self.requires_grad_(False)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the U-Net is."""
        found: torch.device = self.unet.device
        return found

    # --- images and latents -----------------------------------------------------------------

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in [0, 1] -> latents [B, C, h, w], scaled: their mean, not a draw
        (the autoencoder's own deviation is far below that of the latents)."""
        mean: torch.Tensor = self.vae.encode(images * 2 - 1).latent_dist.mode()
        return mean * self.scaling

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents [B, C, h, w] -> float32 [B, 3, H, W] in [0, 1]."""
        images: torch.Tensor = self.vae.decode(latents / self.scaling).sample
        return (images.float() / 2 + 0.5).clamp(0, 1)

    # --- training ---------------------------------------------------------------------------

    def noise_scheduler(self) -> Any:
        """diffusers' ``DDPMScheduler`` of the schedule: what adds noise in training."""
        return _diffusers().DDPMScheduler.from_config(dict(self.schedule))

    def noise_loss(
        self,
        scheduler: Any,
        latents: torch.Tensor,
        given: States,
        noise: torch.Tensor,
        times: torch.Tensor,
    ) -> torch.Tensor:
        """Mean squared error of the U-Net's answer, a scalar in float32.

        Args:
            scheduler: of `noise_scheduler`.
            latents: scaled, float [B, C, h, w].
            given: what the text encoder says of the B prompts.
            noise: standard normal, as ``latents``.
            times: int64 [B], steps of noise, 0 to 999.

        The target is the noise; or the velocity, where the schedule says ``v_prediction``.
        """
        noisy = scheduler.add_noise(latents, noise, times)
        target = noise
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(latents, noise, times)
        return F.mse_loss(self.predict(noisy, times, given).float(), target.float())

    def predict(self, noisy: torch.Tensor, times: torch.Tensor, given: States) -> torch.Tensor:
        """The U-Net's answer to noisy latents [B, C, h, w] at times [B] or []."""
        answer: torch.Tensor = self.unet(
            noisy,
            times,
            encoder_hidden_states=given.states,
            encoder_attention_mask=given.mask,
        ).sample
        return answer

    # --- drawing ----------------------------------------------------------------------------

    @torch.no_grad()
    def draw(
        self,
        given: States,
        empty: States,
        seeds: Sequence[int],
        *,
        steps: int,
        guidance: float,
        watched: int = 1,
    ) -> list[torch.Tensor]:
        """Latents of B images, by PNDM without its Runge-Kutta start, as Stable Diffusion v1 has
        it: ``steps`` + 1 evaluations of the U-Net.

        Args:
            given: of the B prompts.
            empty: of one empty prompt.
            seeds: B; each fixes the noise that its image starts from.
            steps: of the scheduler.
            guidance: weight g of empty + g (given - empty), the predictions with and without a
                prompt (Ho & Salimans, 2022); at 1 the prediction with it alone, in half the time.
            watched: how many states of the way are wanted, evenly spread.

        Returns:
            ``watched`` times latents [B, C, h, w], the last those of the finished image, those
            before what the U-Net then took for the clean ones.
        """
        scheduler = self._sampler()
        scheduler.set_timesteps(steps)
        side = self.config.image_size // self.config.factor
        shape = (self.config.latent_channels, side, side)
        started = [torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
        latents = torch.stack(started).to(self.device) * scheduler.init_noise_sigma
        both = given
        if guidance != 1:
            both = States(
                torch.cat([empty.states.expand_as(given.states), given.states]),
                None
                if given.mask is None or empty.mask is None
                else torch.cat([empty.mask.expand_as(given.mask), given.mask]),
            )
        seen: list[torch.Tensor] = []
        wanted = set(evenly(len(scheduler.timesteps), watched)[:-1])
        for number, time in enumerate(scheduler.timesteps):
            asked = latents if guidance == 1 else torch.cat([latents, latents])
            answer = self.predict(scheduler.scale_model_input(asked, time), time, both).float()
            if guidance != 1:
                without, with_prompt = answer.chunk(2)
                answer = without + guidance * (with_prompt - without)
            if number in wanted:
                seen.append(_clean(scheduler, latents, answer, time))
            latents = scheduler.step(answer, time, latents).prev_sample
        return [*seen, latents]

    def _sampler(self) -> Any:
        return _diffusers().PNDMScheduler.from_config(dict(self.schedule), skip_prk_steps=True)

    # --- checkpoints ------------------------------------------------------------------------

    def kept(self, *parts: str) -> dict[str, torch.Tensor]:
        """Tensors of some parts (``unet``, ``text_encoder``, ...), or of all, on the CPU."""
        # cloned: tensors that share memory cannot be written
        return {k: v.detach().cpu().clone().contiguous() for k, v in self._of(parts).items()}

    def load(self, state: State, *parts: str) -> None:
        """Load what `kept` gave, in float32. Raises WeightsError naming keys that do not fit."""
        own = self._of(parts)
        check_fit("latent diffusion", own, state)
        # copied: training changes parameters in place, and the caller keeps its tensors
        copies = {k: v.detach().to(own[k].dtype, copy=True) for k, v in state.items()}
        self.load_state_dict(copies, strict=False, assign=True)

    def _of(self, parts: tuple[str, ...]) -> dict[str, torch.Tensor]:
        state = self.state_dict()
        return {k: v for k, v in state.items() if not parts or k.partition(".")[0] in parts}

    def save_pretrained(self, folder: Any) -> None:
        """Write a folder that diffusers' ``StableDiffusionPipeline.from_pretrained`` reads.

        It holds no safety checker. Raises WeightsError for a text encoder other than CLIP's, which
        that pipeline does not have.
        """
        if not isinstance(self.text_encoder, ClipPrompts):
            raise WeightsError(
                "A pipeline of Stable Diffusion v1 has CLIP's text encoder, and this one has "
                "another in its place. Save a variant with CLIP's."
            )
        self.vae.register_to_config(scaling_factor=float(self.scaling))
        _diffusers().StableDiffusionPipeline(
            vae=self.vae,
            unet=self.unet,
            text_encoder=self.text_encoder.model,
            tokenizer=_clip_tokenizer(self.config.window),
            scheduler=self._sampler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)


def _clean(
    scheduler: Any, noisy: torch.Tensor, answer: torch.Tensor, time: torch.Tensor
) -> torch.Tensor:
    """The latents that the noisy ones would be without the noise that was predicted in them."""
    share: torch.Tensor = scheduler.alphas_cumprod[int(time)].to(
        noisy
    )  # of the clean latents' variance
    if scheduler.config.prediction_type == "v_prediction":
        return share.sqrt() * noisy - (1 - share).sqrt() * answer
    return (noisy - (1 - share).sqrt() * answer) / share.sqrt()


def _clip_tokenizer(window: int) -> Any:
    """transformers' own tokenizer of CLIP, from the vocabulary that `medbench.models.tokenizer`
    reads: a pipeline holds one."""
    import gzip

    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer as Tokenizer

    lines = gzip.decompress(vocabulary_file().read_bytes()).decode("utf-8").split("\n")
    merges = [(left, right) for left, right in map(str.split, lines[1 : START - 512 + 1])]
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*characters, *(c + "</w>" for c in characters), *(a + b for a, b in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer: Any = Tokenizer  # whose annotations leave out pairs
    return tokenizer(vocab=vocabulary, merges=merges, model_max_length=window)
