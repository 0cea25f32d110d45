"""From the records of one group to the rows of one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from medbench.errors import VerificationError
from medbench.evaluation.files import AnyPredictions
from medbench.evaluation.verdict import verdict
from medbench.leaderboard.collect import Entry, Group
from medbench.leaderboard.resampling import rank_rows, same_samples, seed_mean_intervals
from medbench.metrics.cards import card_sha256
from medbench.run.settings import differences
from medbench.schemas.record import Record
from medbench.schemas.specs import MetricSpec
from medbench.schemas.task import TaskSpec


@dataclass(frozen=True)
class Figure:
    """One metric of one row.

    Attributes:
        value: mean over seeds.
        ci95: patient interval of that mean.
        exact: False when the interval is the mean of the seeds' bounds.
        seeds: the value of each seed, in the order of seeds.
        n: samples behind each of them, the least where they differ.
    """

    value: float
    ci95: tuple[float, float]
    exact: bool = True
    seeds: tuple[float, ...] = ()
    n: int = 0

    @property
    def seed_sd(self) -> float | None:
        return stdev(self.seeds) if len(self.seeds) > 1 else None


@dataclass(frozen=True)
class Cost:
    """What a row's runs cost; None where their records do not say.

    Attributes:
        parameters: total and trainable.
        train_seconds: of all training stages, mean over seeds.
        images_per_second: of embedding, mean over seeds.
        peak_memory_mb: the largest over seeds; on a CPU of the whole process.
    """

    parameters: tuple[int, int] | None = None
    train_seconds: float | None = None
    images_per_second: float | None = None
    peak_memory_mb: float | None = None


@dataclass
class Row:
    """A model (all its seeds) or a baseline."""

    name: str
    kind: str  # "model", "baseline" or "unranked"
    figures: dict[str, Figure]
    seeds: tuple[int, ...] = ()
    flags: tuple[str, ...] = ()
    rank: int | None = None
    baseline: bool = False
    tables: tuple[AnyPredictions, ...] = ()
    cost: Cost = Cost()
    badge: str = ""
    records: tuple[Path, ...] = ()


@dataclass
class Board:
    """One table: what its rows share, the rows in order, and what a reader must know.

    ``by_interval`` counts the pairs of ranked rows that were compared by their intervals, since
    they could not be tested; ``pairs`` counts all.
    """

    group: Group
    metrics: tuple[str, ...]
    higher_is_better: dict[str, bool]
    samples: int
    patients: int
    rows: list[Row]
    unranked: list[Row]
    notes: list[str] = field(default_factory=list)
    pairs: int = 0
    by_interval: int = 0


def make_board(
    group: Group,
    entries: Sequence[Entry],
    task: TaskSpec,
    specs: Mapping[str, MetricSpec],
    among: Sequence[Entry] = (),
) -> Board:
    """Aggregate, rank and order. ``entries`` hold one per cell, in any order.

    ``among`` are entries of other tables in which a model must have the same name as here.

    Raises VerificationError where runs were scored by metrics with unlike identity cards, or by
    distances in the features of unlike networks.
    """
    entries = sorted(entries, key=lambda e: (e.identity, e.record.seed, e.reasons, e.record.run_id))
    directions = _same_cards(entries)
    metrics = tuple(dict.fromkeys((task.primary, *task.metrics, *sorted(directions))))
    metrics = tuple(name for name in metrics if name in directions)
    known = {
        name: spec
        for name, spec in specs.items()
        if _card(entries, name) == card_sha256(spec) and not _needs_network(spec, entries)
    }
    names = _names([*entries, *among])
    models: dict[tuple[str, str], list[Entry]] = {}
    unranked: list[Row] = []
    alone: list[Row] = []
    for entry in entries:
        if entry.reasons:
            unranked.append(_row(names[entry.identity], "unranked", [entry], known))
        else:
            models.setdefault(entry.identity, []).append(entry)
    ranked: list[Row] = []
    for identity, members in models.items():
        baseline = members[0].baseline
        row = _row(names[identity], "baseline" if baseline else "model", members, known)
        (alone if baseline else ranked).append(row)
    notes = [
        f"{names[identity]} {sentence}."
        for identity, members in models.items()
        for sentence in _beaten(members, task)
    ]
    pairs, by_interval = _rank(ranked, task.primary, known, directions, notes)
    rows = ranked + alone + _baselines(entries, alone, notes)
    _missing(ranked, notes)
    _measured(entries, notes)
    largest = max(entries, key=lambda e: e.record.data.samples.get("test", 0)).record
    return Board(
        group,
        metrics,
        directions,
        largest.data.samples.get("test", 0),
        largest.data.patients.get("test", 0),
        sorted(rows, key=lambda row: _order(row, task.primary, directions)),
        sorted(unranked, key=lambda row: _order(row, task.primary, directions)),
        notes,
        pairs,
        by_interval,
    )


def _beaten(members: Sequence[Entry], task: TaskSpec) -> list[str]:
    """What to say of a row whose model looking up beats, in one seed or several; else nothing."""
    said = [
        sentence
        for entry in members
        for sentence in verdict(
            task.type, task.primary, entry.record.metrics, entry.record.baselines
        )
    ]
    if len(members) == 1 or not said:
        return said
    return [f"does not beat looking up in {len(said)} of {len(members)} seeds"]


def _same_cards(entries: Sequence[Entry]) -> dict[str, bool]:
    """Metric name to direction, after making sure that each name means one thing."""
    cards: dict[str, dict[str, str]] = {}
    judges: dict[str, dict[str, str]] = {}
    directions: dict[str, bool] = {}
    for entry in entries:
        for name, metric in entry.record.metrics.items():
            run = entry.record.run_id
            cards.setdefault(name, {}).setdefault(metric.card_sha256, run)
            judges.setdefault(name, {}).setdefault(entry.record.judge(name) or "not stated", run)
            directions.setdefault(name, metric.higher_is_better)
    for found, what, how in (
        (cards, "has unlike identity cards", "card"),
        (judges, "is a distance in the features of unlike networks", "weights"),
    ):
        for name, kinds in sorted(found.items()):
            if len(kinds) > 1:
                runs = " and ".join(
                    f"{run} ({how} {kind if how == 'weights' else kind[:8]})"
                    for kind, run in sorted(kinds.items())
                )
                raise VerificationError(
                    f"Metric '{name}' {what} in runs that would share a table: {runs}. They are "
                    "not comparable; score one of them again as the other was, or leave it out."
                )
    return directions


def _needs_network(spec: MetricSpec, entries: Sequence[Entry]) -> bool:
    """Whether computing a metric again takes a network, which this machine may have or not.

    Distances of features are taken from the features in the predictions where the run gave them.
    """
    if not spec.backbone or "image-generation" not in spec.task_types:
        return bool(spec.backbone)
    return any(entry.record.judge(spec.name) is not None for entry in entries)


def _card(entries: Sequence[Entry], name: str) -> str | None:
    found = (entry.record.metrics.get(name) for entry in entries)
    return next((metric.card_sha256 for metric in found if metric is not None), None)


def _names(entries: Sequence[Entry]) -> dict[tuple[str, str], str]:
    """How rows are called: settings are named only where one model has several."""
    alike: dict[str, dict[str, Record]] = {}
    for entry in entries:
        model, tail = entry.identity
        alike.setdefault(model, {})[tail] = entry.record
    names: dict[tuple[str, str], str] = {}
    for model, records in alike.items():
        # the settings that differ, if these are few and all that differs; else their short hash
        found = differences([record.model.config for record in records.values()])
        shown = [", ".join(differ) for differ in found]
        telling = 0 < len(found[0]) <= 2 and len(set(shown)) == len(records)
        for tail, differ in zip(records, shown, strict=True):
            apart = differ if telling else f"settings {tail}"
            names[model, tail] = model if len(records) == 1 else f"{model} ({apart})"
    return names


def _row(name: str, kind: str, entries: Sequence[Entry], specs: Mapping[str, MetricSpec]) -> Row:
    records = [entry.record for entry in entries]
    # only models are ranked, and the interval of a single run is in its record
    needed = entries if kind == "model" or len(entries) > 1 else ()
    tables = [t for t in (e.predictions for e in needed) if t is not None]
    whole = len(tables) == len(entries) and same_samples(tables)
    joint: dict[str, tuple[float, float]] = {}
    if whole and len(entries) > 1:
        joint = seed_mean_intervals(tables, list(specs.values()))
    figures: dict[str, Figure] = {}
    for metric in dict.fromkeys(name for record in records for name in record.metrics):
        found = [r.metrics[metric] for r in records if metric in r.metrics]
        values = tuple(m.value for m in found)
        bounds = (fmean(m.ci95[0] for m in found), fmean(m.ci95[1] for m in found))
        exact = len(records) == 1 or (metric in joint and len(found) == len(records))
        if exact and len(records) > 1:
            bounds = joint[metric]
        figures[metric] = Figure(fmean(values), bounds, exact, values, min(m.n for m in found))
    flags = sorted({flag for e in entries for flag in (*e.record.flags, *e.reasons)})
    return Row(
        name,
        kind,
        figures,
        seeds=tuple(record.seed for record in records),
        flags=tuple(flags),
        baseline=entries[0].baseline,
        tables=tuple(tables) if whole else (),
        cost=_cost(records),
        badge=entries[0].badge,
        records=tuple(entry.path for entry in entries),
    )


def _cost(records: Sequence[Record]) -> Cost:
    """Runs of one row differ in their seed only, so they have as many parameters."""
    counted = records[0].model.parameters
    peaks = [record.timing.get("peak_memory_mb") for record in records]
    return Cost(
        (counted.total, counted.trainable) if counted.total else None,
        _mean(record.timing.get("train_seconds") for record in records),
        _mean(record.timing.get("images_per_second") for record in records),
        max((float(peak) for peak in peaks if isinstance(peak, int | float)), default=None),
    )


def _mean(values: Iterable[Any]) -> float | None:
    known = [float(value) for value in values if isinstance(value, int | float)]
    return fmean(known) if known else None


def _rank(
    rows: Sequence[Row],
    primary: str,
    specs: Mapping[str, MetricSpec],
    directions: Mapping[str, bool],
    notes: list[str],
) -> tuple[int, int]:
    """Give each row with the primary metric its rank, and say how the pairs were compared: how
    many there are, and how many of them by their intervals."""
    usable = [row for row in rows if primary in row.figures]
    found, tested, by_interval = rank_rows(
        [row.figures[primary].value for row in usable],
        [row.figures[primary].ci95 for row in usable],
        [row.tables for row in usable],
        specs.get(primary),
        directions.get(primary, True),
    )
    for row, rank in zip(usable, found, strict=True):
        row.rank = rank
    if by_interval:
        notes.append(
            f"{by_interval} of {tested + by_interval} pairs have no common predictions here, or "
            "a metric that cannot be resampled from them, and are tied while their intervals "
            "overlap."
        )
    return tested + by_interval, by_interval


def _baselines(entries: Sequence[Entry], alone: Sequence[Row], notes: list[str]) -> list[Row]:
    """The baselines scored beside the models, unless they were run as models themselves."""
    taken = {row.name.removeprefix("baseline@") for row in alone}
    found: dict[str, dict[str, Figure]] = {}
    differs: set[str] = set()
    # what was submitted last: some baselines in a record cannot be derived again
    for entry in sorted(entries, key=lambda entry: entry.sent is not None):
        if entry.reasons:
            continue
        for name, metrics in sorted(entry.record.baselines.items()):
            figures = {m: Figure(e.value, e.ci95, n=e.n) for m, e in sorted(metrics.items())}
            first = found.setdefault(name, figures)
            if any(abs(first[m].value - f.value) > 1e-6 for m, f in figures.items() if m in first):
                differs.add(name)
    for name in sorted(differs):
        notes.append(f"Baseline '{name}' differs between runs; the first one's is shown.")
    return [
        Row(name, "baseline", figures, baseline=True)
        for name, figures in sorted(found.items())
        if name not in taken
    ]


def _missing(rows: Sequence[Row], notes: list[str]) -> None:
    """Name the cells that others have and a row has not."""
    seeds = sorted({seed for row in rows for seed in row.seeds})
    for row in sorted(rows, key=lambda r: r.name):
        lacking = [str(seed) for seed in seeds if seed not in row.seeds]
        if lacking:
            notes.append(f"Missing: {row.name}, seed {', '.join(lacking)}.")


def _measured(entries: Sequence[Entry], notes: list[str]) -> None:
    """Say on what training and embedding were timed."""
    timed = [
        e.record
        for e in entries
        if {"train_seconds", "images_per_second", "peak_memory_mb"} & {*e.record.timing}
    ]
    devices = sorted({str(r.environment.get("gpu") or r.environment.get("device")) for r in timed})
    if timed:
        notes.append(
            f"Training and images/s were measured on {', '.join(devices)}, as means over seeds, "
            "whatever else the machine had to do; a stage that models share counts in full for "
            "each. Memory is the peak of the process, earlier runs in it included."
        )


def _order(row: Row, primary: str, directions: Mapping[str, bool]) -> tuple[object, ...]:
    """By the primary metric, the best first; rows without it last; then by name."""
    figure = row.figures.get(primary)
    sign = -1.0 if directions.get(primary, True) else 1.0
    return (figure is None, sign * figure.value if figure else 0.0, row.name, row.seeds, row.flags)
