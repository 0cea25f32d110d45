"""The slice pooling adapter, and the poolings it is compared with.

Each maps slice embeddings [B, S, D] with a mask [B, S] (True where a slice exists, at least one
per row) to L2-normalised volume embeddings [B, D]. Slices stand in anatomical order; padding may
stand anywhere and changes nothing.

All of them first scale each slice embedding to a mean square of 1 per element, so that they
depend on its direction alone and on no checkpoint's scale.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def unit_scale(embeddings: torch.Tensor) -> torch.Tensor:
    """[..., D] -> the same directions with L2 norm sqrt(D)."""
    directions = F.normalize(embeddings.float(), dim=-1)
    return directions * math.sqrt(embeddings.shape[-1])


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[B, S, D], bool [B, S] -> the mean [B, D] over slices that exist."""
    weight = mask.unsqueeze(-1).to(values.dtype)  # [B, S, 1]
    return (values * weight).sum(1) / weight.sum(1)


def sample_uniformly(mask: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose at most ``most`` of each row's existing slices, evenly spread, ends included.

    Args:
        mask: bool [B, S], at least one True per row.
        most: at least 1; one slice means the middle one.

    Returns:
        Positions int64 [B, P] into S, P = min(most, S), in order, and bool [B, P]: which of them
        are real. Real ones stand first.
    """
    count = mask.sum(1, keepdim=True)  # [B, 1]
    if bool((count == 0).any()):
        raise ValueError("a volume has no slice: its mask is False throughout")
    kept = count.clamp(max=most)  # [B, 1]
    column = torch.arange(min(most, mask.shape[1]), device=mask.device).unsqueeze(0)  # [1, P]
    # Rank j of kept slices -> rank among all; integers only, rounding to nearest.
    gaps = (kept - 1).clamp(min=1)
    rank = (2 * column * (count - 1) + gaps) // (2 * gaps)
    rank = torch.where(kept == 1, (count - 1) // 2, rank)
    order = torch.argsort((~mask).int(), dim=1, stable=True)  # existing slices first, in order
    real = column < kept  # [B, P]
    return order.gather(1, torch.where(real, rank, 0)), real


class SlicePooling(nn.Module):
    """V = MHSA(I + PE): one multi-head self-attention over slices, then their mean.

    The positional encoding is learnable and randomly initialised (RadCLIP, section III-A). It
    counts the slices that are given, from the first on.

    Args:
        dim: D of the slice embeddings.
        heads: of the attention.
        max_slices: number of positions.
        position_std: of the initial encoding.
    """

    def __init__(
        self, dim: int, heads: int = 8, max_slices: int = 64, position_std: float = 0.02
    ) -> None:
        super().__init__()
        self.max_slices = max_slices
        self.positional_encoding = nn.Parameter(torch.randn(max_slices, dim) * position_std)
        self.attention_layer = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """float [B, S, D], bool [B, S] -> float32 [B, D], L2-normalised."""
        x, real, _ = self._inputs(embeddings, mask)  # [B, P, D], [B, P]
        v, _ = self.attention_layer(x, x, x, key_padding_mask=~real, need_weights=False)
        return F.normalize(masked_mean(v, real).float(), dim=-1)

    @torch.no_grad()
    def attention(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The attention each slice received: float32 [B, S], summing to 1 over existing slices.

        The mean over heads and over the slices that attend. Padding, and slices that were not
        sampled, have 0.
        """
        x, real, positions = self._inputs(embeddings, mask)
        _, weights = self.attention_layer(x, x, x, key_padding_mask=~real)  # [B, query P, key P]
        received = masked_mean(weights.float(), real) * real  # [B, key P]
        out = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
        return out.scatter_add(1, positions, received)  # unreal positions add 0

    def _inputs(
        self, embeddings: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sampled slices with their positions added, [B, P, D]; which are real; where they were."""
        positions, real = sample_uniformly(mask, self.max_slices)  # [B, P]
        index = positions.unsqueeze(-1).expand(-1, -1, embeddings.shape[-1])
        x = unit_scale(embeddings.gather(1, index)) + self.positional_encoding[: real.shape[1]]
        return x, real, positions


class MeanPooling(nn.Module):
    """The mean of the slices' directions: nothing to train."""

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """float [B, S, D], bool [B, S] -> float32 [B, D], L2-normalised."""
        return F.normalize(masked_mean(unit_scale(embeddings), mask), dim=-1)


class MaxPooling(nn.Module):
    """The element-wise maximum over slices: nothing to train."""

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """float [B, S, D], bool [B, S] -> float32 [B, D], L2-normalised."""
        values = unit_scale(embeddings).masked_fill(~mask.unsqueeze(-1), float("-inf"))
        return F.normalize(values.amax(dim=1), dim=-1)


class MeanHead(nn.Module):
    """A linear head on the mean of the slices: the control for what volume texts alone teach.

    Trained on the same texts, with the same budget, as `SlicePooling`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, dim)

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """float [B, S, D], bool [B, S] -> float32 [B, D], L2-normalised."""
        values: torch.Tensor = self.head(masked_mean(unit_scale(embeddings), mask))
        return F.normalize(values.float(), dim=-1)
