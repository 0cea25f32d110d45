"""In a run, a plugin that misbehaves is named and ends its own cell, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from program import Medbench

Phantoms = Callable[[str], Path]

#: Way to misbehave to its exit code and what the user is told.
FAILING = {
    "mis-raises-in-fit": (1, "divides by nothing"),
    "mis-exits-in-fit": (1, "SystemExit in training stage 'own'"),
    "mis-settings-in-state": (4, "'settings' is of type dict"),
    "mis-exits": (1, "SystemExit in encode_volumes"),
    "mis-undeclared-corpus": (4, "'mimic-cxr'"),
}


@pytest.fixture
def crowded(medbench: Medbench) -> Medbench:
    for package in ("misbehaving", "loud", "observer", "exits_in_hook", "toy_model"):
        medbench.install(package)
    return medbench


def test_each_ends_its_own_cell_and_stdout_stays_one_document(
    crowded: Medbench, phantoms: Phantoms
) -> None:
    models = [*FAILING, "mis-prints"]
    ran = crowded(
        "run", *(word for name in models for word in ("-m", name)), "-t", "covid-ct", "--json",
        "--data", f"covid-ct-md={phantoms('covid-ct-md')}",
        "--data", f"image-text-pairs={phantoms('image-text-pairs')}",
    )  # fmt: skip
    assert ran.code == 1, ran.err
    done = [record["model"]["name"] for record in ran.json["records"]]
    assert done == ["mis-prints"]
    failed = {failure["cell"].partition(" ")[0]: failure for failure in ran.json["failed"]}
    assert list(failed) == list(FAILING)
    for name, (code, words) in FAILING.items():
        assert failed[name]["exit_code"] == code
        assert words in failed[name]["error"]
        assert name in failed[name]["error"]
    assert "Traceback" not in ran.err
    for line in (
        "model 'mis-prints' printed: fit says hello",
        "plugin 'loud' printed: imported, hooray",
        "plugin 'loud' printed: started, hooray",
        "fit writes to the descriptor",
        "plugin 'loud' raised in medbench_run_finished: SystemExit('this observer leaves')",
        "plugin 'exits_in_hook' is broken and left out: SystemExit: no models for you",
    ):
        assert line in ran.err, line


def test_listings_stay_one_document_beside_a_plugin_that_prints(medbench: Medbench) -> None:
    medbench.install("loud")
    ran = medbench("models", "list", "--json")
    assert ran.code == 0, ran.err
    assert "loud" in {model["name"] for model in ran.json}
    assert "medbench: plugin 'loud' printed: asked, hooray" in ran.err
    assert "written to the descriptor" in ran.err
