"""Classification, either way: by the model under test, or by a classifier that its images train."""

from __future__ import annotations

from types import ModuleType

from medbench.evaluation.predictions import ClassPredictions
from medbench.run import augmentation, classification
from medbench.run.job import Job


def predict(job: Job) -> ClassPredictions:
    """Class scores of every tested sample."""
    found: ClassPredictions = _way(job).predict(job)
    return found


def baseline(job: Job, name: str) -> ClassPredictions:
    """Class scores of a trivial predictor."""
    found: ClassPredictions = _way(job).baseline(job, name)
    return found


def _way(job: Job) -> ModuleType:
    return classification if job.cell.task.synthetic is None else augmentation
