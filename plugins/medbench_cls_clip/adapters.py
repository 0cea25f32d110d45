"""Bottleneck adapters behind every block of both towers of a CLIP.

They are attached, not built in: the CLIP keeps its own modules and keys, so that checkpoints of
any layout load, and whatever runs its blocks runs the adapters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Bottleneck(nn.Module):
    """x + up(relu(down(norm(x)))), on the last axis.

    Source: the official code: LayerNorm before, residual around it, ReLU, BERT's initialisation
    (normal weights of a small deviation, no bias).

    Args:
        width: of the last axis.
        size: of the bottleneck.
        std: deviation of the first weights.
    """

    def __init__(self, width: int, size: int, std: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [..., width] -> the same shape."""
        out: torch.Tensor = x + self.up(self.down(self.norm(x)).relu())
        return out


class ConvolutionalBottleneck(Bottleneck):
    """The same at every position of a feature map, as convolutions of 1x1 would do it (assumed:
    the official code has no adapters for ResNets)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [B, width, h, w] -> the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def attach(clip: nn.Module, size: int, std: float) -> nn.ModuleDict:
    """Put a new adapter behind every block of both towers; the caller keeps and trains them.

    Returns:
        Adapters under ``vision`` and ``text``, in the order of the blocks.
    """
    model: Any = clip
    tower = model.visual
    vision = nn.ModuleList()
    blocks: list[Any]
    if hasattr(tower, "transformer"):
        blocks = [*tower.transformer.resblocks]
        vision.extend(Bottleneck(tower.conv1.out_channels, size, std) for _ in blocks)
    else:
        blocks = [b for n in range(1, 5) for b in getattr(tower, f"layer{n}")]
        vision.extend(ConvolutionalBottleneck(b.conv3.out_channels, size, std) for b in blocks)
    width = model.token_embedding.embedding_dim
    text = nn.ModuleList(Bottleneck(width, size, std) for _ in model.transformer.resblocks)
    blocks += model.transformer.resblocks
    for block, adapter in zip(blocks, [*vision, *text], strict=True):
        block.register_forward_hook(_behind(adapter))
    return nn.ModuleDict({"vision": vision, "text": text})


def _behind(adapter: nn.Module) -> Any:
    return lambda _block, _inputs, output: adapter(output)


def norms(module: nn.Module) -> dict[str, nn.Module]:
    """The normalisation layers, by name: what is trained beside adapters. Where a ResNet has
    BatchNorm it stands for the LayerNorm of a transformer (assumed)."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.LayerNorm | _BatchNorm)
    }
