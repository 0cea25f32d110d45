"""Progress and notices on stderr: a rich display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Reporter:
    """Tells the user what happens. Everything goes to stderr; stdout is for results."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self.timing: dict[str, float] = {}

    def say(self, message: str) -> None:
        """One line or paragraph."""
        if self.console.is_terminal:
            self.console.print(message, markup=False)
        else:
            print(message, file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, title: str, name: str) -> Iterator[Advance]:
        """Show a stage while it runs; its wall time is kept under ``name``."""
        started = time.perf_counter()
        advance = Advance(self.console, title)
        try:
            with advance:
                yield advance
        finally:
            seconds = time.perf_counter() - started
            self.timing[name] = round(self.timing.get(name, 0.0) + seconds, 3)
        self.say(f"  {title}: {seconds:.1f} s")


class Advance:
    """Called with (done, total, text); redraws a bar on a terminal, is silent elsewhere."""

    def __init__(self, console: Any, title: str) -> None:
        self._bar: Any = None
        self._task: Any = None
        if console.is_terminal:
            from rich.progress import (
                BarColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("  {task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}% {task.fields[text]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(title, total=None, text="")

    def __enter__(self) -> Advance:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, text: str = "") -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, text=text)
