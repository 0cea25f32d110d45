"""What is asked for when, and what a failure means for whom."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from medbench.run.request import Plan
from medbench.sweep.executor import Call
from medbench.sweep.graph import Graph, Node
from medbench.sweep.scheduler import State, Sweep, stages
from medbench.sweep.work import Answer


class Scripted:
    """An executor that answers one call at a time, oldest first, as it was told."""

    gpus = 0.0

    def __init__(self, answers: dict[str, list[Answer]], room: int = 99) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []  # stage, cell
        self.most = room
        self._open: list[Call] = []

    def refuse_missing(self, paths: Any) -> None: ...

    def room(self) -> bool:
        return len(self._open) < self.most

    def submit(self, call: Call) -> None:
        self._open.append(call)
        self.asked.append((call.id, call.arguments[1].title))

    def wait(self) -> list[tuple[str, Answer]]:
        call = self._open.pop(0)
        told = self.answers.get(call.id)
        return [(call.id, told.pop(0) if told else Answer())]

    def close(self) -> None: ...


class Silent:
    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []

    def say(self, message: str) -> None: ...

    def changed(self, node: Node, state: State, cell: Any, said: tuple[str, ...]) -> None:
        if state.ended:
            self.ended.append((node.id, state.name))


def graph(*nodes: Node, cells: int) -> Graph:
    fake: Any = tuple(
        SimpleNamespace(title=f"cell {i}", device="cpu", preset="tiny") for i in range(cells)
    )
    return Graph(Plan(fake, (), Path("out")), nodes)


def node(name: str, kind: Any, cells: tuple[int, ...], *needs: str, **more: Any) -> Node:
    return Node(name, kind, name, kind, "", cells, needs, **more)


def two_models() -> Graph:
    """Two cells on one dataset, which share a base model; each has a training of its own."""
    return graph(
        node("data", "dataset", (0, 1)),
        node("base", "base model", (0, 1), "data"),
        node("fit-0", "pre-training", (0,), "base"),
        node("cell-0", "cell", (0,), "data", "base", "fit-0"),
        node("fit-1", "pre-training", (1,), "base"),
        node("cell-1", "cell", (1,), "data", "base", "fit-1"),
        cells=2,
    )


def sweep(drawn: Graph, room: int = 99, **answers: list[Answer]) -> tuple[Sweep, Scripted, Any]:
    executor = Scripted({k.replace("_", "-"): v for k, v in answers.items()}, room)
    work = Sweep(drawn, executor, Silent())
    return work, executor, work.run()


def test_a_stage_is_made_once_and_after_what_it_needs() -> None:
    _, executor, outcome = sweep(two_models())
    order = [stage for stage, _ in executor.asked]
    assert sorted(order) == sorted(n.id for n in two_models().nodes)
    for part in two_models().nodes:
        assert all(order.index(need) < order.index(part.id) for need in part.needs)
    assert outcome.exit_code == 0


def test_no_more_is_asked_than_there_is_room_for() -> None:
    drawn = graph(*(node(f"cell-{i}", "cell", (i,)) for i in range(5)), cells=5)
    open_at_once = []

    class Watched(Scripted):
        def wait(self) -> list[tuple[str, Answer]]:
            open_at_once.append(len(self._open))
            return super().wait()

    Sweep(drawn, Watched({}, room=2), Silent()).run()
    assert max(open_at_once) == 2


def test_what_is_there_is_not_made_but_a_cells_record_is_read() -> None:
    drawn = graph(
        node("data", "dataset", (0, 1), there=True),
        node("cell-0", "cell", (0,), there=True),
        node("cell-1", "cell", (1,), "data"),
        cells=2,
    )
    work, executor, _ = sweep(drawn)
    assert [stage for stage, _ in executor.asked] == ["cell-0", "cell-1"]
    assert work.states["data"].name == "there"


def test_a_models_failure_is_tried_once_and_only_its_cells_are_not_run() -> None:
    failed = Answer(error="the model raised", exit_code=1)
    work, executor, outcome = sweep(two_models(), fit_0=[failed])
    assert [stage for stage, _ in executor.asked].count("fit-0") == 1
    assert "cell-0" not in [stage for stage, _ in executor.asked]
    assert [f.cell for f in outcome.failures] == ["cell 0"]
    assert "not run, since a stage failed (fit-0): the model raised" in outcome.failures[0].message
    assert outcome.exit_code == 1
    table = {row["stage"]: row for row in stages(work)}
    assert table["fit-0"]["state"] == "failed"
    assert table["cell-0"]["state"] == "not run"
    assert "the model raised" in str(table["cell-0"]["reason"])
    assert table["cell-1"]["state"] == "made"


def test_a_shared_stage_that_fails_fails_every_cell() -> None:
    _, executor, outcome = sweep(two_models(), base=[Answer(error="no memory", exit_code=1)])
    assert [stage for stage, _ in executor.asked] == ["data", "base"]
    assert [f.cell for f in outcome.failures] == ["cell 0", "cell 1"]


def test_data_that_one_cell_refuses_do_not_keep_another_from_the_stage() -> None:
    refused = Answer(error="shares patients with task A", exit_code=3)
    work, executor, outcome = sweep(two_models(), base=[refused])
    assert [cell for stage, cell in executor.asked if stage == "base"] == ["cell 0", "cell 1"]
    assert [f.cell for f in outcome.failures] == ["cell 0"]
    assert work.states["cell-1"].name == "made"
    assert work.states["fit-0"].name == "not run"
    assert outcome.failures[0].message == "shares patients with task A"
    assert (work.states["base"].name, work.states["base"].reason) == ("made", "")


def test_a_training_waits_for_the_data_of_the_cell_it_is_made_for() -> None:
    """A damaged file must not cost a training; another cell's data may be slow meanwhile."""
    drawn = graph(
        node("slow", "dataset", (0,)),
        node("quick", "dataset", (1,)),
        node("base", "base model", (0, 1)),
        cells=2,
    )
    work, executor, _ = sweep(drawn, slow=[Answer(error="damaged", exit_code=3)])
    assert executor.asked == [("slow", "cell 0"), ("quick", "cell 1"), ("base", "cell 1")]
    assert work.states["slow"].name == "failed"


def test_of_two_parts_of_a_dataset_the_second_follows_the_first_even_if_that_fails() -> None:
    drawn = graph(
        node("first", "dataset", (0,)),
        node("second", "dataset", (1,), after=("first",)),
        cells=2,
    )
    work, executor, _ = sweep(drawn, first=[Answer(error="damaged", exit_code=3)])
    assert [stage for stage, _ in executor.asked] == ["first", "second"]
    assert work.states["second"].name == "made"


def test_no_cell_is_lost_when_what_it_shares_cannot_be_made() -> None:
    """A training shared by cells of unlike image sizes waits for the first one's pixels."""
    drawn = graph(
        node("d64", "dataset", (0,)),
        node("d224", "dataset", (1,)),
        node("train", "pre-training", (0, 1), "d64"),
        node("cell-0", "cell", (0,), "d64", "train"),
        node("cell-1", "cell", (1,), "d224", "train"),
        cells=2,
    )
    _, _, outcome = sweep(drawn, d64=[Answer(error="out of memory", exit_code=1)])
    assert [failure.cell for failure in outcome.failures] == ["cell 0", "cell 1"]
    assert "not run" in outcome.failures[1].message


def test_a_single_cell_ends_with_its_own_exit_code() -> None:
    drawn = graph(node("data", "dataset", (0,)), node("cell-0", "cell", (0,), "data"), cells=1)
    _, _, outcome = sweep(drawn, data=[Answer(error="no such file", exit_code=3)])
    assert outcome.exit_code == 3
