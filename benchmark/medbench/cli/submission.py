"""``medbench submission pack|verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medbench.cli.catalogue import Json
from medbench.cli.leaderboard import metrics_of, tasks_of
from medbench.cli.output import print_json, print_table

if TYPE_CHECKING:
    from medbench.plugins import Registry
    from medbench.submission.held import Holdings
    from medbench.submission.verdicts import Verification

submission = typer.Typer(no_args_is_help=True)

Data = Annotated[
    list[str] | None,
    typer.Option(
        envvar="MEDBENCH_DATA",
        metavar="auto|phantom|DATASET=PATH",
        help="Where a dataset is; repeat. Default auto: real data as configured, and phantoms, "
        "which are rendered; phantom: these alone.",
    ),
]


@submission.command(
    "pack",
    epilog="Examples:\n\nmedbench submission pack runs/radclip_covid-ct_...\n\n"
    "medbench submission pack runs --output our-lab.zip",
)
def pack(
    run: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, or of such.", show_default=False),
    ],
    output: Annotated[
        Path,
        typer.Option(envvar="MEDBENCH_OUTPUT", metavar="FILE.zip", help="The bundle to write."),
    ] = Path("submission.zip"),
    data: Data = None,
    json: Json = False,
) -> None:
    """Pack runs into a bundle: records and predictions under keys; no weights, images or reports.

    The data behind the runs must be here, since keys follow from them.
    """
    from medbench.submission.pack import pack as write

    known, holdings = _holdings(data)
    found = write(run, output, tasks_of(known), metrics_of(known), holdings)
    _show(output, found, json)


@submission.command(
    "verify",
    epilog="Examples:\n\nmedbench submission verify our-lab.zip\n\n"
    "medbench submission verify our-lab.zip --json\n\n"
    "medbench submission verify our-lab.zip --accept leaderboards",
)
def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The bundle.", show_default=False)],
    data: Data = None,
    accept: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDBENCH_ACCEPT",
            metavar="DIR",
            help="Leaderboards to take it into when it does not fail, under the file's name.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Verify a bundle: metrics are computed again from its predictions. Nothing in it is run.

    Exit code 5 when anything in it does not agree.
    """
    from medbench.errors import VerificationError
    from medbench.submission.accept import accept as take
    from medbench.submission.verify import verify as look

    known, holdings = _holdings(data)
    tasks, metrics = tasks_of(known), metrics_of(known)
    found = look(path, tasks, metrics, holdings)
    _show(path, found, json)
    if found.verdict == "failed":
        wrong = [*found.problems, *(p for run in found.runs for p in run.problems)]
        raise VerificationError(
            f"{path} failed: {len(wrong)} things do not agree, the first of kind '{wrong[0].kind}'."
        )
    if accept is not None:
        folder = take(path, found, accept, tasks, metrics)
        if not json:
            print(f"Accepted: {folder}. Build the tables: medbench leaderboard build")


def _holdings(data: list[str] | None) -> tuple[Registry, Holdings]:
    """medbench's own specs, whatever else is installed, and the data that this machine has."""
    from medbench.errors import UsageError
    from medbench.plugins import discover
    from medbench.run.reporter import Reporter
    from medbench.submission.held import Holdings

    known = discover(third_party=False)
    folders = {}
    options = list(data or ())
    for option in options:
        if option in ("auto", "phantom"):
            continue
        name, _, path = option.partition("=")
        spec = known.dataset(name)
        if not path or not Path(path).expanduser().exists():
            raise UsageError(f"--data {option} is not DATASET=PATH of a folder that exists.")
        folders[spec.name] = Path(path).expanduser()
    return known, Holdings(known, folders, Reporter(), phantoms_only="phantom" in options)


def _show(path: Path, found: Verification, json: bool) -> None:
    if json:
        print_json({"bundle": path.name, **found.document()})
        return
    rows = []
    for run in found.runs:
        shown, row = "", run.document()
        if row["metric"] is not None:
            low, high = row["ci95"]
            shown = f"{row['metric']} {row['value']:.3f} [{low:.3f}, {high:.3f}]"
        why = "; ".join([*run.reasons, *(f"{p.kind}: {p.message}" for p in run.problems)])
        rows.append((run.run_id, run.verdict, shown, why))
    if rows:
        print_table(("run", "verdict", "value [95 % interval]", "why"), rows)
    for problem in found.problems:
        print(f"{problem.kind}: {problem.message}")
    print(f"{path}: {found.verdict}")
