"""The loss, the schedule and the shared loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medbench.errors import CellError
from medbench.models.contrastive import (
    distinct,
    info_nce,
    lookup,
    seeded,
    train_contrastive,
)
from medbench.models.descent import Recipe, epoch_order
from medbench.models.ranks import ALONE


class PlainRun:
    """A fit's surroundings without persistence."""

    device = torch.device("cpu")
    ranks = ALONE
    folder = Path()
    seed = 0

    def autocast(self) -> Any:
        return nullcontext()

    def epochs(self, count: int, *parts: Any, title: str = "") -> Iterator[int]:
        yield from range(count)

    def advance(self, done: int, total: int, **figures: float) -> None:
        assert 0 < done <= total

    def warn(self, message: str) -> None: ...


def test_info_nce_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 7, generator=generator) for _ in range(2))
    unit_a, unit_b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    logits = (unit_a @ unit_b.T / 0.07).double()
    rows = -(logits.diag() - logits.logsumexp(1)).mean()
    columns = -(logits.diag() - logits.logsumexp(0)).mean()
    assert float(info_nce(a, b, 1 / 0.07)) == pytest.approx(float((rows + columns) / 2), rel=1e-5)
    assert float(info_nce(a, b, 1 / 0.07)) == pytest.approx(float(info_nce(b, a, 1 / 0.07)))
    torch.testing.assert_close(info_nce(3 * a, b, 5.0), info_nce(a, 9 * b, 5.0))
    same = torch.ones(4, 3)
    assert float(info_nce(same, same, 5.0)) == pytest.approx(math.log(4))


def test_schedule() -> None:
    cosine = Recipe(epochs=1, batch=2, lr=1.0, schedule="cosine", warmup=0.2)
    rates = [cosine.rate(step, 10) for step in range(10)]
    assert rates[0] == pytest.approx(0.5)
    assert max(rates) == pytest.approx(1.0)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.1
    assert {Recipe(epochs=1, batch=2, lr=0.3).rate(s, 10) for s in range(10)} == {0.3}


def test_epoch_order_depends_on_seed_and_epoch_alone() -> None:
    torch.manual_seed(5)
    one = epoch_order(1, 2, 20)
    torch.rand(3)
    assert torch.equal(one, epoch_order(1, 2, 20))
    assert sorted(one.tolist()) == list(range(20))
    assert not torch.equal(one, epoch_order(1, 3, 20))
    assert not torch.equal(one, epoch_order(2, 2, 20))


def test_seeded_leaves_no_trace() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded(9):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(9):
        assert torch.equal(torch.rand(2), inside)


def test_distinct_and_lookup() -> None:
    texts, rows = distinct(["b", "a", "b", "c"])
    assert texts == ["b", "a", "c"]
    assert rows.tolist() == [0, 1, 0, 2]
    table = torch.eye(3)
    assert torch.equal(lookup(table, rows)(torch.tensor([2, 3])), table[[0, 2]])
    assert torch.equal(lookup(table)(torch.tensor([1])), table[[1]])


def fitted(recipe: Recipe, learnt: bool = False) -> tuple[list[float], nn.Linear, float]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator)
    target = x @ torch.randn(8, 6, generator=generator)
    with seeded(0):
        module = nn.Linear(8, 6)
    if learnt:
        module.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    losses = train_contrastive(
        lambda i: module(x[i]),
        lookup(target),
        64,
        modules=[module],
        recipe=recipe,
        run=PlainRun(),
        stage="toy",
        logit_scale=module.scale if learnt else None,  # type: ignore[arg-type]
    )
    return losses, module, module.scale.item() if learnt else 0.0  # type: ignore[operator, union-attr]


def test_it_learns_and_repeats() -> None:
    recipe = Recipe(epochs=20, batch=16, lr=3e-2)
    losses, module, _ = fitted(recipe)
    assert losses[-1] < 0.5 * losses[0]
    assert not module.training
    assert torch.equal(module.weight, fitted(recipe)[1].weight)


def test_the_scale_is_learnt() -> None:
    _, _, scale = fitted(Recipe(epochs=5, batch=16, lr=1e-2, decay_vectors=False), learnt=True)
    assert scale != pytest.approx(math.log(1 / 0.07), abs=1e-3)


def test_a_batch_larger_than_the_corpus() -> None:
    assert len(fitted(Recipe(epochs=2, batch=500, lr=1e-2))[0]) == 2


def test_a_loss_that_is_no_number_names_the_stage_and_the_rate_it_was_at() -> None:
    module = nn.Linear(2, 2)
    told = "stage 'volumes' became nan in epoch 1, step 1 of 1, at learning rate 4e-05"
    with pytest.raises(CellError, match=told):
        train_contrastive(
            lambda i: module(torch.full((len(i), 2), math.nan)),
            lookup(torch.eye(2)),
            2,
            modules=[module],
            recipe=Recipe(epochs=4, batch=2, lr=1e-3, schedule="onecycle", warmup=0.5),
            run=PlainRun(),
            stage="volumes",
        )
