"""CLIP of any size, its parameter counts, and the checkpoint layouts it is published in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medbench.errors import WeightsError
from medbench.models.clip import (
    ClipConfig,
    build_clip,
    count,
    embed_texts,
    image_features,
    load_clip,
    normalise,
    text_features,
)
from medbench.models.presets import GENERAL_CLIP
from medbench.models.tokenizer import tokenize
from medbench.models.weights import read_weights

VIT = ClipConfig(
    embed_dim=24,
    image_size=32,
    vision_layers=2,
    vision_width=64,
    vision_patch=8,
    text_layers=2,
    text_width=32,
    text_heads=2,
    context=20,
)
RESNET = ClipConfig(
    embed_dim=24,
    image_size=32,
    vision_layers=(1, 1, 1, 1),
    vision_width=8,
    text_layers=1,
    text_width=32,
    text_heads=2,
    context=20,
    quick_gelu=False,
)
TEXTS = ["Chest CT, nodule", "a much longer text than the other, with an end", "x"]


def hugging_face(config: ClipConfig = VIT) -> Any:
    """A small random ``transformers.CLIPModel`` of the same dimensions."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(3)
    model = CLIPModel(
        CLIPConfig(
            projection_dim=config.embed_dim,
            vision_config={
                "hidden_size": config.vision_width,
                "intermediate_size": 4 * config.vision_width,
                "num_hidden_layers": config.vision_layers,
                "num_attention_heads": config.vision_width // 64,
                "image_size": config.image_size,
                "patch_size": config.vision_patch,
                "projection_dim": config.embed_dim,
            },
            text_config={
                "hidden_size": config.text_width,
                "intermediate_size": 4 * config.text_width,
                "num_hidden_layers": config.text_layers,
                "num_attention_heads": config.text_heads,
                "max_position_embeddings": config.context,
                "vocab_size": 49408,
                "projection_dim": config.embed_dim,
            },
        )
    ).eval()
    for p in model.parameters():  # biases and gains start at 0 and 1 and would hide a mix-up
        nn.init.normal_(p, std=0.1)
    return model


@torch.no_grad()
def features(clip: nn.Module, config: ClipConfig) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 3, config.image_size, config.image_size, generator=generator)
    return image_features(clip, images), embed_texts(clip, TEXTS, config.context)


def test_hugging_face_checkpoint_gives_its_features() -> None:
    model = hugging_face()
    clip = build_clip(VIT)
    load_clip(clip, model.state_dict())
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = model.visual_projection(
            model.vision_model(pixel_values=normalise(images)).pooler_output
        )
        tokens = tokenize(TEXTS, VIT.context)
        text = model.text_projection(model.text_model(input_ids=tokens).pooler_output)
        ours_text = text_features(clip, tokens)
    ours, normalised = features(clip, VIT)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours_text, text, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(normalised, nn.functional.normalize(text, dim=-1))


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
def test_wrapped_and_with_buffers(prefix: str) -> None:
    model = hugging_face()
    state = dict(model.state_dict())
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    state["text_model.embeddings.position_ids"] = torch.arange(20)[None]
    state["logit_scale"] = state["logit_scale"].reshape(1)
    one, two = build_clip(VIT), build_clip(VIT)
    load_clip(one, model.state_dict())
    load_clip(two, {prefix + key: value for key, value in state.items()})
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key


def test_save_pretrained_folder(tmp_path: Path) -> None:
    model = hugging_face()
    model.save_pretrained(tmp_path)
    one, two = build_clip(VIT), build_clip(VIT)
    load_clip(one, model.state_dict())
    load_clip(two, read_weights(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_open_clip_round_trip(config: ClipConfig, prefix: str, tmp_path: Path) -> None:
    one, two = build_clip(config), build_clip(config)
    extras = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(20)}
    state = {prefix + k: v for k, v in (one.state_dict() | extras).items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "clip.pt")
    load_clip(two, read_weights(tmp_path / "clip.pt"))
    for a, b in zip(features(one, config), features(two, config), strict=True):
        assert torch.equal(a, b)


def test_text_features_equal_open_clip() -> None:
    clip: Any = build_clip(VIT)
    tokens = tokenize(TEXTS, VIT.context)
    with torch.no_grad():
        expected = clip.encode_text(tokens)
        torch.testing.assert_close(text_features(clip, tokens), expected, atol=1e-6, rtol=1e-5)
    assert embed_texts(clip, [], VIT.context).shape == (0, VIT.embed_dim)


def test_unfit_weights_name_the_keys() -> None:
    clip = build_clip(VIT)
    before = {k: v.clone() for k, v in clip.state_dict().items()}
    state = dict(hugging_face().state_dict())
    state.pop("vision_model.encoder.layers.1.self_attn.k_proj.weight")
    state["something.else"] = torch.zeros(2)
    state["text_projection.weight"] = torch.zeros(7, 32)
    with pytest.raises(WeightsError) as caught:
        load_clip(clip, state)
    message = str(caught.value)
    assert "1 missing: visual.transformer.resblocks.1.attn.in_proj_weight" in message
    assert "1 unexpected: something.else" in message
    assert "text_projection (32, 7), not (32, 24)" in message
    assert "\n" not in message
    assert all(torch.equal(before[k], v) for k, v in clip.state_dict().items())


def test_a_long_list_of_keys_is_counted() -> None:
    with pytest.raises(WeightsError, match=re.compile(r"\d\d missing: (\S+, ){5}\.\.\.")):
        load_clip(build_clip(RESNET), {"logit_scale": torch.zeros(())})


@pytest.mark.parametrize(
    ("preset", "millions"), [("paper", 427.6), ("tiny", 8.1)], ids=["paper", "tiny"]
)
def test_parameter_count(preset: str, millions: float) -> None:
    dims = {k: v for k, v in GENERAL_CLIP[preset].items() if k in ClipConfig.model_fields}
    with torch.device("meta"):
        clip = build_clip(ClipConfig(**dims))
    assert count(clip.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    if preset == "tiny":
        assert count(clip.visual.parameters()) / 1e6 == pytest.approx(1.4, abs=0.05)  # type: ignore[operator,union-attr]


def test_paper_dimensions_are_the_defaults() -> None:
    assert ClipConfig(**GENERAL_CLIP["paper"]) == ClipConfig()
