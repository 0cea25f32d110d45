"""Trivial predictors of classification tasks, scored beside every model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medbench.data.splits import TRAIN, VAL
from medbench.errors import DataError, unknown_name
from medbench.evaluation.baseline_cards import names
from medbench.metrics.values import FloatArray


def baseline_scores(
    name: str,
    *,
    y: FloatArray,
    folds: npt.NDArray[np.integer],
    patients: Sequence[str],
    multiclass: bool,
    thumbnails: npt.NDArray[np.floating] | None = None,
    labelled: npt.NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray | None]:
    """Scores of a baseline, float64 [N, L], of use where ``folds`` is 0 or above; and thresholds
    [L] at which a label is called present, or None.

    Args:
        name: of `medbench.evaluation.baseline_cards`.
        y: float [N, L]: 1, 0, or NaN where not scored.
        folds: int [N], as the linear probe takes them.
        patients: [N].
        multiclass: exactly one 1 per row of y.
        thumbnails: float [N, 32, 32] or [N, 1024] for ``pixels-32``.
        labelled: bool [N], training samples whose labels may be used; all by default.
        seed: of the inner folds of ``pixels-32``.

    Raises:
        UsageError: no baseline of that name.
        DataError: ``pixels-32`` without thumbnails.
    """
    half = None if multiclass else np.full(y.shape[1], 0.5)
    if name == "prior":
        trained = (folds == TRAIN) if labelled is None else (folds == TRAIN) & labelled
        return np.tile(prior(y[trained] if trained.any() else y)[0], (len(y), 1)), half
    if name == "all-positive":
        return np.ones(y.shape), half
    if name == "nearest-32":
        if thumbnails is None:
            raise DataError("The baseline 'nearest-32' needs a 32 x 32 thumbnail per sample.")
        return _nearest(y, folds, thumbnails, labelled), half
    if name == "pixels-32":
        from medbench.evaluation.linear_probe import linear_probe

        if thumbnails is None:
            raise DataError("The baseline 'pixels-32' needs a 32 x 32 thumbnail per sample.")
        pixels = np.asarray(thumbnails, dtype=np.float64).reshape(len(y), -1)
        probe = linear_probe(pixels, y, folds, patients, multiclass, seed, labelled)
        return probe.scores, probe.thresholds
    raise unknown_name("baseline", name, names("classification"))


def prior(y: FloatArray) -> FloatArray:
    """The frequency of each label over all samples where it is scored, for every sample.

    With folds: over all, not over each fold's training part: a fold that holds more positives
    leaves fewer for training, so the prior of its training part is *lower*, and pooled over folds
    those priors rank negatives above positives (AUROC below .5). A constant cannot rank, as a
    prior should not; that it knows the test frequencies gains it nothing in ranking, and in
    accuracy at most the right guess of the most frequent class. A label scored nowhere gets one
    half. With a training split the caller gives its labels alone.
    """
    scored = ~np.isnan(y)
    present = np.where(scored, y, 0.0).sum(axis=0)
    counts = scored.sum(axis=0)
    constant = np.divide(present, counts, out=np.full(y.shape[1], 0.5), where=counts > 0)
    return np.tile(constant, (len(y), 1))


def _nearest(
    y: FloatArray,
    folds: npt.NDArray[np.integer],
    thumbnails: npt.NDArray[np.floating],
    labelled: npt.NDArray[np.bool_] | None,
) -> FloatArray:
    """Labels of the nearest training sample; one half where that has none."""
    scores = np.full(y.shape, 0.5)
    for fold in np.unique(folds[folds >= 0]):
        train = (folds != fold) & (folds != VAL)
        if labelled is not None:
            train &= labelled
        rows, test = np.flatnonzero(train), np.flatnonzero(folds == fold)
        nearest = nearest_neighbours(thumbnails, rows.tolist(), test.tolist())
        found = y[rows[nearest]]
        scores[test] = np.where(np.isnan(found), 0.5, found)
    return scores


def nearest_neighbours(
    thumbnails: npt.NDArray[np.floating], train: Sequence[int], test: Sequence[int]
) -> list[int]:
    """For each test row the *position in* ``train`` of the nearest row in pixels (Euclidean).

    Args:
        thumbnails: float [N, 32, 32].
        train: rows to choose from; the first of equally near ones is taken.
        test: rows to find neighbours for.
    """
    pixels = np.asarray(thumbnails, np.float64).reshape(len(thumbnails), -1)
    candidates = pixels[list(train)]
    lengths = (candidates**2).sum(axis=1)
    found: list[int] = []
    for start in range(0, len(test), 256):  # memory: 256 rows of distances at a time
        some = pixels[list(test[start : start + 256])]
        found += (lengths - 2 * some @ candidates.T).argmin(axis=1).tolist()
    return found
