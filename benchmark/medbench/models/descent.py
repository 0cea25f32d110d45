"""Plain stochastic gradient training of modules by a loss over samples of a corpus."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from medbench.errors import CellError
from medbench.models.capabilities import FitRun
from medbench.models.contrastive import Recipe, epoch_order


def descend(
    loss: Callable[[torch.Tensor], torch.Tensor],
    count: int,
    *,
    modules: Sequence[nn.Module],
    recipe: Recipe,
    run: FitRun,
    stage: str,
) -> list[float]:
    """Train ``modules`` in place with AdamW; they are in evaluation mode afterwards.

    Args:
        loss: int64 [B] on the CPU, indices of samples -> a scalar. What it draws, it draws from
            torch's generator, which ``run.epochs`` seeds for each epoch.
        count: number of samples.
        modules: their parameters are trained, and they and the optimiser saved after each epoch.
        recipe: see `Recipe`; its temperature and ``decay_vectors`` are not used.
        run: device, seed, resume, progress.
        stage: for progress and errors.

    Returns:
        The mean loss of each epoch trained here (not of those done before a kill).

    Raises:
        CellError: the loss is not a finite number.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters,
        lr=recipe.lr,
        betas=recipe.betas,
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    batch = min(recipe.batch, count)
    steps = count // batch
    losses: list[float] = []
    for epoch in run.epochs(recipe.epochs, *modules, optimiser, title=stage):
        for module in modules:
            module.train()
        order = epoch_order(run.seed, epoch, count)
        total = 0.0
        for step in range(steps):
            rate = recipe.rate(epoch * steps + step, recipe.epochs * steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            found = loss(order[step * batch : (step + 1) * batch])
            value = float(found.detach())
            if not math.isfinite(value):
                raise CellError(
                    f"The loss of stage '{stage}' became {value} in epoch {epoch + 1}, step "
                    f"{step + 1} of {steps}, at learning rate {rate:g}. Lower the learning rate "
                    "with --set, or use --precision fp32."
                )
            optimiser.zero_grad(set_to_none=True)
            found.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += value
            run.advance((step + 1) * batch, steps * batch, loss=value)
        losses.append(total / steps)
    for module in modules:
        module.eval()
    return losses
