"""``medbench run``: train what is missing, evaluate, record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from medbench.cli import options
from medbench.cli.backbones import Backbones, choose_backbones
from medbench.cli.catalogue import Json
from medbench.cli.output import print_json, print_table
from medbench.cli.registry import registry

if TYPE_CHECKING:
    from medbench.run.request import Plan
    from medbench.schemas.record import Record

MORE = "Without real data the phantom of the dataset is rendered and used, and the result says so."

EXAMPLES = (
    "Examples:\n\n"
    "medbench run --model radclip --task covid-ct\n\n"
    "medbench run -m radclip -m radclip@mean-pooling -t covid-ct --seed 0 --seed 1\n\n"
    "medbench run -m radclip -t covid-ct --data /data/COVID-CT-MD --weights radclip=RadCLIP.pth\n\n"
    "medbench run -m radclip -t covid-ct --dry-run"
)


def run(
    model: options.Models,
    task: options.Tasks,
    data: options.Data = None,
    weights: options.Weights = None,
    backbone: Backbones = None,
    preset: options.Preset = "auto",
    adaptation: options.Adaptation = None,
    protocol: options.Protocol = "clean",
    fraction: options.Fractions = None,
    seed: options.Seeds = None,
    device: options.Device = "auto",
    devices: options.Devices = 1,
    accumulate: options.Accumulate = 1,
    precision: options.Precision = "auto",
    batch_size: options.BatchSize = "auto",
    limit: options.Limit = None,
    setting: options.Settings = None,
    output: options.Output = None,
    fresh: options.Fresh = False,
    tensorboard: options.Tensorboard = None,
    dry_run: options.DryRun = False,
    json: Json = False,
) -> None:
    from medbench.run.resolve import resolve

    choose_backbones(backbone)
    found = registry()
    request = options.request_of(
        model=model,
        task=task,
        data=data,
        weights=weights,
        preset=preset,
        adaptation=adaptation,
        protocol=protocol,
        fraction=fraction,
        seed=seed,
        device=device,
        devices=devices,
        accumulate=accumulate,
        precision=precision,
        batch_size=batch_size,
        limit=limit,
        setting=setting,
        output=output,
        fresh=fresh,
    )
    plan = resolve(request, found)
    if dry_run:
        from medbench.run.plan import describe_plan

        document = describe_plan(plan)
        if json:
            print_json(document)
        else:
            _print_plan(document)
        return

    from medbench.run.runner import Runner

    outcome = Runner(found, plan, fresh=fresh, curves=tensorboard).run()
    if json:
        print_json(
            {
                "schema": "medbench.run/1",
                "records": [r.model_dump(mode="json", by_alias=True) for r in outcome.records],
                "skipped": [
                    {"model": s.model, "task": s.task, "reason": s.reason} for s in plan.skipped
                ],
                "failed": [
                    {"cell": f.cell, "exit_code": f.exit_code, "error": f.message}
                    for f in outcome.failures
                ],
            }
        )
    else:
        print_results(outcome.records, plan)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def print_results(records: list[Record], plan: Plan) -> None:
    """Every metric with its interval and baselines, as a table."""
    rows = []
    for record in records:
        for name, metric in record.metrics.items():
            low, high = metric.ci95
            beside = "  ".join(
                f"{baseline} {values[name].value:.3f} [{values[name].ci95[0]:.3f}, "
                f"{values[name].ci95[1]:.3f}]"
                for baseline, values in record.baselines.items()
                if name in values
            )
            rows.append(
                (
                    record.model_id,
                    f"{record.task.name} ({record.data.track})",
                    str(record.seed)
                    if record.fraction == 1
                    else f"{record.seed}, {record.fraction:.0%} of labels",
                    name,
                    f"{metric.value:.3f} [{low:.3f}, {high:.3f}]",
                    beside,
                )
            )
    if rows:
        print_table(("model", "task", "seed", "metric", "value [95 % interval]", "baselines"), rows)
        print(
            "Intervals: bootstrap over patients; what another training seed would change is not "
            "in them."
        )
    for record in records:
        if record.flags:
            print(f"{record.model_id}: flagged {', '.join(record.flags)}.")
    if records:
        print(f"Records: {plan.output}")


def _print_plan(document: dict[str, object]) -> None:
    for cell in document["cells"]:  # type: ignore[attr-defined]
        print(f"{cell['cell']}: preset {cell['preset']}, {cell['data']}, {cell['device']}")
        print_table(
            ("  stage", "state", "work"),
            [(f"  {s['stage']}", s["state"], s["work"]) for s in cell["stages"]],
        )
    for skip in document["skipped"]:  # type: ignore[attr-defined]
        print(f"skipped: {skip['model']} x {skip['task']}: {skip['reason']}")
    for refused in document["refused"]:  # type: ignore[attr-defined]
        print(f"fails: {refused['cell']}: {refused['error']}")
