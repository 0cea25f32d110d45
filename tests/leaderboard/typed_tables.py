"""Small tables of every task type but classification, whose skill is known, and their tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

from medbench.evaluation.image_predictions import ImagePredictions
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.retrieval_predictions import RetrievalPredictions
from medbench.plugins import discover
from medbench.schemas.specs import MetricSpec
from medbench.schemas.task import TaskSpec, load_task

REGISTRY = discover(third_party=False)
#: A task of each type, and the metrics of it that these tables are scored by.
NAMES = {
    "segmentation": ("siim-segmentation", ("dice", "dice-positive", "iou", "surface-distance")),
    "retrieval": (
        "iu-xray-retrieval",
        tuple(load_task(REGISTRY.task_file("iu-xray-retrieval")).metrics),
    ),
    "report-generation": ("iu-xray-report", ("finding-f1", "finding-recall")),
    "image-generation": ("iu-xray-generation", ("kid-phantom", "fid-phantom")),
}
PATIENTS = 45


def task_of(kind: str) -> TaskSpec:
    """The packaged task of a type; of reports the primary metric is one that needs no Java."""
    name, metrics = NAMES[kind]
    spec = load_task(REGISTRY.task_file(name))
    if kind == "report-generation":
        return spec.model_copy(update={"primary": metrics[0], "metrics": metrics})
    return spec


def metrics_of(kind: str) -> list[MetricSpec]:
    return [REGISTRY.metric(name) for name in NAMES[kind][1]]


def table_of(kind: str, skill: float, seed: int) -> Any:
    """``skill`` in [0, 1]: the share of samples that are answered rightly, about."""
    return _MAKERS[kind](skill, np.random.default_rng(seed))


def _ids() -> tuple[list[str], list[str]]:
    count = 2 * PATIENTS
    return (
        [f"SECRET-sample-{i:03d}" for i in range(count)],
        [f"SECRET-patient-{i // 2:03d}" for i in range(count)],
    )


def _masks(skill: float, rng: np.random.Generator) -> MaskPredictions:
    ids, owners = _ids()
    truth = np.zeros((len(ids), 12, 12), bool)
    truth[::2, 3:9, 3:9] = True
    found = truth.copy()
    shift = rng.random(len(ids)) > skill
    found[shift] = np.roll(found[shift], 4, axis=1)
    return MaskPredictions(ids, owners, truth, found)


def _embeddings(skill: float, rng: np.random.Generator) -> RetrievalPredictions:
    """More than ten groups, whose numbers a file does not keep; fewer texts than images."""
    _, owners = _ids()
    texts = np.random.default_rng(5).normal(size=(2 * PATIENTS - 10, 16))
    groups = np.arange(len(owners)) % len(texts)
    noise = rng.normal(size=(len(owners), 16))
    images = texts[groups] * skill + noise * (1.4 - skill)
    images, texts = (a.astype(np.float32).astype(np.float64) for a in (images, texts))
    return RetrievalPredictions(images, texts, groups, np.arange(len(texts)), owners)


def _reports(skill: float, rng: np.random.Generator) -> ReportPredictions:
    ids, owners = _ids()
    normal = "The heart is normal in size. The lungs are clear."
    ill = "SECRETWORD There is a large right pleural effusion with cardiomegaly."
    truth = [ill if i % 3 else normal for i in range(len(ids))]
    right = rng.random(len(ids)) < skill
    found = [t if r else (normal if t == ill else ill) for t, r in zip(truth, right, strict=True)]
    return ReportPredictions(ids, owners, truth, found)


def _images(skill: float, rng: np.random.Generator) -> ImagePredictions:
    _, owners = _ids()
    fixed = np.random.default_rng(3)
    real = fixed.normal(size=(len(owners), 4))
    made = rng.normal(size=(2 * len(owners), 4)) + 2 * (1 - skill)
    pixels = fixed.integers(0, 255, (len(owners), 12, 12)).astype(np.uint8)
    return ImagePredictions(
        pixels,
        rng.integers(0, 255, (len(made), 12, 12)).astype(np.uint8),
        np.repeat(np.arange(len(owners)), 2),
        {"phantom": (real, made)},
        owners,
    )


_MAKERS = {
    "segmentation": _masks,
    "retrieval": _embeddings,
    "report-generation": _reports,
    "image-generation": _images,
}
