"""A generator that looking up beats says so under its table."""

from __future__ import annotations

import json
from pathlib import Path

from runs import write_run
from typed_tables import metrics_of, table_of, task_of

from medbench.leaderboard.build import build

KIND = "report-generation"
LOOKED_UP = {"finding-f1": {"value": 0.7, "ci95": [0.65, 0.75], "n": 90}}


def page_of(tmp_path: Path, runs: dict[tuple[str, int], float]) -> str:
    spec = task_of(KIND)
    for (model, seed), skill in runs.items():
        write_run(
            tmp_path / "r", model, seed, table=table_of(KIND, skill, seed + 1), spec=spec,
            metrics=metrics_of(KIND), adaptation="",
        )  # fmt: skip
    for path in (tmp_path / "r").rglob("record.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        record["baselines"]["nearest-32-report"] = LOOKED_UP
        path.write_text(json.dumps(record), encoding="utf-8")
    build([tmp_path / "r"], tmp_path, {spec.name: spec}, metrics=metrics_of(KIND))
    return (tmp_path / f"{spec.name}.md").read_text(encoding="utf-8")


def test_a_generator_that_looking_up_beats_is_named_and_no_other(tmp_path: Path) -> None:
    page = page_of(tmp_path, {("good", 0): 0.95, ("poor", 0): 0.2})
    assert "- poor does not beat looking up: finding-f1 " in page
    assert "against 0.7 of nearest-32-report" in page
    assert "good does not" not in page


def test_of_several_seeds_it_is_said_in_how_many(tmp_path: Path) -> None:
    page = page_of(tmp_path, {("mixed", 0): 0.95, ("mixed", 1): 0.2, ("mixed", 2): 0.1})
    assert "- mixed does not beat looking up in 2 of 3 seeds." in page
