"""The one-cycle schedule, against PyTorch's own scheduler."""

from __future__ import annotations

import pytest
import torch

from medbench.models.descent import Recipe


@pytest.mark.parametrize("steps", [7, 20, 65, 400])
@pytest.mark.parametrize("rise", [0.05, 0.3])
def test_rate_and_momentum_are_pytorchs(steps: int, rise: float) -> None:
    if rise * steps <= 1:
        pytest.skip("PyTorch divides by a phase of no length")
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([weight], betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=3e-4, total_steps=steps, pct_start=rise
    )
    recipe = Recipe(epochs=1, batch=2, lr=3e-4, betas=(0.9, 0.98), schedule="onecycle", warmup=rise)
    for step in range(steps):
        group = optimiser.param_groups[0]
        assert recipe.rate(step, steps) == pytest.approx(group["lr"], rel=1e-9), step
        assert recipe.betas_at(step, steps) == pytest.approx(group["betas"], rel=1e-9), step
        optimiser.step()
        if step + 1 < steps:
            scheduler.step()


def test_a_rise_of_less_than_a_step_begins_at_the_peak() -> None:
    for steps in (1, 2, 10):
        recipe = Recipe(epochs=1, batch=2, lr=1.0, schedule="onecycle", warmup=0.05)
        rates = [recipe.rate(step, steps) for step in range(steps)]
        assert rates[0] == 1.0
        assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1 / 250_000)


def test_other_schedules_keep_their_betas() -> None:
    recipe = Recipe(epochs=1, batch=2, lr=1.0, betas=(0.9, 0.98), schedule="cosine")
    assert {recipe.betas_at(step, 10) for step in range(10)} == {(0.9, 0.98)}
