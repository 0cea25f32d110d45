"""``medbench study list|run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medbench.cli import options
from medbench.cli.catalogue import Json
from medbench.cli.output import print_fields, print_json, print_table
from medbench.cli.registry import registry

if TYPE_CHECKING:
    from medbench.leaderboard.collect import Entry
    from medbench.plugins import Registry
    from medbench.run.request import Request
    from medbench.schemas.study import StudyResult, StudySpec, Tested

study = typer.Typer(no_args_is_help=True)


@study.command("list", epilog="Example: medbench study list --json")
def list_studies(json: Json = False) -> None:
    """List studies and their hypotheses; one that cannot be run here says why."""
    from medbench.errors import MedbenchError
    from medbench.study.catalogue import check, find_study, study_files

    known = registry()
    found: list[tuple[str, StudySpec | None, str]] = []
    for name in study_files(known):
        spec, problem = None, ""
        try:
            spec = find_study(name, known)
            check(spec, known)
        except MedbenchError as error:
            problem = str(error)
        found.append((name, spec, problem))
    if json:
        print_json(
            [
                {**(spec.model_dump(mode="json", by_alias=True) if spec else {"name": name})}
                | {"problem": problem}
                for name, spec, problem in found
            ]
        )
        return
    rows = []
    for name, spec, problem in found:
        title = (spec.title if spec else "") + (f" CANNOT BE RUN: {problem}" if problem else "")
        count, seeds = (len(spec.hypotheses), len(spec.seeds)) if spec else ("", "")
        rows.append((name, str(count), str(seeds), title.strip()))
    print_table(("name", "hypotheses", "seeds", "title"), rows)


@study.command(
    "run",
    epilog="Examples:\n\nmedbench study run slice-pooling --preset tiny\n\n"
    "medbench study run slice-pooling --from leaderboards/records",
)
def run_study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="Name of the study, or a study file that ends in .toml.",
            show_default=False,
        ),
    ],
    seed: Annotated[
        list[int] | None,
        typer.Option(
            envvar="MEDBENCH_SEED", metavar="N", help="Seed; repeat for more. Default: the study's."
        ),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            envvar="MEDBENCH_PRESET",
            metavar="auto|tiny|small|paper",
            help="Size of models and phantoms, as of `medbench run`.",
        ),
    ] = "auto",
    device: options.Device = "auto",
    limit: Annotated[
        int | None,
        typer.Option(
            envvar="MEDBENCH_LIMIT",
            metavar="N",
            help="Only N samples, stratified: a quick look, which supports nothing.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDBENCH_OUTPUT",
            metavar="DIR",
            help="Folder of the runs; what is there already is not run again. Default: runs under "
            "MEDBENCH_HOME.",
        ),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            envvar="MEDBENCH_FROM",
            metavar="DIR",
            help="Run nothing: take the runs in this folder, such as leaderboards/records; repeat.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run what is missing of a study, then say of each hypothesis what the runs say of it."""
    from medbench.run.request import Request
    from medbench.study.catalogue import check, find_study
    from medbench.study.judge import judge

    known = registry()
    spec = find_study(name, known)
    check(spec, known)
    seeds = tuple(dict.fromkeys(seed or spec.seeds))
    code = 0
    if folder:
        if limit is not None or output is not None:
            from medbench.errors import UsageError

            raise UsageError("--from runs nothing, so --limit and --output say nothing to it.")
        found = judge(spec, _given(folder, preset, known), known, seeds)
    else:
        request = Request(
            models=(), tasks=(), preset=preset, device=device, limit=limit, output=output
        )
        entries, failed, code = _run(spec, seeds, request, known)
        found = judge(spec, entries, known, seeds, failed)
    if folder and not found.results:
        from medbench.errors import DataError

        raise DataError(
            f"No runs of both sides of any hypothesis of '{spec.name}' in "
            f"{', '.join(map(str, folder))} (seeds {', '.join(map(str, seeds))}, this medbench's "
            "settings)."
        )
    if json:
        print_json(found.model_dump(mode="json", by_alias=True))
    else:
        _print(spec, found)
    if code:
        raise typer.Exit(code)


def _given(folders: list[Path], preset: str, known: Registry) -> list[Entry]:
    """The runs in folders, of one preset unless it is auto."""
    from medbench.cli.leaderboard import tasks_of
    from medbench.errors import UsageError, unknown_name
    from medbench.leaderboard.collect import find, read
    from medbench.schemas.specs import PRESETS

    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"--from {folder} is not a folder.")
    if preset not in ("auto", *PRESETS):
        raise unknown_name("preset", preset, PRESETS)
    tasks = tasks_of(known)
    entries = [read(path, tasks) for path in find(folders)]
    return [e for e in entries if preset in ("auto", e.record.model.preset)]


def _run(
    spec: StudySpec, seeds: tuple[int, ...], request: Request, known: Registry
) -> tuple[list[Entry], list[str], int]:
    """The runs of every cell, the cells that failed, and the exit code of these."""
    from medbench.leaderboard.collect import RECORD, Entry
    from medbench.run.runner import Runner
    from medbench.study.plan import plan

    cells = plan(spec, seeds, request, known)
    outcome = Runner(known, cells).run()
    tasks = {cell.task.name: cell.task for cell in cells.cells}
    entries = [
        Entry(record, cells.output / record.run_id / RECORD, tasks[record.task.name])
        for record in outcome.records
    ]
    return entries, [f"{f.cell}: {f.message}" for f in outcome.failures], outcome.exit_code


def _print(spec: StudySpec, found: StudyResult) -> None:
    print(f"{spec.title}\n")
    for part in found.results:
        print(f"{part.setting.title}")
        print_table(
            ("hypothesis", "metric", "A", "B", "effect [95 % interval]", "p (Holm)", "verdict"),
            [_row(tested) for tested in part.hypotheses],
        )
        print()
    print_fields(
        [(h.name, [h.claim, f"A: {h.a.title}", f"B: {h.b.title}"]) for h in spec.hypotheses]
    )
    print(
        "\nEffects are above 0 in favour of A, means over seeds; intervals and p are of a paired "
        f"bootstrap over patients and seeds ({found.resamples:,} resamples), p against the margin, "
        f"corrected over the {len(spec.hypotheses)} hypotheses of the study."
    )
    published = dict.fromkeys(
        f"{p.effect} ({p.source})" for h in spec.hypotheses for p in h.published
    )
    if published:
        print("\nPublished, on other data, never to be set against a figure above:")
        for line in published:
            print(f"  {line}")
    for failure in found.failed:
        print(f"\nfailed: {failure}")


def _row(tested: Tested) -> tuple[str, ...]:
    def mean(values: tuple[float, ...]) -> str:
        return f"{sum(values) / len(values):.3f}" if values else ""

    effect = p = ""
    if tested.effect is not None and tested.ci95 is not None:
        low, high = tested.ci95
        effect = f"{tested.effect:+.3f} [{low:+.3f}, {high:+.3f}]"
        p = f"{tested.p_holm:.3g}"
    margin = f" (margin {tested.margin:+g})" if tested.margin else ""
    return (
        tested.name,
        tested.metric,
        mean(tested.a.values),
        mean(tested.b.values),
        effect + margin,
        p,
        "; ".join((tested.verdict, *tested.reasons)),
    )
