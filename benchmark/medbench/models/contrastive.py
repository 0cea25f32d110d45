"""Contrastive training of images and texts: the loss, and the loop that plugins share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from medbench.errors import CellError
from medbench.models.capabilities import FitRun

#: Indices of samples, int64 [B] on the CPU -> features [B, D] on the device.
Features = Callable[[torch.Tensor], torch.Tensor]

MAX_SCALE = 100.0  #: CLIP clips its learnt scale here (Radford et al., 2021, section 2.5)


def info_nce(
    images: torch.Tensor, texts: torch.Tensor, scale: float | torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE: the mean of image-to-text and text-to-image cross-entropy.

    Args:
        images: float [B, D]; row i belongs to row i of ``texts``. Normalised here.
        texts: float [B, D]. Normalised here.
        scale: 1 / temperature.

    Returns:
        A scalar, float32; log B for features that say nothing.
    """
    images = F.normalize(images.float(), dim=-1)
    texts = F.normalize(texts.float(), dim=-1)
    logits = scale * images @ texts.T  # [B, B]
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast to train. All of it decides the result.

    Attributes:
        epochs: passes over the corpus.
        batch: pairs in a batch; all of them, when there are fewer. The last, incomplete batch of
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
        temperature: fixed; or, with a learnable scale, unused.
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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's CPU generator as from this seed inside, and as before outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def epoch_order(seed: int, epoch: int, count: int) -> torch.Tensor:
    """A permutation int64 [count] that depends on (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def train_contrastive(
    images: Features,
    texts: Features,
    count: int,
    *,
    modules: Sequence[nn.Module],
    recipe: Recipe,
    run: FitRun,
    stage: str,
    logit_scale: nn.Parameter | None = None,
    begin: Callable[[int], None] | None = None,
) -> list[float]:
    """Train ``modules`` in place by symmetric InfoNCE; they are in evaluation mode afterwards.

    Args:
        images: features of samples, by index; called under autocast.
        texts: likewise; for a frozen text tower, rows of features computed once (`lookup`).
        count: number of pairs.
        modules: what is trained (their parameters that require a gradient), put into training mode
            and, with the optimiser, saved after each epoch.
        recipe: see `Recipe`.
        run: device, seed, resume, progress.
        stage: for progress and errors.
        logit_scale: a parameter (of one of the modules) that holds the logarithm of the scale and
            is learnt; None: the recipe's fixed temperature.
        begin: called with each epoch's number before its first step, for augmentation that draws
            from (seed, epoch).

    Returns:
        The mean loss of each epoch trained here (not of those done before a kill).

    Raises:
        CellError: the loss is not a finite number.
    """
    optimiser = _optimiser(modules, recipe)
    batch = min(recipe.batch, count)
    steps = count // batch
    losses: list[float] = []
    for epoch in run.epochs(recipe.epochs, *modules, optimiser, title=stage):
        for module in modules:
            module.train()
        if begin is not None:
            begin(epoch)
        order = epoch_order(run.seed, epoch, count)
        total = 0.0
        for step in range(steps):
            chosen = order[step * batch : (step + 1) * batch]  # [B]
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(epoch * steps + step, recipe.epochs * steps)
                group["betas"] = recipe.betas_at(epoch * steps + step, recipe.epochs * steps)
            with run.autocast():
                image, text = images(chosen), texts(chosen)  # [B, D] each
            scale: float | torch.Tensor = 1 / recipe.temperature
            if logit_scale is not None:
                scale = logit_scale.exp().clamp(max=MAX_SCALE)
            loss = info_nce(image, text, scale)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise CellError(
                    f"The loss of stage '{stage}' became {value} in epoch {epoch + 1}, step "
                    f"{step + 1} of {steps}, at learning rate {recipe.rate(epoch, 1):g}. Lower "
                    "the learning rate with --set, or use --precision fp32."
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += value
            run.advance((step + 1) * batch, steps * batch, loss=value)
        losses.append(total / steps)
    for module in modules:
        module.eval()
    return losses


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


def distinct(texts: Sequence[str]) -> tuple[list[str], torch.Tensor]:
    """The distinct texts in order of first use, and int64 [N]: which of them each text is."""
    number: dict[str, int] = {}
    rows = [number.setdefault(text, len(number)) for text in texts]
    return list(number), torch.tensor(rows, dtype=torch.long)


def lookup(table: torch.Tensor, rows: torch.Tensor | None = None) -> Features:
    """Features that are there already: for sample i row ``rows[i]`` (or i) of ``table`` [U, D]."""

    def features(chosen: torch.Tensor) -> torch.Tensor:
        index = chosen if rows is None else rows[chosen]
        return table[index.to(table.device)]

    return features
