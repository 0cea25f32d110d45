"""Maps of the neck, standardised over studies.

Without it what tells studies apart is lost early: two views of a chest differ far more from each
other than two chests do, and so do two places of a view, so that most of what BatchNorm, whose
statistics are over views and places, leaves of a channel says which view and which place it is.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Standardise(nn.Module):
    """Each value of each view of a study to mean 0 and variance 1 over the studies of a batch, in
    evaluation over those seen in training. It has statistics, but nothing that is trained.

    Args:
        views: of a study, at most.
        values: of a view.
    """

    def __init__(self, views: int, values: int) -> None:
        super().__init__()
        self.views = nn.ModuleList(nn.BatchNorm1d(values, affine=False) for _ in range(views))

    def forward(self, x: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
        """float [R, ...], and of each row which of its study's views it is, int64 [R] -> the same
        shape. A view that a batch has once has no variance there: it is seen as in evaluation.
        """
        rows = x.flatten(1)
        result = torch.empty_like(rows)
        for number, norm in enumerate(self.views):
            chosen = view == number
            assert isinstance(norm, nn.BatchNorm1d)
            if norm.training and int(chosen.sum()) == 1:
                found = F.batch_norm(rows[chosen], norm.running_mean, norm.running_var)
            elif chosen.any():
                found = norm(rows[chosen])
            else:
                continue
            result[chosen] = found.to(result)
        return result.view_as(x)
