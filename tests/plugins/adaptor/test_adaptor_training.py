"""Pre-training of the module on stored vectors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_adaptor_module import independent_loss

from medbench.errors import CellError
from medbench.models.contrastive import MAX_SCALE, seeded
from medbench_adaptor.adaptor import Adaptor
from medbench_adaptor.training import History, Recipe, train_adaptor
from toy_run import Killed, ToyRun

TRAIN, VAL, NEITHER = torch.arange(96), torch.arange(96, 128), torch.arange(128, 140)


def vectors(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs that have a part in common."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(140, 4, generator=generator)
    mix = [torch.randn(4, dim, generator=generator) for dim in (24, 20)]
    noise = [0.1 * torch.randn(140, dim, generator=generator) for dim in (24, 20)]
    return common @ mix[0] + noise[0], common @ mix[1] + noise[1]


def recipe(**values: Any) -> Recipe:
    plan = {
        "epochs": 6, "batch": 32, "lr": 2e-3, "weight_decay": 0.01, "warmup": 0.02,
        "patience": 10, "image_weight": 0.75,
    }  # fmt: skip
    return Recipe(**(plan | values))


def train(
    run: ToyRun,
    plan: Recipe | None = None,
    pairs: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[Adaptor, History]:
    with seeded(3):
        adaptor = Adaptor(24, 20, 16, layers=2, heads=4, hidden=32, dropout=0.1)
    history = train_adaptor(adaptor, *(pairs or vectors()), TRAIN, VAL, plan or recipe(), run)
    return adaptor, history


def same(one: Adaptor, other: Adaptor) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[k], b[k]) for k in a)


def test_what_it_learns_holds_for_other_patients(tmp_path: Path) -> None:
    _, history = train(ToyRun(tmp_path), recipe(epochs=25))
    assert history.losses[0] < 1.1 * math.log(32)
    assert min(history.losses) < 0.6 * math.log(32)


def test_the_rate_rises_then_falls_along_a_line() -> None:
    plan = recipe(warmup=0.1, lr=1.0)
    rates = [plan.rate(step, 100) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == pytest.approx(1)
    assert rates[50] == pytest.approx(50 / 90)
    assert rates[99] == pytest.approx(1 / 90)
    assert recipe(warmup=0, lr=1.0).rate(0, 10) == 1


def test_the_epoch_of_lowest_validation_loss_is_kept(tmp_path: Path) -> None:
    run = ToyRun(tmp_path)
    adaptor, history = train(run, recipe(epochs=8, lr=0.2))
    assert history.losses.index(min(history.losses)) == history.best < len(history.losses) - 1
    kept = adaptor.state_dict()
    assert all(torch.equal(kept[k], v) for k, v in run.states[history.best].items())
    images, texts = vectors()
    with torch.no_grad():
        image, text = adaptor(images[VAL], texts[VAL])
    scale = min(MAX_SCALE, math.exp(float(adaptor.logit_scale.detach())))
    wanted = independent_loss(image.double().numpy(), text.double().numpy(), scale, 0.75)
    assert min(history.losses) == pytest.approx(wanted, rel=1e-4), "of validation pairs alone"
    assert not adaptor.training


@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_when_validation_has_not_improved(tmp_path: Path, patience: int) -> None:
    _, history = train(ToyRun(tmp_path), recipe(epochs=40, lr=0.2, patience=patience))
    assert len(history.losses) == history.best + 1 + patience < 40


def test_validation_pairs_choose_the_epoch_and_do_nothing_else(tmp_path: Path) -> None:
    images, texts = vectors()
    run, other = ToyRun(tmp_path / "one"), ToyRun(tmp_path / "other")
    _, history = train(run, recipe(patience=99))
    images[VAL], texts[VAL] = torch.randn(32, 24), torch.randn(32, 20)
    images[NEITHER] = texts[NEITHER] = torch.nan
    _, changed = train(other, recipe(patience=99), (images, texts))
    assert history.losses != changed.losses
    for a, b in zip(run.states, other.states, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_training_pairs_do_not_enter_the_validation_loss(tmp_path: Path) -> None:
    """With a rate of nearly 0 the module stays, and with it the loss, whatever is trained on."""
    images, texts = vectors()
    still = recipe(lr=1e-30, weight_decay=0, epochs=1)
    _, history = train(ToyRun(tmp_path / "one"), still)
    images[TRAIN] = torch.randn(96, 24)
    _, changed = train(ToyRun(tmp_path / "other"), still, (images, texts))
    assert history.losses == changed.losses


def test_two_runs_are_identical_and_the_seed_matters(tmp_path: Path) -> None:
    one, first = train(ToyRun(tmp_path / "a"))
    torch.manual_seed(99)
    two, second = train(ToyRun(tmp_path / "b"))
    assert same(one, two)
    assert first.losses == second.losses
    three, _ = train(ToyRun(tmp_path / "c", seed=1))
    assert not same(one, three)


@pytest.mark.parametrize("after", [1, 7, 16])
def test_a_killed_training_ends_in_the_same_bits(tmp_path: Path, after: int) -> None:
    unbroken, history = train(ToyRun(tmp_path / "unbroken"))
    with pytest.raises(Killed):
        train(ToyRun(tmp_path / "killed", kill_after=after))
    run = ToyRun(tmp_path / "killed")
    resumed, again = train(run)
    assert same(unbroken, resumed)
    assert history.losses == again.losses
    assert len(run.losses) == 3 * (6 - after // 3), "finished epochs are not repeated"


def test_a_training_that_was_stopped_early_is_not_gone_on_with(tmp_path: Path) -> None:
    plan = recipe(epochs=40, lr=0.2, patience=1)
    first, history = train(ToyRun(tmp_path), plan)
    run = ToyRun(tmp_path)
    again, other = train(run, plan)
    assert same(first, again)
    assert history.losses == other.losses
    assert run.losses == []


def test_few_pairs_are_one_batch_and_the_last_incomplete_one_is_left_out(tmp_path: Path) -> None:
    run = ToyRun(tmp_path / "few")
    train(run, recipe(batch=1024, epochs=2))
    assert len(run.losses) == 2
    run = ToyRun(tmp_path / "rest")
    train(run, recipe(batch=40, epochs=2))
    assert len(run.losses) == 2 * (96 // 40)


@pytest.mark.parametrize("rows", [TRAIN, VAL])
def test_a_loss_that_is_not_finite_is_a_clear_error(tmp_path: Path, rows: torch.Tensor) -> None:
    images, texts = vectors()
    images[rows[5]] = torch.nan
    what = "loss" if rows is TRAIN else "validation loss"
    with pytest.raises(CellError, match=f"The {what} of the Adaptor became nan in epoch 1 of 6"):
        train(ToyRun(tmp_path), pairs=(images, texts))
