"""The adapters: down to a bottleneck, self-attention, attention to the other encoder, up again.

What comes up is added to the frozen features of a site. The last projection starts at zero, so
that an untrained adapter changes nothing (assumed; so is that the other encoder is seen as its own
projection down leaves it, before its interaction).
"""

from __future__ import annotations

import torch
from torch import nn

from medbench_unicrossadapter.attention import Attention, FeedForward, Pair
from medbench_unicrossadapter.config import UniCrossAdapterConfig


class Interaction(nn.Module):
    """Self-attention, cross-attention, feed-forward, each added and then normalised."""

    def __init__(self, config: UniCrossAdapterConfig) -> None:
        super().__init__()
        width, heads, dropout = config.bottleneck, config.adapter_heads, config.adapter_dropout
        self.own = Attention(width, heads, dropout)
        self.own_norm = nn.LayerNorm(width)
        self.crosses = config.crosses
        if config.crosses:
            self.cross = Attention(width, heads, dropout)
            self.cross_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, config.adapter_hidden, dropout)
        self.last_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: torch.Tensor,
        own: Pair,
        other: Pair | None,
        *,
        own_mask: torch.Tensor | None = None,
        other_mask: torch.Tensor | None = None,
        causal: bool = False,
    ) -> torch.Tensor:
        """float [B, T, k] -> the same; pairs and masks as `Attention.forward` has them."""
        x = self.own_norm(x + self.dropout(self.own(x, own, own_mask, causal)))
        if other is not None:
            x = self.cross_norm(x + self.dropout(self.cross(x, other, other_mask)))
        result: torch.Tensor = self.last_norm(x + self.dropout(self.feed_forward(x)))
        return result


class Site(nn.Module):
    """One adapter of one encoder. From the second on, what the one before gave is added to its
    bottleneck, which is then normalised."""

    down: nn.Module
    up: nn.Module

    def __init__(self, config: UniCrossAdapterConfig, number: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.bottleneck) if number else None
        self.interaction = Interaction(config)

    def _start(self) -> None:
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def _after(self, x: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
        if self.norm is None or before is None:
            return x
        result: torch.Tensor = self.norm(x + before)
        return result


class TextSite(Site):
    """After a text block: linear down and up."""

    def __init__(self, config: UniCrossAdapterConfig, number: int) -> None:
        super().__init__(config, number)
        self.down = nn.Linear(config.text_width, config.bottleneck)
        self.up = nn.Linear(config.bottleneck, config.text_width)
        self._start()

    def narrow(self, x: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
        """float [B, T, width], and the last site's [B, T, k] -> [B, T, k]."""
        return self._after(self.down(x), before)


class ImageSite(Site):
    """After stage 2, 3 or 4 of the ResNet (number 0, 1, 2), whatever its size on the same grid:
    that of stage 3, by a convolution of stride 2, a 1x1 one, or a transposed one of stride 2."""

    def __init__(self, config: UniCrossAdapterConfig, number: int) -> None:
        super().__init__(config, number)
        narrow, wide = config.bottleneck, config.vision_width * 8 * 2**number
        halve, keep, double = (
            lambda i, o: nn.Conv2d(i, o, 2, stride=2),
            lambda i, o: nn.Conv2d(i, o, 1),
            lambda i, o: nn.ConvTranspose2d(i, o, 2, stride=2),
        )
        self.down = (halve, keep, double)[number](wide, narrow)
        self.up = (double, keep, halve)[number](narrow, wide)
        self.grid = config.image_size // 16
        self._start()

    def narrow(self, x: torch.Tensor, before: torch.Tensor | None) -> torch.Tensor:
        """float [R, C, h, w], and the last site's [R, S, k] -> [R, S, k], S = grid^2."""
        return self._after(self.down(x).flatten(2).transpose(1, 2), before)

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        """float [R, S, k] -> [R, C, h, w]."""
        wide: torch.Tensor = self.up(x.transpose(1, 2).reshape(len(x), -1, self.grid, self.grid))
        return wide
