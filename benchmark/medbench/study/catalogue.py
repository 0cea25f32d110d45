"""Where studies are, and whether everything that one names is there.

A plugin contributes studies by a folder ``studies`` beside its task files: the hook that names
these names that folder, too.
"""

from __future__ import annotations

from pathlib import Path

from medbench.errors import MedbenchError, UsageError, unknown_name
from medbench.plugins import Registry
from medbench.run.request import BASELINE
from medbench.schemas.study import Hypothesis, Side, StudySpec, load_study
from medbench.schemas.task import TaskSpec, load_task


def study_files(registry: Registry) -> dict[str, Path]:
    """Name to file of every study beside the task files of working plugins, sorted by name.

    Raises UsageError when two folders have a study of one name.
    """
    folders = {registry.task_file(name).parent / "studies" for name in registry.names("tasks")}
    found: dict[str, Path] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*.toml")):
        if path.stem in found:
            raise UsageError(
                f"Two studies are called '{path.stem}': {found[path.stem]} and {path}."
            )
        found[path.stem] = path
    return dict(sorted(found.items()))


def find_study(name: str, registry: Registry) -> StudySpec:
    """A study by its name, or by the path of a file that ends in ``.toml``; read, not checked.

    Raises UsageError when there is none, or when its file is not valid.
    """
    if name.endswith(".toml"):
        return load_study(Path(name))
    files = study_files(registry)
    if name not in files:
        raise unknown_name("study", name, files)
    study = load_study(files[name])
    if study.name != name:
        raise UsageError(f"Study file {files[name]} calls itself '{study.name}'.")
    return study


def check(study: StudySpec, registry: Registry) -> None:
    """Hold every name in a study against what is installed; nothing is imported for it.

    Raises:
        UsageError: a model, variant, task or metric that is not there, or a comparison that cannot
            be: sides of unlike data or types, a metric of another type, an adaptation not named.
        PluginError: the model of a broken plugin.
    """
    for hypothesis in study.hypotheses:
        tasks = []
        for letter, side in (("A", hypothesis.a), ("B", hypothesis.b)):
            try:
                tasks.append(_check_side(side, registry))
            except MedbenchError as error:
                raise named(error, study, hypothesis, letter) from error
        try:
            _check_metric(hypothesis, tasks[0], tasks[1], registry)
        except MedbenchError as error:
            raise named(error, study, hypothesis) from error


def named(
    error: MedbenchError, study: StudySpec, hypothesis: Hypothesis, side: str = ""
) -> MedbenchError:
    """The same error, saying where in a study it arose."""
    where = f", side {side}" if side else ""
    return type(error)(f"Study '{study.name}', hypothesis '{hypothesis.name}'{where}: {error}")


def _check_side(side: Side, registry: Registry) -> TaskSpec:
    base, _, variant = side.model.partition("@")
    spec = registry.model(base)
    if variant and spec.variant(variant) is None:
        raise unknown_name(f"variant of {base}", variant, [v.name for v in spec.variants])
    task = load_task(registry.task_file(side.task))
    adapted = task.type == "classification" and task.synthetic is None and base != BASELINE
    if adapted and side.adaptation is None:
        raise UsageError(f"say with which adaptation: {', '.join(task.adaptations)}.")
    if side.adaptation and not adapted:
        raise UsageError(f"{side.model} on {task.name} has no adaptation.")
    if base == BASELINE and variant not in task.baselines:
        raise UsageError(f"the baselines of {task.name} are {', '.join(task.baselines)}.")
    return task


def _check_metric(hypothesis: Hypothesis, a: TaskSpec, b: TaskSpec, registry: Registry) -> None:
    if (a.type, a.dataset) != (b.type, b.dataset):
        raise UsageError(
            f"{a.name} ({a.type} on {a.dataset}) and {b.name} ({b.type} on {b.dataset}) have no "
            "samples to compare in pairs."
        )
    registry.metric(hypothesis.metric)
    for task in (a, b):
        if hypothesis.metric not in task.metrics:
            raise UsageError(
                f"Metric '{hypothesis.metric}' is not one of {task.name}: "
                f"{', '.join(task.metrics)}."
            )
