"""Two workers of one core against one, on eight cells that cost the same; and what a sweep adds to
a run. Two idle cores are needed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from program import Medbench

CELLS = 8
#: Steps in an epoch of the toy model: half a minute of one core a cell, and next to nothing.
LONG, SHORT = 6000, 4

Phantoms = Callable[[str], Path]


def timed(
    program: Medbench, phantoms: Phantoms, steps: int, *words: str
) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of the whole command on eight seeds, and the stages that a sweep tells of."""
    program.install("toy_model", **{"STEPS = 4": f"STEPS = {steps}"})
    line = ["-m", "toy", "-t", "covid-ct", "--adaptation", "zero-shot", "--device", "cpu"]
    for data in ("covid-ct-md", "image-text-pairs"):
        line += ["--data", f"{data}={phantoms(data)}"]
    for seed in range(CELLS):
        line += ["--seed", str(seed)]
    started = time.perf_counter()
    ran = program(*words, *line, "--json", timeout=3600, OMP_NUM_THREADS="1")
    seconds = time.perf_counter() - started
    assert ran.code == 0, ran.err
    assert len(ran.json["records"]) == CELLS
    return seconds, ran.json.get("stages", [])


@pytest.mark.performance
def test_two_workers_take_little_more_than_half_the_time(
    tmp_path: Path, phantoms: Phantoms
) -> None:
    one, stages = timed(Medbench(tmp_path / "1"), phantoms, LONG, "sweep", "--workers", "1")
    two, _ = timed(Medbench(tmp_path / "2"), phantoms, LONG, "sweep", "--workers", "2")
    shared = [stage for stage in stages if stage["cells"] == CELLS]
    assert sorted(stage["kind"] for stage in shared) == ["baselines", "dataset"]
    assert len(stages) == len(shared) + 2 * CELLS  # a training and a cell each
    share = one / two / 2
    print(json.dumps({"1 worker": one, "2 workers": two, "share of ideal": share}))
    assert share >= 0.85


@pytest.mark.performance
def test_a_sweep_adds_less_than_half_a_second_a_cell(tmp_path: Path, phantoms: Phantoms) -> None:
    run, _ = timed(Medbench(tmp_path / "run"), phantoms, SHORT, "run")
    one, _ = timed(Medbench(tmp_path / "1"), phantoms, SHORT, "sweep", "--workers", "1")
    added = (one - run) / CELLS
    print(json.dumps({"run": run, "sweep": one, "added, seconds a cell": added}))
    assert added < 0.5
