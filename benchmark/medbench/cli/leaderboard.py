"""``medbench leaderboard build|check``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medbench.cli.registry import registry

if TYPE_CHECKING:
    from medbench.plugins import Registry
    from medbench.schemas.specs import MetricSpec
    from medbench.schemas.task import TaskSpec

leaderboard = typer.Typer(no_args_is_help=True)


@leaderboard.command(
    "build",
    epilog="Examples:\n\nmedbench leaderboard build\n\n"
    "medbench leaderboard build --local --output my-tables --print\n\n"
    "medbench leaderboard build --site leaderboards/site",
)
def build(
    root: Annotated[
        Path,
        typer.Option(
            envvar="MEDBENCH_ROOT",
            metavar="DIR",
            help="Folder with records/ in it.",
        ),
    ] = Path("leaderboards"),
    local: Annotated[
        bool,
        typer.Option(
            "--local", envvar="MEDBENCH_LOCAL", help="Take the runs under MEDBENCH_HOME too."
        ),
    ] = False,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            envvar="MEDBENCH_RUNS", metavar="DIR", help="Take the runs in this folder too; repeat."
        ),
    ] = None,
    publish: Annotated[
        bool,
        typer.Option(
            "--publish",
            envvar="MEDBENCH_PUBLISH",
            help="Copy the runs taken into records/, sample ids replaced by keys.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDBENCH_OUTPUT",
            metavar="DIR",
            help="Where the tables go. Default: beside records/.",
        ),
    ] = None,
    site: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDBENCH_SITE",
            metavar="DIR",
            help="Write the tables as web pages, too, into this folder (new, or an earlier site).",
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--print", envvar="MEDBENCH_PRINT", help="Print the tables too.")
    ] = False,
) -> None:
    """Write a Markdown and a CSV table per task, and an index."""
    from medbench.errors import DataError, UsageError
    from medbench.leaderboard import build as tables
    from medbench.run.stores import home, writing

    folders = [*(runs or []), *([home() / "runs"] if local else [])]
    for folder in runs or []:
        if not folder.is_dir():
            raise UsageError(f"--runs {folder} is not a folder.")
    taken = [path for folder in folders for path in sorted(folder.glob("*/record.json"))]
    with writing(output or root):
        if publish:
            for path in taken:
                tables.publish(path.parent, root)
            taken = []
        records = [*tables.held(root), *taken]
        if not records:
            raise DataError(
                f"There are no records in {root / 'records'}"
                + "".join(f" or {folder}" for folder in folders)
                + ". Run a model first: medbench run --model radclip --task covid-ct."
            )
        known = registry()
        if site is None:
            written = tables.build(
                records, output or root, tasks_of(known), metrics=metrics_of(known)
            )
        else:
            written = _with_site(records, output or root, site, root, known)
    for path in written:
        if show and path.suffix == ".md" and path.name != "README.md":
            print(path.read_text(encoding="utf-8"))
        elif not show:
            print(path)


def _with_site(
    records: list[Path], out: Path, site: Path, root: Path, known: Registry
) -> list[Path]:
    """Tables and pages; records of a newer schema are named, and left out of both."""
    from medbench.site.build import build as build_site

    written, unreadable = build_site(records, out, site, root, known)
    for path, why in unreadable:
        print(f"Left out: {path}: {why}", file=sys.stderr)
    return written


@leaderboard.command("check", epilog="Example: medbench leaderboard check")
def check(
    root: Annotated[
        Path,
        typer.Option(
            envvar="MEDBENCH_ROOT", metavar="DIR", help="Folder with records/ and tables."
        ),
    ] = Path("leaderboards"),
) -> None:
    """Check that every table follows from its records, and every record from its predictions; and
    that the site beside them, if there is one, was built from these records."""
    from medbench.errors import DataError, VerificationError
    from medbench.leaderboard import build as tables
    from medbench.site.sources import stale

    if not tables.held(root):
        raise DataError(f"There are no records in {root}. Name another folder with --root.")
    known = registry()
    problems = tables.check(root, tasks_of(known), metrics=metrics_of(known))
    if (root / "site").is_dir():
        problems += stale(root / "site", tables.held(root), root, tasks_of(known), known)
    if problems:
        raise VerificationError(
            f"{len(problems)} things do not agree in {root}: " + " ".join(problems)
        )
    count = len(tables.held(root))
    print(f"{root}: {count} records and their tables agree.")


def tasks_of(known: Registry) -> dict[str, TaskSpec]:
    """Every task, by name."""
    from medbench.schemas.task import load_task

    return {name: load_task(known.task_file(name)) for name in known.names("tasks")}


def metrics_of(known: Registry) -> list[MetricSpec]:
    """Every metric, plugins' included."""
    return [known.metric(name) for name in known.names("metrics")]
