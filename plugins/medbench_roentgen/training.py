"""Adaptation: U-Net, text encoder, or both learn to tell the noise in latents of radiographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medbench.errors import CellError
from medbench.models.capabilities import FitRun
from medbench.models.descent import Recipe, epoch_order
from medbench.models.latent_diffusion import LatentDiffusion
from medbench_roentgen.config import TrainConfig


def trained_parts(config: TrainConfig) -> tuple[str, ...]:
    """Names of the parts of `LatentDiffusion` that training changes."""
    return ("unet",) * config.unet + ("text_encoder",) * config.text_encoder


def adapt(
    model: LatentDiffusion,
    latents: npt.NDArray[np.float16],
    prompts: Sequence[str],
    config: TrainConfig,
    run: FitRun,
) -> list[float]:
    """Train the parts that the configuration names in place; all are frozen afterwards.

    What is saved after each block of steps is what an unbroken training goes on from as well: an
    "epoch" of ``run.epochs`` is a block, and a step's images, noise, times and left-out prompts
    depend on the seed and the step alone.

    Args:
        latents: scaled, [N, C, h, w].
        prompts: N.

    Returns:
        The mean loss of each block trained here.

    Raises:
        CellError: a loss or a gradient is not a finite number (the weights are those before that
            step, and the last saved state stays); or no single image fits into memory.
    """
    parts: list[nn.Module] = [getattr(model, name) for name in trained_parts(config)]
    for part in parts:
        part.requires_grad_(True)
    transformer: Any = model.text_encoder.model
    if config.gradient_checkpointing:
        model.unet.enable_gradient_checkpointing()
        transformer.gradient_checkpointing_enable()
    parameters = [p for part in parts for p in part.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    mean = _running_mean(parameters, config)
    recipe = Recipe(
        epochs=1,
        batch=config.batch,
        lr=config.lr,
        schedule=config.schedule,
        warmup=config.warmup,
    )
    batches = _Batches(model, latents, prompts, config, run)
    losses: list[float] = []
    blocks = math.ceil(config.steps / config.block)
    saved = (*parts, optimiser) if mean is None else (*parts, optimiser, mean)
    for block in run.epochs(blocks, *saved, title="adapt"):
        for part in parts:
            part.train()
        if mean is not None:
            mean.to(run.device)
        first, last = block * config.block, min((block + 1) * config.block, config.steps)
        total = 0.0
        for step in range(first, last):
            rate = recipe.rate(step, config.steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
            loss = batches.backward(step, optimiser)
            norm = float(nn.utils.clip_grad_norm_(parameters, config.gradient_clip))
            for what, value in (("loss", loss), ("gradient", norm)):
                if not math.isfinite(value):
                    raise CellError(
                        f"The {what} of stage 'adapt' became {value} in step {step + 1} of "
                        f"{config.steps}, at learning rate {rate:g}. Training has stopped; the "
                        f"state after step {first} is kept in {run.folder}. Lower the learning "
                        "rate with --set train.lr=..., or use --precision fp32."
                    )
            optimiser.step()
            if mean is not None:
                mean.step(parameters)
            total += loss
            run.advance(step + 1 - first, last - first, loss=loss)
        losses.append(total / (last - first))
    if mean is not None:
        mean.to(run.device)
        mean.copy_to(parameters)
    if config.gradient_checkpointing:
        model.unet.disable_gradient_checkpointing()
        transformer.gradient_checkpointing_disable()
    model.requires_grad_(False)
    model.eval()
    return losses


class _Batches:
    """Batches of latents with noise, and the gradient of their loss, part by part."""

    def __init__(
        self,
        model: LatentDiffusion,
        latents: npt.NDArray[np.float16],
        prompts: Sequence[str],
        config: TrainConfig,
        run: FitRun,
    ) -> None:
        self._model, self._latents, self._prompts = model, latents, prompts
        self._config, self._run = config, run
        self._scheduler = model.noise_scheduler()
        self._size = config.batch // config.accumulation  # images at a time

    def backward(self, step: int, optimiser: torch.optim.Optimizer) -> float:
        """Add the gradient of a step's loss; returns the loss, mean over the batch.

        Where memory does not suffice, parts of half the size are tried, and kept to.
        """
        rows = rows_of(self._run.seed, step, self._config.batch, len(self._prompts))
        noise = torch.randn(len(rows), *self._latents.shape[1:])
        times = torch.randint(self._scheduler.config.num_train_timesteps, (len(rows),))
        kept = (torch.rand(len(rows)) >= self._config.drop).tolist()
        prompts = [self._prompts[r] if k else "" for r, k in zip(rows.tolist(), kept, strict=True)]
        latents = torch.from_numpy(self._latents[rows.numpy()].astype(np.float32))
        while True:
            try:
                return self._parts(latents, prompts, noise, times)
            except torch.OutOfMemoryError as error:
                if self._size == 1:
                    raise CellError(
                        "Stage 'adapt' ran out of memory with one image at a time. Use --set "
                        "train.gradient_checkpointing=true, --precision bf16, or a larger GPU."
                    ) from error
            self._size = math.ceil(self._size / 2)
            self._run.warn(
                f"out of memory at step {step + 1}: from here on {self._size} images at a time, "
                f"in {math.ceil(len(rows) / self._size)} parts of a batch of {len(rows)}"
            )
            optimiser.zero_grad(set_to_none=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _parts(
        self,
        latents: torch.Tensor,
        prompts: Sequence[str],
        noise: torch.Tensor,
        times: torch.Tensor,
    ) -> float:
        model, device, total = self._model, self._run.device, 0.0
        for start in range(0, len(prompts), self._size):
            part = slice(start, start + self._size)
            with self._run.autocast():
                loss = model.noise_loss(
                    self._scheduler,
                    latents[part].to(device),
                    model.text_encoder(prompts[part]),
                    noise[part].to(device),
                    times[part].to(device),
                )
            loss = loss * (len(prompts[part]) / len(prompts))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total


def rows_of(seed: int, step: int, batch: int, count: int) -> torch.Tensor:
    """Samples of a step, int64 [batch]: passes over all of them, each in an order of its own, cut
    into batches regardless of where one ends."""
    places = torch.arange(step * batch, (step + 1) * batch)
    passes = places // count
    rows = torch.empty(batch, dtype=torch.long)
    for number in range(int(passes[0]), int(passes[-1]) + 1):
        here = passes == number
        rows[here] = epoch_order(seed, number, count)[places[here] % count]
    return rows


def _running_mean(parameters: list[nn.Parameter], config: TrainConfig) -> Any:
    """diffusers' running mean of weights, whose decay rises to the configured one; or None."""
    if not config.ema:
        return None
    from diffusers.training_utils import EMAModel

    return EMAModel(parameters, decay=config.ema)
