"""Trivial predictors of classification tasks, scored beside every model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medbench.errors import DataError, unknown_name
from medbench.metrics.values import FloatArray

#: Baseline name to what it does.
BASELINES: dict[str, str] = {
    "prior": "the class frequencies over all labelled samples, the same for every sample: "
    "it cannot rank (AUROC .5) and always decides for the most frequent class",
    "pixels-32": "logistic regression on the 32 x 32 mean-slice pixels, chosen and tested "
    "exactly as the linear probe of a model",
}


def baseline_scores(
    name: str,
    *,
    y: FloatArray,
    folds: npt.NDArray[np.integer],
    patients: Sequence[str],
    multiclass: bool,
    thumbnails: npt.NDArray[np.floating] | None = None,
    seed: int = 0,
) -> FloatArray:
    """Scores of a baseline, float64 [N, L].

    Args:
        name: of `BASELINES`.
        y: float [N, L]: 1, 0, or NaN where not scored.
        folds: int [N].
        patients: [N].
        multiclass: exactly one 1 per row of y.
        thumbnails: float [N, 32, 32] or [N, 1024] for ``pixels-32``.
        seed: of the inner folds of ``pixels-32``.

    Raises:
        UsageError: no baseline of that name.
        DataError: ``pixels-32`` without thumbnails.
    """
    if name == "prior":
        return prior(y)
    if name == "pixels-32":
        from medbench.evaluation.linear_probe import linear_probe

        if thumbnails is None:
            raise DataError("The baseline 'pixels-32' needs a 32 x 32 thumbnail per sample.")
        pixels = np.asarray(thumbnails, dtype=np.float64).reshape(len(y), -1)
        return linear_probe(pixels, y, folds, patients, multiclass, seed).scores
    raise unknown_name("baseline", name, BASELINES)


def prior(y: FloatArray) -> FloatArray:
    """The frequency of each label over all samples where it is scored, for every sample.

    Over all, not over each fold's training part: a fold that holds more positives leaves fewer
    for training, so the prior of its training part is *lower*, and pooled over folds those priors
    rank negatives above positives (AUROC below .5). A constant cannot rank, as a prior should
    not; that it knows the test frequencies gains it nothing in ranking, and in accuracy at most
    the right guess of the most frequent class. A label scored nowhere gets one half.
    """
    scored = ~np.isnan(y)
    present = np.where(scored, y, 0.0).sum(axis=0)
    counts = scored.sum(axis=0)
    constant = np.divide(present, counts, out=np.full(y.shape[1], 0.5), where=counts > 0)
    return np.tile(constant, (len(y), 1))
