"""One training stage on several devices of this machine: a process for each (``--devices N``).

The processes are started for the stage and end with it, so whatever happens in them ends this cell
and no other. The first one writes checkpoints, reports progress and saves what was trained. They
meet through Accelerate: NCCL between GPUs, gloo between processes on a CPU.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import multiprocessing
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from medbench import errors
from medbench.data.samples import Corpus
from medbench.errors import CellError, MedbenchError
from medbench.models.capabilities import Stage, State
from medbench.models.ranks import Ranks
from medbench.run.request import RunSpec

STATE = "together.safetensors"  #: in the scratch folder, what the first process trained


@dataclass(frozen=True, kw_only=True)
class Order:
    """What every process is told."""

    cell: RunSpec
    stage: Stage
    corpus: Corpus
    states: Mapping[str, State]
    folder: Path
    port: int
    threads: int


def train_together(
    cell: RunSpec,
    stage: Stage,
    corpus: Corpus,
    states: Mapping[str, State],
    folder: Path,
    *,
    advance: Callable[..., None],
    say: Callable[[str], None],
    notes: list[str],
) -> State:
    """Train one stage with ``cell.devices`` processes; see `medbench.run.fit.train`.

    Raises:
        MedbenchError: what one of them raised.
        CellError: one of them ended without a word.
    """
    order = Order(
        cell=cell,
        stage=stage,
        corpus=corpus,
        states=states,
        folder=folder,
        port=_free_port(),
        threads=max(1, torch.get_num_threads() // cell.devices),
    )
    told: Any = multiprocessing.get_context("spawn").Queue()
    hears: dict[str, Callable[..., None]] = {"advance": advance, "say": say, "note": notes.append}
    problems: list[MedbenchError] = []

    def listen() -> None:
        while True:
            try:
                word, given, figures = told.get_nowait()
            except queue.Empty:
                return
            if word == "error":
                kind, message = given
                problems.append(getattr(errors, kind, CellError)(message))
            else:
                hears[word](*given, **figures)

    context: ProcessContext | None = None
    try:
        context = start_processes(  # type: ignore[no-untyped-call]
            _train, (order, told), nprocs=cell.devices, join=False, start_method="spawn"
        )
        assert context is not None
        while not context.join(timeout=0.2):
            listen()
    except (ProcessRaisedException, ProcessExitedException) as error:
        listen()
        if problems:
            raise problems[0] from error
        raise CellError(
            f"{cell.title}: one of the {cell.devices} processes that train stage '{stage.name}' "
            f"ended: {str(error).strip().splitlines()[-1]}. What was trained up to the last epoch "
            "is kept; the same command goes on from there."
        ) from error
    finally:
        for process in context.processes if context else ():
            if process.is_alive():
                process.terminate()
    listen()
    return load_file(folder / STATE)


def _train(rank: int, order: Order, told: Any) -> None:
    """One of the processes."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    from medbench.run.fit import construct, train
    from medbench.run.fitting import StageRun

    cell = order.cell
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(order.port),
        "WORLD_SIZE": str(cell.devices),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(cell.devices),
    }
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host name may lead elsewhere
    torch.set_num_threads(order.threads)
    # static: parameters that no loss reaches (a part that a variant does without) do not disturb
    static = DistributedDataParallelKwargs(static_graph=True)
    accelerator = Accelerator(cpu=cell.device == "cpu", kwargs_handlers=[static])

    def tell(word: str) -> Callable[..., None]:
        if rank:
            return lambda *given, **figures: None
        return lambda *given, **figures: told.put((word, given, figures))

    notes = _Told(tell("note"))
    run = StageRun(
        device=accelerator.device,
        precision=cell.precision,
        seed=cell.seed,
        folder=order.folder,
        advance=tell("advance"),
        say=tell("say"),
        notes=notes,
        ranks=Ranks(accelerator, cell.accumulate),
    )
    try:
        model = construct(cell, order.stage)
        state = train(cell, model, order.stage, order.corpus, order.states, run)
    except MedbenchError as error:
        told.put(("error", (type(error).__name__, str(error)), {}))
        raise SystemExit(1) from None
    if rank == 0:
        save_file(dict(state), order.folder / STATE)
    accelerator.end_training()


class _Told(list[str]):
    """Notes that go to the process that started this one."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, note: str) -> None:
        self._tell(note)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
