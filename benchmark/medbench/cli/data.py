"""``medbench data phantom|gallery|yardsticks``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medbench.cli.catalogue import Json
from medbench.cli.output import print_fields, print_json
from medbench.cli.registry import registry

data = typer.Typer(no_args_is_help=True)


@data.command(
    "phantom",
    epilog="Example: medbench data phantom covid-ct-md --output ./covid-ct-md-phantom --limit 12",
)
def phantom(
    dataset: Annotated[str, typer.Argument(help="Name of the dataset.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            envvar="MEDBENCH_OUTPUT", metavar="DIR", help="New or empty folder.", show_default=False
        ),
    ],
    limit: Annotated[
        int | None,
        typer.Option(envvar="MEDBENCH_LIMIT", metavar="N", help="Only N samples, stratified."),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            envvar="MEDBENCH_PRESET", metavar="tiny|small|paper", help="Size of the pixels."
        ),
    ] = "tiny",
) -> None:
    """Write the phantom of a dataset in the real layout, to be read by the real reader."""
    from medbench.errors import UsageError, unknown_name
    from medbench.phantom.write import write_phantom
    from medbench.run.reporter import Reporter
    from medbench.run.stores import writing
    from medbench.schemas.specs import PRESETS

    spec = registry().dataset(dataset)
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    if not spec.phantom:
        raise UsageError(f"Dataset '{dataset}' has no phantom.")
    if limit is not None and limit < 1:
        raise UsageError("--limit takes a number of samples, at least 1.")
    with writing(output):
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise UsageError(
                f"{output} exists and is not an empty folder. A phantom is written into a folder "
                "of its own; name a new one."
            )
        output.mkdir(parents=True, exist_ok=True)
        reporter = Reporter()
        with reporter.stage(f"render {dataset}", "render") as advance:
            write_phantom(spec, output, preset=preset, limit=limit, advance=advance)
    print(output)


@data.command("gallery", epilog="Example: medbench data gallery --output phantoms.png")
def gallery(
    output: Annotated[
        Path, typer.Option(envvar="MEDBENCH_OUTPUT", metavar="FILE", help="PNG file to write.")
    ] = Path("phantoms.png"),
) -> None:
    """Draw a labelled sheet of what the phantoms look like."""
    from medbench.phantom.gallery import draw
    from medbench.run.stores import writing

    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        draw(output)
    print(output)


@data.command("yardsticks", epilog="Example: medbench data yardsticks covid-ct")
def yardsticks(
    task: Annotated[str, typer.Argument(help="Name of the task.", show_default=False)],
    preset: Annotated[
        str,
        typer.Option(envvar="MEDBENCH_PRESET", metavar="tiny|small", help="Size of the pixels."),
    ] = "tiny",
    json: Json = False,
) -> None:
    """Measure how hard a phantom task is, without any model.

    Two model-free yardsticks: logistic regression on 32x32 pixels, and an observer who knows the
    renderer's parameters but sees its noise. A difficulty is frozen by them before a model is run.
    """
    from medbench.errors import unknown_name
    from medbench.phantom.yardsticks import YARDSTICKS

    if task not in YARDSTICKS:
        raise unknown_name("phantom task with yardsticks", task, YARDSTICKS)
    figures = YARDSTICKS[task](preset)
    if json:
        print_json(figures)
        return
    print_fields(list(figures.items()))
