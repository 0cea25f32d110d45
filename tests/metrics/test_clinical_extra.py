"""The packages of the clinical metrics come with an optional part of medbench, never by default."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from medbench.evaluation.score import evaluate
from medbench.metrics import clinical
from medbench.metrics.report_cards import CLINICAL
from medbench.schemas.specs import MetricSpec

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
#: Module that is imported, and the package that has it.
PACKAGES = {
    "radgraph": "radgraph",
    "RaTEScore": "RaTEScore",
    "f1chexbert": "f1chexbert",
    "green_score": "green-score",
}


class Reports:
    """One report, equal to its reference."""

    predictions = references = ("clear lungs",)


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[ <>=!~;\[]", requirement)[0].lower() for requirement in requirements}


@pytest.mark.parametrize("spec", CLINICAL, ids=lambda spec: spec.name)
def test_the_message_names_the_extra_that_brings_the_package(
    spec: MetricSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clinical, "_LOADED", {})
    for module in PACKAGES:
        monkeypatch.setitem(sys.modules, module, None)
    reason = str(evaluate(spec, Reports(), np.ones((1, 1))).reason)
    (module,) = re.findall(r"needs the package (\w+)", reason)
    (extra,) = re.findall(r"pip install 'medbench\[(\w+)\]'", reason)
    package = PACKAGES[module].lower()
    assert package in names(PROJECT["optional-dependencies"][extra])
    assert package not in names(PROJECT["dependencies"])
    assert package not in names(PROJECT["optional-dependencies"]["test"])
