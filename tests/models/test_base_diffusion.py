"""The base latent diffusion model: its noise, its stages, and what they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medbench.data.samples import Corpus, Pixels, Sample
from medbench.errors import WeightsError
from medbench.models.base_diffusion import (
    BaseDiffusion,
    BaseDiffusionConfig,
    base_diffusion_stages,
)
from medbench.models.capabilities import State
from medbench.models.contrastive import seeded
from medbench.models.latent_diffusion import LatentDiffusion, States
from toy_run import Killed, ToyRun

SMALL: dict[str, Any] = {
    "image_size": 32,
    "latent_channels": 4,
    "vae_channels": (8, 8),
    "vae_layers": 1,
    "vae_attention": False,
    "unet_channels": (16, 16),
    "unet_layers": 1,
    "unet_heads": 2,
    "norm_groups": 4,
    "text_layers": 1,
    "text_width": 16,
    "text_heads": 2,
    "window": 12,
    "vae_crop": 16,
    "vae_batch": 4,
    "base_batch": 4,
}


class Colours:
    """A picture of one colour over another, by number."""

    def __init__(self, root: Path = Path()) -> None: ...

    def samples(self) -> tuple[Sample, ...]:
        return ()

    def pixels(self, sample: Sample) -> Pixels:
        drawn = np.random.default_rng(int(sample.id)).uniform(size=(2, 3)).astype(np.float32)
        picture = np.empty((32, 32, 3), np.float32)
        picture[:16], picture[16:] = drawn
        return picture


CORPUS = Corpus(
    name="scenes",
    samples=[
        Sample(id=str(i), patient=None, files=(), split="train", text=f"scene number {i}")
        for i in range(16)
    ],
    reader=Colours(),
    manifest_sha256="0" * 64,
    track="phantom",
)


def config(**values: Any) -> BaseDiffusionConfig:
    return BaseDiffusionConfig.model_validate({**SMALL, **values})


def small_model() -> LatentDiffusion:
    with seeded(0):
        return LatentDiffusion(config())


def trained(folder: Path, *, kill: int | None = None, vae: State | None = None) -> State:
    """One stage's state: ``vae``, or ``base`` over a given one."""
    stages = base_diffusion_stages(config(vae_epochs=10, base_epochs=2))
    stage = stages[0] if vae is None else stages[1]
    base = BaseDiffusion(stage.config)
    if vae is not None:
        base.load("vae", vae)
    base.fit(stage, CORPUS, ToyRun(folder, kill_after=kill))
    return base.state(stage.name)


def test_the_noise_target_is_that_of_diffusers() -> None:
    """As in diffusers' own training script for text-to-image."""
    from diffusers import DDPMScheduler

    model = small_model()
    drawn = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 4, 16, 16, generator=drawn)
    noise = torch.randn(3, 4, 16, 16, generator=drawn)
    times = torch.tensor([0, 500, 999])
    states = model.text_encoder(["a", "b", "c"])
    theirs = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
    )
    noisy = theirs.add_noise(latents, noise, times)
    answer = model.unet(noisy, times, encoder_hidden_states=states.states).sample
    expected = ((answer - noise) ** 2).mean()
    found = model.noise_loss(model.noise_scheduler(), latents, states, noise, times)
    torch.testing.assert_close(found, expected)

    model.schedule["prediction_type"] = "v_prediction"
    velocity = theirs.get_velocity(latents, noise, times)
    found = model.noise_loss(model.noise_scheduler(), latents, states, noise, times)
    torch.testing.assert_close(found, ((answer - velocity) ** 2).mean())


def test_the_noise_at_a_step_is_that_of_the_closed_form() -> None:
    scheduler = small_model().noise_scheduler()
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), kept, rtol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_leads_to_the_image(kind: str) -> None:
    """Of a U-Net that always knows one image's latents, every step and every strip show them."""
    model = small_model()
    model.schedule["prediction_type"] = kind
    known = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    kept = model.noise_scheduler().alphas_cumprod

    def predict(noisy: torch.Tensor, times: torch.Tensor, given: States) -> torch.Tensor:
        share = kept[int(times)]
        noise = (noisy - share.sqrt() * known) / (1 - share).sqrt()
        if kind == "epsilon":
            return noise
        return share.sqrt() * noise - (1 - share).sqrt() * known

    model.predict = predict  # type: ignore[method-assign]
    given = States(torch.zeros(1, 12, 16))
    seen = model.draw(given, given, [3], steps=20, guidance=4.0, watched=4)
    assert len(seen) == 4
    for latents in seen[:-1]:
        torch.testing.assert_close(latents, known, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(seen[-1], known, atol=0.15, rtol=0.1)


def test_padding_is_filled_as_clips_tokenizer_fills_it() -> None:
    from medbench.models.tokenizer import END, START, tokenize

    model = small_model()
    ids: list[torch.Tensor] = []
    model.text_encoder.model.register_forward_pre_hook(
        lambda _, __, given: ids.append(given["input_ids"]), with_kwargs=True
    )
    states, mask = model.text_encoder(["a boat"])
    assert states.shape == (1, 12, 16)
    assert mask is None
    words = tokenize(["a boat"], 12)[0, 1:3].tolist()
    assert ids[0].tolist() == [[START, *words, *[END] * 9]]


def test_the_autoencoder_learns_to_restore_and_scales_latents_to_one(tmp_path: Path) -> None:
    learnt = small_model()
    learnt.load(trained(tmp_path), "vae", "scaling")
    images = torch.stack([torch.from_numpy(Colours().pixels(s)) for s in CORPUS.samples])
    images = images.permute(0, 3, 1, 2)
    with torch.no_grad():
        error = (learnt.decode(learnt.encode(images)) - images).square().mean()
        assert float(learnt.encode(images).std()) == pytest.approx(1, abs=0.01)
    assert error < 0.75 * images.var()  # the best that one colour for all can do is 1


def test_a_killed_pretraining_ends_in_the_same_weights(tmp_path: Path) -> None:
    vae = trained(tmp_path / "vae")
    whole = trained(tmp_path / "whole", vae=vae)
    with pytest.raises(Killed):
        trained(tmp_path / "broken", kill=6, vae=vae)
    again = trained(tmp_path / "broken", vae=vae)
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert all(torch.equal(whole[key], value) for key, value in vae.items())  # it is frozen
    fresh = small_model().kept()
    learnt = {k.partition(".")[0] for k in whole if not torch.equal(whole[k], fresh[k])}
    assert {"unet", "text_encoder"} <= learnt


def test_the_autoencoder_is_shared_by_models_that_differ_behind_it() -> None:
    vae, base = base_diffusion_stages(config())
    other_vae, other = base_diffusion_stages(config(text_layers=2))
    assert vae == other_vae
    assert base != other
    assert base.needs == ("vae",)
    assert BaseDiffusion(vae.config).config.vae_channels == (8, 8)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValidationError, match="cannot be halved"):
        config(image_size=34)
    with pytest.raises(ValidationError, match="unet_channels are not multiples of norm_groups"):
        config(unet_channels=(16, 18))
    with pytest.raises(ValidationError, match="text_width is not a multiple"):
        config(text_heads=3)


def test_states_that_do_not_fit_are_refused_by_name() -> None:
    model = small_model()
    state = model.kept()
    del state["unet.conv_in.bias"]
    with pytest.raises(WeightsError, match=r"1 missing: unet\.conv_in\.bias"):
        model.load(state)
