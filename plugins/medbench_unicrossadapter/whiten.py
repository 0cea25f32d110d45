"""The frozen network's maps, whitened by what training studies show.

Features of a network that never saw a radiograph vary in few directions, and those (how bright, how
wide) say little about findings. Attention that starts out even reads the mean over places, in which
these drown all others. Principal components that are scaled to one variance do not drown each
other. A linear probe does as much for itself.
"""

from __future__ import annotations

import torch
from torch import nn

#: Components that vary less than this share of the first one are noise, and are left out.
_LEAST = 1e-3


class Whiten(nn.Module):
    """Maps of one stage, each view of a study by statistics of its own: the mean is taken off, and
    the first ``components`` principal components are scaled to variance 1 and put back in place.
    Nothing of it is trained. Until `fit` it changes nothing.

    Args:
        views: of a study, at most.
        values: of a map, channels times places.
        components: at most.
    """

    mean: torch.Tensor
    basis: torch.Tensor
    spread: torch.Tensor

    def __init__(self, views: int, values: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(views, values))
        self.register_buffer("basis", torch.zeros(views, values, components))
        self.register_buffer("spread", torch.zeros(views, components))

    def fit(self, view: int, maps: torch.Tensor) -> None:
        """Take the statistics of a view from float [N, C, h, w], N studies. Components that N
        studies do not have stay 0; with less than 2 studies there is none. Draws from torch's
        generator."""
        rows = maps.flatten(1).float()
        self.mean[view], self.basis[view], self.spread[view] = 0, 0, 0
        if len(rows) < 2:
            return
        self.mean[view] = rows.mean(0)
        rows = rows - self.mean[view]
        most = min(self.spread.shape[1], len(rows) - 1, rows.shape[1])
        _, scales, basis = torch.svd_lowrank(rows, q=min(most + 16, *rows.shape), niter=2)
        kept = int((scales[:most] > _LEAST * scales[0]).sum())
        self.basis[view, :, :kept] = basis[:, :kept]
        self.spread[view, :kept] = scales[:kept] / len(rows) ** 0.5

    def forward(self, maps: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        """float [R, C, h, w], and of each row which of its study's views it is, int64 [R] -> the
        same shape, variance 1 in the mean over values."""
        if not self.spread.any():
            return maps
        result = torch.empty_like(maps)
        with torch.autocast(maps.device.type, enabled=False):
            for number in range(len(self.spread)):
                chosen = view == number
                basis, spread = self.basis[number], self.spread[number]
                some = spread > 0
                gain = (len(basis) / some.sum().clamp(min=1)) ** 0.5
                scale = torch.where(some, gain / spread.where(some, 1.0), 0.0)
                rows = maps[chosen].flatten(1).float() - self.mean[number]
                white = ((rows @ basis) * scale) @ basis.T
                result[chosen] = white.view(-1, *maps.shape[1:]).to(result)
        return result
