"""Images from texts: gradient ascent on the pixels of an image, towards a text's features.

Source: the official code, which has an external module do it: grey pixels themselves are what
AdamW changes, and CLIP sees random views of them. It shows what a CLIP has learnt to look for; it
is no generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from medbench_cls_clip.config import GuidanceConfig

#: float32 [B, 3, H, W] in [0, 1] -> features float [B, D].
Encode = Callable[[torch.Tensor], torch.Tensor]


def draw(
    encode: Encode, texts: torch.Tensor, seeds: Sequence[int], size: int, config: GuidanceConfig
) -> torch.Tensor:
    """Draw one image for each text.

    Args:
        encode: differentiable, of an image tower in evaluation mode.
        texts: float [B, D], L2-normalised; no inference tensor.
        seeds: [B]; each decides the first pixels and the views of its image.
        size: H = W.
        config: steps, rate and views.

    Returns:
        float32 [B, 3, H, W] in [0, 1], grey, on the device of ``texts``.
    """
    parts = [
        _draw(encode, texts[i : i + config.batch], seeds[i : i + config.batch], size, config)
        for i in range(0, len(seeds), config.batch)
    ]
    return torch.cat(parts) if parts else texts.new_zeros(0, 3, size, size)


def _draw(
    encode: Encode, texts: torch.Tensor, seeds: Sequence[int], size: int, config: GuidanceConfig
) -> torch.Tensor:
    # a generator for each image, so that its neighbours in the batch decide nothing
    generators = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]
    start = torch.stack([torch.randn(1, size, size, generator=g) for g in generators])
    pixels = (0.5 + config.noise * start).clamp(0, 1).to(texts.device)  # [B, 1, H, W]
    pixels.requires_grad_(True)
    optimiser = torch.optim.AdamW([pixels], lr=config.lr, weight_decay=0.0)
    target = texts.repeat_interleave(config.crops, dim=0)  # [B * crops, D]
    for _ in range(config.steps):
        drawn = torch.stack([torch.rand(config.crops, 3, generator=g) for g in generators])
        views = _views(pixels, drawn.to(pixels), config.least_area)  # [B * crops, 1, H, W]
        found = F.normalize(encode(views.expand(-1, 3, -1, -1)).float(), dim=-1)
        loss = -(found * target).sum() / config.crops
        # of the pixels alone: the network's own gradients are neither computed nor kept
        (pixels.grad,) = torch.autograd.grad(loss, [pixels])
        optimiser.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    return pixels.detach().expand(-1, 3, -1, -1).contiguous()


def _views(pixels: torch.Tensor, drawn: torch.Tensor, least_area: float) -> torch.Tensor:
    """Square crops, enlarged: float [B, 1, H, W], draws [B, K, 3] in [0, 1) -> [B*K, 1, H, W]."""
    count = drawn.shape[1]
    side, x, y = drawn.flatten(0, 1).unbind(dim=1)  # [B * K] each
    side = (least_area + (1 - least_area) * side).sqrt()  # uniform in area
    none = torch.zeros_like(side)
    theta = torch.stack(
        [
            torch.stack([side, none, (2 * x - 1) * (1 - side)], dim=1),
            torch.stack([none, side, (2 * y - 1) * (1 - side)], dim=1),
        ],
        dim=1,
    )  # [B * K, 2, 3]
    repeated = pixels.repeat_interleave(count, dim=0)
    grid = F.affine_grid(theta, list(repeated.shape), align_corners=False)
    return F.grid_sample(repeated, grid, padding_mode="border", align_corners=False)
