"""``medbench score``: anybody's predictions, no model needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medbench.cli.backbones import Backbones, choose_backbones
from medbench.cli.catalogue import Json
from medbench.cli.output import print_json, print_table
from medbench.cli.registry import registry
from medbench.schemas.specs import TASK_TYPES

MORE = (
    "Tables (CSV, JSON lines, Parquet) for classification and report-generation, arrays (.npz) "
    "for segmentation, retrieval and image-generation; docs/metrics.md has the columns. Each "
    "metric has a 95 % interval over patients and a trivial baseline beside it."
)

EXAMPLES = (
    "Examples:\n\n"
    "medbench score predictions.csv --type classification\n\n"
    "medbench score reports.jsonl --type report-generation --json\n\n"
    "medbench score predictions.parquet --type classification --task covid-ct\n\n"
    "medbench score images.npz --type image-generation --backbone xrv=densenet.safetensors"
)


def score(
    file: Annotated[Path, typer.Argument(help="Predictions to score.", show_default=False)],
    kind: Annotated[
        str,
        typer.Option("--type", envvar="MEDBENCH_TYPE", metavar="|".join(TASK_TYPES), help="What."),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            envvar="MEDBENCH_TASK",
            metavar="NAME",
            help="Task they are of: says whether it is multiclass, and which metrics count.",
        ),
    ] = None,
    backbone: Backbones = None,
    json: Json = False,
) -> None:
    from medbench.errors import UsageError
    from medbench.evaluation.files import read_predictions, trivial
    from medbench.evaluation.score import baseline_estimates
    from medbench.evaluation.score import score as measure
    from medbench.schemas.task import load_task

    choose_backbones(backbone)
    found = registry()
    names = [n for n in found.names("metrics") if kind in found.metric(n).task_types]
    multiclass = None
    if task is not None:
        spec = load_task(found.task_file(task))
        if spec.type != kind:
            raise UsageError(f"Task '{task}' is of type {spec.type}, not {kind}.")
        names, multiclass = list(spec.metrics), spec.multiclass
    table = read_predictions(file, kind, multiclass)
    specs = [found.metric(name) for name in names]
    scored = measure(table, specs)
    beside = {name: baseline_estimates(other, specs) for name, other in trivial(table).items()}
    counts = {"scored": table.support(), "patients": len(set(table.patients))}
    if json:
        print_json(
            {
                "schema": "medbench.score/1",
                "type": kind,
                "metrics": {n: m.model_dump(mode="json") for n, m in scored.metrics.items()},
                "baselines": {
                    name: {n: e.model_dump(mode="json") for n, e in values.items()}
                    for name, values in beside.items()
                },
                "counts": counts,
                "notes": scored.notes,
            }
        )
        return
    rows = []
    for name, metric in scored.metrics.items():
        low, high = metric.ci95
        others = "  ".join(
            f"{baseline} {values[name].value:.3f} [{values[name].ci95[0]:.3f}, "
            f"{values[name].ci95[1]:.3f}]"
            for baseline, values in beside.items()
            if name in values
        )
        arrow = "higher" if metric.higher_is_better else "lower"
        shown = f"{metric.value:.4g} [{low:.4g}, {high:.4g}]"
        rows.append((name, shown, arrow, str(metric.n), others))
    print_table(("metric", "value [95 % interval]", "better", "n", "baseline"), rows)
    print(f"{counts['scored']:,} samples of {counts['patients']:,} patients or clusters.")
    for note in scored.notes:
        print(f"Note: {note}.")
