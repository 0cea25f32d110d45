"""``medbench compare``: is one of two results better?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medbench.cli.catalogue import Json
from medbench.cli.output import print_fields, print_json
from medbench.cli.registry import registry

MORE = (
    "A and B are folders of runs, or prediction files of one type. The samples that both have are "
    "compared in pairs: the same patients are drawn for both, so what they share cancels."
)

EXAMPLES = (
    "Examples:\n\n"
    "medbench compare runs/radclip_covid-ct_... runs/radclip.clip_covid-ct_...\n\n"
    "medbench compare mine.csv theirs.csv --metric auroc --json"
)


def compare(
    a: Annotated[Path, typer.Argument(help="Run folder or prediction file.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Run folder or prediction file.", show_default=False)],
    metric: Annotated[
        str | None,
        typer.Option(
            envvar="MEDBENCH_METRIC", metavar="M", help="Metric; default: the task's own."
        ),
    ] = None,
    json: Json = False,
) -> None:
    from medbench.evaluation.compare import compare as measure

    found = measure(a, b, metric, registry())
    if json:
        print_json(found)
        return
    low, high = found["ci95"]
    print_fields(
        [
            ("metric", found["metric"]),
            ("A", f"{found['a']:.4g}  {a}"),
            ("B", f"{found['b']:.4g}  {b}"),
            ("A - B", f"{found['difference']:.4g} [{low:.4g}, {high:.4g}] (95 % interval)"),
            ("p", f"{found['p_value']:.3g} (two-sided, paired bootstrap over patients)"),
            ("permutation p", f"{found['permutation_p_value']:.3g}"),
            ("patients", str(found["patients"])),
        ]
    )
