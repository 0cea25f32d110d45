"""Writes small but genuine runs: predictions, and a record scored from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medbench.evaluation.baselines import prior
from medbench.evaluation.files import AnyPredictions, trivial
from medbench.evaluation.keyed import hashes
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.score import baseline_estimates, score
from medbench.metrics.cards import CLASSIFICATION
from medbench.schemas.record import Record, predictions_name
from medbench.schemas.specs import MetricSpec
from medbench.schemas.task import TaskSpec

MANIFEST = "12" * 32
LABELS = ("normal", "covid-19", "cap")
SPECS = [s for s in CLASSIFICATION if s.name in ("auroc", "accuracy", "balanced-accuracy", "f1")]


def task(**changes: Any) -> TaskSpec:
    content = {
        "schema": "medbench.task/1",
        "name": "covid-ct",
        "title": "COVID-19 from chest CT",
        "version": 1,
        "type": "classification",
        "dataset": "covid-ct-md",
        "unit": "volume",
        "description": "Three classes.",
        "labels": [{"name": name, "text": name} for name in LABELS],
        "multiclass": True,
        "adaptations": ["linear-probe", "zero-shot"],
        "metrics": [spec.name for spec in SPECS],
        "primary": "auroc",
        "baselines": ["prior"],
        "protocols": {"clean": {"rule": "patient-kfold", "folds": 5, "seed": 0, "source": "x"}},
        "reference": [
            {"model": "RadCLIP", "metric": "auroc", "source": "arXiv 2403.09948"},
            {"model": "Other", "metric": "auroc", "value": 0.987, "source": "Journal | A"},
        ],
    }
    return TaskSpec.model_validate({**content, **changes})


def predictions(skill: float, seed: int, n: int = 90) -> ClassPredictions:
    """``skill`` sets how far the right class stands out; patients are hard or easy for all."""
    fixed = np.random.default_rng(99)
    classes = fixed.integers(0, 3, n)
    hardness = fixed.normal(size=(n, 3))
    noise = np.random.default_rng(seed).normal(size=(n, 3))
    y = np.eye(3)[classes]
    raw = np.exp(skill * y + hardness + 0.3 * noise)
    return ClassPredictions(
        sample_ids=[f"SECRET-sample-{i:03d}" for i in range(n)],
        patients=[f"SECRET-patient-{i // 2:03d}" for i in range(n)],
        labels=LABELS,
        y=y,
        scores=raw / raw.sum(axis=1, keepdims=True),
        multiclass=True,
    )


def write_run(
    folder: Path,
    model: str,
    seed: int = 0,
    skill: float = 1.0,
    *,
    spec: TaskSpec | None = None,
    table: AnyPredictions | None = None,
    metrics: Sequence[MetricSpec] = SPECS,
    adaptation: str = "linear-probe",
    track: str = "phantom",
    flags: tuple[str, ...] = (),
    manifest: str = MANIFEST,
    tail: str = "",
    **changes: Any,
) -> Path:
    """Write ``folder/<run-id>/`` as a run does; returns it."""
    spec = spec or task()
    # A model's noise is its own: its name is part of the seed.
    table = table or predictions(skill, seed + 100 * sum(model.encode()))
    scored = score(table, metrics)
    if isinstance(table, ClassPredictions):
        base: dict[str, AnyPredictions] = {"prior": ClassPredictions(
            table.sample_ids, table.patients, table.labels, table.y, prior(table.y),
            table.multiclass,
        )}  # fmt: skip
    else:
        base = trivial(table)
    name, _, variant = model.partition("@")
    run_id = f"{model.replace('@', '.')}_{spec.name}_tiny_s{seed}_{adaptation}_{track}{tail}"
    content: dict[str, Any] = {
        "schema": "medbench.record/1",
        "status": "complete",
        "run_id": run_id,
        "model": {
            "name": name,
            "variant": variant or None,
            "preset": "tiny",
            "config": {"width": 16},
            "plugin": {"distribution": "medbench", "version": "0.1.0"},
            "parameters": {"total": 10, "trainable": 1},
            "weights_sha256": None,
            "pretraining_data": [],
        },
        "task": {
            "name": spec.name,
            "version": spec.version,
            "type": spec.type,
            "sha256": spec.sha256,
        },
        "data": {
            "dataset": spec.dataset,
            "track": track,
            "manifest_sha256": manifest,
            "renderer": "1" if track == "phantom" else None,
            "samples": {"train": 72, "val": 0, "test": table.support()},
            "patients": {"train": 36, "val": 0, "test": len(set(table.patients))},
        },
        "protocol": "clean",
        "adaptation": adaptation or None,
        "fraction": 1.0,
        "seed": seed,
        "precision": "fp32",
        "metrics": scored.metrics,
        "baselines": {name: baseline_estimates(some, metrics) for name, some in base.items()},
        "counts": {"expected": table.support(), "scored": table.support(), "failed": 0},
        "timing": {"seconds": 1.0},
        "environment": {"platform": "somewhere"},
        "hashes": {"checkpoint": None, **hashes(table, manifest)},
        "flags": list(flags),
        "notes": scored.notes,
    }
    record = Record.model_validate({**content, **changes})
    target = folder / run_id
    target.mkdir(parents=True)
    table.write(target / predictions_name(spec.type))
    text = record.model_dump_json(by_alias=True, indent=2) + "\n"
    (target / "record.json").write_text(text, encoding="utf-8")
    return target
