"""Pre-training of the Adaptor on stored vectors, stopped by patients that it does not train on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from medbench.errors import CellError
from medbench.models.capabilities import FitRun
from medbench.models.contrastive import MAX_SCALE
from medbench.models.descent import epoch_order
from medbench_adaptor.adaptor import Adaptor, pair_loss


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the module is trained.

    Attributes:
        epochs: at most.
        batch: pairs in a batch; all of them, when there are fewer. The last, incomplete batch of an
            epoch is left out, as each epoch has its own order.
        lr: AdamW's peak rate.
        weight_decay: AdamW's, on every parameter.
        warmup: share of all steps over which the rate rises; it then falls to 0 along a line.
        patience: epochs without a lower validation loss, after which training stops.
        image_weight: alpha of the loss.
    """

    epochs: int
    batch: int
    lr: float
    weight_decay: float
    warmup: float
    patience: int
    image_weight: float

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, of ``steps`` in all."""
        rising = self.warmup * steps
        if step + 1 < rising:
            return self.lr * (step + 1) / rising
        return self.lr * min(1.0, (steps - step) / max(1.0, steps - rising))


class History:
    """Validation losses, and the weights of the epoch where they are lowest."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.weights: dict[str, torch.Tensor] = {}

    @property
    def best(self) -> int:
        """The epoch of lowest loss, the first of equal ones."""
        return self.losses.index(min(self.losses))

    def stale(self, patience: int) -> bool:
        """Whether that many epochs have passed since the best one."""
        return bool(self.losses) and len(self.losses) - 1 - self.best >= patience

    def add(self, loss: float, module: torch.nn.Module) -> None:
        """Note an epoch's loss, and its weights if it is the best so far."""
        self.losses.append(loss)
        if self.best == len(self.losses) - 1:
            self.weights = {k: v.detach().cpu().clone() for k, v in module.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses), "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.losses, self.weights = list(state["losses"]), dict(state["weights"])


def train_adaptor(
    adaptor: Adaptor,
    images: torch.Tensor,
    texts: torch.Tensor,
    train: torch.Tensor,
    val: torch.Tensor,
    recipe: Recipe,
    run: FitRun,
) -> History:
    """Train in place; the weights of lowest validation loss are kept, in evaluation mode.

    Args:
        adaptor: on ``run.device``.
        images, texts: frozen vectors float32 [N, Dv] and [N, Dt]; row i of both is a pair.
        train, val: int64 rows; no patient has pairs in both.
        recipe: see `Recipe`.
        run: device, seed, resume, progress.

    Raises:
        CellError: a loss is not a finite number.
    """
    images, texts = images.to(run.device), texts.to(run.device)
    optimiser = torch.optim.AdamW(
        adaptor.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    history = History()
    batch = min(recipe.batch, len(train))
    steps = len(train) // batch
    for epoch in run.epochs(recipe.epochs, adaptor, optimiser, history, title="adaptor"):
        if history.stale(recipe.patience):
            break
        adaptor.train()
        order = train[epoch_order(run.seed, epoch, len(train))]
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch].to(run.device)
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(epoch * steps + step, recipe.epochs * steps)
            loss = _loss(adaptor, images[rows], texts[rows], recipe, run)
            value = _finite(float(loss.detach()), "loss", epoch, recipe)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            run.advance((step + 1) * batch, steps * batch, loss=value)
        judged = _validation_loss(adaptor, images, texts, val, recipe, run)
        history.add(_finite(judged, "validation loss", epoch, recipe), adaptor)
    adaptor.load_state_dict(history.weights)
    adaptor.eval()
    return history


def _loss(
    adaptor: Adaptor, images: torch.Tensor, texts: torch.Tensor, recipe: Recipe, run: FitRun
) -> torch.Tensor:
    with run.autocast():
        image, text = adaptor(images, texts)  # [B, D] each
    scale = adaptor.logit_scale.exp().clamp(max=MAX_SCALE)
    return pair_loss(image, text, scale, recipe.image_weight)


@torch.no_grad()
def _validation_loss(
    adaptor: Adaptor,
    images: torch.Tensor,
    texts: torch.Tensor,
    val: torch.Tensor,
    recipe: Recipe,
    run: FitRun,
) -> float:
    """Mean over batches of about one size, in one order."""
    adaptor.eval()
    total = 0.0
    for rows in torch.tensor_split(val.to(run.device), math.ceil(len(val) / recipe.batch)):
        total += len(rows) * float(_loss(adaptor, images[rows], texts[rows], recipe, run))
    return total / len(val)


def _finite(value: float, what: str, epoch: int, recipe: Recipe) -> float:
    if not math.isfinite(value):
        raise CellError(
            f"The {what} of the Adaptor became {value} in epoch {epoch + 1} of {recipe.epochs}, at "
            f"a peak learning rate of {recipe.lr:g}. Lower it with --set lr=..., or use "
            "--precision fp32."
        )
    return value
