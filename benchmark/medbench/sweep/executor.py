"""Where stages are made: what the scheduler asks of the processes of a machine, or of Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from medbench.sweep.work import Answer


@dataclass(frozen=True)
class Call:
    """A question to a worker.

    Attributes:
        id: under which the answer comes back.
        function: of `medbench.sweep.work`; called as ``function(session, threads, *arguments)``.
        arguments: what travels with it.
        gpu: whether it computes on a GPU.
        preset: of what is computed: it decides how much memory is asked for.
    """

    id: str
    function: Callable[..., Answer]
    arguments: tuple[Any, ...]
    gpu: bool = False
    preset: str = "tiny"


class Executor(Protocol):
    """Answers calls, several at once. A worker that dies is replaced and asked again."""

    @property
    def gpus(self) -> float:
        """How many GPUs there are to deal out."""
        ...

    def refuse_missing(self, paths: Sequence[Path]) -> None:
        """Raises DataError that names the node which does not see the store or one of the paths."""
        ...

    def room(self) -> bool:
        """Whether a further call would be taken up soon."""
        ...

    def submit(self, call: Call) -> None:
        """Ask; the answer comes from `wait`."""
        ...

    def wait(self) -> list[tuple[str, Answer]]:
        """Block until something is answered: ids of calls with their answers."""
        ...

    def close(self) -> None:
        """Stop whatever runs, now, and let go of the workers."""
        ...


def threads_for(cores: float) -> int:
    """Threads of a worker that has so many cores; OMP_NUM_THREADS of the user's goes before."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else max(1, int(cores))


def lost(attempts: int, why: str) -> Answer:
    """The answer that a worker gives by dying."""
    return Answer(
        error=f"its worker died {attempts} {'time' if attempts == 1 else 'times'} ({why}). Memory "
        "is the usual reason: fewer workers, or a smaller --batch-size, need less. Finished epochs "
        "and stages are kept.",
        exit_code=1,
    )


def unexpected(error: BaseException) -> Answer:
    """The answer where something raised what nobody expects."""
    return Answer(
        error=f"medbench met an error it did not expect: {type(error).__name__}: {error}",
        exit_code=1,
    )
