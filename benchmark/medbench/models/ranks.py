"""Processes that train one stage together, each on its share of every batch (``--devices N``).

Each process holds all weights and starts from the same ones. A batch is cut into equal shares in
order; gradients are averaged over the processes before each step, so all make the same step, and
what is trained is what one process would have trained on the whole batch, but for the order of
additions in floating point, for random draws within a batch (dropout, augmentation: each process
draws for its share), and on a CPU for BatchNorm, whose statistics are those of each share there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

from medbench.errors import UsageError


class Ranks:
    """This process's place among those that train together.

    Args:
        accelerator: an ``accelerate.Accelerator`` of a started process group; None: alone.
        parts: pieces in which each process works through its share of a batch, adding their
            gradients: less memory, the same step.
    """

    def __init__(self, accelerator: Any = None, parts: int = 1) -> None:
        self.accelerator = accelerator
        self.parts = parts

    @property
    def count(self) -> int:
        """How many processes there are."""
        return int(self.accelerator.num_processes) if self.accelerator else 1

    @property
    def rank(self) -> int:
        """Which of them this one is, 0-based. Only 0 writes files."""
        return int(self.accelerator.process_index) if self.accelerator else 0

    def check(self, batch: int, stage: str) -> None:
        """Raises UsageError where a batch cannot be shared equally."""
        if batch % self.count:
            raise UsageError(
                f"Stage '{stage}' has batches of {batch}, which {self.count} devices cannot share "
                "equally. Choose a --devices that divides it, or another batch with --set."
            )

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """Of [B] indices the B / count of this process."""
        each = len(batch) // self.count
        return batch[self.rank * each : (self.rank + 1) * each]

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """[b, ...] of every process -> [B, ...], in order of the batch, with gradients.

        Where every process computes the same scalar of what it gathered, the gradient that reaches
        its own rows is ``count`` times that of the scalar; averaging parameters' gradients over
        the processes, as here, makes that right.
        """
        if not self.accelerator:
            return rows
        return cast(torch.Tensor, _Gather.apply(rows, self))

    def mean(self, value: float) -> float:
        """The mean of a figure over the processes."""
        if not self.accelerator:
            return value
        told = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(told, "mean"))

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, whose backward pass then averages gradients over the processes
        (DistributedDataParallel). On GPUs its BatchNorms use the statistics of the whole batch."""
        if not self.accelerator:
            return module
        if self.accelerator.device.type == "cuda":
            convert = nn.SyncBatchNorm.convert_sync_batchnorm
            module = convert(module)  # type: ignore[no-untyped-call]
        return cast(nn.Module, self.accelerator.prepare_model(module))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """What `wrap` does, for gradients that were computed without it."""
        if self.accelerator:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def wait(self) -> None:
        """Until every process is here."""
        if self.accelerator:
            self.accelerator.wait_for_everyone()


class _Gather(torch.autograd.Function):
    """Rows of every process; back go the gradients that every process has for this one's rows."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks = ranks
        return cast(torch.Tensor, ranks.accelerator.gather(rows.contiguous()))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = ctx.ranks.accelerator.reduce(grads[0].contiguous(), "sum")
        return ctx.ranks.share(total), None


#: One process, whole batches.
ALONE = Ranks()
