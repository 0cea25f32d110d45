"""What a sweep shows on stderr: a live table of cells on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from medbench.run.request import RunSpec
from medbench.sweep.graph import Graph, Node

if TYPE_CHECKING:
    from medbench.sweep.scheduler import State


class Table:
    """The cells of a sweep: how many are done, and what is made now for which."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self.nodes: list[Node] = []
        self._running: dict[str, tuple[Node, RunSpec, float]] = {}
        self._ended: dict[str, tuple[Node, State]] = {}

    def following(self, graph: Graph) -> AbstractContextManager[Any]:
        """Draws the table of a graph's cells while it lasts."""
        self.nodes = [node for node in graph.nodes if node.kind == "cell" or not node.there]
        if not self.console.is_terminal:
            return nullcontext()
        from rich.live import Live

        return Live(get_renderable=self._drawn, console=self.console, refresh_per_second=2)

    def say(self, message: str) -> None:
        """One line or paragraph."""
        if self.console.is_terminal:
            self.console.print(message, markup=False)
        else:
            print(message, file=sys.stderr, flush=True)

    def changed(self, node: Node, state: State, cell: RunSpec, said: tuple[str, ...]) -> None:
        """A stage has begun, or ended; ``said`` is what its worker had to say."""
        started = self._running.pop(node.id, None)
        if state.name == "running":
            self._running[node.id] = (node, cell, time.monotonic())
            return
        if started is not None:
            more = f", for {len(node.cells)} cells" if len(node.cells) > 1 else ""
            self.say(
                f"[{len(self._ended) + state.ended}/{len(self.nodes)}] {node.title}: "
                f"{'failed' if state.reason else 'made'} in {state.seconds:.1f} s{more}"
            )
            for line in said:
                self.say(f"  {line}")
            if state.reason and not any(state.reason in line for line in said):
                self.say(f"  medbench: {state.reason}")
        elif state.name == "not run":
            self.say(f"{node.title}: {state.reason}")
        if state.ended:
            self._ended[node.id] = (node, state)

    def _drawn(self) -> Any:
        """Every cell that is at work or has failed, and how many there are of the others."""
        from rich.table import Table as Grid

        cells = [node for node in self.nodes if node.kind == "cell"]
        ended = {name: state for name, (_, state) in self._ended.items()}
        count = {
            name: sum(ended[c.id].name == name for c in cells if c.id in ended)
            for name in ("made", "failed", "not run")
        }
        title = ", ".join(f"{n} {name}" for name, n in count.items() if n or name == "made")
        grid = Grid(title=f"{title} of {len(cells)} cells", title_justify="left", box=None)
        for name in ("stage", "state", "seconds", "for"):
            grid.add_column(name, justify="right" if name == "seconds" else "left")
        room = max(3, self.console.height - 5)
        now = time.monotonic()
        rows = [
            (node.title, "running", f"{now - since:.0f}", f"{len(node.cells)} cells")
            for node, _, since in self._running.values()
        ]
        rows += [
            (node.title, ended[node.id].name, f"{ended[node.id].seconds:.0f}", "")
            if node.id in ended
            else (node.title, "waiting", "", "")
            for node in cells
            if node.id not in self._running
        ]
        for row in rows[:room]:
            grid.add_row(*row)
        if len(rows) > room:
            grid.add_row(f"and {len(rows) - room} more", "", "", "")
        return grid
