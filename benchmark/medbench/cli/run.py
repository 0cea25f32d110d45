"""``medbench run``: train what is missing, evaluate, record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    model: Annotated[
        list[str],
        typer.Option(
            "-m",
            "--model",
            envvar="MEDBENCH_MODEL",
            metavar="NAME[@VARIANT]",
            help="Model to run; repeat for more.",
        ),
    ],
    task: Annotated[
        list[str],
        typer.Option(
            "-t",
            "--task",
            envvar="MEDBENCH_TASK",
            metavar="NAME",
            help="Task to run; repeat for more.",
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MEDBENCH_DATA",
            metavar="auto|phantom|[DATASET=]PATH",
            help="Real data as downloaded, or the phantom. Default auto: the real data if it is "
            "configured, else the phantom.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MEDBENCH_WEIGHTS",
            metavar="MODEL=PATH",
            help="Published weights: safetensors, a PyTorch state dict, or a saved folder.",
        ),
    ] = None,
    backbone: Backbones = None,
    preset: Annotated[
        str,
        typer.Option(
            envvar="MEDBENCH_PRESET",
            metavar="auto|tiny|small|paper",
            help="Size of model and phantom. auto: tiny on a CPU, small on a GPU, paper on real "
            "data.",
        ),
    ] = "auto",
    adaptation: Annotated[
        str | None,
        typer.Option(
            envvar="MEDBENCH_ADAPTATION",
            metavar="zero-shot|linear-probe|fine-tune",
            help="How the model meets a classification task. Default: the model's own.",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            envvar="MEDBENCH_PROTOCOL",
            metavar="clean|paper-compat",
            help="clean: patient-level splits and selection on validation.",
        ),
    ] = "clean",
    fraction: Annotated[
        list[float] | None,
        typer.Option(
            envvar="MEDBENCH_FRACTION",
            metavar="F",
            help="Train with this share of the labels, by patient; repeat for more. The seed draws "
            "it, and a smaller one lies inside a larger one. Default 1.",
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(envvar="MEDBENCH_SEED", metavar="N", help="Seed; repeat for more. Default 0."),
    ] = None,
    device: Annotated[
        str, typer.Option(envvar="MEDBENCH_DEVICE", metavar="auto|cpu|cuda[:N]", help="Where.")
    ] = "auto",
    devices: Annotated[
        int,
        typer.Option(
            envvar="MEDBENCH_DEVICES",
            metavar="N",
            help="Train on N GPUs of this machine (with --device cpu, in N processes), each with "
            "its share of every batch.",
        ),
    ] = 1,
    accumulate: Annotated[
        int,
        typer.Option(
            envvar="MEDBENCH_ACCUMULATE",
            metavar="N",
            help="Work through training batches in N parts, adding their gradients: less memory. "
            "Where memory ends, this happens by itself.",
        ),
    ] = 1,
    precision: Annotated[
        str,
        typer.Option(
            envvar="MEDBENCH_PRECISION",
            metavar="auto|fp32|bf16",
            help="auto: bf16 on a GPU that has it, else fp32.",
        ),
    ] = "auto",
    batch_size: Annotated[
        str,
        typer.Option(
            envvar="MEDBENCH_BATCH_SIZE",
            metavar="auto|N",
            help="Images embedded at once; training batches are settings of the model.",
        ),
    ] = "auto",
    limit: Annotated[
        int | None,
        typer.Option(
            envvar="MEDBENCH_LIMIT",
            metavar="N",
            help="Only N samples, stratified: a quick look. Such a run is never ranked.",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            envvar="MEDBENCH_SET",
            metavar="KEY=VALUE",
            help="Change a setting of the model; `medbench models show` lists them.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDBENCH_OUTPUT",
            metavar="DIR",
            help="Folder of the runs. Default: runs under MEDBENCH_HOME.",
        ),
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", envvar="MEDBENCH_FRESH", help="Build everything anew."),
    ] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDBENCH_TENSORBOARD",
            metavar="DIR",
            help="Write the curves of what is trained as TensorBoard logs.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            envvar="MEDBENCH_DRY_RUN",
            help="Print the plan: stages, what is cached, estimated work. Nothing is run.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    from medbench.run.request import Request
    from medbench.run.resolve import resolve

    choose_backbones(backbone)
    found = registry()
    request = Request(
        models=tuple(model),
        tasks=tuple(task),
        data=tuple(data or ("auto",)),
        weights=tuple(weights or ()),
        preset=preset,
        adaptation=adaptation,
        protocol=protocol,
        fractions=tuple(fraction if fraction else (1.0,)),
        seeds=tuple(seed if seed else (0,)),
        device=device,
        devices=devices,
        accumulate=accumulate,
        precision=precision,
        batch_size=batch_size,
        limit=limit,
        settings=tuple(setting or ()),
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
        _print_results(outcome.records, plan)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _print_results(records: list[Record], plan: Plan) -> None:
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
