"""One table per task of how models fare with fewer training labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medbench.leaderboard.board import Board, Figure
from medbench.leaderboard.cells import (
    escaped,
    figure_cell,
    fraction_cell,
    heading,
    line,
)
from medbench.leaderboard.collect import Group
from medbench.schemas.task import TaskSpec

READING = (
    "means over seeds with 95 % intervals over patients. Each fraction has a ranking of its own "
    "above; here nothing is ranked. A seed draws its own share of the labels."
)


def fraction_tables(task: TaskSpec, boards: Sequence[Board]) -> list[str]:
    """Rows are models and baselines, columns fractions, cells the primary metric.

    One table for the boards that differ in their fraction alone; none where there is one fraction.
    """
    alike: dict[Group, list[Board]] = {}
    for board in boards:
        alike.setdefault(replace(board.group, fraction=1.0), []).append(board)
    lines = []
    for group, some in sorted(alike.items(), key=lambda pair: pair[0]):
        if len(some) > 1:
            lines += _table(task, group, sorted(some, key=lambda board: board.group.fraction))
    return lines


def _table(task: TaskSpec, group: Group, boards: Sequence[Board]) -> list[str]:
    metric = task.primary
    rows: dict[tuple[str, str], dict[float, Figure]] = {}
    for board in boards:
        for row in board.rows:
            if metric in row.figures:
                found = rows.setdefault((row.kind, row.name), {})
                found[board.group.fraction] = row.figures[metric]
    higher = next((b.higher_is_better[metric] for b in boards if metric in b.metrics), True)
    fractions = [board.group.fraction for board in boards]

    def order(item: tuple[tuple[str, str], dict[float, Figure]]) -> tuple[object, ...]:
        (_, name), found = item
        most = max(found)  # by the largest fraction that it has
        return (-most, -found[most].value if higher else found[most].value, name)

    lines = [
        f"### By label fraction: {'PHANTOM, ' * group.phantom}{group.adaptation or 'as trained'}, "
        f"preset {group.preset}, protocol {group.protocol}",
        "",
        f"`{metric}` {'↑' if higher else '↓'} on data `{group.manifest[:12]}`, task version "
        f"{group.version}: {READING}",
        "",
        *heading(["Model", *map(fraction_cell, fractions)]),
    ]
    for (kind, name), found in sorted(rows.items(), key=order):
        title = f"*{escaped(name)}*" if kind == "baseline" else name
        lines.append(line([title, *(figure_cell(found.get(f)) for f in fractions)]))
    return [*lines, ""]
