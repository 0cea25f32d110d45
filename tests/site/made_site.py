"""A small site of made runs: a clear leader, a tie, a share of the labels, a row without a rank, a
name with markup in it, and a record of a newer schema."""

from __future__ import annotations

import json
from pathlib import Path

from leaderboard.runs import write_run
from medbench.leaderboard.build import held
from medbench.plugins import Registry
from medbench.schemas.task import TaskSpec, load_task
from medbench.site.build import build

EVIL = '<script>alert("x")</script><b>bold</b>'

#: Two attributes; a seed of radclip, and the model with markup in its name, state them.
SUBGROUPS = {
    "sex": {
        "metric": "auroc",
        "groups": {
            "F": {"value": 0.8125, "ci95": [0.7, 0.9], "n": 46},
            "M": {"value": 0.75, "ci95": [0.6, 0.85], "n": 44},
        },
        "gap": {"value": 0.0625, "ci95": [-0.0375, 0.1775], "between": ["F", "M"]},
    },
    "age": {
        "metric": "auroc",
        "groups": {
            "40-64": {"value": 0.7, "ci95": [0.6, 0.8], "n": 40},
            "65 and over": {"value": 0.9, "ci95": [0.8, 0.95], "n": 50},
        },
        "gap": {"value": 0.2, "ci95": [0.05, 0.3], "between": ["65 and over", "40-64"]},
    },
}


def task_of(registry: Registry, name: str = "covid-ct") -> TaskSpec:
    return load_task(registry.task_file(name))


def write_records(root: Path, registry: Registry) -> None:
    task = task_of(registry)
    folder = root / "records" / task.name
    write_run(folder, "radclip", 0, 2.0, spec=task)
    write_run(folder, "radclip", 1, 2.0, spec=task, subgroups=SUBGROUPS)
    write_run(folder, "radclip@clip", 0, 0.3, spec=task)
    write_run(folder, "radclip@mean-head", 0, 0.3, spec=task)
    write_run(folder, "radclip", 0, 0.5, spec=task, fraction=0.1, tail="_f10")
    write_run(folder, "open-clip", 0, 1.0, spec=task, flags=("contaminated",))
    named(folder, EVIL, task)
    other = write_run(folder, "cls-clip", 0, 1.0, spec=task, tail="_newer")
    edit(other / "record.json", schema="medbench.record/2", surprise=[1])


def named(folder: Path, name: str, task: TaskSpec) -> Path:
    """A run of a model of any name, in a folder of a plain one."""
    run = write_run(folder, "plain", 0, 1.0, spec=task, adaptation="zero-shot")
    record = json.loads((run / "record.json").read_text("utf-8"))
    edit(run / "record.json", model={**record["model"], "name": name, "variant": "v"})
    edit(run / "record.json", subgroups={"sex": SUBGROUPS["sex"]})
    return run


def edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**content, **changes}), "utf-8")


def made(root: Path, registry: Registry) -> list[tuple[str, str]]:
    """Build the site of a folder's records in ``site`` beside them; returns what was unreadable."""
    return build(held(root), root, root / "site", root, registry)[1]
