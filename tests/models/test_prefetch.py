"""What is made ahead is what would have been made at once, and no thread is left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medbench.data.images import to_tensor, to_unit
from medbench.models import prefetch
from medbench.models.contrastive import seeded
from medbench.models.descent import Recipe, descend
from medbench.models.prefetch import Pictures, ahead, one_ahead
from medbench.models.ranks import Ranks
from toy_run import Killed, ToyRun

CPU = torch.device("cpu")


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("prefetch")]


class Shelf:
    """Pictures of noise, which notes in what thread each was taken."""

    def __init__(self, count: int = 24, damaged: int = -1) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8), np.uint8)
        self.damaged = damaged
        self.takers: list[str] = []

    def stack(self, indices: Iterable[int]) -> torch.Tensor:
        rows = list(indices)
        self.takers.append(threading.current_thread().name)
        if self.damaged in rows:
            raise OSError(f"picture {self.damaged} is damaged")
        return torch.from_numpy(self.pixels[rows])

    def expected(self, chosen: torch.Tensor) -> torch.Tensor:
        return to_tensor(self.pixels[chosen.numpy()])


@pytest.fixture
def threaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU has, but for the copies: the next batch is made in a thread."""
    monkeypatch.setattr(prefetch, "ahead", lambda batches, device: one_ahead(batches))


def test_items_come_in_order_and_one_more_than_was_asked_for_is_made() -> None:
    made: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    arriving = one_ahead(items())
    assert next(arriving) == 0
    assert second.wait(10)
    assert made == [0, 1]
    assert list(arriving) == [1, 2, 3, 4]
    assert threads() == []


@pytest.mark.parametrize("how", [KeyboardInterrupt, ValueError])
def test_the_thread_ends_with_whoever_is_interrupted(how: type[BaseException]) -> None:
    def work() -> None:
        for number in one_ahead(range(100)):
            assert threads()
            if number == 3:
                raise how

    with pytest.raises(how):
        work()
    assert threads() == []


def test_an_error_is_raised_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    arriving = one_ahead(items())
    assert next(arriving) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(arriving)
    assert threads() == []


def test_on_a_cpu_nothing_is_made_before_it_is_asked_for() -> None:
    made: list[int] = []
    arriving = ahead((made.append(n) or torch.tensor([n]) for n in range(3)), CPU)
    assert next(arriving).tolist() == [0]
    assert (made, threads()) == ([0], [])


@pytest.mark.usefixtures("threaded")
def test_an_expected_batch_is_made_in_the_thread_and_served_whole_and_in_pieces() -> None:
    shelf = Shelf()
    pictures = Pictures(shelf, CPU)
    batches = list(torch.randperm(24).split(8))
    pictures.expect(batches)
    for batch in batches:
        for chosen in (batch, batch[:3], batch[3:], batch[:3]):
            assert torch.equal(pictures(chosen), shelf.expected(chosen))
    assert len(shelf.takers) == 3
    assert "MainThread" not in shelf.takers
    pictures.close()
    assert threads() == []


@pytest.mark.usefixtures("threaded")
def test_what_was_not_expected_is_made_at_once_and_disturbs_nothing() -> None:
    shelf = Shelf()
    pictures = Pictures(shelf, CPU)
    first, second = torch.arange(8), torch.arange(8, 16)
    other = torch.tensor([2, 1])
    assert torch.equal(pictures(other), shelf.expected(other))
    pictures.expect([first, second])
    for chosen in (first, other, torch.arange(0), second, torch.arange(14, 18), first):
        assert torch.equal(pictures(chosen), shelf.expected(chosen))
    pictures.expect([second])  # the next epoch
    assert torch.equal(pictures(second), shelf.expected(second))
    pictures.close()
    assert shelf.takers.count("MainThread") == 5


@pytest.mark.usefixtures("threaded")
def test_a_damaged_picture_is_named_when_its_batch_is_asked_for() -> None:
    pictures = Pictures(Shelf(damaged=12), CPU)
    pictures.expect([torch.arange(8), torch.arange(8, 16), torch.arange(16, 24)])
    assert len(pictures(torch.arange(8))) == 8
    with pytest.raises(OSError, match="picture 12"):
        pictures(torch.arange(8, 16))
    assert threads() == []
    assert len(pictures(torch.arange(16, 24))) == 8


def train(folder: Path, kill_after: int | None = None, parts: int = 1) -> dict[str, torch.Tensor]:
    """Three epochs with noise drawn for each batch; killed after some steps, gone on with after."""
    for kill in dict.fromkeys((kill_after, None)):
        shelf, run = Shelf(), ToyRun(folder, kill_after=kill)
        run.ranks = Ranks(parts=parts)
        pictures = Pictures(shelf, CPU)
        with seeded(0):
            module = nn.Linear(3 * 64, 2)

        def loss(
            chosen: torch.Tensor, module: nn.Module = module, pictures: Pictures = pictures
        ) -> torch.Tensor:
            seen = pictures(chosen)
            answer: torch.Tensor = module((seen + torch.rand(seen.shape)).flatten(1))
            return answer.square().mean()

        recipe = Recipe(epochs=3, batch=5, lr=1e-2)
        try:
            descend(
                loss, 24, modules=[module], recipe=recipe, run=run, stage="s", pictures=pictures
            )
        except Killed:
            assert kill is not None
        assert threads() == []
    return module.state_dict()


@pytest.mark.parametrize("parts", [1, 2])
def test_training_is_the_same_to_the_bit_and_so_is_a_resumed_one(
    tmp_path: Path, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(tmp_path / "plain", parts=parts)
    monkeypatch.setattr(prefetch, "ahead", lambda batches, device: one_ahead(batches))
    unbroken = train(tmp_path / "unbroken", parts=parts)
    resumed = train(tmp_path / "resumed", 6, parts)
    for name, value in plain.items():
        assert torch.equal(value, unbroken[name])
        assert torch.equal(value, resumed[name])


@pytest.mark.gpu
def test_on_a_gpu_batches_arrive_whole_and_become_the_same_floats() -> None:
    device = torch.device("cuda")
    stacks = [torch.randint(0, 256, (64, 224, 224), dtype=torch.uint8) for _ in range(8)]
    for sent, come in zip(stacks, ahead(stacks, device), strict=True):
        busy = torch.randn(2048, 2048, device=device)
        for _ in range(20):
            busy = busy @ busy / 50
        assert torch.equal(to_unit(come).cpu(), to_unit(sent))
    assert threads() == []
