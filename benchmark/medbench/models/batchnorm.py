"""Running statistics of BatchNorm, equal for all networks that are compared frozen."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn


def has_batchnorm(module: nn.Module) -> bool:
    """Whether any layer keeps running statistics."""
    return any(isinstance(m, _BatchNorm) and m.track_running_stats for m in module.modules())


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[torch.Tensor]) -> bool:
    """Set every BatchNorm's running mean and variance to the average over ``batches``.

    The average is exact and cumulative (every batch weighs the same), not an exponential one, so
    it depends on the weights and on the batches alone: give every network that is compared frozen
    the same batches in the same order, all of one size. ``module`` is called on each batch in
    training mode, without gradients; its mode is restored. Without BatchNorm nothing is done, no
    batch is drawn, and False is returned.
    """
    if not has_batchnorm(module):
        return False
    update_bn(batches, module)
    return True


def statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    """The running statistics: buffers of BatchNorm layers, by their key in the state dict."""
    return {
        f"{name}.{key}" if name else key: value
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm)
        for key, value in layer.named_buffers(recurse=False)
    }
