"""Feature maps of each kind of image tower: their shapes, and that they stay in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from medbench.errors import PluginError
from medbench.models.clip import ClipConfig, build_clip, normalise
from medbench.models.patches import patch_features, tower_maps

SMALL: dict[str, Any] = {
    "embed_dim": 24, "image_size": 64, "text_layers": 1, "text_width": 32, "text_heads": 2,
    "context": 8, "quick_gelu": False,
}  # fmt: skip
RESNET = ClipConfig(**SMALL, vision_layers=(1, 2, 1, 1), vision_width=8)
VIT = ClipConfig(**SMALL, vision_layers=2, vision_width=64, vision_patch=8)


def clip_of(config: ClipConfig) -> Any:
    torch.manual_seed(0)
    return build_clip(config)


def coca_tower() -> nn.Module:
    """A vision transformer that pools by attention, into another width, and normalises there."""
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    tower: nn.Module = VisionTransformer(
        64, 8, 64, 2, 2, 4.0, attentional_pool=True, attn_pooler_heads=2, output_dim=24,
        output_tokens=True,
    )  # fmt: skip
    return tower.eval()


def timm_tower(name: str, **options: Any) -> nn.Module:
    from open_clip.timm_model import TimmModel

    torch.manual_seed(0)
    tower: nn.Module = TimmModel(name, 24, 224, **options)
    return tower.eval()


def pair(size: int, corner: tuple[int, int]) -> torch.Tensor:
    """A plain image, and the same with a bright square in one corner: [2, 3, size, size]."""
    images = torch.full((2, 3, size, size), 0.2)
    quarter = size // 4
    y, x = (c * (size - quarter) for c in corner)
    images[1, :, y : y + quarter, x : x + quarter] = 1
    return images


@torch.no_grad()
def test_a_resnet_gives_its_four_stages_and_a_transformer_one_map() -> None:
    images = torch.rand(2, 3, 64, 64)
    shapes = [tuple(m.shape) for m in patch_features(clip_of(RESNET), images)]
    assert shapes == [(2, 32, 16, 16), (2, 64, 8, 8), (2, 128, 4, 4), (2, 256, 2, 2)]
    assert [tuple(m.shape) for m in patch_features(clip_of(VIT), images)] == [(2, 64, 8, 8)]
    assert [tuple(m.shape) for m in tower_maps(coca_tower(), images)] == [(2, 64, 8, 8)]


@torch.no_grad()
def test_the_resnets_last_stage_is_what_it_pools() -> None:
    clip, images = clip_of(RESNET), torch.rand(2, 3, 64, 64)
    last = patch_features(clip, images)[-1]
    torch.testing.assert_close(clip.visual.attnpool(last), clip.encode_image(normalise(images)))


@torch.no_grad()
def test_a_transformers_map_is_its_tokens_row_by_row() -> None:
    clip, images = clip_of(VIT), torch.rand(2, 3, 64, 64)
    clip.visual.output_tokens = True
    _, tokens = clip.visual(normalise(images))  # [B, 64, W], after the last LayerNorm
    (found,) = patch_features(clip, images)
    torch.testing.assert_close(found, tokens.reshape(2, 8, 8, 64).permute(0, 3, 1, 2))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "options", "shapes"),
    [
        ("convnext_atto", {}, [(40, 56), (80, 28), (160, 14), (320, 7)]),
        ("vit_tiny_patch16_224", {"pool": ""}, [(192, 14)]),
    ],
)
def test_timm_towers(name: str, options: dict[str, Any], shapes: list[tuple[int, int]]) -> None:
    images = torch.rand(1, 3, 224, 224)
    found = tower_maps(timm_tower(name, **options), images)
    assert [tuple(m.shape) for m in found] == [(1, d, h, h) for d, h in shapes]


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("tower", ["resnet", "vit", "coca"])
@torch.no_grad()
def test_a_bright_corner_moves_that_corner_most(tower: str, corner: tuple[int, int]) -> None:
    images = pair(64, corner)
    if tower == "coca":
        maps = tower_maps(coca_tower(), images)
    else:
        maps = patch_features(clip_of(RESNET if tower == "resnet" else VIT), images)
    for found in maps:
        moved = (found[1] - found[0]).norm(dim=0)  # [h, w]
        half = moved.shape[-1] // 2
        quadrants = moved.reshape(2, half, 2, half).mean(dim=(1, 3))  # [2, 2]
        assert divmod(int(quadrants.argmax()), 2) == corner, quadrants


def test_maps_are_float32_and_carry_gradients() -> None:
    clip = clip_of(VIT).bfloat16()
    (found,) = tower_maps(clip.visual, torch.rand(1, 3, 64, 64).bfloat16())
    assert found.dtype == torch.float32
    found.sum().backward()
    assert clip.visual.conv1.weight.grad is not None


def test_a_tower_without_maps_is_refused() -> None:
    with pytest.raises(PluginError, match="Linear gives no feature maps"):
        tower_maps(nn.Linear(3, 3), torch.rand(1, 3, 8, 8))
