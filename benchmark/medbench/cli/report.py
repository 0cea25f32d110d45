"""``medbench report``: a page that shows runs, or a blinded reader study of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medbench.cli.catalogue import Json
from medbench.cli.output import print_json
from medbench.cli.registry import registry
from medbench.errors import UsageError

if TYPE_CHECKING:
    from medbench.report.runs import Run

MORE = (
    "One HTML file that needs nothing else to be read: tables with intervals and baselines, and "
    "figures by task type. RUN is the folder of a run, or a folder of such. A page on real data "
    "holds content derived from patients. With --reader-study one run of image generation becomes "
    "a blinded reader study instead: shuffled real and generated images with a scoring sheet in "
    "DIR, the key apart in DIR-key."
)

EXAMPLES = (
    "Examples:\n\n"
    "medbench report runs/radclip_covid-ct_... runs/radclip.clip_covid-ct_...\n\n"
    "medbench report runs --output pages/all\n\n"
    "medbench report runs/cls-clip_mimic-cxr-generation_... --reader-study reading --cases 40"
)


def report(
    run: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDBENCH_OUTPUT",
            metavar="DIR",
            help="Folder of the page. Default: one of its own, in reports under MEDBENCH_HOME.",
        ),
    ] = None,
    reader_study: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDBENCH_READER_STUDY",
            metavar="DIR",
            help="Write a blinded reader study there instead of a page.",
            show_default=False,
        ),
    ] = None,
    cases: Annotated[
        int,
        typer.Option(
            envvar="MEDBENCH_CASES",
            metavar="N",
            min=2,
            help="Images of the reader study, half of them real, each of another patient.",
        ),
    ] = 50,
    seed: Annotated[
        int,
        typer.Option(
            envvar="MEDBENCH_SEED", metavar="N", min=0, help="Draws the reader study's images."
        ),
    ] = 0,
    json: Json = False,
) -> None:
    from medbench.report import page, strips
    from medbench.report.runs import find, read
    from medbench.run.reporter import Reporter
    from medbench.run.stores import digest, home

    if reader_study is not None and output is not None:
        raise UsageError(
            "--reader-study and --output exclude each other: a page shows which images are real. "
            "Write them with two commands, to two places."
        )
    known, reporter = registry(), Reporter()
    folders = find(run)
    reporter.say(f"Reading {len(folders)} runs")
    runs = read(folders, known)
    if reader_study is not None:
        from medbench.report.reader_study import write

        study = write(runs, reader_study.expanduser(), cases, seed)
        if json:
            print_json(
                {
                    "schema": "medbench.reader-study/1",
                    "folder": str(study.folder),
                    "key": str(study.key),
                    "cases": study.cases,
                    "runs": [_named(run) for run in runs],
                }
            )
        else:
            print(study.folder)
            print(study.key)
        return
    if output is None:
        output = home() / "reports" / digest([r.record.run_id for r in runs])[:10]
    path = page.write(runs, output.expanduser(), known, reporter, strips.read(folders))
    if json:
        print_json(
            {
                "schema": "medbench.report/1",
                "page": str(path),
                "runs": [_named(run) for run in runs],
            }
        )
    else:
        print(path)


def _named(run: Run) -> dict[str, str]:
    record = run.record
    return {
        "run_id": record.run_id,
        "model": record.model_id,
        "task": record.task.name,
        "track": record.data.track,
    }
