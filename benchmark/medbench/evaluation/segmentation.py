"""Segmentation of lesions with a decoder on frozen features, the same for every model.

Source of losses and optimiser: Adaptor (arXiv 2401.01179) and its released code: AdamW, learning
rate 5e-4, weight decay 1e-4; 10 x focal (gamma 2) minus log Dice. The form of the decoder and its
shorter schedule are the harness's own: the paper's are built for two backbones, this one for any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Advance = Callable[..., None]


@dataclass(frozen=True)
class Schedule:
    """How a decoder is trained."""

    rate: float = 5e-4
    decay: float = 1e-4
    epochs: int = 30
    patience: int = 5
    batch: int = 32
    loss: Literal["focal-log-dice", "dice-ce"] = "focal-log-dice"
    width: int = 128


class Decoder(nn.Module):
    """Feature maps to one logit per pixel.

    One map [B, D, h, w] is upsampled by doubling, a 3 x 3 convolution behind each step. Of several
    maps the coarsest is decoded so, and each finer one is concatenated where sizes meet (U-Net).

    Args:
        channels: D of each map, finest first.
        sizes: h of each map (square), finest first.
        size: side of the output in pixels.
        width: channels at the coarsest step; halved at each doubling, at least 16.
    """

    def __init__(
        self, channels: Sequence[int], sizes: Sequence[int], size: int, width: int = 128
    ) -> None:
        super().__init__()
        self.size = size
        self.skips = len(channels) - 1
        self.entry = nn.Conv2d(channels[-1], width, 1)
        steps = max(1, math.ceil(math.log2(size / sizes[-1])))
        self.blocks = nn.ModuleList()
        self.places: list[int] = []  # which finer map is met after each doubling, or -1
        side, waiting = sizes[-1], list(range(len(channels) - 2, -1, -1))
        for _ in range(steps):
            side, after = side * 2, max(16, width // 2)
            place = -1
            if waiting and sizes[waiting[0]] <= side:
                place = waiting.pop(0)
            extra = channels[place] if place >= 0 else 0
            self.places.append(place)
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(width + extra, after, 3, padding=1),
                    nn.GroupNorm(min(8, after), after),
                    nn.GELU(),
                )
            )
            width = after
        self.exit = nn.Conv2d(width, 1, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """float maps [B, D_i, h_i, h_i], finest first -> logits [B, size, size]."""
        x = self.entry(maps[-1].float())
        for block, place in zip(self.blocks, self.places, strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            if place >= 0:
                skip = F.interpolate(
                    maps[place].float(), x.shape[-2:], mode="bilinear", align_corners=False
                )
                x = torch.cat([x, skip], dim=1)
            x = block(x)
        logits: torch.Tensor = self.exit(x)
        if logits.shape[-1] != self.size:
            logits = F.interpolate(
                logits, (self.size, self.size), mode="bilinear", align_corners=False
            )
        return logits[:, 0]


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
    maps: Callable[[torch.Tensor], list[torch.Tensor]],
    masks: torch.Tensor,
    train: torch.Tensor,
    val: torch.Tensor,
    size: int,
    seed: int,
    device: torch.device,
    schedule: Schedule | None = None,
    advance: Advance | None = None,
) -> tuple[Decoder, list[float]]:
    """Train a decoder on some rows; the epoch of lowest loss on ``val`` is kept.

    Args:
        maps: rows -> feature maps of them, finest first, float [B, D_i, h_i, h_i].
        masks: bool [N, size, size].
        train, val: int64 rows; the two share no patient, and no row that is tested.
        size: side of the masks.
        seed: of the initial weights and of the order of batches.
        device: where.
        schedule: see `Schedule`.
        advance: called with epochs done, their number and figures.

    Returns:
        The decoder in eval mode, and the validation loss per epoch.
    """
    plan = schedule or Schedule()
    loss = LOSSES[plan.loss]
    torch.manual_seed(seed)
    sample = maps(train[:1])
    decoder = Decoder([m.shape[1] for m in sample], [m.shape[-1] for m in sample], size, plan.width)
    decoder = decoder.to(device)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=plan.rate, weight_decay=plan.decay)
    generator = torch.Generator().manual_seed(seed)
    best, losses, kept = math.inf, [], None
    for epoch in range(plan.epochs):
        decoder.train()
        order = train[torch.randperm(len(train), generator=generator)]
        for rows in torch.split(order, plan.batch):
            optimiser.zero_grad(set_to_none=True)
            target = masks[rows].to(device, torch.float32)
            value = loss(decoder([m.to(device) for m in maps(rows)]), target)
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        losses.append(_mean_loss(decoder, maps, masks, val, loss, plan.batch, device))
        if advance is not None:
            advance(epoch + 1, plan.epochs, loss=losses[-1])
        if losses[-1] < best:
            best = losses[-1]
            kept = {name: value.detach().clone() for name, value in decoder.state_dict().items()}
        elif len(losses) - 1 - losses.index(best) >= plan.patience:
            break
    if kept is None:
        raise FloatingPointError(f"the validation loss is {losses[0]} from the first epoch on")
    decoder.load_state_dict(kept)
    return decoder.eval(), losses


@torch.no_grad()
def _mean_loss(
    decoder: Decoder,
    maps: Callable[[torch.Tensor], list[torch.Tensor]],
    masks: torch.Tensor,
    rows: torch.Tensor,
    loss: Loss,
    batch: int,
    device: torch.device,
) -> float:
    decoder.eval()
    total = 0.0
    for some in torch.split(rows, batch):
        target = masks[some].to(device, torch.float32)
        total += float(loss(decoder([m.to(device) for m in maps(some)]), target)) * len(some)
    return total / len(rows)


@torch.no_grad()
def predict_masks(
    decoder: Decoder,
    maps: Callable[[torch.Tensor], list[torch.Tensor]],
    rows: torch.Tensor,
    device: torch.device,
    batch: int = 64,
) -> torch.Tensor:
    """bool [R, size, size] on the CPU: probability at least one half."""
    parts = [
        (decoder([m.to(device) for m in maps(some)]) >= 0).cpu()
        for some in torch.split(rows, batch)
    ]
    return torch.cat(parts)
