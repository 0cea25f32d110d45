"""Epochs that survive a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medbench.run.fitting import StageRun


def stage_run(folder: Path, precision: str = "fp32") -> StageRun:
    return StageRun(
        device=torch.device("cpu"),
        precision=precision,
        seed=5,
        folder=folder,
        advance=lambda done, total, text: None,
        say=lambda message: None,
        notes=[],
    )


class Killed(Exception):
    """Stands for a kill."""


def train(folder: Path, stop_in: int | None = None) -> tuple[torch.Tensor, list[int]]:
    """Dropout, data order and AdamW: everything that carries state over epochs."""
    torch.manual_seed(1)
    layer = torch.nn.Linear(4, 3)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, 2, 0.5)
    data = torch.arange(40.0).view(10, 4)
    seen = []
    for epoch in stage_run(folder).epochs(6, layer, optimiser, scheduler):
        seen.append(epoch)
        for row in torch.randperm(len(data)):
            loss = torch.nn.functional.dropout(layer(data[row]), 0.3).square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if epoch == stop_in:
                raise Killed
        scheduler.step()
    return layer.weight.detach().clone(), seen


@pytest.mark.parametrize("stop_in", [0, 3, 5])
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path: Path, stop_in: int) -> None:
    (tmp_path / "one").mkdir()
    unbroken, seen = train(tmp_path / "one")
    assert seen == [0, 1, 2, 3, 4, 5]
    (tmp_path / "other").mkdir()
    with pytest.raises(Killed):
        train(tmp_path / "other", stop_in)
    resumed, seen = train(tmp_path / "other")
    assert seen == list(range(stop_in, 6))
    assert torch.equal(unbroken, resumed)


def test_autocast_follows_the_precision(tmp_path: Path) -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with stage_run(tmp_path, precision).autocast():
            assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype
