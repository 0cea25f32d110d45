"""The overview: models by tasks, a table for each track, preset, protocol and adaptation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medbench.leaderboard.board import Board
from medbench.leaderboard.cells import DASH
from medbench.leaderboard.index import Matrix, absent, newest, ranked_row
from medbench.schemas.task import TaskSpec
from medbench.site.lead import CEILINGS, plain
from medbench.site.tables import Cell, Column, Line, Link, Table, figure_cell, page_of

#: More models than this have a page of their own for their matrix, so that the index stays small.
MOST = 60


@dataclass(frozen=True)
class Overview:
    """One matrix; ``page`` is its own where it is too long for the index."""

    title: str
    table: Table
    page: str


def overviews(
    tasks: Mapping[str, TaskSpec],
    boards: Mapping[str, Sequence[Board]],
    base: Mapping[str, str],
) -> list[Overview]:
    """Every matrix, real ones first. ``base`` maps the names of rows to those of their models."""
    found: dict[Matrix, dict[str, list[Board]]] = {}
    for name in sorted(boards):
        for board in boards[name]:
            group = board.group
            matrix = Matrix(group.phantom, group.preset, group.protocol, group.adaptation)
            found.setdefault(matrix, {}).setdefault(name, []).append(board)
    made = []
    for number, matrix in enumerate(sorted(found), 1):
        title = (
            f"{'PHANTOM: ' * matrix.phantom}{matrix.adaptation or 'as trained'}, preset "
            f"{matrix.preset}, protocol {matrix.protocol}"
        )
        table = _table(title, tasks, found[matrix], base)
        long = len(table.lines) - 1 > MOST
        made.append(Overview(title, table, f"overview/{number}.html" if long else ""))
    return made


def _table(
    title: str,
    tasks: Mapping[str, TaskSpec],
    boards: Mapping[str, Sequence[Board]],
    base: Mapping[str, str],
) -> Table:
    shown = {name: newest(some) for name, some in boards.items()}
    columns = [Column("Model")]
    for name, board in shown.items():
        metric = tasks[name].primary
        arrow = "↑" if board.higher_is_better.get(metric, True) else "↓"
        columns.append(
            Column(f"{name}: {metric} {arrow}", number=True, href=page_of("tasks", name))
        )
    models = sorted(
        {
            row.name
            for some in boards.values()
            for board in some
            for row in (*board.rows, *board.unranked)
            if not row.baseline
        }
    )
    lines = []
    for model in models:
        cells = [
            _cell(model, tasks[name].primary, board, boards[name]) for name, board in shown.items()
        ]
        head = Cell(links=(Link(page_of("models", base[model]), model),))
        lines.append(Line(head, cells, "model"))
    cells = [_baseline(board, tasks[name].primary) for name, board in shown.items()]
    lines.append(Line(Cell("best trivial predictor"), cells, "baseline"))
    return Table(title, columns, lines, compact=True)


def _cell(model: str, metric: str, shown: Board, boards: Sequence[Board]) -> Cell:
    row = ranked_row(model, metric, shown)
    if row is None:
        return Cell(DASH, absent(model, metric, shown, boards), mark="none")
    cell = figure_cell(row.figures[metric], best=row.rank == 1)
    tied = sum(other.rank == row.rank for other in shown.rows)
    rank = f"rank {row.rank}{' (tie)' * (tied > 1)}"
    return Cell(cell.text, f"{cell.note}\n{rank}", cell.value, mark=cell.mark)


def _baseline(board: Board, metric: str) -> Cell:
    rows = [
        row
        for row in board.rows
        if row.kind == "baseline" and metric in row.figures and plain(row) not in CEILINGS
    ]
    if not rows or board.group.fraction != 1:
        return Cell(DASH, mark="none")
    cell = figure_cell(rows[0].figures[metric])
    return Cell(cell.text, f"{cell.note}\n{plain(rows[0])}", cell.value)
