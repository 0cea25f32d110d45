"""A batch in parts is the same step; memory that ends costs nothing but time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from medbench.errors import CellError
from medbench.models.contrastive import seeded, train_contrastive
from medbench.models.descent import Recipe, descend
from medbench.models.ranks import Ranks
from toy_run import ToyRun

RECIPE = Recipe(epochs=3, batch=12, lr=1e-2)
Train = Callable[..., tuple[nn.Module, list[float], ToyRun]]


def run_of(folder: Path, parts: int) -> ToyRun:
    run = ToyRun(folder)
    run.ranks = Ranks(parts=parts)
    return run


def plain(folder: Path, parts: int = 1, fits: int = 99) -> tuple[nn.Module, list[float], ToyRun]:
    """Regression; a piece of more than ``fits`` samples "ends the memory"."""
    with seeded(0):
        x, y, module = torch.randn(48, 5), torch.randn(48, 3), nn.Linear(5, 3)

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        if len(chosen) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")
        return (module(x[chosen]) - y[chosen]).square().mean()

    run = run_of(folder, parts)
    return module, descend(loss, 48, modules=[module], recipe=RECIPE, run=run, stage="toy"), run


def contrastive(
    folder: Path, parts: int = 1, fits: int = 99, dropout: float = 0.0
) -> tuple[nn.Module, list[float], ToyRun]:
    with seeded(0):
        x, y = torch.randn(48, 5), torch.randn(48, 6)
        module = nn.ModuleDict({"image": nn.Linear(5, 4), "text": nn.Linear(6, 4)})
        scale = nn.Parameter(torch.tensor(2.0))
        module.register_parameter("scale", scale)

    def of(tower: str, rows: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        def features(chosen: torch.Tensor) -> torch.Tensor:
            if len(chosen) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return module[tower](nn.functional.dropout(rows[chosen], dropout, module.training))  # type: ignore[no-any-return]

        return features

    run = run_of(folder, parts)
    losses = train_contrastive(
        of("image", x),
        of("text", y),
        48,
        modules=[module],
        recipe=RECIPE,
        run=run,
        stage="toy",
        logit_scale=scale,
    )
    return module, losses, run


@pytest.mark.parametrize("train", [plain, contrastive])
@pytest.mark.parametrize("parts", [3, 5, 40])
def test_a_batch_in_parts_takes_the_step_of_the_whole(
    train: Train, parts: int, tmp_path: Path
) -> None:
    whole, losses, _ = train(tmp_path / "whole")
    other, same, _ = train(tmp_path / "parts", parts)
    assert same == pytest.approx(losses, rel=1e-5)
    untrained = train.__globals__["RECIPE"].lr  # AdamW moves a weight by about that much a step
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=0, atol=untrained / 100)


@pytest.mark.parametrize("train", [plain, contrastive])
def test_where_memory_ends_a_batch_goes_on_in_parts_and_the_user_is_told(
    train: Train, tmp_path: Path
) -> None:
    whole, losses, _ = train(tmp_path / "whole")
    other, same, run = train(tmp_path / "parts", fits=4)
    assert [w.split(" parts ")[0][-1] for w in run.warnings] == ["2", "4"]
    assert "Out of memory" in run.warnings[0]
    assert same == pytest.approx(losses, rel=1e-5)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=0, atol=1e-4)


def test_one_sample_that_does_not_fit_ends_the_cell(tmp_path: Path) -> None:
    with pytest.raises(CellError, match="'toy' ran out of memory with 1 samples at once") as told:
        plain(tmp_path / "run", fits=0)
    assert "and more" not in str(told.value)


def test_each_part_of_a_contrastive_batch_is_computed_again_with_its_own_random_draws(
    tmp_path: Path,
) -> None:
    """With other draws the second time, gradients would not be those of the loss: it is held
    against autograd on the very features that the first pass saw."""
    steps: list[tuple[torch.Tensor, torch.Tensor]] = []
    with seeded(0):
        x, module = torch.randn(12, 8), nn.Linear(8, 4)
    own = torch.Generator().manual_seed(3)

    def features(chosen: torch.Tensor) -> torch.Tensor:
        seen = nn.functional.dropout(x[chosen], 0.5) + torch.rand(len(chosen), 8, generator=own)
        steps.append((chosen, seen))
        return module(seen)  # type: ignore[no-any-return]

    run = run_of(tmp_path / "run", 4)
    recipe = Recipe(epochs=1, batch=12, lr=1e-2)
    train_contrastive(
        features,
        lambda i: x[i, :4],
        12,
        modules=[module],
        recipe=recipe,
        run=run,
        stage="toy",
        generators=[own],
    )
    assert len(steps) == 8
    for (chosen, seen), (again, resaid) in zip(steps[:4], steps[4:], strict=True):
        assert torch.equal(chosen, again)
        assert torch.equal(seen, resaid)
        assert not torch.equal(seen, x[chosen])
