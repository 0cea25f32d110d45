"""Progress and notices on stderr: a rich display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from medbench.run.work import Clock, Ledger, Work

if TYPE_CHECKING:
    from medbench.run.curves import Curves

#: Seconds between two lines of a long stage where there is no terminal to draw on.
SAID = 30.0


class Reporter:
    """Tells the user what happens. Everything goes to stderr; stdout is for results."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self.timing: dict[str, float] = {}
        self.ledger = Ledger()
        self.curves: Curves | None = None

    def say(self, message: str) -> None:
        """One line or paragraph."""
        if self.console.is_terminal:
            self.console.print(message, markup=False)
        else:
            print(message, file=sys.stderr, flush=True)

    @contextmanager
    def stage(self, title: str, name: str, items: int | None = None) -> Iterator[Advance]:
        """Show a stage while it runs; its wall time is kept under ``name``.

        ``items`` is how many things it works through, where its progress does not count them.
        """
        scratch = self.ledger.scratch
        clock = Clock(scratch / f"seconds-{name}" if scratch else None)
        draw = self.curves.of(name) if self.curves is not None else None
        advance = Advance(self.console, title, clock, self.say, draw)
        try:
            with advance:
                yield advance
        except BaseException:
            clock.pause()
            raise
        finally:
            if self.curves is not None:
                self.curves.close()
            seconds = clock.elapsed
            self.timing[name] = round(self.timing.get(name, 0.0) + seconds, 3)
        self.ledger.done.append(Work(name, clock.stop(), items or advance.total))
        self.say(f"  {title}: {seconds:.1f} s")


class Advance:
    """Called with (done, total, text or figures); redraws a bar on a terminal, and elsewhere says a
    line of a long stage every 30 seconds. ``total`` is the last one it was called with."""

    def __init__(
        self,
        console: Any,
        title: str,
        clock: Clock,
        say: Callable[[str], None],
        draw: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> None:
        self.total: int | None = None
        self._draw = draw
        self._title = title
        self._clock = clock
        self._say = say
        self._said = 0.0
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

    def __call__(self, done: int, total: int, text: str = "", **figures: float) -> None:
        self.total = total
        if self._draw is not None and figures:
            self._draw(done, figures)
        text = text or " ".join(f"{name} {value:.3f}" for name, value in figures.items())
        self._clock.tick()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, text=text)
        elif self._clock.elapsed - self._said >= SAID:
            self._said = self._clock.elapsed
            share = f"{100 * done / max(total, 1):.0f} %"
            self._say(f"  {self._title}: {share} after {self._said:.0f} s {text}".rstrip())
