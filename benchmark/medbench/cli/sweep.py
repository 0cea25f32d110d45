"""``medbench sweep``: the matrix as a graph of stages, by many workers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from medbench.cli import options
from medbench.cli.backbones import Backbones
from medbench.cli.catalogue import Json
from medbench.cli.output import print_json, print_table

MORE = (
    "What cells share is made once; the records are those of `medbench run`. The same command goes "
    "on where a sweep was stopped."
)

EXAMPLES = (
    "Examples:\n\n"
    "medbench sweep -m radclip -m cls-clip -t covid-ct --seed 0 --seed 1 --workers 2\n\n"
    "medbench sweep -m radclip -t covid-ct --dry-run\n\n"
    "medbench sweep -m radclip -m cls-clip -t covid-ct --executor ray --address auto "
    "--gpus-per-cell 0.5"
)


def sweep(
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
    accumulate: options.Accumulate = 1,
    precision: options.Precision = "auto",
    batch_size: options.BatchSize = "auto",
    limit: options.Limit = None,
    setting: options.Settings = None,
    output: options.Output = None,
    fresh: options.Fresh = False,
    dry_run: options.DryRun = False,
    executor: Annotated[
        str,
        typer.Option(
            envvar="MEDBENCH_EXECUTOR",
            metavar="local|ray",
            help="Processes on this machine, or Ray.",
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            envvar="MEDBENCH_WORKERS",
            metavar="N",
            help="Processes on this machine; each has its share of the cores. Default: one for "
            "each share of a GPU, or each core up to 8.",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            envvar="MEDBENCH_ADDRESS",
            metavar="ADDR",
            help="The Ray cluster: auto, or HOST:PORT of its head. Default: a Ray on this machine "
            "for this sweep alone.",
        ),
    ] = None,
    gpus_per_cell: Annotated[
        float,
        typer.Option(
            envvar="MEDBENCH_GPUS_PER_CELL",
            metavar="F",
            help="What a stage that computes on a GPU has of it: 0.25 lets four share one.",
        ),
    ] = 1.0,
    max_retries: Annotated[
        int,
        typer.Option(
            envvar="MEDBENCH_MAX_RETRIES",
            metavar="N",
            help="How often a stage is begun again after its worker died. What a plugin raises is "
            "not tried again.",
        ),
    ] = 2,
    json: Json = False,
) -> None:
    from medbench.cli.run import print_results
    from medbench.sweep.driver import Means, graph_of, opened
    from medbench.sweep.scheduler import Sweep, stages
    from medbench.sweep.table import Table

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
        devices=1,  # each stage has one, and stages run side by side
        accumulate=accumulate,
        precision=precision,
        batch_size=batch_size,
        limit=limit,
        setting=setting,
        output=output,
        fresh=fresh,
    )
    means = Means(executor, workers, address, gpus_per_cell, max_retries)
    table = Table()
    with opened(means, request, tuple(backbone or ()), table.say) as on:
        graph = graph_of(on, request)
        if not dry_run:
            for skip in graph.plan.skipped:
                table.say(f"Skipped: {skip.model} x {skip.task}: {skip.reason}.")
            for refusal in graph.plan.refused:
                table.say(f"medbench: {refusal.cell}: {refusal.error}")
            work = Sweep(graph, on, table)
            with table.following(graph):
                outcome = work.run()
    if dry_run:
        _print_graph(graph.describe(), json)
        return
    if json:
        print_json(
            {
                "schema": "medbench.sweep/1",
                "records": [r.model_dump(mode="json", by_alias=True) for r in outcome.records],
                "skipped": [
                    {"model": s.model, "task": s.task, "reason": s.reason}
                    for s in graph.plan.skipped
                ],
                "failed": [
                    {"cell": f.cell, "exit_code": f.exit_code, "error": f.message}
                    for f in outcome.failures
                ],
                "stages": stages(work),
            }
        )
    else:
        print_results(outcome.records, graph.plan)
        for failure in outcome.failures:
            print(f"failed: {failure.cell}: {failure.message}")
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _print_graph(document: dict[str, Any], json: bool) -> None:
    if json:
        print_json(document)
        return
    print_table(
        ("kind", "state", "cells", "stage"),
        [
            (stage["kind"], stage["state"], str(len(stage["cells"])), stage["stage"])
            for stage in document["stages"]
        ],
    )
    for skip in document["skipped"]:
        print(f"skipped: {skip['model']} x {skip['task']}: {skip['reason']}")
