"""Two processes train what one would have trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from medbench.data.samples import Corpus
from medbench.errors import CellError, MedbenchError, UsageError
from medbench.models.capabilities import Stage, State
from medbench.models.ranks import Ranks
from medbench.plugins import discover
from medbench.run.fit import construct, stage_key, train
from medbench.run.fitting import StageRun
from medbench.run.load import open_corpus
from medbench.run.reporter import Reporter
from medbench.run.request import Request, RunSpec
from medbench.run.resolve import resolve
from medbench.run.stores import Store, digest
from medbench.run.together import train_together

# A transformer: BatchNorm on a CPU sees each process's share, so its curve would differ.
SETTINGS = (
    "vision_layers=2",
    "vision_width=64",
    "vision_patch=16",
    "base_epochs=2",
    "base_batch=16",
    "text_layers=1",
)


@pytest.fixture
def cell(
    phantoms: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunSpec:
    monkeypatch.setenv("MEDBENCH_CONFIG", str(tmp_path / "none.toml"))
    names = ("covid-ct-md", "image-text-pairs", "scenes")
    request = Request(
        models=("radclip@clip",),
        tasks=("covid-ct",),
        data=tuple(f"{name}={phantoms(name)}" for name in names),
        output=tmp_path / "runs",
        device="cpu",
        devices=2,
        settings=SETTINGS,
    )
    return resolve(request, discover(third_party=False)).cells[0]


def corpus_of(cell: RunSpec, tmp_path: Path) -> Corpus:
    from medbench.run.load import load

    store, reporter = Store(tmp_path / "store"), Reporter()
    return open_corpus(cell, "scenes", load(cell, store, reporter), store, reporter)


def base(cell: RunSpec) -> Stage:
    return next(s for s in construct(cell).stages(None) if s.name == "base")


class Curve:
    """Notes the loss that each step reports."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.notes: list[str] = []

    def __call__(self, done: int, total: int, **figures: float) -> None:
        if "loss" in figures:
            self.losses.append(figures["loss"])


def together(cell: RunSpec, corpus: Corpus, folder: Path, curve: Curve) -> State:
    folder.mkdir(exist_ok=True)
    return train_together(
        cell, base(cell), corpus, {}, folder, advance=curve, say=print, notes=curve.notes
    )


def test_two_processes_follow_the_loss_curve_of_one(cell: RunSpec, tmp_path: Path) -> None:
    corpus = corpus_of(cell, tmp_path)
    alone, both = Curve(), Curve()
    folder = tmp_path / "alone"
    folder.mkdir()
    run = StageRun(
        device=torch.device("cpu"),
        precision="fp32",
        seed=cell.seed,
        folder=folder,
        advance=alone,
        say=print,
        notes=[],
    )
    one = train(cell, construct(cell, base(cell)), base(cell), corpus, {}, run)
    two = together(cell, corpus, tmp_path / "two", both)
    assert len(alone.losses) == 6
    assert both.losses == pytest.approx(alone.losses, abs=0.002)
    assert alone.losses[0] - min(alone.losses) > 0.05  # a curve, not a line
    start = construct(cell, base(cell)).state("base")
    moved = max(float((one[n] - start[n]).abs().max()) for n in one)
    for name, value in two.items():
        torch.testing.assert_close(value, one[name], rtol=0, atol=moved / 20)


@pytest.mark.slow  # four processes that import torch
def test_parts_and_resuming_go_with_several_processes(cell: RunSpec, tmp_path: Path) -> None:
    corpus = corpus_of(cell, tmp_path)
    whole, parts, resumed = Curve(), Curve(), Curve()
    two = together(cell, corpus, tmp_path / "two", whole)
    cell = replace(cell, accumulate=2)
    again = together(cell, corpus, tmp_path / "parts", parts)
    assert parts.losses == pytest.approx(whole.losses, abs=0.002)
    for name, value in again.items():
        torch.testing.assert_close(value, two[name], rtol=0, atol=2e-4)
    (tmp_path / "parts" / "together.safetensors").unlink()
    third = together(cell, corpus, tmp_path / "parts", resumed)
    assert not resumed.losses  # both epochs were done
    assert all(torch.equal(third[n], again[n]) for n in again)


def test_what_a_process_raises_ends_the_stage_with_its_message(
    cell: RunSpec, tmp_path: Path
) -> None:
    corpus = corpus_of(cell, tmp_path)
    stage = base(cell)
    wild = replace(stage, config={**stage.config, "base_lr": float("inf")})
    with pytest.raises(CellError, match="loss of stage 'base' became nan"):
        train_together(cell, wild, corpus, {}, tmp_path, advance=Curve(), say=print, notes=[])


def test_a_batch_that_cannot_be_shared_equally_is_refused() -> None:
    three = Ranks(SimpleNamespace(num_processes=3, process_index=1))
    with pytest.raises(UsageError, match="batches of 16, which 3 devices cannot share equally"):
        three.check(16, "base")
    three.check(15, "base")
    assert three.share(torch.arange(15)).tolist() == [5, 6, 7, 8, 9]


def test_the_number_of_devices_is_part_of_a_shared_stage_s_key_alone(cell: RunSpec) -> None:
    stage = base(cell)
    single = replace(cell, devices=1)
    assert digest(stage_key(cell, stage, {})) != digest(stage_key(single, stage, {}))
    other = replace(stage, together=False)
    assert digest(stage_key(cell, other, {})) == digest(stage_key(single, other, {}))


def test_parts_of_a_batch_are_part_of_the_key_where_they_are_taken(cell: RunSpec) -> None:
    stage, single = base(cell), replace(cell, devices=1)
    parts = replace(single, accumulate=2)
    assert digest(stage_key(parts, stage, {})) != digest(stage_key(single, stage, {}))
    other = replace(stage, together=False)
    assert digest(stage_key(parts, other, {})) == digest(stage_key(single, other, {}))


def test_processes_draw_for_their_own_share(tmp_path: Path) -> None:
    drawn = []
    for rank in (0, 1):
        folder = tmp_path / str(rank)
        folder.mkdir()
        place = SimpleNamespace(num_processes=2, process_index=rank, wait_for_everyone=lambda: None)
        run = StageRun(
            device=torch.device("cpu"),
            precision="fp32",
            seed=0,
            folder=folder,
            advance=lambda done, total, **figures: None,
            say=print,
            notes=[],
            ranks=Ranks(place),
        )
        for _ in run.epochs(1):
            drawn.append(torch.rand(4))
    assert not torch.equal(drawn[0], drawn[1])


def test_impossible_numbers_of_devices_are_refused(tmp_path: Path) -> None:
    for wrong in ({"devices": 0}, {"accumulate": 0}):
        request = Request(models=("radclip",), tasks=("covid-ct",), output=tmp_path, **wrong)  # type: ignore[arg-type]
        with pytest.raises(MedbenchError, match="at least 1"):
            resolve(request, discover(third_party=False))
