"""Curves of training as TensorBoard logs (``--tensorboard DIR``): a folder per cell and stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Curves:
    """Writes what stages report.

    ``cell`` is the cell whose stages are next; what is cached is not trained and draws nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cell = ""
        self._open: list[Any] = []

    def of(self, stage: str) -> Callable[[int, Mapping[str, float]], None]:
        """A function of (samples or steps done over all epochs, figures) that appends to the curves
        of a stage; the log is made when it is first called."""
        from medbench.run.stores import writing

        place = self.folder / "".join(c if c.isalnum() or c in "@-." else "_" for c in self.cell)
        found: list[Any] = []

        def draw(done: int, figures: Mapping[str, float]) -> None:
            with writing(self.folder):
                if not found:
                    from tensorboardX import SummaryWriter

                    found.append(SummaryWriter(str(place / stage), flush_secs=10))
                    self._open += found
                for name, value in figures.items():
                    found[0].add_scalar(name, value, done)

        return draw

    def close(self) -> None:
        """Write out what is still held: a stage has ended."""
        for writer in self._open:
            writer.close()
        self._open.clear()
