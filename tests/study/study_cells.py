"""Small but genuine runs for studies, and a registry that knows their models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pluggy
from pydantic import BaseModel

from leaderboard.runs import predictions, task, write_run
from medbench.evaluation.files import AnyPredictions
from medbench.leaderboard.collect import Entry, find, read
from medbench.metrics.cards import CLASSIFICATION
from medbench.plugins import Plugin, Registry
from medbench.schemas.specs import ModelSpec, Variant
from medbench.schemas.study import StudySpec

SIDE = {"task": "covid-ct", "adaptation": "linear-probe"}
TASKS = {"covid-ct": task()}


class Config(BaseModel):
    width: int = 16


def registry(folder: Path) -> Registry:
    """Two models, `good` and `poor`, with a setting; and the task covid-ct."""
    plugin = Plugin("toys", "toys", "toys", "1.0")
    for name in ("good", "poor"):
        variants = (Variant(name="wide", description="wider", config={"width": 32}),)
        plugin.specs["models"].append(
            ModelSpec(
                name=name,
                title=name,
                description=name,
                cls="study_cells:Config",
                config="study_cells:Config",
                variants=variants,
            )
        )
    plugin.specs["metrics"] += CLASSIFICATION
    path = folder / "covid-ct.toml"
    path.write_text(TASK_FILE, encoding="utf-8")
    plugin.specs["tasks"].append(path)
    return Registry([plugin], pluggy.PluginManager("medbench"))


def study(*hypotheses: dict[str, Any], **changes: Any) -> StudySpec:
    """A study of these hypotheses; by default that `good` beats `poor`."""
    given = hypotheses or (hypothesis(),)
    content = {
        "schema": "medbench.study/1",
        "name": "toy-study",
        "title": "Toys",
        "description": "Toys.",
        "seeds": [0, 1, 2],
        "hypotheses": given,
    }
    return StudySpec.model_validate({**content, **changes})


def hypothesis(
    name: str = "first", a: str = "good", b: str = "poor", **more: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "claim": f"{a} is better than {b}.",
        "a": {"model": a, **SIDE},
        "b": {"model": b, **SIDE},
        "metric": "auroc",
        **more,
    }


def cell(
    folder: Path,
    model: str,
    seed: int,
    skill: float = 1.0,
    *,
    width: int = 16,
    trainable: int = 10,
    table: AnyPredictions | None = None,
    preset: str = "tiny",
    **more: Any,
) -> Path:
    """One run on disk; of equal skill and seed, equal predictions whatever the model is called."""
    name, _, variant = model.partition("@")
    part = {
        "name": name,
        "variant": variant or None,
        "preset": preset,
        "config": {"width": width},
        "plugin": {"distribution": "toys", "version": "1.0"},
        "parameters": {"total": 100, "trainable": trainable},
        "weights_sha256": None,
        "pretraining_data": [],
    }
    table = table or predictions(skill, seed)
    tail = f"_{width}_{preset}{more.pop('tail', '')}"
    target = write_run(folder, model, seed, table=table, tail=tail, **more)
    record = json.loads((target / "record.json").read_text())
    (target / "record.json").write_text(json.dumps({**record, "model": part}))
    return target


def entries(folder: Path) -> list[Entry]:
    return [read(path, TASKS) for path in find([folder])]


TASK_FILE = """
schema = "medbench.task/1"
name = "covid-ct"
title = "COVID-19 from chest CT"
version = 1
type = "classification"
dataset = "covid-ct-md"
unit = "volume"
description = "Three classes."
labels = [
    {name = "normal", text = "x"},
    {name = "covid-19", text = "x"},
    {name = "cap", text = "x"},
]
multiclass = true
adaptations = ["linear-probe", "zero-shot"]
metrics = ["auroc", "accuracy", "balanced-accuracy", "f1", "ece"]
primary = "auroc"
baselines = ["prior"]
[protocols.clean]
rule = "patient-kfold"
folds = 5
seed = 0
source = "x"
"""
