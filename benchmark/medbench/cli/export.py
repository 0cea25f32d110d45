"""``medbench export``: records as tables and model-index blocks, for other tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from medbench.cli.leaderboard import tasks_of
from medbench.cli.registry import registry
from medbench.errors import DataError, MedbenchError, UsageError

MORE = (
    "RECORDS are record files, or folders of runs or of leaderboards; by default the folder "
    "leaderboards. csv and parquet are tidy: a row for each record, predictor (the model, then "
    "each baseline), metric and label, with its interval. model-index is YAML for the head of a "
    "model card on the Hugging Face Hub, a document for each model."
)

EXAMPLES = (
    "Examples:\n\n"
    "medbench export --format csv > results.csv\n\n"
    "medbench export runs --format parquet --output results.parquet\n\n"
    "medbench export runs/radclip_covid-ct_... --format model-index"
)


def export(
    records: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RECORDS]...", help="Records, or folders.", show_default=False),
    ] = None,
    form: Annotated[
        Literal["csv", "parquet", "model-index"],
        typer.Option("--format", envvar="MEDBENCH_FORMAT", help="What to write."),
    ] = "csv",
    output: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDBENCH_OUTPUT",
            metavar="FILE",
            help="Default: standard output; parquet needs a file.",
            show_default=False,
        ),
    ] = None,
) -> None:
    from medbench.leaderboard import collect
    from medbench.leaderboard.export import model_index, tidy
    from medbench.run.stores import writing

    if form == "parquet" and output is None:
        raise UsageError("--format parquet needs a file: --output results.parquet.")
    places = records or [Path("leaderboards")]
    missing = [path for path in places if not path.exists()]
    if missing:
        raise UsageError(
            f"{missing[0]} does not exist. Name records, or a folder that holds some: a run, runs, "
            "or leaderboards."
        )
    tasks = tasks_of(registry())
    entries, unreadable = [], []
    for path in collect.find(places):
        try:
            entries.append(collect.read(path, tasks))
        except MedbenchError as error:
            unreadable.append(str(error))
    for problem in unreadable:
        print(f"Left out: {problem}", file=sys.stderr)
    if not entries:
        raise DataError(f"There are no readable records in {', '.join(map(str, places))}.")
    if form == "model-index":
        text = model_index(entries)
    else:
        table = tidy(entries)
        if form == "parquet":
            assert output is not None
            with writing(output):
                table.to_parquet(output, index=False)
            text = ""
        else:
            text = table.to_csv(index=False)
    if output is None:
        sys.stdout.write(text)
    elif text:
        with writing(output):
            output.write_text(text, encoding="utf-8")
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of {len(unreadable) + len(entries)} records could not be read and "
            "are left out (named above); the others are written."
        )
