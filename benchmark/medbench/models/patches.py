"""Feature maps of a CLIP's image tower, for segmentation: what it holds before it pools.

Which maps, by kind of tower:

- ModifiedResNet: the outputs of its four stages, at 1/4, 1/8, 1/16 and 1/32 of the side;
- VisionTransformer: the patch tokens after the last block and the final LayerNorm, at 1/patch. The
  LayerNorm is left out where the tower applies it after an attentional pooling (CoCa), since it
  has another width there;
- timm's networks inside open_clip (ConvNeXt, Swin, ViT, ...): of the intermediate maps of each
  resolution the last, so the stages of a hierarchical network and the last block of a plain one;
  normalised where timm says that its final norm fits.

The class token is in none of them. What a map shows stands where it stands in the image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from medbench.errors import PluginError
from medbench.models.clip import normalise


def patch_features(clip: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Feature maps of a CLIP that was trained with OpenAI's channel statistics.

    Args:
        clip: a CLIP of open_clip, such as `medbench.models.clip.build_clip` gives; its image tower
            is ``clip.visual``. The caller chooses evaluation mode and gradients.
        images: float32 [B, 3, H, W] in [0, 1], H = W the tower's image size, on its device.

    Returns:
        Maps float32 [B, D, h, w], finest first.

    Raises:
        PluginError: a tower that gives no maps.
    """
    return tower_maps(clip.visual, normalise(images))  # type: ignore[arg-type]


def tower_maps(tower: nn.Module, pixels: torch.Tensor) -> list[torch.Tensor]:
    """The same of an image tower alone.

    Args:
        tower: ``visual`` of any open_clip model.
        pixels: float [B, 3, H, W], already normalised as the tower wants it.

    Returns:
        Maps float32 [B, D, h, w], finest first.

    Raises:
        PluginError: a tower that gives no maps.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer

    if not hasattr(tower, "forward_intermediates"):
        raise PluginError(
            f"An image tower of type {type(tower).__name__} gives no feature maps, which "
            "segmentation needs. Choose a model with a ResNet, a vision transformer or a timm "
            "network."
        )
    options: dict[str, Any] = {"intermediates_only": True, "output_fmt": "NCHW"}
    if isinstance(tower, ModifiedResNet):
        options["indices"] = 4  # the last four of the stem and the stages
    elif isinstance(tower, VisionTransformer):
        options |= {"indices": 1, "normalize_intermediates": tower.attn_pool is None}
    else:
        options["normalize_intermediates"] = True
    answer = tower.forward_intermediates(pixels, **options)  # type: ignore[operator]
    maps: list[torch.Tensor] = answer["image_intermediates"]
    last = {found.shape[-2:]: found.float() for found in maps}  # of each resolution the last
    return sorted(last.values(), key=lambda found: -found.shape[-1])
