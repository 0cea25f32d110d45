"""Weights: folders in diffusers' layout come in, and go out again."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from roentgen_toys import as_tensor, base_state, toy_config, toy_model

from medbench.errors import WeightsError
from medbench.models.latent_diffusion import LatentDiffusion, LatentDiffusionConfig
from medbench.models.weights import read_weights
from medbench_roentgen.files import FILES, SAFETY_CHECKER, SCHEDULER
from medbench_roentgen.model import RoentGen


def test_a_saved_folder_draws_the_same_image_in_diffusers_and_here(tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    model = toy_model()
    model.model.scaling.fill_(0.7)
    drawn = model.generate_images(["A disc, on the left."], [11])[0]
    model.save_pretrained(tmp_path)

    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        "A disc, on the left.",
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(11),
        output_type="np",
    ).images[0]
    np.testing.assert_allclose(theirs, drawn.permute(1, 2, 0).numpy(), atol=1e-4)

    again = RoentGen(toy_config())
    again.load("weights", read_weights(tmp_path, FILES))
    torch.testing.assert_close(
        again.generate_images(["A disc, on the left."], [11])[0], drawn, atol=1e-5, rtol=0
    )
    assert again.model.schedule["beta_schedule"] == "scaled_linear"
    assert not again.safety_checker


def test_the_published_sizes_are_those_of_stable_diffusion() -> None:
    model = LatentDiffusion(LatentDiffusionConfig(), empty=True)

    def count(part: torch.nn.Module) -> int:
        return sum(p.numel() for p in part.parameters())

    assert count(model.unet) == 859_520_964
    assert count(model.text_encoder) == 123_060_480
    assert count(model.vae) == 83_653_863
    assert all(p.device.type == "meta" for p in model.parameters())
    assert model.config.image_size // model.config.factor == 64


def folder_state() -> dict[str, torch.Tensor]:
    """A folder as it was published long ago, with old names, of a toy."""
    state = base_state(vae_attention=True)
    state.pop("scaling")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if key.startswith("vae.") and ".attentions." in key:
            for new, name in names.items():
                key = key.replace(f".{new}.", f".{name}.")
        old[key.replace("text_encoder.model.", "text_encoder.text_model.")] = value
    old["text_encoder.text_model.embeddings.position_ids"] = torch.arange(16)[None]
    schedule = {"beta_start": 0.001, "beta_end": 0.02, "beta_schedule": "linear"}
    old[SCHEDULER] = as_tensor({"_class_name": "PNDMScheduler", **schedule})
    return old


def test_old_names_are_read_and_the_folders_schedule_is_used() -> None:
    model = RoentGen(toy_config(vae_attention=True))
    model.load("weights", folder_state())
    assert model.model.schedule["beta_end"] == 0.02
    assert float(model.model.scaling) == pytest.approx(0.18215)
    expected = base_state(vae_attention=True)
    found = model.model.kept()
    assert all(torch.equal(found[k], expected[k]) for k in expected if k != "scaling")


def test_a_folder_without_a_scheduler_is_refused() -> None:
    state = folder_state()
    state.pop(SCHEDULER)
    with pytest.raises(WeightsError, match=r"no scheduler/scheduler_config\.json"):
        RoentGen(toy_config(vae_attention=True)).load("weights", state)
    state[SCHEDULER] = as_tensor(json.dumps({"_class_name": "PNDMScheduler"}).encode())
    with pytest.raises(WeightsError, match="says nothing of beta_start"):
        RoentGen(toy_config(vae_attention=True)).load("weights", state)
    state[SCHEDULER] = as_tensor(b"{")
    with pytest.raises(WeightsError, match="is not JSON"):
        RoentGen(toy_config(vae_attention=True)).load("weights", state)


def test_a_safety_checker_is_reported_and_never_run(caplog: pytest.LogCaptureFixture) -> None:
    state = folder_state()
    state[SAFETY_CHECKER] = as_tensor({})
    state["safety_checker.concept_embeds"] = torch.zeros(2)
    model = RoentGen(toy_config(vae_attention=True))
    with caplog.at_level(logging.WARNING, "medbench"):
        model.load("weights", state)
    assert model.safety_checker
    assert "safety checker; it is not run" in caplog.text
    assert float(model.generate_images(["Disc."], [0]).max()) > 0


def test_weights_of_another_size_are_refused_by_name() -> None:
    state = base_state()
    state["unet.conv_in.weight"] = torch.zeros(1)
    state["unet.spare"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"unexpected: unet\.spare.*unet\.conv_in\.weight"):
        RoentGen(toy_config()).load("base", state)


def test_loaded_tensors_are_the_models_own() -> None:
    state = base_state()
    model = RoentGen(toy_config())
    model.load("base", state)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.zero_()
    assert any(bool(value.any()) for value in state.values())
