"""Whole runs of isolated plugins: the same results, and failures that stay in their cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medbench.errors import PluginError
from medbench.plugins import discover
from medbench.run.request import Request
from medbench.run.resolve import resolve
from program import Medbench, Ran

Phantoms = Callable[[str], Path]

MODELS = ("edge@broken", "edge@crashing", "edge", "toy")


def line(phantoms: Phantoms, *models: str) -> list[str]:
    words = ["run", "-t", "covidx", "--json", *(w for model in models for w in ("-m", model))]
    data = ("covidx", "image-text-pairs") if "toy" in models else ("covidx",)
    return words + [w for name in data for w in ("--data", f"{name}={phantoms(name)}")]


@pytest.fixture(scope="module")
def done(
    installed: Path, phantoms: Phantoms, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Medbench, Ran]:
    """One command with all of them, for the tests that only look."""
    program = Medbench(tmp_path_factory.mktemp("done"))
    (program.home / "plugins").symlink_to(installed.parent)
    return program, program(*line(phantoms, *MODELS))


def of(ran: Ran, model: str) -> dict[str, Any]:
    """The record of a model."""
    found = [record for record in ran.json["records"] if record["model"]["name"] == model]
    assert len(found) == 1, ran.err
    return dict(found[0])


def test_predictions_are_those_in_process_and_the_record_has_the_lock(
    done: tuple[Medbench, Ran], medbench: Medbench, phantoms: Phantoms
) -> None:
    medbench.install("toy_model")
    beside = of(medbench(*line(phantoms, "toy")), "toy")
    record = of(done[1], "toy")
    assert record["hashes"]["predictions"] == beside["hashes"]["predictions"]
    for part in ("metrics", "baselines", "counts", "data"):
        assert record[part] == beside[part]
    assert record["model"]["parameters"] == beside["model"]["parameters"]
    told: dict[str, Any] = record["environment"]["isolated"]
    assert "conflict-lib==2.0" in told["lock"]
    assert len(told["lock_sha256"]) == 64
    assert "isolated" not in beside["environment"]
    assert record["timing"]["peak_memory_mb"] > 100


def test_a_record_that_is_there_stands(done: tuple[Medbench, Ran], phantoms: Phantoms) -> None:
    again = done[0](*line(phantoms, "toy"))
    assert "already done" in again.err
    assert again.json["records"] == [of(done[1], "toy")]


def test_failures_end_their_own_cells(done: tuple[Medbench, Ran]) -> None:
    ran = done[1]
    assert ran.code == 1, ran.err
    assert len(ran.json["records"]) == 2
    record = of(ran, "edge")  # noise on stdout and all
    assert record["model"]["config"] == {"size": 8, "deed": ""}
    broken, crashing = ran.json["failed"]
    assert (broken["cell"], broken["exit_code"]) == ("edge@broken x covidx", 4)
    assert "Preset 'tiny' of model 'edge' is not valid: size: Input should be" in broken["error"]
    assert crashing["exit_code"] == 1
    words = "edge@crashing x covidx, seed 0: The worker of plugin 'edge-cases' was ended by signal "
    assert f"{words}SIGSEGV. Its last lines: " in crashing["error"]
    assert "noise on stdout" in crashing["error"]


def test_a_sweep_makes_the_same_of_them(
    done: tuple[Medbench, Ran], program: Medbench, phantoms: Phantoms
) -> None:
    _, *options = line(phantoms, *MODELS)
    swept = program("sweep", "--workers", "2", *options)
    assert swept.code == 1, swept.err
    for model in ("edge", "toy"):
        once = of(done[1], model)["hashes"]["predictions"]
        assert of(swept, model)["hashes"]["predictions"] == once
    failed = {found["cell"]: found["error"] for found in swept.json["failed"]}
    assert "is not valid: size" in failed["edge@broken x covidx"]
    assert "was ended by signal SIGSEGV" in failed["edge@crashing x covidx, seed 0"]


def test_a_model_that_is_not_valid_alone_is_the_commands_error(home: Path) -> None:
    with pytest.raises(PluginError, match="not valid: size"):
        resolve(Request(models=("edge@broken",), tasks=("covidx",)), discover())
