"""A model of an isolated plugin does what it does in process, to the bit."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import environments
import numpy as np
import pytest
import torch

from medbench.data.samples import Corpus
from medbench.errors import CellError, DataError
from medbench.isolation import process
from medbench.isolation.install import NEEDS
from medbench.isolation.model import IsolatedModel, holds
from medbench.models.modules import count_parameters
from medbench.plugins import Plugin, discover
from medbench.run.fit import construct, guarded, train
from medbench.testing.answers import answers
from medbench.testing.corpus import Drawn, corpus
from medbench.testing.inputs import inputs
from medbench.testing.subject import Subject
from medbench.testing.training import Recorded, fit


class InProcess:
    """A registry in which one of tests/plugin_packages runs in this process."""

    def __init__(self, module: str) -> None:
        if str(environments.PACKAGES) not in sys.path:
            sys.path.append(str(environments.PACKAGES))
        self.module = __import__(module)
        self.others = discover(isolated=False)

    def model(self, name: str) -> Any:
        return self.module.medbench_models()[0]

    def owner(self, kind: str, name: str) -> Plugin:
        return Plugin(self.module.__name__, self.module.__name__, "here", "1.0")

    def dataset(self, name: str) -> Any:
        return self.others.dataset(name)


@pytest.fixture
def subject(home: Path, tmp_path: Path) -> Any:
    """``subject("toy")``: the model as it is isolated."""
    registry = discover()
    return lambda model: Subject(registry, model, tmp_path)


@pytest.mark.parametrize(("module", "model"), [("toy_model", "toy"), ("able_model", "able")])
def test_training_and_answers_are_those_of_a_model_in_process(
    subject: Any, tmp_path: Path, module: str, model: str
) -> None:
    (tmp_path / "here").mkdir()
    here = Subject(InProcess(module), model, tmp_path / "here")  # type: ignore[arg-type]
    there = subject(model)
    assert isinstance(construct(there.cell), IsolatedModel)
    assert list(here.stages) == list(there.stages)
    if here.stages:
        assert fit(here) == fit(there)
        assert here.losses == there.losses
        for name, tensor in here.states["fit"].items():
            assert torch.equal(tensor, there.states["fit"][name])
    given = inputs(here.image_size)
    one, other = here.fitted(), there.fitted()
    expected, found = answers(here.cell, one, given), answers(there.cell, other, given)
    assert (
        set(expected)
        == set(found)
        == {*there.cell.capabilities} - {"fit"}
        | {name for name in expected if "[" in name} - {"encode_patches"}
        or model == "able"
    )
    for name, answer in expected.items():
        if isinstance(answer, np.ndarray):
            assert answer.tobytes() == found[name].tobytes()  # type: ignore[union-attr]
        else:
            assert answer == found[name]
    assert count_parameters(one) == count_parameters(other)
    assert other.temperature == one.temperature
    assert other.class_prompts(here.cell.task) == one.class_prompts(here.cell.task)
    assert not hasattr(other, "neutral_prompts")
    assert not hasattr(other, "pool_slices")


def test_it_uses_the_library_that_it_asks_for(
    subject: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conflict_lib.py").write_text("VERSION = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert __import__("conflict_lib").VERSION == 1
    assert construct(subject("edge").cell).library() == 2


def test_the_worker_needs_little_of_what_medbench_needs(subject: Any, tmp_path: Path) -> None:
    """Whatever the plugins of this file have asked for, training included."""
    there = subject("toy")
    run = Recorded(tmp_path, tmp_path / "alive")
    whole = corpus("image-text-pairs", "pair")
    train(there.cell, construct(there.cell), there.stages[0], whole, {}, run)
    found = set(construct(subject("edge").cell).modules())
    assert {"medbench", "torch", "toy_model"} <= found
    ours = {line.split(">")[0].split("=")[0] for line in metadata.requires("medbench") or ()}
    names = metadata.packages_distributions()
    distributions = {name.lower() for module in found for name in names.get(module, ())}
    # what torch and pydantic bring along themselves
    allowed = {*NEEDS, "filelock", "jinja2"}
    assert {name.lower() for name in ours} & distributions <= allowed


def test_values_of_every_kind_pass_both_ways(subject: Any) -> None:
    model = construct(subject("edge").cell)
    given = ([1, 2.5, "ä", None], {"a": {3: (True,)}}, torch.ones(2, 3, dtype=torch.bfloat16))
    *plain, tensor = model.echo(*given)
    assert plain == list(given[:2])
    assert torch.equal(tensor, given[2])


def test_it_is_called_in_the_context_of_its_caller(subject: Any) -> None:
    model = construct(subject("edge").cell)
    assert model.context() == (False, True, "None")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert model.context() == (True, False, "torch.bfloat16")
    with torch.no_grad():
        assert model.context() == (False, False, "None")


def test_stages_that_medbench_owns_are_trained_by_medbench(subject: Any) -> None:
    cell = subject("toy").cell
    assert holds(cell.model, "toy_model:Toy")
    assert not holds(cell.model, "medbench.models.base_clip:BaseClip")


def test_what_it_raises_names_its_cell_and_its_line(subject: Any) -> None:
    cell = subject("edge").cell
    model = construct(cell)
    place = r"raised LookupError in asking \(edge_cases\.py, line \d+\): nothing here"
    with pytest.raises(CellError, match=place) as caught, guarded(cell, "asking"):
        model.fails()
    assert 'raise LookupError("nothing here")' in str(caught.value.__cause__.__notes__)  # type: ignore[union-attr]
    with pytest.raises(CellError, match="a object cannot be sent"), guarded(cell, "asking"):
        model.unsendable()
    assert model.echo(1) == (1,)


class Killed(Recorded):
    """The harness's own run, which ends after some steps, as by a kill."""

    left = 9

    def advance(self, done: int, total: int, **figures: float) -> None:
        super().advance(done, total, **figures)
        self.left -= 1
        if self.left == 0:
            raise InterruptedError("killed")


def test_a_killed_fit_goes_on_to_the_same_bits(subject: Any, tmp_path: Path) -> None:
    there = subject("toy")
    (stage,) = there.stages

    def fitted(folder: str, kind: type[Recorded] = Recorded) -> Any:
        (tmp_path / folder).mkdir(exist_ok=True)
        run = kind(tmp_path / folder, tmp_path / "alive")
        model = construct(there.cell)
        return train(there.cell, model, stage, corpus("image-text-pairs", "pair"), {}, run)

    whole = fitted("whole")
    with pytest.raises(CellError, match=r"raised InterruptedError in training .* killed"):
        fitted("broken", Killed)
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["epochs-fit.pt"]
    again = fitted("broken")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


class Damaged(Drawn):
    """One of its files cannot be read."""

    def pixels(self, sample: Any) -> Any:
        if sample.id == "image-3-0":
            raise DataError("three.png is damaged")
        return super().pixels(sample)


def test_a_damaged_file_is_an_error_of_the_data(subject: Any, tmp_path: Path) -> None:
    there = subject("toy")
    (stage,) = there.stages
    whole = corpus("image-text-pairs", "pair")
    damaged = Corpus(whole.name, whole.samples, Damaged(), "0" * 64, "phantom")
    run = Recorded(tmp_path / "run", tmp_path / "alive")
    with pytest.raises(DataError, match=r"Sample 'image-3-0': three\.png is damaged"):
        train(there.cell, construct(there.cell), stage, damaged, {}, run)


def test_objects_that_nobody_holds_are_forgotten(subject: Any) -> None:
    cell = subject("edge").cell
    first = construct(cell)
    number, running = first._number, first._process
    del first
    second = construct(cell)
    with pytest.raises(Exception, match=str(number)):
        running.ask("get", number=number, name="image_size")
    assert second.image_size == 16


def test_out_of_memory_ends_the_worker_and_names_the_cell(subject: Any) -> None:
    cell = subject("edge").cell
    model = construct(cell)
    words = re.escape(cell.title) + r".* ran out of memory \(OutOfMemoryError at edge_cases\.py"
    with pytest.raises(CellError, match=words):
        model.fills_memory()
    with pytest.raises(CellError, match="is gone"):
        model.echo()
    assert construct(cell).image_size == 16
    process.end_all()


def test_fine_tuning_is_refused_with_its_reason(home: Path) -> None:
    from medbench.run.resolve import _impossible

    registry = discover()
    task: Any = SimpleNamespace(
        protocols={"clean": None},
        synthetic=None,
        writer="",
        input="image",
        adaptations=("fine-tune",),
    )
    told = _impossible(registry.model("toy"), None, task, "fine-tune", "clean")
    assert "install its plugin without --isolated" in told
