"""The tables of a page: every value with its interval, and baselines beside every model."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medbench.errors import MedbenchError
from medbench.evaluation.files import trivial
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.score import score
from medbench.plugins import Registry
from medbench.report.runs import Run, Section
from medbench.run.settings import configure
from medbench.schemas.record import GROUPS, Estimate, Gap, MetricValue

DASH = "–"

#: What the flags of a record say to a reader.
FLAGS = {
    "undeclared": "nobody says what the weights were trained on",
    "limited": "not all of the data: a quick look, never ranked",
    "contaminated": "the given weights may have seen the tested data",
    "assumed-hyperparameters": "the paper leaves some values open; the record lists ours",
    "paper-compat": "divided as the paper's code does, its leaks included",
    "phantom-pretrained": "trained on phantoms and tested on real data",
    "dirty": "made by sources that differ from their commit",
}


@dataclass(frozen=True)
class Cell:
    """What is shown, and what stands behind it in full."""

    shown: str
    exact: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table; ``muted`` for baselines, which are not what is compared."""

    head: str
    cells: list[Cell]
    muted: bool = False


@dataclass(frozen=True)
class Table:
    """``columns`` name the cells; the head of a row has none."""

    title: str
    head: str
    columns: list[str]
    rows: list[Row]


def estimate(value: Estimate | None) -> Cell:
    """``0.836 [0.762, 0.902]``, and the same in full; a dash for what was not measured."""
    if value is None:
        return Cell(DASH)
    low, high = value.ci95
    return Cell(
        f"{number(value.value)} [{number(low)}, {number(high)}]",
        f"{value.value!r} [{low!r}, {high!r}], n {value.n:,}",
    )


def number(value: float) -> str:
    """Three decimals; three digits where these say nothing or too much.

    >>> number(0.8357518), number(0.0), number(0.00042), number(123.4)
    ('0.836', '0.000', '0.00042', '123')
    """
    if value == 0 or 0.001 <= abs(value) < 100:
        return f"{value:.3f}"
    return f"{value:.3g}"


def arrow(metric: MetricValue) -> str:
    """Which way is better."""
    return "↑" if metric.higher_is_better else "↓"


def results(section: Section) -> Table:
    """Runs by metrics, each with its interval; below them the baselines of their records."""
    metrics = section.metrics
    rows = [
        Row(
            run.name,
            [
                Cell(run.record.adaptation or DASH),
                Cell(f"{100 * run.record.fraction:.3g} %"),
                Cell(str(run.record.seed)),
                *(estimate(run.record.metrics.get(name)) for name in metrics),
            ],
            muted=run.is_baseline,
        )
        for run in section.runs
    ]
    alone = [(run.record.model.variant, _values(run.record.metrics)) for run in section.runs]
    for name, values, owners in baselines(section):
        if (name, _values(values)) in alone:
            continue  # it was run alone too, and stands above
        whose = "" if len(owners) == len(section.runs) else f", beside {_numbers(owners)}"
        own = [estimate(values.get(metric)) for metric in metrics]
        rows.append(Row(f"baseline {name}{whose}", [Cell(DASH)] * 3 + own, muted=True))
    columns = [f"{name} {arrow(value)}" for name, value in metrics.items()]
    return Table(
        "Results: value [95 % interval over patients]",
        "run",
        ["adaptation", "labels", "seed", *columns],
        rows,
    )


def baselines(section: Section) -> list[tuple[str, Mapping[str, Estimate], list[Run]]]:
    """Each baseline once, with its values and the runs beside which it was scored: those with
    fewer labels may have another."""
    found: dict[tuple[str, str], tuple[str, Mapping[str, Estimate], list[Run]]] = {}
    for run in section.runs:
        for name, values in run.record.baselines.items():
            key = (name, repr(sorted(values.items())))
            found.setdefault(key, (name, values, []))[2].append(run)
    return list(found.values())


def _values(estimates: Mapping[str, Estimate]) -> dict[str, tuple[float, tuple[float, float]]]:
    return {name: (found.value, found.ci95) for name, found in estimates.items()}


def per_label(section: Section, registry: Registry) -> list[Table]:
    """For each metric that has them, its values label by label; the prior of the tested labels
    beside them, since records keep baselines only over all labels."""
    tables = []
    for name, metric in section.metrics.items():
        runs = [r for r in section.runs if name in r.record.metrics]
        by_run = [r.record.metrics[name].per_label or {} for r in runs]
        labels = list(dict.fromkeys(label for values in by_run for label in values))
        if len(labels) < 2:
            continue
        prior = _prior(section, name, registry)
        columns = [r.label for r in runs] + (["prior of the tested labels"] if prior else [])
        by_run += [prior] if prior else []
        rows = [Row(n, [estimate(values.get(n)) for values in by_run]) for n in labels]
        tables.append(Table(f"{name} {arrow(metric)} per label", "label", columns, rows))
    return tables


def subgroups(section: Section) -> list[Table]:
    """For each attribute the runs that state its groups, with the gap between best and worst."""
    tables = []
    for attribute, order in GROUPS.items():
        stated = [
            (run, found)
            for run in section.runs
            if (found := (run.record.subgroups or {}).get(attribute)) is not None
        ]
        for name in dict.fromkeys(found.metric for _, found in stated):
            chosen = [(run, found) for run, found in stated if found.metric == name]
            columns = [g for g in order if any(g in found.groups for _, found in chosen)]
            rows = [
                Row(
                    run.label,
                    [*(estimate(found.groups.get(g)) for g in columns), _gap(found.gap)],
                    muted=run.is_baseline,
                )
                for run, found in chosen
            ]
            metric = section.metrics.get(name)
            title = f"{name} {arrow(metric)}" if metric else name
            tables.append(
                Table(f"{title} by {attribute}", "run", [*columns, "best against worst"], rows)
            )
    return tables


def _gap(gap: Gap) -> Cell:
    low, high = gap.ci95
    return Cell(
        f"{number(gap.value)} [{number(low)}, {number(high)}], {' against '.join(gap.between)}",
        f"{gap.value!r} [{low!r}, {high!r}]",
    )


def _prior(section: Section, metric: str, registry: Registry) -> dict[str, Estimate]:
    table = next((run.predictions for run in section.runs if run.predictions is not None), None)
    if not isinstance(table, ClassPredictions) or metric not in registry.names("metrics"):
        return {}
    found = score(trivial(table)["prior"], [registry.metric(metric)]).metrics.get(metric)
    return dict(found.per_label or {}) if found else {}


def fractions(section: Section) -> Table | None:
    """The ranking metric by share of the labels, side by side; None where there is one share."""
    name = section.primary
    shares = sorted({run.record.fraction for run in section.runs})
    if len(shares) < 2 or name is None:
        return None
    lines: dict[str, dict[float, Cell]] = {}
    muted: set[str] = set()
    for run in section.runs:
        record = run.record
        head = " ".join(
            filter(
                None,
                [record.model_id, run.settings, record.adaptation, f"seed {record.seed}"],
            )
        )
        lines.setdefault(head, {})[record.fraction] = estimate(record.metrics.get(name))
        if run.is_baseline:
            muted.add(head)
    for run in section.runs:
        for baseline, values in run.record.baselines.items():
            head = f"baseline {baseline}, seed {run.record.seed}"
            muted.add(head)
            lines.setdefault(head, {})[run.record.fraction] = estimate(values.get(name))
    rows = [
        Row(head, [cells.get(share, Cell(DASH)) for share in shares], head in muted)
        for head, cells in sorted(lines.items(), key=lambda line: line[0] in muted)
    ]
    columns = [f"{100 * share:.3g} % of the labels" for share in shares]
    return Table(
        f"{name} {arrow(section.metrics[name])} by share of the labels", "run", columns, rows
    )


def efficiency(section: Section) -> Table:
    """What each run took; a dash where its record does not say."""
    keys = {"train_seconds": ",.1f", "images_per_second": ",.1f", "peak_memory_mb": ",.0f"}
    rows = []
    for run in section.models:
        parameters, timing = run.record.model.parameters, run.record.timing
        cells = [Cell(f"{parameters.total:,}"), Cell(f"{parameters.trainable:,}")]
        cells += [_measured(timing.get(key), form) for key, form in keys.items()]
        device = run.record.environment.get("gpu") or run.record.environment.get("device")
        cells += [Cell(str(device or DASH)), Cell(run.record.precision)]
        rows.append(Row(run.label, cells))
    columns = [
        "parameters", "trainable", "training, s", "images per s", "peak memory, MB",
        "device", "precision",
    ]  # fmt: skip
    return Table("Efficiency", "run", columns, rows)


def _measured(value: Any, form: str) -> Cell:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(DASH)
    return Cell(format(value, form), repr(value))


def overview(runs: Sequence[Run]) -> Table:
    """What was run on what, and what a reader must know of it."""
    rows = []
    for run in runs:
        record = run.record
        tested = record.data.samples.get("test", 0), record.data.patients.get("test", 0)
        track = "PHANTOM" if record.data.track == "phantom" else "real"
        rows.append(
            Row(
                run.name,
                [
                    Cell(record.task.name),
                    Cell(f"{record.data.dataset} ({track})"),
                    Cell(f"{tested[0]:,} ({tested[1]:,})"),
                    Cell(record.model.preset),
                    Cell(record.protocol),
                    Cell(record.status),
                    Cell(", ".join(record.flags) or "none"),
                    Cell(record.run_id),
                ],
            )
        )
    columns = [
        "task", "data", "tested (patients)", "preset", "protocol", "status", "flags", "run id",
    ]  # fmt: skip
    return Table("Runs on this page", "run", columns, rows)


def notes(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Each note of the records once, with the numbers of the runs that have it."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        for note in run.record.notes:
            found.setdefault(note, []).append(run)
    return [(note, _numbers(owners)) for note, owners in found.items()]


def _numbers(runs: Iterable[Run]) -> str:
    return ", ".join(str(run.number) for run in runs)


def command(run: Run, registry: Registry) -> str:
    """The command that makes the run again, where the data and weights are at hand."""
    record = run.record
    words = ["medbench", "run", "-m", record.model_id, "-t", record.task.name]
    if record.data.track == "phantom":
        words += ["--data", "phantom"]
    else:
        words += ["--data", f"{record.data.dataset}=PATH"]
    if record.model.weights_sha256:
        words += ["--weights", f"{record.model_id}=PATH"]
    words += ["--preset", record.model.preset]
    if record.adaptation:
        words += ["--adaptation", record.adaptation]
    if record.protocol != "clean":
        words += ["--protocol", record.protocol]
    if record.fraction != 1:
        words += ["--fraction", repr(record.fraction)]
    words += ["--seed", str(record.seed), "--precision", record.precision]
    if run.limit is not None:
        words += ["--limit", str(run.limit)]
    for key, value in _settings(run, registry):
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)


def _settings(run: Run, registry: Registry) -> list[tuple[str, str]]:
    """What differs from the preset, as ``--set`` takes it; nothing where the model is not
    installed."""
    model = run.record.model
    try:
        spec = registry.model(model.name)
        variant = spec.variant(model.variant) if model.variant else None
        plugin = registry.owner("models", model.name)
        usual = configure(spec, plugin, model.preset, variant, {})[1]
    except MedbenchError:
        return []
    own, preset = dict(_flat(model.config)), dict(_flat(usual))
    return [
        (key, value if isinstance(value, str) else json.dumps(value))
        for key, value in own.items()
        if key in preset and preset[key] != value
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
