"""One ranking of a task as its page shows it: who leads, the table, and what to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medbench.leaderboard.board import Board, Row
from medbench.leaderboard.cells import DASH, duration, fraction_cell
from medbench.leaderboard.collect import Entry, Group
from medbench.leaderboard.render import DAGGER
from medbench.schemas.record import GROUPS
from medbench.schemas.task import TaskSpec
from medbench.site.lead import Lead, find_lead, plain, sentences, words
from medbench.site.tables import (
    Cell,
    Column,
    Line,
    Link,
    Table,
    bounded_cell,
    cost_columns,
    costs,
    figure_cell,
    page_of,
    record_links,
)


@dataclass(frozen=True)
class Place:
    """Where the site is written and where records lie; links to these stay within ``root``."""

    site: Path
    root: Path

    @property
    def inside(self) -> bool:
        return self.site.is_relative_to(self.root)


@dataclass(frozen=True)
class Ranking:
    """A board with what its page says of it.

    Attributes:
        id: of its section on the task's page.
        title: what its rows share.
        lead: who leads.
        leader: the model of that, with its page; None without one.
        said: the same in sentences.
        table: ranked rows and baselines.
        unranked: rows without a rank; None where there are none.
        subgroups: by sex, age band and view, of the runs that state them.
        notes: what a reader must know.
    """

    id: str
    task: TaskSpec
    board: Board
    title: str
    lead: Lead
    leader: Link | None
    said: list[str]
    table: Table
    unranked: Table | None
    subgroups: list[Table]
    notes: list[str]

    @property
    def fraction(self) -> str:
        return fraction_cell(self.board.group.fraction)

    @property
    def href(self) -> str:
        return f"{page_of('tasks', self.task.name)}#{self.id}"

    @property
    def chartable(self) -> bool:
        """Whether there is anything to draw by the metric that ranks."""
        return any(self.task.primary in row.figures for row in self.board.rows)


def title_of(group: Group, among: Sequence[Group]) -> str:
    """What the rows of a ranking share, in a line; the data where other rankings share the rest."""
    labels = (
        "all labels" if group.fraction == 1 else f"{fraction_cell(group.fraction)} of the labels"
    )
    alike = [g for g in among if _plain(g) == _plain(group)]
    data = f", version {group.version}, data {group.manifest[:12]}" if len(alike) > 1 else ""
    return (
        f"{'PHANTOM: ' * group.phantom}{group.adaptation or 'as trained'}, {labels}, preset "
        f"{group.preset}, protocol {group.protocol}{data}"
    )


def _plain(group: Group) -> tuple[object, ...]:
    return (group.phantom, group.adaptation, group.fraction, group.preset, group.protocol)


def rankings(
    task: TaskSpec, boards: Sequence[Board], entries: Sequence[Entry], place: Place
) -> list[Ranking]:
    """The rankings of a task: real before phantom, the adaptation with most models first, and all
    labels before a share of them."""
    by_path = {entry.path: entry for entry in entries}
    page = place.site / page_of("tasks", task.name)
    models: dict[str, int] = {}
    for board in boards:
        how = board.group.adaptation
        models[how] = max(models.get(how, 0), sum(row.kind == "model" for row in board.rows))
    ordered = sorted(boards, key=lambda board: _order(board.group, models[board.group.adaptation]))
    groups = [board.group for board in ordered]
    return [
        _ranking(f"ranking-{n}", title_of(board.group, groups), task, board, by_path, page, place)
        for n, board in enumerate(ordered, 1)
    ]


def _order(group: Group, models: int) -> tuple[object, ...]:
    paper = group.protocol != "clean"
    how = (-models, group.adaptation)
    return (group.phantom, paper, group.preset, *how, -group.version, -group.fraction, group)


def _ranking(
    name: str,
    title: str,
    task: TaskSpec,
    board: Board,
    by_path: dict[Path, Entry],
    page: Path,
    place: Place,
) -> Ranking:
    lead = find_lead(board, task.primary)
    leader = lead.leader
    rows = (*board.rows, *board.unranked)
    notes = list(board.notes)
    if not all(figure.exact for row in rows for figure in row.figures.values()):
        notes.append(DAGGER)
    return Ranking(
        name,
        task,
        board,
        title,
        lead,
        Link(page_of("models", base_of(leader, by_path)), leader.name) if leader else None,
        sentences(board, lead, task.primary, _devices(lead, by_path)),
        _table(f"{title}: results", board, board.rows, by_path, page, place),
        _table(f"{title}: without a rank", board, board.unranked, by_path, page, place)
        if board.unranked
        else None,
        subgroup_tables(title, rows, by_path),
        notes,
    )


def _devices(lead: Lead, by_path: dict[Path, Entry]) -> str:
    """What the leader's training was timed on."""
    if lead.leader is None:
        return ""
    environments = [by_path[path].record.environment for path in lead.leader.records]
    found = {str(e.get("gpu") or e.get("device") or "") for e in environments} - {""}
    return ", ".join(sorted(found))


def _table(
    caption: str,
    board: Board,
    rows: Sequence[Row],
    by_path: dict[Path, Entry],
    page: Path,
    place: Place,
) -> Table:
    ranked = rows is board.rows
    badges = sorted({row.badge for row in rows if row.badge})
    columns = [Column("Model"), *([Column("Rank", number=True)] if ranked else [])]
    first = board.metrics[:1]
    columns += [_metric_column(name, board) for name in first]
    columns += [Column("Seeds", number=True)]
    columns += [_metric_column(name, board) for name in board.metrics[1:]]
    columns += [*cost_columns(), *([Column("Badge")] if len(badges) > 1 else [])]
    columns += [Column("Flags"), Column("Records")]
    lines = []
    for row in rows:
        cells = []
        if ranked:
            cells.append(rank_cell(row))
        cells += [figure_cell(row.figures.get(name), row.rank == 1) for name in first]
        cells.append(seeds_cell(row, first[0] if first else ""))
        cells += [figure_cell(row.figures.get(name)) for name in board.metrics[1:]]
        cells += costs(row)
        if len(badges) > 1:
            cells.append(Cell(row.badge or DASH))
        cells.append(Cell(", ".join(row.flags) or "none", mark="" if row.flags else "none"))
        cells.append(record_links(row, place.root, page, place.inside))
        lines.append(Line(head_cell(row, by_path), cells, row.kind, row.badge))
    return Table(caption, columns, lines)


def subgroup_tables(title: str, rows: Sequence[Row], by_path: Mapping[Path, Entry]) -> list[Table]:
    """A table for each attribute, with a line for each record that states groups of it."""
    runs = [(row, by_path[path].record) for row in rows for path in row.records]
    tables = []
    for attribute, order in GROUPS.items():
        stated = [
            (row, record.seed, found)
            for row, record in runs
            if (found := (record.subgroups or {}).get(attribute)) is not None
        ]
        for metric in dict.fromkeys(found.metric for _, _, found in stated):
            chosen = [part for part in stated if part[2].metric == metric]
            groups = [g for g in order if any(g in found.groups for _, _, found in chosen)]
            columns = [Column("Model"), Column("Seed", number=True)]
            columns += [Column(group, number=True) for group in (*groups, "Best against worst")]
            lines = [
                Line(
                    head_cell(row, by_path),
                    [
                        Cell(str(seed), value=float(seed)),
                        *(bounded_cell(found.groups.get(g), size=True) for g in groups),
                        bounded_cell(found.gap, " against ".join(found.gap.between)),
                    ],
                    row.kind,
                    row.badge,
                )
                for row, seed, found in chosen
            ]
            tables.append(Table(f"{title}: {metric} by {attribute}", columns, lines))
    return tables


def _metric_column(name: str, board: Board) -> Column:
    arrow = "↑" if board.higher_is_better[name] else "↓"
    return Column(f"{name} {arrow}", number=True, metric=name)


def head_cell(row: Row, by_path: Mapping[Path, Entry]) -> Cell:
    """The name, linked to the model's page."""
    if row.kind == "baseline" or row.baseline:
        return Cell(plain(row), "" if row.kind == "baseline" else "baseline")
    return Cell(links=(Link(page_of("models", base_of(row, by_path)), row.name),))


def base_of(row: Row, by_path: Mapping[Path, Entry]) -> str:
    """The model of a row, without its variant."""
    return by_path[row.records[0]].record.model.name


def rank_cell(row: Row) -> Cell:
    if row.kind == "baseline":
        return Cell("baseline", mark="none")
    return Cell(str(row.rank or DASH), value=None if row.rank is None else float(row.rank))


def seeds_cell(row: Row, primary: str) -> Cell:
    """How many, and how far apart they are."""
    figure = row.figures.get(primary)
    if not row.seeds:
        return Cell(DASH, mark="none")
    number = float(len(row.seeds))
    if figure is None or figure.seed_sd is None:
        return Cell(str(len(row.seeds)), value=number)
    low, high = min(figure.seeds), max(figure.seeds)
    return Cell(
        str(len(row.seeds)), f"sd {figure.seed_sd:.3f}, {low:.3f} to {high:.3f}", value=number
    )


def lead_table(caption: str, found: Sequence[Ranking], whole: bool) -> Table:
    """Who leads each ranking; ``whole``: of many tasks, else of one, whose page it stands on."""
    lines = []
    for ranking in found:
        lead, metric, group = ranking.lead, ranking.task.primary, ranking.board.group
        arrow = "↑" if ranking.board.higher_is_better.get(metric, True) else "↓"
        leader = lead.leader
        track = "PHANTOM" if group.phantom else "real"
        text = ranking.task.name if whole else ranking.title
        href = ranking.href if whole else f"#{ranking.id}"
        how = f"{group.adaptation}, " if group.adaptation else ""
        head = Cell(links=(Link(href, text),), note=f"{how}{metric} {arrow}" if whole else "")
        cells = []
        mark = {"real": "good", "tie": "warn", "alone": "none", "none": "none"}[lead.verdict]
        cells.append(Cell(links=(ranking.leader,)) if ranking.leader else Cell(DASH))
        cells.append(Cell(lead.short, mark=mark))
        figure = leader.figures[metric] if leader else None
        value, _, interval = words(figure).partition(" ") if figure else (DASH, "", "")
        cells.append(Cell(value, interval))
        cells.append(_against(lead, metric))
        cells += _price(leader)
        cells.append(Cell(str(len(leader.seeds)) if leader else DASH))
        if whole:
            cells.append(Cell(track, f"{group.preset}, {group.protocol}"))
        lines.append(Line(head, cells, "model"))
    columns = [
        Column("Task" if whole else "Ranking"),
        Column("Best model"),
        Column("Is the lead real?"),
        Column("Value"),
        Column("Best trivial predictor"),
        Column("Parameters trained", number=True),
        Column("Training time", number=True),
        Column("Seeds"),
        *([Column("Track, preset, protocol")] if whole else []),
    ]
    return Table(caption, columns, lines, compact=True)


def _against(lead: Lead, metric: str) -> Cell:
    if lead.trivial is None:
        return Cell(DASH, mark="none")
    text = {
        "": "",
        "above": "beaten: ",
        "not apart": "not told apart: ",
        "below": "better than every model: ",
    }[lead.against]
    mark = "bad" if lead.against == "below" else "warn" if lead.against == "not apart" else ""
    return Cell(f"{text}{plain(lead.trivial)}", words(lead.trivial.figures[metric]), mark=mark)


def _price(leader: Row | None) -> list[Cell]:
    if leader is None:
        return [Cell(DASH, mark="none")] * 2
    found = costs(leader)
    trained = found[1]
    total = found[0].text
    note = f"of {total}" if leader.cost.parameters else ""
    seconds = leader.cost.train_seconds
    time = Cell(DASH, mark="none") if seconds is None else Cell(duration(seconds), value=seconds)
    return [Cell(trained.text, note, trained.value, mark=trained.mark), time]
