"""Stages, variants and the encoder of the domain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from roentgen_toys import base_state, toy_config, toy_corpus

from medbench.errors import WeightsError
from medbench.models.base_text import BaseText
from medbench.models.capabilities import Stage
from medbench.models.latent_diffusion import LatentDiffusion
from medbench_roentgen import ROENTGEN
from medbench_roentgen.config import RoentGenConfig
from medbench_roentgen.model import RoentGen
from toy_run import ToyRun

PAPER = RoentGenConfig()


def stages(config: RoentGenConfig) -> list[Stage]:
    return list(RoentGen(config).stages(None))


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
@pytest.mark.parametrize("variant", ["", *(v.name for v in ROENTGEN.variants)])
def test_every_variant_is_a_configuration(preset: str, variant: str) -> None:
    from medbench.plugins import Plugin
    from medbench.run.settings import configure

    chosen = ROENTGEN.variant(variant)
    plugin = Plugin("roentgen", "medbench_roentgen", "medbench", "0")
    config, _, assumed = configure(ROENTGEN, plugin, preset, chosen, {})
    assert isinstance(config, RoentGenConfig)
    assert "train.drop" in assumed
    assert "train.lr" not in assumed


def test_paper_values() -> None:
    assert (PAPER.sampling.steps, PAPER.sampling.guidance, PAPER.window) == (75, 4.0, 77)
    assert (PAPER.train.lr, PAPER.train.batch, PAPER.train.steps) == (5e-5, 256, 60_000)
    assert PAPER.image_size == 512


def test_drawing_decides_no_checkpoint() -> None:
    plain, unprompted = stages(toy_config()), stages(toy_config(sampling__prompted=False))
    assert plain == unprompted
    assert [stage.name for stage in plain] == ["vae", "base", "adapt"]
    assert plain[-1] != stages(toy_config(train__text_encoder=False))[-1]
    assert plain[:2] == stages(toy_config(train__text_encoder=False))[:2]


def test_the_base_variant_trains_nothing_of_its_own() -> None:
    model = RoentGen(toy_config(adapted=False))
    assert [stage.name for stage in model.stages(None)] == ["vae", "base"]
    assert model.parameter_counts()["trainable"] == 0
    assert model.stages(base_state()) == ()


def test_published_weights_are_asked_for_and_never_trained(tmp_path: Path) -> None:
    model = RoentGen(toy_config(start="published"))
    base, own = model.stages(None)
    assert (base.name, base.weights) == ("base", "base")
    assert own.needs == ("base",)
    with pytest.raises(WeightsError, match="--weights roentgen@base=PATH"):
        model.fit(base, toy_corpus(), ToyRun(tmp_path))


def domain_model(**values: object) -> RoentGen:
    config = toy_config(prompts="domain", **values)
    model = RoentGen(config)
    model.load("base", base_state())
    domain = BaseText(config.domain.model_dump())
    model.load("text", domain.state("text"))
    return model


def test_a_domain_encoder_takes_the_place_of_clips(tmp_path: Path) -> None:
    model = domain_model(train__text_encoder=False)
    names = [stage.name for stage in model.stages(None)]
    assert names == ["vae", "base", "text", "adapt"]
    before = model.model.kept()
    assert any(key.startswith("text_encoder.model.encoder.layer.0") for key in before)
    model.fit(Stage(name="adapt", corpus="task", config={}), toy_corpus(), ToyRun(tmp_path))
    after = model.model.kept()
    changed = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert changed == {"unet"}
    assert model.generate_images(["Disc, left."], [1]).shape == (1, 3, 32, 32)
    with pytest.raises(WeightsError, match="has CLIP's text encoder"):
        model.save_pretrained(tmp_path / "folder")


def test_a_domain_encoder_may_be_trained(tmp_path: Path) -> None:
    model = domain_model()
    before = model.encode_texts(["Disc, left."])
    model.fit(Stage(name="adapt", corpus="task", config={}), toy_corpus(), ToyRun(tmp_path))
    assert not torch.allclose(before, model.encode_texts(["Disc, left."]), atol=1e-4)
    again = domain_model()
    again.load("adapt", model.state("adapt"))
    torch.testing.assert_close(
        again.generate_images(["Disc."], [2]), model.generate_images(["Disc."], [2])
    )


def test_padding_of_a_domain_encoder_is_hidden() -> None:
    model = domain_model()
    states, mask = model.model.text_encoder(["Disc, left."])
    assert mask is not None
    assert 2 < int(mask.sum()) < mask.numel()
    noisy = torch.randn(1, 4, 16, 16)
    times = torch.tensor([500])
    seen = model.model.predict(noisy, times, type(model.model.text_encoder([""]))(states, mask))
    other = torch.where(mask[..., None], states, torch.randn_like(states))
    hidden = model.model.predict(noisy, times, type(model.model.text_encoder([""]))(other, mask))
    torch.testing.assert_close(seen, hidden, atol=1e-5, rtol=1e-4)


def test_a_domain_encoder_of_another_width_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"domain\.text_width is not text_width"):
        toy_config(prompts="domain", domain__text_width=32)


def test_configurations_that_train_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="neither U-Net nor text encoder"):
        toy_config(train__unet=False, train__text_encoder=False)
    with pytest.raises(ValidationError, match="not a multiple of accumulation"):
        toy_config(train__accumulation=3)


def test_an_empty_network_takes_no_memory_until_it_is_loaded() -> None:
    model = RoentGen(toy_config())
    assert all(p.device.type == "meta" for p in model.model.parameters())
    model.load("base", base_state())
    assert all(p.device.type == "cpu" for p in model.model.parameters())
    assert isinstance(model.model, LatentDiffusion)
