"""``medbench data status|audit|prepare|phantom|gallery|yardsticks``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medbench.cli.catalogue import Json
from medbench.cli.output import print_fields, print_json, print_table
from medbench.cli.registry import registry

if TYPE_CHECKING:
    from medbench.data.audit import Report
    from medbench.data.status import Status
    from medbench.plugins import Registry
    from medbench.run.reporter import Reporter
    from medbench.run.request import DataSource
    from medbench.schemas.specs import DatasetSpec

data = typer.Typer(no_args_is_help=True)

Dataset = Annotated[
    str, typer.Argument(metavar="DATASET", help="Name of the dataset.", show_default=False)
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        envvar="MEDBENCH_DATA",
        metavar="auto|phantom|[DATASET=]PATH",
        help="Real data as downloaded, or the phantom. Default auto: the real data if it is "
        "configured, else the phantom.",
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        envvar="MEDBENCH_PRESET",
        metavar="auto|tiny|small|paper",
        help="Size of the phantom and of its prepared images. auto: tiny on a CPU, small on a "
        "GPU, paper on real data.",
    ),
]

#: Findings of one kind that are printed; the JSON document has more.
PRINTED = {"error": 20, "warning": 5, "info": 1}

#: Columns of the table of datasets, and how wide its last one may be within 100 characters.
STATUS = ("name", "state", "size", "path, or where to get it")
WRAP = 58


@data.command(
    "status",
    epilog="Examples:\n\nmedbench data status\n\nmedbench data status mimic-cxr",
)
def status(
    dataset: Annotated[
        str | None,
        typer.Argument(metavar="[DATASET]", help="Only this one, in full.", show_default=False),
    ] = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Show what stands behind each dataset here: its folder or its phantom, size, access, licence.

    Nothing is opened: `medbench data audit` looks at the files.
    """
    from medbench.data.status import Status
    from medbench.run import resolve

    found = registry()
    configured = resolve._configured()
    options = list(data or ())
    if dataset is None:  # a path without a name is somebody's, but nobody can say whose
        options = [o for o in options if "=" in o or o in ("auto", "phantom")]
    states = []
    for name in [dataset] if dataset else found.names("datasets"):
        spec = found.dataset(name)
        given, why = _given(spec.name, options, found), "--data or MEDBENCH_DATA"
        if given is None and name in configured:
            given, why = configured[name], f"configured in {resolve.config_file()}"
        known = given not in (None, "phantom")
        states.append(Status(spec, Path(str(given)).expanduser() if known else None, why * known))
    if json:
        documents = [state.document() for state in states]
        print_json(documents[0] if dataset else documents)
    elif dataset:
        _print_status(states[0])
    else:
        rows = [row for state in states for row in _status_rows(state)]
        print_table(STATUS, rows)
        print("Licence, versions and what its phantom is made of: medbench data status DATASET")


@data.command(
    "audit",
    epilog="Examples:\n\nmedbench data audit covid-ct-md\n\n"
    "medbench data audit image-text-pairs --data ./pairs.csv --quick",
)
def audit(
    dataset: Dataset,
    data: Data = None,
    preset: Preset = "auto",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", envvar="MEDBENCH_QUICK", help="Tables and folders only: no image is decoded."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Look for what makes a dataset unfit: leaks, damage, duplicates, impossible values.

    Counts are compared with the published ones. Every image is decoded once, into the prepared
    images that a run uses. Exit code 3 when training must not start.
    """
    from medbench.data.audit import audit as look
    from medbench.data.audit import unopened
    from medbench.data.dataset import OpenDataset
    from medbench.data.decoded import Decoded
    from medbench.errors import DataError
    from medbench.run.load import data_root, opened, prepared_images
    from medbench.run.reporter import Reporter
    from medbench.run.stores import Store, home

    found = registry()
    spec = found.dataset(dataset)
    given = _given(spec.name, data, found)
    reporter = Reporter()
    store = Store(home(), say=reporter.say)
    root = None
    try:
        source = _source(spec, given)
        chosen = _preset(preset, source)
        root = data_root(source, chosen, store, reporter)
        held = opened(spec, root)
    except DataError as error:
        shown = None if given in (None, "phantom") else Path(str(given))
        report = unopened(spec.name, root or shown, error)
    else:
        reporter.say(f"audit of {spec.name}: {held.track}, {root} ({source.why})")

        def prepare(whole: OpenDataset) -> Decoded:
            return prepared_images(whole, _size(chosen), store, reporter)

        with _kept(reporter):
            report = look(held, None if quick else prepare)
    if json:
        print_json(report.document())
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(3)


@data.command(
    "prepare",
    epilog="Examples:\n\nmedbench data prepare covid-ct-md\n\n"
    "medbench data prepare mimic-cxr --data /data/mimic-cxr-jpg --size 224 --size 512",
)
def prepare(
    dataset: Dataset,
    data: Data = None,
    preset: Preset = "auto",
    size: Annotated[
        list[int] | None,
        typer.Option(
            envvar="MEDBENCH_SIZE",
            metavar="N",
            help="Side of the images in pixels; repeat for more. Default: what the preset's models "
            "take (64, 128 or 224).",
        ),
    ] = None,
) -> None:
    """Decode a dataset once, to the size that models take, where every run finds it.

    A pass that is killed or interrupted goes on from its last finished part when it is repeated.
    """
    from medbench.errors import UsageError
    from medbench.run.load import data_root, opened, prepared_images
    from medbench.run.reporter import Reporter
    from medbench.run.stores import Store, home

    found = registry()
    spec = found.dataset(dataset)
    if size and min(size) < 1:
        raise UsageError("--size takes a number of pixels, at least 1.")
    source = _source(spec, _given(spec.name, data, found))
    chosen = _preset(preset, source)
    reporter = Reporter()
    store = Store(home(), say=reporter.say)
    held = opened(spec, data_root(source, chosen, store, reporter))
    for side in dict.fromkeys(size or [_size(chosen)]):
        with _kept(reporter):
            images = prepared_images(held, side, store, reporter)
        number = sum(path.stat().st_size for path in images.folder.iterdir())
        print(f"{len(images):,} samples at {side} px, {number / 1e6:,.1f} MB: {images.folder}")


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


@data.command(
    "gallery",
    epilog="Examples:\n\nmedbench data gallery --output phantoms.png\n\n"
    "medbench data gallery rsna-pneumonia --output rsna.png",
)
def gallery(
    dataset: Annotated[
        str | None, typer.Argument(help="Dataset; without one, all that phantoms can show.")
    ] = None,
    data: Data = None,
    preset: Preset = "auto",
    output: Annotated[
        Path, typer.Option(envvar="MEDBENCH_OUTPUT", metavar="FILE", help="PNG file to write.")
    ] = Path("phantoms.png"),
) -> None:
    """Draw a labelled sheet of what the phantoms look like, or of one dataset as it is read."""
    from medbench.run.stores import writing

    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if dataset is None:
            from medbench.phantom.gallery import draw as draw_all

            draw_all(output)
        else:
            from medbench.phantom.contact_sheet import draw
            from medbench.run.load import data_root, opened
            from medbench.run.reporter import Reporter
            from medbench.run.stores import Store, home

            found = registry()
            spec = found.dataset(dataset)
            source = _source(spec, _given(spec.name, data, found))
            reporter = Reporter()
            store = Store(home(), say=reporter.say)
            root = data_root(source, _preset(preset, source), store, reporter)
            draw(opened(spec, root), output)
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


def _given(name: str, options: Sequence[str] | None, found: Registry) -> str | None:
    """What ``--data`` says about a dataset: a path, "phantom", or None.

    Args:
        name: of the dataset.
        options: as given. Those that name another dataset are passed over: the variable
            MEDBENCH_DATA lists all that a user has.
        found: knows the names.
    """
    from medbench.errors import UsageError, unknown_name

    known = found.names("datasets")
    answers: list[str] = []
    for option in options or ():
        other, equals, path = option.partition("=")
        if option == "phantom":
            answers.append(option)
        elif option == "auto" or (equals and other in known and other != name):
            continue
        elif equals and other == name:
            answers.append(path)
        elif equals and not Path(option).exists():
            raise unknown_name("dataset", other, known)
        else:
            answers.append(option)
    if len(set(answers)) > 1:
        raise UsageError(f"--data gives '{name}' twice: {answers[0]} and {answers[1]}.")
    return answers[0] if answers else None


def _source(spec: DatasetSpec, given: str | None) -> DataSource:
    from medbench.errors import UsageError
    from medbench.run.request import DataSource
    from medbench.run.resolve import find_data

    if given != "phantom":
        return find_data(spec, given)
    if not spec.phantom:
        raise UsageError(f"Dataset '{spec.name}' has no phantom.")
    return DataSource(spec, None, "phantom", "asked for")


def _preset(asked: str, source: DataSource) -> str:
    from medbench.errors import unknown_name
    from medbench.run.resolve import gpu_present
    from medbench.schemas.specs import PRESETS

    if asked == "auto":
        if source.track == "real":
            return "paper"
        return "small" if gpu_present() else "tiny"
    if asked not in PRESETS:
        raise unknown_name("preset", asked, PRESETS)
    return asked


def _size(preset: str) -> int:
    """Side of the images that the preset's models take."""
    from medbench.models.presets import GENERAL_CLIP

    return int(GENERAL_CLIP[preset]["image_size"])


@contextmanager
def _kept(reporter: Reporter) -> Iterator[None]:
    """Say after Ctrl-C what it has not cost."""
    try:
        yield
    except KeyboardInterrupt:
        reporter.say("Images decoded so far are kept, up to the last finished part.")
        raise


def _status_rows(state: Status) -> list[tuple[str, str, str, str]]:
    """The lines of a dataset in the table, none wider than 100 characters."""
    from textwrap import wrap

    about = state.spec.access if state.path is None else f"{state.path} ({state.why})"
    lines = wrap(about, WRAP, break_on_hyphens=False) or [""]
    head = (state.spec.name, state.state, state.size, lines[0])
    return [head, *(("", "", "", line) for line in lines[1:])]


def _print_status(state: Status) -> None:
    from textwrap import wrap

    document = state.document()
    document["published"] = [
        f"{version}: " + ", ".join(f"{number:,} {what}" for what, number in numbers.items())
        for version, numbers in state.spec.published.items()
    ]
    words = {"configured_by": "given by", "phantom_of": "its phantom"}
    fields: list[tuple[str, Any]] = []
    for name, value in document.items():
        if value and name != "phantom":
            lines = (
                value if isinstance(value, list) else wrap(str(value), 85, break_long_words=False)
            )
            fields.append((words.get(name, name), lines))
    print_fields(fields)


def _print_report(report: Report) -> None:
    counts = dict(report.counts)
    for title, key in (("split", "splits"), ("label", "labels")):
        held = counts.pop(key, {})
        if held:
            columns = list(dict.fromkeys(name for row in held.values() for name in row))
            rows = [(name, *(f"{row.get(c, 0):,}" for c in columns)) for name, row in held.items()]
            print_table((title, *columns), rows)
            print()
    if counts:
        print(", ".join(f"{number:,} {name}" for name, number in counts.items()))
        print()
    groups: dict[tuple[str, str], list[str]] = {}
    for finding in report.findings:
        groups.setdefault((finding.severity, finding.kind), []).append(finding.message)
    rows = []
    for (severity, kind), messages in groups.items():
        most = PRINTED[severity]
        rows += [(severity, kind, message) for message in messages[:most]]
        if len(messages) > most:
            rows.append((severity, kind, f"And {len(messages) - most:,} more; see --json."))
    if rows:
        print_table(("severity", "kind", "finding"), rows)
        print()
    number = {s: sum(f.severity == s for f in report.findings) for s in ("error", "warning")}
    print(
        f"{report.dataset}: {number['error']:,} errors, {number['warning']:,} warnings. "
        + ("Training may start." if report.ok else "Training must not start.")
    )
