"""A sweep from its request to its outcome, with the executor that was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from medbench.errors import (
    DataError,
    MedbenchError,
    PluginError,
    UsageError,
    VerificationError,
    unknown_name,
)
from medbench.run.request import Request
from medbench.run.stores import home
from medbench.sweep.executor import Call, Executor
from medbench.sweep.graph import Graph
from medbench.sweep.shared import marker
from medbench.sweep.work import Session, draw_graph

EXECUTORS = ("local", "ray")

_KINDS = {error.exit_code: error for error in (UsageError, DataError, PluginError)} | {
    VerificationError.exit_code: VerificationError
}


@dataclass(frozen=True)
class Means:
    """By what a sweep is made; the options of ``medbench sweep`` that ``medbench run`` has not.

    Attributes:
        executor: one of `EXECUTORS`.
        workers: processes on this machine; None: one for each share of a GPU, or each core up to 8.
        address: of a Ray cluster.
        gpus_per_cell: share of a GPU, or number of them, for a stage that computes on one.
        max_retries: how often a stage is begun again after its worker died.
    """

    executor: str = "local"
    workers: int | None = None
    address: str | None = None
    gpus_per_cell: float = 1.0
    max_retries: int = 2


def check(means: Means, request: Request) -> None:
    """Raises UsageError for what cannot go together."""
    if means.executor not in EXECUTORS:
        raise unknown_name("executor", means.executor, EXECUTORS)
    if means.workers is not None and means.workers < 1:
        raise UsageError("--workers is a number of processes, at least 1.")
    if means.max_retries < 0:
        raise UsageError("--max-retries is 0 or more.")
    if means.gpus_per_cell <= 0 or (
        means.gpus_per_cell > 1 and not float(means.gpus_per_cell).is_integer()
    ):
        raise UsageError("--gpus-per-cell is a share of a GPU above 0, or a whole number of them.")
    if means.executor == "ray":
        if means.workers is not None:
            raise UsageError("--workers is for --executor local; Ray's nodes say what they have.")
        if request.device.startswith("cuda:"):
            raise UsageError(f"--device {request.device}: Ray deals out the GPUs; say cuda.")
    elif means.address is not None:
        raise UsageError("--address is for --executor ray.")


@contextmanager
def opened(
    means: Means, request: Request, backbones: tuple[str, ...], say: Callable[[str], None]
) -> Iterator[Executor]:
    """The executor of a sweep, for as long as the sweep lasts; whatever still runs is stopped.

    Raises:
        UsageError: as `check`, or Ray is not there.
        DataError: a node does not see the store or the data.
    """
    check(means, request)
    root = home().absolute()
    with marker(root) as path:
        session = Session(
            environment={n: v for n, v in os.environ.items() if n.startswith("MEDBENCH_")}
            | {"MEDBENCH_HOME": str(root)},
            backbones=tuple(_absolute(option) for option in backbones),
            fresh=path.stat().st_mtime if request.fresh else False,
            marker=path,
        )
        executor = _executor(means, request, session, say)
        try:
            yield executor
        finally:
            executor.close()


def _executor(
    means: Means, request: Request, session: Session, say: Callable[[str], None]
) -> Executor:
    if means.executor == "ray":
        from medbench.sweep.on_ray import OnRay

        cluster = OnRay(
            session,
            address=means.address,
            retries=means.max_retries,
            gpus_per_cell=means.gpus_per_cell,
        )
        try:
            cluster.refuse_missing(_named(request, session.backbones))
        except BaseException:
            cluster.close()
            raise
        return cluster
    from medbench.sweep.local import Local, cores, worker_slots

    _, _, number = request.device.partition(":")  # of one GPU, which all workers see then
    dealt = [number] if number else _gpus(request.device)
    if dealt and means.gpus_per_cell > len(dealt):
        raise UsageError(
            f"--gpus-per-cell {means.gpus_per_cell:g}: there are {len(dealt)} GPUs to deal out."
        )
    slots = worker_slots(dealt, means.gpus_per_cell) if dealt else min(cores(), 8)
    return Local(
        session,
        workers=means.workers or slots,
        retries=means.max_retries,
        gpus=[] if number else dealt,
        gpus_per_cell=means.gpus_per_cell,
        say=say,
        warm=len(request.models) * len(request.tasks) * len(request.seeds) > 1,
    )


def graph_of(executor: Executor, request: Request) -> Graph:
    """The graph of a request, drawn by a worker. Raises what `medbench.run.resolve` raises, and
    DataError where a node of a cluster lacks a path that a cell names."""
    request = replace(
        request,
        data=tuple(_absolute(option) for option in request.data),
        weights=tuple(_absolute(option) for option in request.weights),
        output=request.output and request.output.expanduser().absolute(),
    )
    gpu = request.device != "cpu" and executor.gpus > 0
    executor.submit(Call("graph", draw_graph, (request,), gpu))
    ((_, answer),) = executor.wait()
    if answer.graph is None:
        raise _KINDS.get(answer.exit_code, MedbenchError)(answer.error)
    graph = answer.graph
    wanted = {graph.plan.output}
    writers = (cell.writer for cell in graph.plan.cells if cell.writer is not None)
    for cell in (*graph.plan.cells, *writers):
        sources = (cell.source, *cell.corpora.values())
        wanted |= {source.root for source in sources if source.root is not None}
        wanted |= {path for path in (cell.weights, *cell.stage_weights.values()) if path}
    executor.refuse_missing(sorted(wanted))
    return graph


def _named(request: Request, backbones: tuple[str, ...]) -> list[Path]:
    """Paths that options name, and that are there."""
    options = [*request.data, *request.weights, *backbones]
    paths = [Path(_absolute(option).rpartition("=")[2]) for option in options]
    return sorted({path for path in paths if path.is_absolute() and path.exists()})


def _absolute(option: str) -> str:
    """``NAME=PATH`` or ``PATH`` with the path as it is from any folder; anything else as it is."""
    name, equals, text = option.rpartition("=")
    path = Path(text).expanduser()
    mode = option in ("auto", "phantom")
    return option if mode or not path.exists() else f"{name}{equals}{path.absolute()}"


def _gpus(device: str) -> list[str]:
    """This machine's GPUs, as CUDA_VISIBLE_DEVICES names them."""
    from medbench.run.resolve import gpu_present

    if device == "cpu" or not gpu_present():
        return []
    if given := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return given.split(",")
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
