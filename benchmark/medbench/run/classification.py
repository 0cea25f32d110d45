"""Classification: zero-shot, linear probe or fine-tune, to a table of class scores."""

from __future__ import annotations

import numpy as np

from medbench.errors import PluginError
from medbench.evaluation.predictions import ClassPredictions
from medbench.metrics.values import FloatArray
from medbench.run.embed import Features, prompt_features
from medbench.run.job import Job


def predict(job: Job) -> ClassPredictions:
    """Class scores of every tested sample."""
    if job.cell.adaptation == "zero-shot":
        return job.loaded.predictions(job.cell.task, _zero_shot(job))
    return _linear_probe(job)


def baseline(job: Job, name: str) -> ClassPredictions:
    """Class scores of a trivial predictor."""
    from medbench.evaluation.baselines import baseline_scores

    loaded, task = job.loaded, job.cell.task
    scores, thresholds = baseline_scores(
        name,
        y=loaded.y,
        folds=loaded.folds,
        patients=loaded.groups,
        multiclass=task.multiclass,
        thumbnails=job.images.thumbnails,
        labelled=loaded.labelled,
    )
    return loaded.predictions(task, scores, thresholds)


def _zero_shot(job: Job) -> FloatArray:
    from medbench.evaluation.zero_shot import zero_shot

    cell, loaded, model = job.cell, job.loaded, job.model.model
    for name in ("class_prompts", "temperature"):
        if not hasattr(model, name):
            raise PluginError(
                f"{cell.title}: zero-shot needs '{name}', which the class of model "
                f"'{cell.model.name}' does not have."
            )
    scores = np.full(loaded.y.shape, np.nan)
    scores[loaded.tested] = zero_shot(
        tested_features(job),
        prompt_features(cell, job.model),
        cell.task.multiclass,
        float(model.temperature),
    )
    return scores


def tested_features(job: Job) -> Features:
    """Features of the tested samples alone, or out of those of all where these are kept."""
    rows = job.loaded.tested
    everyone = job.embedder()
    if len(rows) < len(job.loaded.samples) and not everyone.kept():
        return job.embedder(rows.tolist()).features()
    return everyone.features()[rows]


def _linear_probe(job: Job) -> ClassPredictions:
    from medbench.evaluation.linear_probe import linear_probe

    loaded = job.loaded
    features = job.embedder().features()
    with job.reporter.stage("linear probe", "probe"):
        probe = linear_probe(
            features,
            loaded.y,
            loaded.folds,
            loaded.groups,
            job.cell.task.multiclass,
            job.cell.seed,
            loaded.labelled,
        )
    return loaded.predictions(job.cell.task, probe.scores, probe.thresholds)
