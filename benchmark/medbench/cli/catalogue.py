"""``medbench models|tasks|datasets|metrics list|show``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medbench.cli.output import print_fields, print_json, print_table
from medbench.cli.registry import registry

if TYPE_CHECKING:
    from medbench.schemas.task import TaskSpec

Json = Annotated[bool, typer.Option("--json", envvar="MEDBENCH_JSON", help="Print JSON.")]

models = typer.Typer(no_args_is_help=True)
tasks = typer.Typer(no_args_is_help=True)
datasets = typer.Typer(no_args_is_help=True)
metrics = typer.Typer(no_args_is_help=True)


def _name(kind: str) -> Any:
    return typer.Argument(metavar=kind.upper(), help=f"Name of the {kind}.", show_default=False)


@models.command("list", epilog="Example: medbench models list --json")
def list_models(json: Json = False) -> None:
    """List models, their variants and presets."""
    found = registry()
    specs = [found.model(name) for name in found.names("models")]
    if json:
        print_json([_model_document(spec, found.owner("models", spec.name)) for spec in specs])
        return
    print_table(
        ("name", "presets", "variants", "description"),
        [
            (
                spec.name,
                " ".join(spec.presets),
                _some(spec.variants),
                spec.description,
            )
            for spec in specs
        ],
    )


def _some(variants: Any, most: int = 6) -> str:
    """The first few variants; `models show` has them all."""
    names = [f"@{v.name}" for v in variants]
    more = [f"(+{len(names) - most})"] if len(names) > most else []
    return " ".join(names[:most] + more)


@models.command("show", epilog="Example: medbench models show radclip")
def show_model(name: Annotated[str, _name("model")], json: Json = False) -> None:
    """Show one model: variants, settings with their sources, capabilities."""
    found = registry()
    base, at, variant = name.partition("@")
    spec, plugin = found.model(base), found.owner("models", base)
    if at and spec.variant(variant) is None:
        from medbench.errors import unknown_name

        raise unknown_name(f"variant of {base}", variant, [v.name for v in spec.variants])
    settings = _settings(spec, plugin)
    if json:
        print_json({**_model_document(spec, plugin), "settings": settings})
        return
    print_fields(
        [
            ("model", spec.name),
            ("title", spec.title),
            ("about", spec.description),
            ("paper", spec.paper),
            ("licence", spec.licence),
            ("plugin", f"{plugin.name} ({plugin.distribution} {plugin.version})"),
            ("capabilities", ", ".join(spec.capabilities)),
            ("adaptation", spec.adaptation or ""),
            ("trains on", ", ".join(spec.pretraining)),
            ("presets", ", ".join(spec.presets)),
            ("variants", [f"{spec.name}@{v.name}: {v.description}" for v in spec.variants]),
            (
                "settings",
                [
                    f"{s['key']} = {s['default']!r}{' (assumed)' if s['assumed'] else ''}"
                    f"{'  ' + s['source'] if s['source'] else ''}"
                    for s in settings
                ],
            ),
        ]
    )


def _model_document(spec: Any, plugin: Any) -> dict[str, Any]:
    document = asdict(spec)
    document["plugin"] = {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
    }
    return document


def _settings(spec: Any, plugin: Any) -> list[dict[str, Any]]:
    if not spec.config:
        return []
    if plugin.environment is not None:
        from medbench.isolated import read

        return read(plugin.environment).settings(spec.name)
    from medbench.plugins import load_reference
    from medbench.run.settings import describe

    return describe(load_reference(spec.config, plugin))


@tasks.command("list", epilog="Example: medbench tasks list --json")
def list_tasks(json: Json = False) -> None:
    """List tasks."""
    found = registry()
    loaded = [_load_task(found.task_file(name)) for name in found.names("tasks")]
    if json:
        print_json([_task_document(task) for task in loaded])
        return
    print_table(
        ("name", "type", "dataset", "ranked by", "title"),
        [(t.name, t.type, t.dataset, t.primary, t.title) for t in loaded],
    )


@tasks.command("show", epilog="Example: medbench tasks show covid-ct")
def show_task(name: Annotated[str, _name("task")], json: Json = False) -> None:
    """Show one task: labels, splits, metrics, baselines, published values."""
    task = _load_task(registry().task_file(name))
    if json:
        print_json(_task_document(task))
        return
    print_fields(
        [
            ("task", f"{task.name}, version {task.version}"),
            ("title", task.title),
            ("about", task.description),
            ("type", task.type),
            ("dataset", f"{task.dataset} (one sample is a {task.unit})"),
            ("labels", ", ".join(task.label_names)),
            ("adaptations", ", ".join(task.adaptations)),
            ("metrics", ", ".join(task.metrics)),
            ("ranked by", task.primary),
            ("writer", task.writer),
            ("baselines", ", ".join(task.baselines)),
            (
                "protocols",
                [
                    f"{name}: {split.rule}{f', {split.folds} folds' if split.folds else ''}, seed "
                    f"{split.seed} ({split.source})"
                    for name, split in task.protocols.items()
                ],
            ),
            (
                "published",
                [
                    f"{r.model} {r.metric}: {'not obtained' if r.value is None else r.value} "
                    f"({r.source})"
                    for r in task.reference
                ],
            ),
            ("sha256", task.sha256),
        ]
    )


def _load_task(path: Any) -> TaskSpec:
    from medbench.schemas.task import load_task

    return load_task(path)


def _task_document(task: TaskSpec) -> dict[str, Any]:
    return {**task.model_dump(mode="json", by_alias=True), "sha256": task.sha256}


@datasets.command("list", epilog="Example: medbench datasets list")
def list_datasets(json: Json = False) -> None:
    """List datasets."""
    found = registry()
    specs = [found.dataset(name) for name in found.names("datasets")]
    if json:
        print_json([asdict(spec) for spec in specs])
        return
    print_table(
        ("name", "unit", "phantom", "description"),
        [(s.name, s.unit, "yes" if s.phantom else "no", s.description) for s in specs],
    )


@datasets.command("show", epilog="Example: medbench datasets show covid-ct-md")
def show_dataset(name: Annotated[str, _name("dataset")], json: Json = False) -> None:
    """Show one dataset: layout, access, licence, and where it would be read from now."""
    from medbench.run.resolve import find_data

    spec = registry().dataset(name)
    source = find_data(spec, None)
    where = str(source.root) if source.root else "phantom (no real data is configured)"
    if json:
        print_json({**asdict(spec), "track": source.track, "source": where})
        return
    print_fields(
        [
            ("dataset", spec.name),
            ("title", spec.title),
            ("about", spec.description),
            ("unit", spec.unit),
            ("access", spec.access),
            ("licence", spec.licence),
            ("homepage", spec.homepage),
            ("reads", where),
        ]
    )


@metrics.command("list", epilog="Example: medbench metrics list")
def list_metrics(json: Json = False) -> None:
    """List metrics."""
    found = registry()
    specs = [found.metric(name) for name in found.names("metrics")]
    if json:
        print_json([asdict(spec) for spec in specs])
        return
    print_table(
        ("name", "better", "task types", "definition"),
        [
            (
                s.name,
                "higher" if s.higher_is_better else "lower",
                " ".join(s.task_types),
                s.definition,
            )
            for s in specs
        ],
    )


@metrics.command("show", epilog="Example: medbench metrics show auroc")
def show_metric(name: Annotated[str, _name("metric")], json: Json = False) -> None:
    """Show the identity card of one metric."""
    spec = registry().metric(name)
    if json:
        print_json(asdict(spec))
        return
    print_fields([*spec.card().items(), ("task types", ", ".join(spec.task_types))])
