"""What a site was built from, kept beside it: so that a stale one is noticed without building it.

``built-from.json`` holds a hash of what the pages follow from (records, the definitions that pages
show, and the files of `medbench.site`, `medbench.leaderboard` and `medbench.study`) and the hash of
every file of the site. The code beneath these is not in it: metrics stand in records with the hash
of their card, and what else changes a page is found when the site is built again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from medbench.errors import MedbenchError, UsageError
from medbench.plugins import Registry
from medbench.schemas.task import TaskSpec
from medbench.site.studies import cell_of, shown_studies

BUILT_FROM = "built-from.json"
SCHEMA = "medbench.site/1"

#: Folders of this package whose files make ranks, verdicts and pages.
CODE = [Path(__file__).parents[1] / name for name in ("leaderboard", "site", "study")]


def inputs_sha256(
    records: Sequence[Path], root: Path, tasks: Mapping[str, TaskSpec], registry: Registry
) -> str:
    """Hash of what the pages follow from (see above). Predictions count through the hashes in
    their records.

    Args:
        records: in the order in which they are read.
        root: folder to which their paths are relative.
        tasks: every known task.
        registry: knows the models and metrics whose specs pages show.
    """
    total = hashlib.sha256()
    models, names, metrics, cells = set(), set(), set(), set()
    for path in records:
        content = path.read_bytes()
        where = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.parent.name
        total.update(f"{where}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        name, model, scored = _shown(content)
        names.add(name)
        models.add(model.partition("@")[0])
        cells.add((model, name))
        metrics |= scored
    shown: dict[str, Any] = {
        "tasks": {n: tasks[n].model_dump(mode="json") for n in sorted(names & set(tasks))},
        "models": _specs("models", models, registry),
        "metrics": _specs("metrics", metrics, registry),
    }
    total.update(json.dumps(shown, sort_keys=True, default=str).encode())
    parts = [(path.name, path) for path in shown_studies(registry, cells).values()]
    for folder in CODE:
        parts += [
            (path.relative_to(folder.parent).as_posix(), path)
            for path in folder.rglob("*")
            if _source(path)
        ]
    for name, path in sorted(parts):
        total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _shown(content: bytes) -> tuple[str, str, set[str]]:
    """Task, model with variant, and metrics of a record; empty for what cannot be told."""
    try:
        record = json.loads(content)
        return record["task"]["name"], cell_of(record), set(record["metrics"])
    except (ValueError, KeyError, TypeError):
        return "", "", set()


def _specs(
    kind: Literal["models", "metrics"], names: Iterable[str], registry: Registry
) -> dict[str, Any]:
    found = {}
    for name in sorted(set(names) & set(registry.names(kind))):
        try:
            found[name] = asdict(
                registry.model(name) if kind == "models" else registry.metric(name)
            )
        except MedbenchError:
            continue  # of a broken plugin: pages say that it is not there
    return found


def seal(inputs: str, files: Mapping[str, str]) -> str:
    """The text of ``built-from.json``: ``files`` are names and hashes."""
    content = {"schema": SCHEMA, "inputs_sha256": inputs, "files": dict(sorted(files.items()))}
    return json.dumps(content, indent=1) + "\n"


def sealed(site: Path) -> tuple[str, dict[str, str]]:
    """Hash of the inputs, and the files with their hashes.

    Raises UsageError where the folder holds no site, or one that no medbench wrote.
    """
    try:
        content = json.loads((site / BUILT_FROM).read_text(encoding="utf-8"))
        inputs, files = content["inputs_sha256"], content["files"]
        names = [Path(name) for name in files]
        sound = not any(name.is_absolute() or ".." in name.parts for name in names)
        if content["schema"] != SCHEMA or not isinstance(inputs, str) or not sound:
            raise ValueError("not of this schema")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{site} holds no site of medbench ({BUILT_FROM} cannot be read: {error}). Name an "
            "empty folder, or a new one, with --site."
        ) from error
    return inputs, {str(name): str(sha) for name, sha in files.items()}


def stale(
    site: Path,
    records: Sequence[Path],
    root: Path,
    tasks: Mapping[str, TaskSpec],
    registry: Registry,
) -> list[str]:
    """What shows that a site is not that of the records; empty when nothing does. Builds nothing:
    that a page follows from the records is known when it is built again."""
    try:
        inputs, files = sealed(site)
    except UsageError as error:
        return [str(error)]
    again = "Run `medbench leaderboard build --site`."
    problems = []
    if inputs != inputs_sha256(records, root, tasks, registry):
        problems.append(f"{site.name}: built from other records or definitions. {again}")
    for name, sha256 in sorted(files.items()):
        path = site / name
        if not path.is_file():
            problems.append(f"{site.name}/{name} is missing. {again}")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            problems.append(f"{site.name}/{name} is not as it was built. {again}")
    return problems
