"""Transformer encoder and decoder layers that normalise first, and positions in two dimensions."""

from __future__ import annotations

import torch
from torch import nn

from medbench_unicrossadapter.attention import Attention, Cache, FeedForward
from medbench_unicrossadapter.config import UniCrossAdapterConfig


def grid_positions(width: int, grid: int) -> torch.Tensor:
    """Sines and cosines of row and column, float32 [grid^2, width]; width is a multiple of 4."""
    quarter = width // 4
    rates = 10_000 ** (-torch.arange(quarter, dtype=torch.float32) / quarter)
    angles = torch.arange(grid, dtype=torch.float32)[:, None] * rates  # [grid, quarter]
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # [grid, width / 2]
    rows = line[:, None].expand(-1, grid, -1)
    columns = line[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=2).reshape(grid * grid, width)


class EncoderLayer(nn.Module):
    """Self-attention, feed-forward."""

    def __init__(self, config: UniCrossAdapterConfig) -> None:
        super().__init__()
        width = config.text_width
        self.own_norm, self.last_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.own = Attention(width, config.heads, config.dropout)
        self.feed_forward = FeedForward(width, config.feed_forward, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """float [B, S, D]; bool [B, 1, 1, S], True where a token exists -> [B, S, D]."""
        h = self.own_norm(x)
        x = x + self.dropout(self.own(h, self.own.keys(h), mask))
        result: torch.Tensor = x + self.dropout(self.feed_forward(self.last_norm(x)))
        return result


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the images, feed-forward."""

    def __init__(self, config: UniCrossAdapterConfig) -> None:
        super().__init__()
        width = config.text_width
        self.own_norm, self.cross_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.last_norm = nn.LayerNorm(width)
        self.own = Attention(width, config.heads, config.dropout)
        self.cross = Attention(width, config.heads, config.dropout)
        self.feed_forward = FeedForward(width, config.feed_forward, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        mask: torch.Tensor,
        cache: Cache,
        name: str,
        watch: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """float [B, T, D], images [B', S, D] with bool [B', 1, 1, S] -> [B, T, D].

        The attention to the images, [B, T, S], is added to ``watch``."""
        h = self.own_norm(x)
        own = cache.grow(name, self.own.keys(h))
        x = x + self.dropout(self.own(h, own, causal=h.shape[1] > 1))
        h = self.cross_norm(x)
        pair = cache.once(name, lambda: self.cross.keys(memory))
        if watch is not None:
            watch.append(self.cross.weights(h, pair, mask))
        x = x + self.dropout(self.cross(h, pair, mask))
        result: torch.Tensor = x + self.dropout(self.feed_forward(self.last_norm(x)))
        return result
