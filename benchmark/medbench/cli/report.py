"""``medbench report``: a page that shows runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medbench.cli.catalogue import Json
from medbench.cli.output import print_json
from medbench.cli.registry import registry

MORE = (
    "One HTML file that needs nothing else to be read: tables with intervals and baselines, and "
    "figures by task type. RUN is the folder of a run, or a folder of such. A page on real data "
    "holds content derived from patients."
)

EXAMPLES = (
    "Examples:\n\n"
    "medbench report runs/radclip_covid-ct_... runs/radclip.clip_covid-ct_...\n\n"
    "medbench report runs --output pages/all"
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
    json: Json = False,
) -> None:
    from medbench.report import page
    from medbench.report.runs import find, read
    from medbench.run.reporter import Reporter
    from medbench.run.stores import digest, home

    known, reporter = registry(), Reporter()
    folders = find(run)
    reporter.say(f"Reading {len(folders)} runs")
    runs = read(folders, known)
    if output is None:
        output = home() / "reports" / digest([r.record.run_id for r in runs])[:10]
    path = page.write(runs, output.expanduser(), known, reporter)
    if json:
        print_json(
            {
                "schema": "medbench.report/1",
                "page": str(path),
                "runs": [
                    {
                        "run_id": r.record.run_id,
                        "model": r.record.model_id,
                        "task": r.record.task.name,
                        "track": r.record.data.track,
                    }
                    for r in runs
                ],
            }
        )
    else:
        print(path)
