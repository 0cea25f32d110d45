"""Who makes what when: stages are asked for as soon as what they need is there.

A stage is made on behalf of one of the cells that need it. Where that cell's own data are refused,
the stage is tried for the next cell; any other failure is that of every cell that needs the stage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from medbench.errors import DataError
from medbench.run.request import RunSpec
from medbench.run.runner import Failure, Outcome
from medbench.schemas.record import Record
from medbench.sweep.executor import Call, Executor
from medbench.sweep.graph import Graph, Node
from medbench.sweep.work import Answer, make


@dataclass
class State:
    """How far a stage is: ``waiting``, ``running``, ``there`` (from before), ``made``, ``failed``
    or ``not run``, with the reason for the last two."""

    name: str = "waiting"
    reason: str = ""
    seconds: float = 0.0
    where: str = ""

    @property
    def ended(self) -> bool:
        return self.name not in ("waiting", "running")


class Shown(Protocol):
    """What follows a sweep for the user."""

    def say(self, message: str) -> None: ...

    def changed(self, node: Node, state: State, cell: RunSpec, said: tuple[str, ...]) -> None:
        """A stage has begun, or ended."""
        ...


@dataclass
class Sweep:
    """A graph at work."""

    graph: Graph
    executor: Executor
    shown: Shown
    states: dict[str, State] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    records: dict[int, Record] = field(default_factory=dict)

    def run(self) -> Outcome:
        """Make every stage that is missing. Raises only what is no stage's own failure."""
        nodes = {node.id: node for node in self.graph.nodes}
        data = {i: self.graph.data_of(i) for i in range(len(self.graph.plan.cells))}
        for node in self.graph.nodes:
            there = node.there and node.kind != "cell"  # a cell's record is still to be read
            self.states[node.id] = State("there" if there else "waiting")
        running: dict[str, int] = {}
        while True:
            self._give_up()
            for node in self.graph.nodes:
                if not self.executor.room():
                    break
                cell = self._ready(node, data)
                if cell is not None:
                    running[node.id] = cell
                    self._ask(node, cell)
            if not running:
                break
            for name, answer in self.executor.wait():
                self._settle(nodes[name], running.pop(name), answer)
        plan = self.graph.plan
        for node in self.graph.nodes:
            if node.kind == "cell" and self.states[node.id].name == "waiting":
                for i in self._alive(node):  # what it shares needs what a failed cell alone has
                    title = plan.cells[i].title
                    self.failures[i] = Failure(
                        title,
                        f"{title}: not run. A stage that it shares with a cell that failed could "
                        "not be made for that reason. Run it without that cell.",
                        1,
                    )
        refused = [Failure(r.cell, str(r.error), r.error.exit_code) for r in plan.refused]
        return Outcome(
            records=[self.records[i] for i in sorted(self.records)],
            failures=[*refused, *(self.failures[i] for i in sorted(self.failures))],
            cells=len(plan.cells) + len(plan.refused),
        )

    def _ready(self, node: Node, data: dict[int, set[str]]) -> int | None:
        """The cell on whose behalf a stage can be made now; None: not yet."""
        if self.states[node.id].name != "waiting" or not self._made(node.needs):
            return None
        if any(not self.states[one].ended for one in node.after if one in self.states):
            return None
        # all but a dataset's own stages open the data of their cell
        for cell in self._alive(node):
            if node.kind == "dataset" or self._made(data[cell]):
                return cell
        return None

    def _made(self, names: tuple[str, ...] | set[str]) -> bool:
        return all(self.states[name].name in ("there", "made") for name in names)

    def _alive(self, node: Node) -> list[int]:
        return [i for i in node.cells if i not in self.failures]

    def _ask(self, node: Node, index: int) -> None:
        cell = self.graph.plan.cells[index]
        state = self.states[node.id]
        state.name, state.reason = "running", ""
        self.shown.changed(node, state, cell, ())
        gpu = node.gpu and cell.device.startswith("cuda")
        arguments = (node, cell, self.graph.plan.output)
        self.executor.submit(Call(node.id, make, arguments, gpu, cell.preset))

    def _settle(self, node: Node, index: int, answer: Answer) -> None:
        cell, state = self.graph.plan.cells[index], self.states[node.id]
        state.seconds, state.where = answer.seconds, answer.where
        if not answer.error:
            state.name = "made"
            if answer.record is not None:
                self.records[index] = Record.model_validate_json(answer.record)
        else:
            state.name, state.reason = "failed", answer.error
            if node.kind == "cell" or answer.exit_code == DataError.exit_code:
                self.failures[index] = Failure(cell.title, answer.error, answer.exit_code)
            else:
                for i in self._alive(node):
                    self.failures[i] = Failure(
                        self.graph.plan.cells[i].title,
                        f"not run, since a stage failed ({node.title}): {answer.error}",
                        answer.exit_code,
                    )
            if self._alive(node):
                state.name = "waiting"  # for another cell, whose data may be sound
        self.shown.changed(node, state, cell, answer.said)

    def _give_up(self) -> None:
        """Stages that no cell needs any more."""
        for node in self.graph.nodes:
            state = self.states[node.id]
            if state.name == "waiting" and not self._alive(node):
                state.name, state.reason = "not run", self.failures[node.cells[-1]].message
                self.shown.changed(node, state, self.graph.plan.cells[node.cells[-1]], ())


def stages(sweep: Sweep) -> list[dict[str, object]]:
    """What became of every stage, as a document."""
    return [
        {
            "kind": node.kind,
            "stage": node.title,
            "cells": len(node.cells),
            "state": sweep.states[node.id].name,
            "reason": sweep.states[node.id].reason,
            "seconds": sweep.states[node.id].seconds,
            "where": sweep.states[node.id].where,
        }
        for node in sweep.graph.nodes
    ]
