"""What a model's page says: what it is, what it was trained on, every result, how to run it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from medbench.leaderboard.board import Row
from medbench.leaderboard.cells import DASH, count, fraction_cell
from medbench.leaderboard.collect import BASELINE, Entry
from medbench.schemas.contamination import contamination
from medbench.schemas.specs import ModelSpec
from medbench.schemas.task import TaskSpec
from medbench.site.rankings import Place, Ranking, rank_cell, seeds_cell
from medbench.site.tables import (
    Cell,
    Column,
    Line,
    Link,
    Table,
    cost_columns,
    costs,
    figure_cell,
    page_of,
    record_links,
)

#: What the stages of a model, one of its presets and a track were trained on, in the order of
#: training: stage, data, track.
Stages = tuple[tuple[str, str, str], ...]


@dataclass
class Results:
    """What the records say of one model, gathered task by task.

    Attributes:
        rows: its rows with the ranking in which each stands.
        trained: variant, preset and sizes to what was trained on what.
        weights: given weights: variant and preset to what is known of them.
        plugins: distributions and versions that made the records.
    """

    rows: list[tuple[Ranking, Row]] = field(default_factory=list)
    trained: dict[tuple[str, str, int, int], set[Stages]] = field(default_factory=dict)
    weights: set[tuple[str, str, str]] = field(default_factory=set)
    plugins: set[str] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """Take note of what the model of a record was trained on."""
        model = entry.record.model
        stages = tuple(
            dict.fromkeys(
                (str(s.get("stage", "")), str(s.get("dataset", "")), str(s.get("track", "")))
                for s in model.pretraining_data
            )
        )
        size = (model.parameters.total, model.parameters.trainable)
        self.trained.setdefault((entry.record.model_id, model.preset, *size), set()).add(stages)
        if model.weights_sha256:
            data = ", ".join(model.weights_data or []) or "training data not declared"
            self.weights.add((entry.record.model_id, model.weights_sha256[:12], data))
        self.plugins.add(f"{model.plugin.distribution} {model.plugin.version}")


def gather(
    results: dict[str, Results], found: Sequence[Ranking], entries: Iterable[Entry]
) -> dict[str, str]:
    """Enter the rankings of one task; returns the names of rows with those of their models."""
    by_path = {entry.path: entry for entry in entries}
    for entry in by_path.values():
        if not entry.baseline:
            results.setdefault(entry.record.model.name, Results()).add(entry)
    base = {}
    for ranking in found:
        for row in (*ranking.board.rows, *ranking.board.unranked):
            if row.records and not row.baseline:
                base[row.name] = by_path[row.records[0]].record.model.name
                results[base[row.name]].rows.append((ranking, row))
    assert BASELINE not in results
    return base


def results_table(name: str, results: Results, place: Place) -> Table:
    """Every row of the model, by task; the metric is each task's own, so no column is an order of
    quality."""
    page = place.site / page_of("models", name)
    columns = [
        Column("Task"),
        Column("Variant"),
        Column("Metric"),
        Column("Value", number=True),
        Column("Rank", number=True),
        Column("Labels", number=True),
        Column("Setting"),
        Column("Seeds", number=True),
        *cost_columns(),
        Column("Flags"),
        Column("Records"),
    ]
    lines = []
    for ranking, row in results.rows:
        group, metric = ranking.board.group, ranking.task.primary
        rank = rank_cell(row)
        if row.rank:
            tied = sum(other.rank == row.rank for other in ranking.board.rows)
            rank = Cell(rank.text, f"of {ranking.lead.ranked}{', tie' * (tied > 1)}", rank.value)
        arrow = "↑" if ranking.board.higher_is_better.get(metric, True) else "↓"
        track = "PHANTOM" if group.phantom else "real"
        cells = [
            Cell(row.name),
            Cell(links=(Link(page_of("metrics", metric), f"{metric} {arrow}"),)),
            figure_cell(row.figures.get(metric), row.rank == 1),
            rank,
            Cell(fraction_cell(group.fraction), value=group.fraction),
            Cell(group.adaptation or "as trained", f"{track}, {group.preset}, {group.protocol}"),
            seeds_cell(row, metric),
            *costs(row),
            Cell(", ".join(row.flags) or "none", mark="" if row.flags else "none"),
            record_links(row, place.root, page, place.inside),
        ]
        head = Cell(links=(Link(ranking.href, ranking.task.name),))
        lines.append(Line(head, cells, row.kind, row.badge))
    return Table(f"All results of {name}", columns, lines)


def training_table(name: str, results: Results) -> Table:
    """What each variant trained, and on what, as the records have it."""
    lines = []
    for (variant, preset, total, trainable), kinds in sorted(results.trained.items()):
        for stages in sorted(kinds):
            text = "; ".join(
                f"{stage}: {data}{' (PHANTOM)' * (track == 'phantom')}"
                for stage, data, track in stages
            )
            sizes = [(total, count(total)), (trainable, count(trainable))]
            cells = [Cell(preset)]
            cells += [Cell(shown if total else DASH, value=float(n)) for n, shown in sizes]
            lines.append(Line(Cell(variant), [*cells, Cell(text or "nothing of its own")], "model"))
    columns = [
        Column("Variant"),
        Column("Preset"),
        Column("Parameters", number=True),
        Column("Parameters trained", number=True),
        Column("Training data, by stage"),
    ]
    return Table(f"What {name} was trained on, in these results", columns, lines)


def variants_table(spec: ModelSpec) -> Table | None:
    """The variants that the model's plugin declares."""
    if not spec.variants:
        return None
    lines = [
        Line(
            Cell(f"{spec.name}@{variant.name}"),
            [
                Cell(variant.description),
                Cell(", ".join(variant.presets) or "all"),
                Cell(", ".join(variant.lacks) or "nothing"),
            ],
        )
        for variant in spec.variants
    ]
    columns = [Column("Variant"), Column("What it is"), Column("Presets"), Column("Lacks")]
    return Table(f"Variants of {spec.name}", columns, lines, sortable=False)


def suspected(spec: ModelSpec, tasks: Mapping[str, TaskSpec]) -> list[str]:
    """Tasks whose tested images the model's published weights may have seen, by what its plugin
    and the task files declare."""
    declared = (*(spec.weights_data or ()), *spec.overlaps)
    return [name for name, task in sorted(tasks.items()) if contamination(declared, task, "clean")]


def commands(name: str, results: Results) -> list[tuple[str, str]]:
    """What to type: to see the model, to run it on its first task, to repeat a variant's."""
    found = [("Show its settings and their sources", f"medbench models show {shlex.quote(name)}")]
    seen = set()
    for ranking, row in results.rows:
        group = ranking.board.group
        variant = row.name.partition(" ")[0]
        if variant in seen or group.fraction != 1 or group.protocol != "clean":
            continue
        seen.add(variant)
        task = ranking.task
        words = ["medbench", "run", "--model", variant, "--task", task.name]
        words += ["--data", "phantom" if group.phantom else f"{task.dataset}=PATH"]
        words += ["--preset", group.preset]
        if group.adaptation:
            words += ["--adaptation", group.adaptation]
        words += [word for seed in row.seeds for word in ("--seed", str(seed))]
        found.append((f"Run {variant} on {task.name}", shlex.join(words)))
    return found
