"""Segmentation of lesions with a decoder on frozen features, the same for every model.

The decoders stand in `medbench.evaluation.segmentation_decoders`. Losses, optimiser and the default
schedule are those of Adaptor (arXiv 2401.01179) and its released code. Only training and validation
rows are seen: the epoch of lowest validation loss is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from medbench.errors import CellError
from medbench.evaluation.segmentation_decoders import PUBLISHED_WIDTH, Enlarged, build_decoder

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Advance = Callable[..., None]
Autocast = Callable[[], AbstractContextManager[Any]]
#: Rows, int64 [B], to feature maps of them, finest first, float [B, D_i, h_i, h_i].
MapsOf = Callable[[torch.Tensor], list[torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a decoder is trained; the defaults are published (Adaptor and its released code).

    Attributes:
        rate: AdamW's rate.
        decay: AdamW's weight decay.
        epochs: at most.
        patience: epochs without a lower validation loss, after which training stops.
        batch: images in a batch.
        loss: 10 x focal minus log Dice; "dice-ce" is there for comparison.
        width: channels of the decoder's first block.
        coarser: the decoder works at the masks' side divided by this, and its logits are enlarged:
            most of its time goes into the last doublings.
    """

    rate: float = 5e-4
    decay: float = 1e-4
    epochs: int = 100
    patience: int = 10
    batch: int = 4
    loss: Literal["focal-log-dice", "dice-ce"] = "focal-log-dice"
    width: int = PUBLISHED_WIDTH
    coarser: int = 1


def focal_log_dice(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """10 x focal loss (gamma 2, mean over pixels) minus the log of soft Dice over the batch."""
    plain = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = ((1 - torch.exp(-plain)) ** 2 * plain).mean()
    return 10 * focal - torch.log(_soft_dice(logits, target))


def dice_ce(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 minus soft Dice over the batch, plus cross-entropy over pixels."""
    plain = F.binary_cross_entropy_with_logits(logits, target)
    return 1 - _soft_dice(logits, target) + plain


def _soft_dice(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    chance = torch.sigmoid(logits)
    return (2 * (chance * target).sum() + 1) / (chance.sum() + target.sum() + 1)


LOSSES: dict[str, Loss] = {"focal-log-dice": focal_log_dice, "dice-ce": dice_ce}


def train_decoder(
    maps: MapsOf,
    masks: torch.Tensor,
    train: torch.Tensor,
    val: torch.Tensor,
    seed: int,
    device: torch.device,
    schedule: Schedule | None = None,
    image: int | None = None,
    autocast: Autocast = nullcontext,
    advance: Advance | None = None,
) -> tuple[nn.Module, list[float]]:
    """Train the decoder that fits the maps; the epoch of lowest loss on ``val`` is kept.

    Args:
        maps: see `MapsOf`.
        masks: bool [N, S, S].
        train, val: int64 rows; the two share no patient, and no row that is tested.
        seed: of the initial weights and of the order of batches.
        device: where.
        schedule: see `Schedule`; the published one by default.
        image: side of the images that the maps are of, in pixels; S by default.
        autocast: mixed precision of the decoder; losses are in float32.
        advance: called with epochs done, their number and figures.

    Returns:
        The decoder in eval mode, and the validation loss per epoch.

    Raises:
        CellError: the validation loss is NaN or infinite from the first epoch on.
    """
    plan = schedule or Schedule()
    loss, size = LOSSES[plan.loss], masks.shape[-1]
    torch.manual_seed(seed)
    shapes = [m.shape for m in maps(train[:1])]
    decoder = build_decoder(
        [s[1] for s in shapes],
        [s[-1] for s in shapes],
        size // plan.coarser,
        (image or size) // plan.coarser,
        plan.width,
    )
    if plan.coarser > 1:
        decoder = Enlarged(decoder, size)
    decoder = decoder.to(device)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=plan.rate, weight_decay=plan.decay)
    generator = torch.Generator().manual_seed(seed)

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        target = masks[rows].to(device, torch.float32)
        return loss(_logits(decoder, maps, rows, device, autocast), target)

    best, losses, since, kept = math.inf, list[float](), 0, None
    for epoch in range(plan.epochs):
        decoder.train()
        order = train[torch.randperm(len(train), generator=generator)]
        for rows in torch.split(order, plan.batch):
            optimiser.zero_grad(set_to_none=True)
            loss_of(rows).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        decoder.eval()
        with torch.no_grad():
            parts = torch.split(val, plan.batch)
            losses.append(sum(float(loss_of(rows)) * len(rows) for rows in parts) / len(val))
        if advance is not None:
            advance(epoch + 1, plan.epochs, loss=losses[-1])
        if losses[-1] < best:
            best, since = losses[-1], 0
            kept = {name: value.detach().clone() for name, value in decoder.state_dict().items()}
        else:
            since += 1
        if since >= plan.patience:
            break
    if kept is None:
        raise CellError(
            f"The segmentation decoder cannot be trained on these feature maps: its validation "
            f"loss is {losses[0]} from the first epoch on. Look at the range of what "
            "encode_patches gives."
        )
    decoder.load_state_dict(kept)
    return decoder.eval(), losses


@torch.no_grad()
def predict_masks(
    decoder: nn.Module,
    maps: MapsOf,
    rows: torch.Tensor,
    device: torch.device,
    batch: int = 64,
    autocast: Autocast = nullcontext,
) -> torch.Tensor:
    """bool [R, S, S] on the CPU: probability at least one half."""
    parts = [
        (_logits(decoder, maps, some, device, autocast) >= 0).cpu()
        for some in torch.split(rows, batch)
    ]
    return torch.cat(parts)


def _logits(
    decoder: nn.Module, maps: MapsOf, rows: torch.Tensor, device: torch.device, autocast: Autocast
) -> torch.Tensor:
    """float32 [B, S, S] of some rows."""
    with autocast():
        logits: torch.Tensor = decoder([m.to(device) for m in maps(rows)])
    return logits.float()
