"""Plain stochastic gradient training of modules by a loss over samples of a corpus."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from medbench.errors import CellError
from medbench.models.capabilities import FitRun
from medbench.models.prefetch import Pictures


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast to train. All of it decides the result.

    Attributes:
        epochs: passes over the corpus.
        batch: samples in a batch; all of them, when there are fewer. The last, incomplete batch of
            an epoch is left out, as each epoch has its own order.
        lr: AdamW's peak learning rate.
        weight_decay: AdamW's, on every parameter, or on matrices only with ``decay_vectors``
            False (CLIP leaves out gains and biases).
        betas, eps: AdamW's. With "onecycle" the first beta is the schedule's.
        schedule: "constant"; or "cosine" down to 0; or "onecycle", what PyTorch's OneCycleLR does
            when nothing but its peak and its rise is chosen: from 1/25 of the peak up, then down
            to 1/250,000 of it, both along a cosine, the first beta going from 0.95 to 0.85 and
            back.
        warmup: share of all steps over which the rate first rises: from 0, or from where "onecycle"
            starts.
        temperature: of a contrastive loss, fixed; with a learnable scale, or another loss, unused.
    """

    epochs: int
    batch: int
    lr: float
    weight_decay: float = 0.01
    decay_vectors: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    warmup: float = 0.0
    temperature: float = 0.07

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, of ``steps`` in all."""
        if self.schedule == "onecycle":
            start = self.lr / 25
            return self._one_cycle(step, steps, start, self.lr, start / 1e4)
        rising = self.warmup * steps
        if step + 1 < rising:
            return self.lr * (step + 1) / rising
        if self.schedule == "constant":
            return self.lr
        done = (step - rising) / max(1.0, steps - rising)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))

    def betas_at(self, step: int, steps: int) -> tuple[float, float]:
        """AdamW's betas at a step, of ``steps`` in all."""
        if self.schedule != "onecycle":
            return self.betas
        return self._one_cycle(step, steps, 0.95, 0.85, 0.95), self.betas[1]

    def _one_cycle(self, step: int, steps: int, start: float, peak: float, end: float) -> float:
        """From ``start`` to ``peak`` and on to ``end``, each way along half a cosine."""
        top = self.warmup * steps - 1
        if step <= top:
            begin, aim, done = start, peak, step / top if top else 1.0
        else:
            begin, aim = peak, end
            done = min(1.0, (step - max(0.0, top)) / max(1.0, steps - 1 - max(0.0, top)))
        return aim + (begin - aim) * 0.5 * (1 + math.cos(math.pi * done))


def epoch_order(seed: int, epoch: int, count: int) -> torch.Tensor:
    """A permutation int64 [count] that depends on (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def descend(
    loss: Callable[[torch.Tensor], torch.Tensor],
    count: int,
    *,
    modules: Sequence[nn.Module],
    recipe: Recipe,
    run: FitRun,
    stage: str,
    begin: Callable[[int], None] | None = None,
    in_parts: Callable[[Sequence[torch.Tensor]], torch.Tensor] | None = None,
    pictures: Pictures | None = None,
) -> list[float]:
    """Train ``modules`` in place with AdamW; they are in evaluation mode afterwards.

    Where memory ends (torch.OutOfMemoryError), each batch is from then on worked through in twice
    as many parts, and the user is told: the step stays that of the whole batch, but for rounding,
    random draws, and BatchNorm, which then sees parts. With several `Ranks`, on which one process
    cannot know that another's memory ended, that is an error.

    Args:
        loss: int64 [B] on the CPU, indices of samples -> a scalar, the mean over them. What it
            draws, it draws from torch's generator, which ``run.epochs`` seeds for each epoch. With
            several `Ranks` it gets this process's share; its mean over the processes is what is
            minimised.
        count: number of samples.
        modules: what is trained (their parameters that require a gradient), put into training mode
            and, with the optimiser, saved after each epoch.
        recipe: see `Recipe`; its temperature is the loss's to use.
        run: device, seed, resume, progress.
        stage: for progress and errors.
        begin: called with each epoch's number before its first step, for augmentation that draws
            from (seed, epoch).
        in_parts: the pieces of a batch -> the batch's loss, having added its gradients to those of
            the parameters, for a loss that is not the mean over the pieces.
        pictures: where the loss takes pictures from: told what it will be asked for in an epoch.

    Returns:
        The mean loss of each epoch trained here (not of those done before a kill).

    Raises:
        CellError: the loss is not a finite number, or one sample does not fit into memory.
        UsageError: the processes cannot share a batch equally.
    """
    optimiser = _optimiser(modules, recipe)
    batch = min(recipe.batch, count)
    steps = count // batch
    run.ranks.check(batch, stage)
    if run.device.type == "cuda":  # convolutions there are faster so
        for module in modules:
            module.to(memory_format=torch.channels_last)
    gradients = _Gradients(loss, in_parts, modules, run, stage)
    losses: list[float] = []
    with nullcontext() if pictures is None else closing(pictures):
        for epoch in run.epochs(recipe.epochs, *modules, optimiser, title=stage):
            for module in modules:
                module.train()
            if begin is not None:
                begin(epoch)
            batches = torch.split(epoch_order(run.seed, epoch, count)[: steps * batch], batch)
            if pictures is not None:
                pictures.expect([run.ranks.share(chosen) for chosen in batches])
            total = 0.0
            for step, chosen in enumerate(batches):
                place = (epoch * steps + step, recipe.epochs * steps)
                rate, betas = recipe.rate(*place), recipe.betas_at(*place)
                for group in optimiser.param_groups:
                    group["lr"], group["betas"] = rate, betas
                optimiser.zero_grad(set_to_none=True)
                value = gradients.add(chosen)
                if not math.isfinite(value):
                    raise CellError(
                        f"The loss of stage '{stage}' became {value} in epoch {epoch + 1}, step "
                        f"{step + 1} of {steps}, at learning rate {rate:g}. Lower the learning "
                        "rate with --set, or use --precision fp32."
                    )
                optimiser.step()
                total += value
                run.advance((step + 1) * batch, steps * batch, loss=value)
            losses.append(total / steps)
    for module in modules:
        module.eval()
    return losses


class _Step(nn.Module):
    """The loss as a module that holds what is trained: what DistributedDataParallel wants."""

    def __init__(
        self, loss: Callable[[torch.Tensor], torch.Tensor], modules: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.trained = nn.ModuleList(modules)
        self.loss = loss

    def forward(self, chosen: torch.Tensor) -> torch.Tensor:
        return self.loss(chosen.cpu())  # DistributedDataParallel moves what it is given


class _Gradients:
    """Adds the gradients of a batch's loss to those of the parameters, as memory allows."""

    def __init__(
        self,
        loss: Callable[[torch.Tensor], torch.Tensor],
        in_parts: Callable[[Sequence[torch.Tensor]], torch.Tensor] | None,
        modules: Sequence[nn.Module],
        run: FitRun,
        stage: str,
    ) -> None:
        self._loss = loss
        self._in_parts = in_parts or self._sum
        self._parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        self._run = run
        self._stage = stage
        self._parts = run.ranks.parts
        self._whole = run.ranks.wrap(_Step(loss, modules))

    def add(self, batch: torch.Tensor) -> float:
        """The batch's loss; not a finite number, the gradients are worth nothing."""
        share = self._run.ranks.share(batch)
        while True:
            try:
                found = self._backward(share)
            except torch.OutOfMemoryError as error:
                problem = str(error)
            else:
                return self._run.ranks.mean(found)
            # out of the handler, whose traceback would keep the failed attempt's tensors
            self._halve(len(share), problem)

    def _backward(self, share: torch.Tensor) -> float:
        if self._parts == 1:
            found = self._whole(share)
            found.backward()
        else:
            found = self._in_parts(share.tensor_split(min(self._parts, len(share))))
            self._run.ranks.average_gradients(self._parameters)
        return float(found.detach())

    def _sum(self, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
        count = sum(map(len, pieces))
        total = torch.zeros(())
        for piece in pieces:
            found = self._loss(piece) * (len(piece) / count)
            found.backward()  # type: ignore[no-untyped-call]
            total += found.detach().cpu()
        return total

    def _halve(self, samples: int, problem: str) -> None:
        if self._run.ranks.count > 1 or self._parts >= samples:
            raise CellError(
                f"Stage '{self._stage}' ran out of memory with {-(-samples // self._parts)} "
                f"samples at once ({problem.splitlines()[0]}). Choose a smaller batch or image "
                "with --set, a smaller --preset, or more parts of a batch with --accumulate."
            )
        for parameter in self._parameters:
            parameter.grad = None
        if self._run.device.type == "cuda":
            torch.cuda.empty_cache()
        self._parts *= 2
        self._run.warn(
            f"Out of memory: batches of stage '{self._stage}' are worked through in {self._parts} "
            "parts from here on, their gradients added."
        )


def _optimiser(modules: Sequence[nn.Module], recipe: Recipe) -> torch.optim.AdamW:
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1 or recipe.decay_vectors]
    spared = [p for p in parameters if not (p.ndim > 1 or recipe.decay_vectors)]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        betas=recipe.betas,
        eps=recipe.eps,
        fused=True,
    )
