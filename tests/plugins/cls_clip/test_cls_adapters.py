"""Adapters: their number, their place, and that they begin by changing next to nothing."""

from __future__ import annotations

import pytest
import torch
from cls_toys import make, toy_config
from torch import nn
from torch.nn import functional as F

from medbench.models.clip import build_clip, count, image_features, text_features
from medbench.models.contrastive import seeded
from medbench.models.tokenizer import tokenize
from medbench_cls_clip.adapters import Bottleneck, ConvolutionalBottleneck, attach, norms
from medbench_cls_clip.config import ClsClipConfig
from medbench_cls_clip.model import ClsClip

VIT = {"vision_layers": 2, "vision_width": 64, "vision_patch": 16}


def test_numbers_at_the_published_size() -> None:
    with torch.device("meta"):
        plain = ClsClip(ClsClipConfig())
        adapted = ClsClip(ClsClipConfig(trained="adapters"))
    assert plain.parameter_counts() == {"total": 151_277_313, "trainable": 151_277_313}

    def one(width: int) -> int:  # LayerNorm, down, up
        return 2 * width + (width * 256 + 256) + (256 * width + width)

    assert count(adapted.adapters["vision"].parameters()) == 12 * one(768)
    assert count(adapted.adapters["text"].parameters()) == 12 * one(512)
    adapters = 12 * one(768) + 12 * one(512)
    assert adapters == 7_916_544  # "about 7.9 M"
    layers = (2 * 12 + 2) * 2 * 768 + (2 * 12 + 1) * 2 * 512
    assert adapted.parameter_counts() == {
        "total": 151_277_313 + adapters,
        "trainable": adapters + layers,
    }


def test_a_bottleneck_by_hand() -> None:
    with seeded(0):
        layer = Bottleneck(6, 3, 0.5)
        x = torch.randn(2, 4, 6)
    assert layer.down.bias.tolist() == [0, 0, 0]
    normed = (x - x.mean(-1, keepdim=True)) / (
        x.var(-1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    inner = (normed @ layer.down.weight.T).clamp(min=0)
    torch.testing.assert_close(layer(x), x + inner @ layer.up.weight.T)


def test_a_map_is_adapted_position_by_position() -> None:
    with seeded(0):
        layer = ConvolutionalBottleneck(6, 3, 0.5)
        x = torch.randn(2, 6, 4, 5)
    plain = Bottleneck(6, 3, 0.5)
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x)[1, :, 2, 3], plain(x[1, :, 2, 3]))


def test_the_first_weights_are_berts() -> None:
    with seeded(0):
        layer = Bottleneck(512, 256, 0.02)
    for weight in (layer.down.weight.detach(), layer.up.weight.detach()):
        assert float(weight.mean()) == pytest.approx(0, abs=1e-3)
        assert float(weight.std()) == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("tower", [{}, VIT], ids=["resnet", "vit"])
def test_new_adapters_leave_the_output_nearly_as_it_was(tower: dict[str, int]) -> None:
    config = toy_config(**tower)
    with seeded(0):
        clip = build_clip(config)
        images = torch.rand(3, 3, 32, 32)
    tokens = tokenize(["a disc", "no disc at all"], config.context)
    before = image_features(clip, images), text_features(clip, tokens)
    with seeded(1):
        adapters = attach(clip, 8, 0.02)
    after = image_features(clip, images), text_features(clip, tokens)
    for one, two in zip(before, after, strict=True):
        assert not torch.equal(one, two)
        assert float(F.cosine_similarity(one, two).min()) > 0.99
    for parameter in adapters.parameters():
        nn.init.zeros_(parameter)
    nothing = image_features(clip, images), text_features(clip, tokens)
    for one, two in zip(before, nothing, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(("tower", "blocks"), [({}, 4), (VIT, 2)], ids=["resnet", "vit"])
def test_every_block_of_both_towers_has_one_that_learns(tower: dict[str, int], blocks: int) -> None:
    model = make(toy_config(trained="adapters", **tower))
    assert (len(model.adapters["vision"]), len(model.adapters["text"])) == (blocks, 1)
    model.clip.train()
    tokens = tokenize(["a disc", "no disc"], 32)
    loss = image_features(model.clip, torch.rand(4, 3, 32, 32)).pow(3).sum()
    (loss + text_features(model.clip, tokens).pow(3).sum()).backward()
    for name, parameter in model.adapters.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    trained = {n for n, p in model.clip.named_parameters() if p.requires_grad}
    assert trained == {f"{n}.{k}" for n, m in norms(model.clip).items() for k in ("weight", "bias")}
    assert "logit_scale" not in trained
