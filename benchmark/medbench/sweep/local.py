"""Worker processes on this machine.

Each has a pipe to the driver, and is asked one thing at a time. One that dies (kill -9, out of
memory) is replaced and its stage begun again, which goes on after the last finished epoch; the
others do not notice. A worker whose driver has died ends after its stage.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from medbench.sweep.executor import Call, lost, threads_for, unexpected
from medbench.sweep.work import Answer, Session

#: Seconds that a worker has to end after it was asked to.
GRACE = 5.0


class Local:
    """The executor of one machine.

    Args:
        session: what each worker is told.
        workers: how many processes; each has its share of the cores.
        retries: how often a stage is begun again after its worker died.
        gpus: of the machine, as CUDA_VISIBLE_DEVICES would name them; dealt out to the workers.
        gpus_per_cell: share of a GPU, or number of them, that a worker has.
        say: told when a worker died.
        warm: start all workers at once, and have each import what its first stage will need while
            the graph is drawn; else each is started when there is something for it.
    """

    def __init__(
        self,
        session: Session,
        *,
        workers: int,
        retries: int,
        gpus: list[str] | None = None,
        gpus_per_cell: float = 1.0,
        say: Callable[[str], None],
        warm: bool = False,
    ) -> None:
        self.session = session
        self.retries = retries
        self.say = say
        self.threads = threads_for(cores() / workers)
        self.gpus = float(len(gpus or ()))
        self._waiting: deque[Call] = deque()
        self._died: dict[str, int] = {}
        mine = {"OMP_NUM_THREADS": str(self.threads)}
        self._workers = [
            _Worker(mine | (share_of(gpus, gpus_per_cell, i) if gpus else {}))
            for i in range(workers)
        ]
        if warm:
            for worker in self._workers:
                worker.start(warm)

    def refuse_missing(self, paths: Sequence[Path]) -> None:
        """Nothing: the workers see what the driver sees."""

    def room(self) -> bool:
        return len(self._waiting) < sum(worker.call is None for worker in self._workers)

    def submit(self, call: Call) -> None:
        self._waiting.append(call)
        self._deal()

    def wait(self) -> list[tuple[str, Answer]]:
        answers: list[tuple[str, Answer]] = []
        while not answers:
            busy = {w.connection: w for w in self._workers if w.call is not None}
            for ready in wait(list(busy)):
                worker = busy[ready]  # type: ignore[index]
                call = worker.call
                assert call is not None
                try:
                    answer = worker.connection.recv()
                except (EOFError, OSError):
                    again = self._bury(worker, call)
                    if again is None:
                        continue
                    answer = again
                worker.call = None
                answers.append((call.id, answer))
            self._deal()
        return answers

    def close(self) -> None:
        for worker in self._workers:
            worker.end()

    def _deal(self) -> None:
        for worker in self._workers:
            if not self._waiting:
                return
            if worker.call is None:
                worker.ask(self._waiting.popleft(), self.session, self.threads)

    def _bury(self, worker: _Worker, call: Call) -> Answer | None:
        """Replace a dead worker; None where its stage is begun again."""
        why = worker.replace()
        died = self._died[call.id] = self._died.get(call.id, 0) + 1
        if died > self.retries:
            return lost(died, why)
        self.say(f"A worker died ({why}); its stage is begun again, {died} of {self.retries}.")
        worker.call = None
        self._waiting.appendleft(call)
        return None


class _Worker:
    """One process with its pipe; it is started when it is first asked something."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.call: Call | None = None
        self.connection: Connection[Any, Any]
        self._process: Any = None

    def ask(self, call: Call, session: Session, threads: int) -> None:
        if self._process is None:
            self.start()
        self.call = call
        with suppress(OSError):  # died while idle: its pipe says so to who waits for the answer
            self.connection.send((call.function, session, threads, call.arguments))

    def replace(self) -> str:
        """Let go of a dead process; why it died."""
        self._process.join(GRACE)
        code = self._process.exitcode
        self.end()
        if code is not None and code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    def end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self.connection.close()
        process.terminate()
        process.join(GRACE)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()

    def start(self, warm: bool = False) -> None:
        # a fresh interpreter: a fork would carry the driver's threads and locks along
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, dict(self.environment), warm))
        # Ctrl-C is for the driver, which ends us: the worker is born deaf to it
        heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._process.start()
        signal.signal(signal.SIGINT, heard)
        theirs.close()  # or its end would not be noticed


def serve(connection: Connection[Any, Any], environment: Mapping[str, str], warm: bool) -> None:
    """A worker's life: answer until the driver is gone."""
    os.dup2(2, 1)  # stdout is for results, and these are the driver's to print
    os.environ.update(environment)
    if warm:
        import torch  # noqa: F401  # seconds, which nobody waits for now

        import medbench.run.runner  # noqa: F401
    while True:
        try:
            asked = connection.recv_bytes()
        except EOFError:
            return
        try:
            function, session, threads, arguments = pickle.loads(asked)
            answer = function(session, threads, *arguments)
            reply = pickle.dumps(answer)
        except Exception as error:
            reply = pickle.dumps(unexpected(error))
        try:
            connection.send_bytes(reply)
        except OSError:  # the driver has gone meanwhile; what was made is in the store
            return


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_of(gpus: list[str], each: float, worker: int) -> dict[str, str]:
    """What CUDA_VISIBLE_DEVICES is to be for a worker.

    >>> share_of(["0", "1"], 0.5, 1), share_of(["0", "1"], 0.5, 2), share_of(list("0123"), 2, 1)
    ({'CUDA_VISIBLE_DEVICES': '0'}, {'CUDA_VISIBLE_DEVICES': '1'}, {'CUDA_VISIBLE_DEVICES': '2,3'})
    """
    count = max(1, int(each))
    first = worker * count if each >= 1 else worker // int(1 / each)
    mine = [gpus[(first + i) % len(gpus)] for i in range(count)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(mine)}


def worker_slots(gpus: list[str], each: float) -> int:
    """How many workers GPUs have room for.

    >>> worker_slots(["0", "1"], 0.5), worker_slots(list("0123"), 2)
    (4, 2)
    """
    return max(1, int(len(gpus) / each) if each >= 1 else len(gpus) * int(1 / each))
