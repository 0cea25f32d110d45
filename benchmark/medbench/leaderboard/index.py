"""The index: every model on every task at a glance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from medbench.leaderboard.board import Board, Row
from medbench.leaderboard.cells import DASH, escaped, figure_cell, fraction_cell, heading, line
from medbench.schemas.task import TaskSpec

READING = (
    "Each cell is the primary metric of a task with all training labels: mean over seeds "
    "[95 % interval over patients], **bold** where no other model is told apart as better. "
    "Columns are not comparable with each other. A dash: no such run, or, in brackets, why "
    "its value is not here. The best baseline of each task stands below the models."
)


class Matrix(NamedTuple):
    """What the columns of one matrix share."""

    phantom: bool  # first, so that real ones come before phantom ones
    preset: str
    protocol: str
    adaptation: str


def matrices(tasks: Mapping[str, TaskSpec], boards: Mapping[str, Sequence[Board]]) -> list[str]:
    """A table for each track, preset, protocol and adaptation: models by tasks."""
    found: dict[Matrix, dict[str, list[Board]]] = {}
    for name in sorted(boards):
        for board in boards[name]:
            group = board.group
            matrix = Matrix(group.phantom, group.preset, group.protocol, group.adaptation)
            found.setdefault(matrix, {}).setdefault(name, []).append(board)
    lines = [READING, ""] if found else []
    for matrix in sorted(found):
        head = "PHANTOM: " if matrix.phantom else ""
        lines += [
            f"## {head}{matrix.adaptation or 'as trained'}, preset {matrix.preset}, protocol "
            f"{matrix.protocol}",
            "",
            *_table(tasks, found[matrix]),
            "",
        ]
    return lines


def _table(tasks: Mapping[str, TaskSpec], boards: Mapping[str, Sequence[Board]]) -> list[str]:
    shown = {name: newest(some) for name, some in boards.items()}
    names = sorted({row.name for name in boards for row in _models(boards[name])})
    heads = []
    for name, board in shown.items():
        metric = tasks[name].primary
        arrow = "↑" if board.higher_is_better.get(metric, True) else "↓"
        heads.append(f"[{name}]({name}.md) {metric} {arrow}")
    lines = heading(["Model", *heads])
    for model in names:
        cells = [
            _cell(model, tasks[name].primary, board, boards[name]) for name, board in shown.items()
        ]
        lines.append(line([model, *cells]))
    lines.append(
        line(["*best baseline*", *(_baseline(b, tasks[n].primary) for n, b in shown.items())])
    )
    others = sorted(name for name, some in boards.items() if len(_whole(some)) > 1)
    if others:
        lines += [
            "",
            "Only the newest data of a task are shown here; earlier ones stand on the pages of "
            f"{', '.join(f'`{name}`' for name in others)}.",
        ]
    return lines


def _whole(boards: Iterable[Board]) -> list[Board]:
    return [board for board in boards if board.group.fraction == 1]


def newest(boards: Sequence[Board]) -> Board:
    """With all labels where there is such a board; then the latest version and renderer, and of
    several data those with most models."""

    def age(board: Board) -> tuple[object, ...]:
        group = board.group
        return (group.fraction, group.version, group.renderer, len(board.rows), group.manifest)

    return max(boards, key=age)


def _models(boards: Iterable[Board]) -> list[Row]:
    rows = [row for board in boards for row in (*board.rows, *board.unranked)]
    return [row for row in rows if not row.baseline]


def _cell(model: str, metric: str, shown: Board, boards: Sequence[Board]) -> str:
    row = ranked_row(model, metric, shown)
    if row is None:
        why = absent(model, metric, shown, boards)
        return f"{DASH} ({why})" if why else DASH
    text = figure_cell(row.figures[metric])
    return f"**{text}**" if row.rank == 1 else text


def ranked_row(model: str, metric: str, shown: Board) -> Row | None:
    """The row of a model that has the metric with all labels; None where there is none."""
    rows = shown.rows if shown.group.fraction == 1 else []
    return next((row for row in rows if row.name == model and metric in row.figures), None)


def absent(model: str, metric: str, shown: Board, boards: Sequence[Board]) -> str:
    """Why a model has no value in the matrix; empty where it was not run."""
    whole = shown.group.fraction == 1
    if whole and any(row.name == model for row in shown.rows):
        return f"{metric} undefined"
    reasons = [", ".join(row.flags) for row in shown.unranked if row.name == model]
    if whole and reasons:
        return reasons[0]
    having = [board for board in boards if any(row.name == model for row in _models([board]))]
    fractions = sorted({board.group.fraction for board in having} - {1.0})
    if fractions:
        return f"only {', '.join(map(fraction_cell, fractions))} of the labels"
    return "earlier data" if having else ""


def _baseline(board: Board, metric: str) -> str:
    rows = [row for row in board.rows if row.kind == "baseline" and metric in row.figures]
    if not rows or board.group.fraction != 1:
        return DASH
    best = rows[0]  # rows are in order of the primary metric
    return f"{figure_cell(best.figures[metric])} *{escaped(best.name)}*"
