"""As many samples at once as memory holds: all that are asked for until it ends, then half."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from medbench.errors import CellError

T = TypeVar("T")


class BackOff:
    """Calls a model on a batch, in parts once a batch was too large.

    Args:
        doing: the cell and what is called, for messages.
        say: tells the user; None: a line on stderr.
    """

    def __init__(self, doing: str, say: Callable[[str], None] | None = None) -> None:
        self._doing = doing
        self._say = say or (lambda message: print(message, file=sys.stderr, flush=True))
        self._most: int | None = None

    def __call__(self, work: Callable[[slice], T], count: int) -> list[T]:
        """What ``work`` gives for consecutive parts of ``count`` samples, at least one of them.

        Where memory ends (torch.OutOfMemoryError) that part, and all later ones of later calls too,
        are half as large, and the user is told.

        Raises:
            CellError: one sample does not fit.
        """
        import torch

        found: list[T] = []
        start = 0
        while start < count or not found:
            part = slice(start, min(count, start + (self._most or count)))
            try:
                found.append(work(part))
            except torch.OutOfMemoryError as error:
                problem = str(error).partition("\n")[0]
            else:
                start = part.stop
                continue
            # out of the handler, whose traceback would keep the failed attempt's tensors
            self._halve(part.stop - part.start, problem)
        return found

    def _halve(self, size: int, problem: str) -> None:
        import torch

        if size <= 1:
            raise CellError(
                f"{self._doing} ran out of memory with one sample at a time ({problem}). Choose a "
                "smaller --preset, --precision bf16, or a larger device."
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._most = size // 2
        self._say(f"  {self._doing}: out of memory, {self._most} samples at once from here on")
