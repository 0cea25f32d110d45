"""Decision thresholds, chosen on validation data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medbench.metrics.values import FloatArray


def best_thresholds(y: npt.ArrayLike, scores: npt.ArrayLike) -> FloatArray:
    """The threshold of best F1 per label, where a score at or above it means present.

    Every score that occurs is tried. Among thresholds of equal F1 the highest is taken, which calls
    the fewest samples.

    Args:
        y: [N, L] of the validation part: 1 present, 0 absent, NaN not scored.
        scores: [N, L], finite.

    Returns:
        float64 [L]: one of the label's scores; NaN for a label that does not have both classes,
        whose threshold cannot be chosen. Metrics of decisions leave such a label out and name it.

    Raises:
        ValueError: the shapes differ or are not [N, L], or a score is not finite.

    >>> best_thresholds([[1, 1], [1, 1], [0, 1]], [[0.9, 0.8], [0.4, 0.1], [0.3, 0.2]]).tolist()
    [0.4, nan]
    """
    truth, given = np.asarray(y, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 2 or truth.shape != given.shape:
        raise ValueError(f"labels {truth.shape} and scores {given.shape} are not both [N, L]")
    if not np.isfinite(given).all():
        raise ValueError("a score is not finite")
    return np.array([_best(*pair) for pair in zip(truth.T, given.T, strict=True)], dtype=np.float64)


def _best(truth: FloatArray, scores: FloatArray) -> float:
    scored = ~np.isnan(truth)
    truth, scores = truth[scored], scores[scored]
    positive = truth.sum()
    if positive in (0, len(truth)):
        return float("nan")
    # Negated, so that the highest score comes first and argmax takes it among equals.
    levels, at = np.unique(-scores, return_inverse=True)
    hits = np.cumsum(np.bincount(at, truth))
    called = np.cumsum(np.bincount(at))
    best = np.argmax(2 * hits / (called + positive))
    return float(0.0 - levels[best])  # not -0.0
