"""What a worker does: draw the graph, or make one of its stages, with the ordinary code of a run.

A worker is a process that imports little until it is asked for something. What it needs to know of
the sweep comes with each question, so that any worker, on any machine, can answer any of them.
"""

from __future__ import annotations

import io
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from medbench.errors import MedbenchError
from medbench.run.reporter import Reporter

if TYPE_CHECKING:
    from medbench.plugins import Registry
    from medbench.run.request import Request, RunSpec
    from medbench.sweep.graph import Graph, Node


@dataclass(frozen=True)
class Session:
    """What every worker knows of the sweep.

    Attributes:
        environment: variables to set, ``MEDBENCH_HOME`` among them.
        backbones: values of ``--backbone``.
        fresh: store time before which nothing counts as made; False: everything counts.
        marker: a file in the home that the driver keeps while the sweep lasts; None: not asked.
    """

    environment: Mapping[str, str]
    backbones: tuple[str, ...] = ()
    fresh: bool | float = False
    marker: Path | None = None


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        said: lines for the user.
        graph: that was drawn.
        record: of a finished cell, as JSON.
        error: what went wrong, a paragraph; empty where nothing did.
        exit_code: that the error asks for.
        seconds: wall time in the worker.
        where: host and process of the worker.
    """

    said: tuple[str, ...] = ()
    graph: Graph | None = None
    record: str | None = None
    error: str = ""
    exit_code: int = 0
    seconds: float = 0.0
    where: str = ""


class Collected(Reporter):
    """Keeps what is said, for the driver to show; draws nothing."""

    def __init__(self) -> None:
        from rich.console import Console

        super().__init__()
        self.console = Console(file=io.StringIO(), highlight=False)
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def draw_graph(session: Session, threads: int, request: Request) -> Answer:
    """Resolve a request where the work will be done, and draw its graph."""
    from dataclasses import replace

    from medbench.run.resolve import resolve
    from medbench.run.stores import Store, home
    from medbench.sweep.graph import draw

    started = time.perf_counter()
    try:
        enter(session, threads)
        plan = resolve(request, _registry())
        # a worker elsewhere has another working folder
        cells = tuple(
            replace(
                cell,
                weights=cell.weights and cell.weights.absolute(),
                stage_weights={n: p.absolute() for n, p in cell.stage_weights.items()},
            )
            for cell in plan.cells
        )
        plan = replace(plan, cells=cells, output=plan.output.absolute())
        graph = draw(plan, Store(home(), fresh=session.fresh))
    except MedbenchError as error:
        return _answer(started, error=str(error), exit_code=error.exit_code)
    return _answer(started, graph=graph)


def make(session: Session, threads: int, node: Node, cell: RunSpec, output: Path) -> Answer:
    """Make one stage on behalf of one of its cells."""
    from medbench.run.request import Plan
    from medbench.run.runner import Runner

    started = time.perf_counter()
    reporter = Collected()
    try:
        enter(session, threads)
        plan = Plan((cell,), (), output)
        runner = Runner(_registry(), plan, fresh=session.fresh, reporter=reporter)
    except MedbenchError as error:
        return _answer(started, error=str(error), exit_code=error.exit_code)
    whole = node.stage == "cell"
    outcome = runner.run() if whole else runner.make(cell, node.stage, node.name)
    said = tuple(reporter.said)
    for failure in outcome.failures:
        return _answer(started, said=said, error=failure.message, exit_code=failure.exit_code)
    record = outcome.records[0].model_dump_json(by_alias=True) if outcome.records else None
    return _answer(started, said=said, record=record)


def enter(session: Session, threads: int) -> None:
    """Make this process one of the sweep's. Raises DataError where it does not see its files."""
    from medbench.errors import DataError

    os.environ.update(session.environment)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # which has read the variable long ago
        sys.modules["torch"].set_num_threads(threads)
    if session.marker is not None and not session.marker.exists():
        raise DataError(
            f"{here()} does not see {session.marker}, which the sweep wrote when it started. "
            "Every node needs MEDBENCH_HOME on one shared file system."
        )
    _choose(session.backbones)


def here() -> str:
    """This worker, for people: host and process."""
    return f"{socket.gethostname()}, process {os.getpid()}"


@cache
def _choose(backbones: tuple[str, ...]) -> None:
    from medbench.metrics.backbones import choose

    choose(backbones)


@cache
def _registry() -> Registry:
    from medbench.plugins import discover

    off = os.environ.get("MEDBENCH_NO_PLUGINS", "").lower() not in ("", "0", "false", "no")
    return discover(third_party=not off)


def _answer(started: float, **values: object) -> Answer:
    seconds = round(time.perf_counter() - started, 3)
    return Answer(seconds=seconds, where=here(), **values)  # type: ignore[arg-type]
