"""Attention whose keys and values can be kept between the steps of decoding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

#: Keys and values, float [B, heads, S, D / heads] each.
Pair = tuple[torch.Tensor, torch.Tensor]


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, S, D] -> [B, heads, S, D / heads]."""
    batch, length, width = x.shape
    return x.view(batch, length, heads, width // heads).transpose(1, 2)


def join_heads(x: torch.Tensor) -> torch.Tensor:
    """[B, heads, S, D / heads] -> [B, S, D]."""
    return x.transpose(1, 2).flatten(2)


class Cache:
    """Keys and values of the tokens read so far, by the name of the layer, and those of images.

    ``length`` is the number of tokens read: 0, or any number after which tokens come one by one.
    """

    def __init__(self) -> None:
        self.length = 0
        self._read: dict[str, Pair] = {}
        self._seen: dict[str, Pair] = {}

    def grow(self, name: str, pair: Pair) -> Pair:
        """Add those of the tokens being read, and give all of them."""
        if name in self._read:
            keys, values = self._read[name]
            pair = torch.cat([keys, pair[0]], dim=2), torch.cat([values, pair[1]], dim=2)
        self._read[name] = pair
        return pair

    def once(self, name: str, make: Callable[[], Pair]) -> Pair:
        """Those that never change, made when first asked for."""
        if name not in self._seen:
            self._seen[name] = make()
        return self._seen[name]

    def reorder(self, rows: torch.Tensor) -> None:
        """Row i goes on from what was row ``rows[i]``; int64 [B]."""
        for name, (keys, values) in self._read.items():
            self._read[name] = keys[rows], values[rows]


class Attention(nn.Module):
    """Multi-head attention, with as many parameters as PyTorch's: 4 (width^2 + width)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.pair = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys(self, source: torch.Tensor) -> Pair:
        """float [B, S, width] -> keys and values."""
        keys, values = self.pair(source).chunk(2, dim=-1)
        return split_heads(keys, self.heads), split_heads(values, self.heads)

    def forward(
        self, x: torch.Tensor, pair: Pair, mask: torch.Tensor | None = None, causal: bool = False
    ) -> torch.Tensor:
        """float [B, T, width] attends to a pair of S -> the same shape.

        ``mask`` is bool [B, 1, 1, S], True where a key exists. ``causal`` (S = T): none is later.
        ``x`` may have a multiple of the pair's rows, K after K: the beams of one study.
        """
        rows = len(pair[0])
        query = split_heads(self.query(x.reshape(rows, -1, x.shape[-1])), self.heads)
        found = F.scaled_dot_product_attention(
            query,
            *pair,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal,
        )
        result: torch.Tensor = self.out(join_heads(found)).reshape(x.shape)
        return result

    def weights(self, x: torch.Tensor, pair: Pair, mask: torch.Tensor) -> torch.Tensor:
        """The attention that `forward` pays, mean over heads: float32 [B, T, S], rows sum to 1."""
        query, keys = split_heads(self.query(x), self.heads), pair[0]
        scores = query @ keys.transpose(-1, -2) / keys.shape[-1] ** 0.5
        paid: torch.Tensor = scores.masked_fill(~mask, float("-inf")).float().softmax(-1)
        return paid.mean(1)


class FeedForward(nn.Sequential):
    """Linear, ReLU, dropout, linear: 2 width hidden + hidden + width parameters."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
