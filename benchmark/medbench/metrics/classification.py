"""Classification metrics, each as one weighted, vectorised function.

Every function takes a table of N samples and ``weights`` float [B, N], not negative, and returns
B values: a row of ones gives the metric itself, a row of patient counts gives it on a bootstrap
resample. Row b equals the metric of the table in which sample i stands ``weights[b, i]`` times, so
a label that loses one of its classes in a resample is left out of that resample's macro mean, as
it would be by a loop over resampled tables. Nothing here looks at ids or patients.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from medbench.metrics.values import ClassTable, FloatArray, Values

#: Bins of the expected calibration error.
BINS = 15
#: Specificity that the operating point of `sensitivity` must have at least.
SPECIFICITY = 0.9

Integers = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]
NO_THRESHOLDS = (
    "needs a decision per label: give thresholds (columns 'threshold:<name>') or a multiclass task"
)


def auroc(table: ClassTable, weights: FloatArray) -> Values:
    """Area under the ROC curve, ties counting one half; macro and per label. In [0, 1].

    Exact, by one sort per label: for each distinct score of a positive, the weight of the
    negatives below it (half of those equal to it), as a cumulative sum over a sparse product.
    """
    return _ranking(table, weights, _auroc)


def auprc(table: ClassTable, weights: FloatArray) -> Values:
    """Average precision without interpolation; macro and per label. In [0, 1]."""
    return _ranking(table, weights, _average_precision)


def sensitivity(table: ClassTable, weights: FloatArray) -> Values:
    """Largest sensitivity at a specificity of at least .90; macro and per label. In [0, 1].

    Over all thresholds, a score at or above one meaning present; points between two thresholds
    are not interpolated. The threshold is sought anew under each row of weights.
    """
    return _ranking(table, weights, _sensitivity)


def accuracy(table: ClassTable, weights: FloatArray) -> Values:
    """Fraction of right decisions; multi-label: per label, then their mean. In [0, 1]."""
    decided = _decisions(table)
    if decided is None:
        return _undefined(weights, NO_THRESHOLDS)
    if table.multiclass:
        right = (decided * table.y).sum(axis=1)
        return Values(_ratio(weights @ right, weights.sum(axis=1)))
    scored = _decidable(table)
    right = (scored & (decided == table.y)).astype(np.float64)
    per_label = _ratio(weights @ right, weights @ scored.astype(np.float64))
    return _macro(table, per_label, _any(scored), "never scored", _undecided(table))


def balanced_accuracy(table: ClassTable, weights: FloatArray) -> Values:
    """Mean recall over classes; multi-label: mean of sensitivity and specificity. In [0, 1]."""
    decided = _decisions(table)
    if decided is None:
        return _undefined(weights, NO_THRESHOLDS)
    scored = _decidable(table)
    positive = (scored & (table.y == 1)).astype(np.float64)
    recall = _ratio(weights @ (decided * positive), weights @ positive)
    if table.multiclass:
        return _macro(table, recall, _any(positive), "without a sample")
    negative = (scored & (table.y == 0)).astype(np.float64)
    specificity = _ratio(weights @ ((1 - decided) * negative), weights @ negative)
    both = _any(positive) & _any(negative)
    per_label = (recall + specificity) / 2
    return _macro(table, per_label, both, "with one class only", _undecided(table))


def f1(table: ClassTable, weights: FloatArray) -> Values:
    """Harmonic mean of precision and recall per label, and its macro mean. In [0, 1]."""
    decided = _decisions(table)
    if decided is None:
        return _undefined(weights, NO_THRESHOLDS)
    scored = _decidable(table)
    positive = (scored & (table.y == 1)).astype(np.float64)
    called = decided * scored
    hits = weights @ (called * positive)
    per_label = _ratio(2 * hits, weights @ called + weights @ positive)
    occurs = _any(called + positive)
    return _macro(table, per_label, occurs, "neither present nor called", _undecided(table))


def ece(table: ClassTable, weights: FloatArray) -> Values:
    """Expected calibration error in 15 equal bins. In [0, 1], lower is better."""
    low, high = float(table.scores.min()), float(table.scores.max())
    if low < 0 or high > 1:
        return _undefined(weights, f"scores from {low:g} to {high:g} are not probabilities")
    if table.multiclass:
        chosen = table.scores.argmax(axis=1)
        rows = np.arange(len(chosen))
        error = _calibration(table.scores[rows, chosen], table.y[rows, chosen], weights)
        return Values(error)
    scored = ~np.isnan(table.y)
    columns = [
        _calibration(table.scores[s, k], table.y[s, k], weights[:, s])
        for k, s in enumerate(scored.T)
    ]
    return _macro(table, np.stack(columns, axis=1), _any(scored), "never scored")


def _calibration(confidence: FloatArray, truth: FloatArray, weights: FloatArray) -> FloatArray:
    """[n], [n], [B, n] -> [B]. The gap of a bin is a weighted sum, so one product gives all."""
    edges = np.linspace(0.0, 1.0, BINS + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, BINS - 1)
    gaps = np.zeros((len(confidence), BINS))
    gaps[np.arange(len(confidence)), bins] = truth - confidence
    return _ratio(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def _ranking(
    table: ClassTable,
    weights: FloatArray,
    curve: Callable[[FloatArray, Integers, Integers, FloatArray], FloatArray],
) -> Values:
    """A metric of the order of scores, per label and in the macro mean."""
    by_sample = np.ascontiguousarray(weights.T, dtype=np.float64)
    both = _both_classes(table)
    columns = np.full((weights.shape[0], len(table.labels)), np.nan)
    for k in np.flatnonzero(both):
        truth = table.y[:, k]
        columns[:, k] = curve(
            table.scores[:, k], np.flatnonzero(truth == 1), np.flatnonzero(truth == 0), by_sample
        )
    return _macro(table, columns, both, "with one class only")


def _auroc(
    scores: FloatArray, positive: Integers, negative: Integers, by_sample: FloatArray
) -> FloatArray:
    levels, at = np.unique(scores[positive], return_inverse=True)
    hits = _sums(at, positive, 1.0, len(levels), by_sample)
    # Half of a negative counts from the first level that is not below it, half from the first
    # above it: together one for every level above and one half for an equal one.
    first = np.searchsorted(levels, scores[negative], side="left")
    after = np.searchsorted(levels, scores[negative], side="right")
    rows = np.concatenate([first, after])
    below = _sums(rows, np.tile(negative, 2), 0.5, len(levels) + 1, by_sample)
    np.cumsum(below, axis=0, out=below)
    wins = np.einsum("kb,kb->b", hits, below[:-1])
    return _ratio(wins, hits.sum(axis=0) * below[-1])


def _average_precision(
    scores: FloatArray, positive: Integers, negative: Integers, by_sample: FloatArray
) -> FloatArray:
    hits, false = _down_the_list(scores, positive, negative, by_sample)
    true = np.cumsum(hits, axis=0)
    called = true + false[:-1]
    # A level without weight at it or before it adds nothing: its own weight is zero.
    precision = np.divide(true, called, out=called, where=called > 0)
    area = _ratio(np.einsum("kb,kb->b", hits, precision), true[-1])
    return np.where(false[-1] > 0, area, np.nan)


def _sensitivity(
    scores: FloatArray, positive: Integers, negative: Integers, by_sample: FloatArray
) -> FloatArray:
    hits, false = _down_the_list(scores, positive, negative, by_sample)
    true = np.cumsum(hits, axis=0)
    # Only thresholds at a positive's score matter: between two of them sensitivity stays and
    # specificity falls. Above all of them it is 0, which is what no admissible level leaves.
    specificity = _ratio(false[-1] - false[:-1], false[-1])
    reached = np.where(specificity >= SPECIFICITY, true, 0.0).max(axis=0)
    return np.where(false[-1] > 0, _ratio(reached, true[-1]), np.nan)


def _down_the_list(
    scores: FloatArray, positive: Integers, negative: Integers, by_sample: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weights of the positives at each of their K distinct scores, the highest first: [K, B];
    and of the negatives at or above it: [K + 1, B], all negatives in the last row."""
    # Negated, so that the highest score comes first and sums run down the list.
    levels, at = np.unique(-scores[positive], return_inverse=True)
    hits = _sums(at, positive, 1.0, len(levels), by_sample)
    # A negative is a false alarm from the first level that is not above it; those below every
    # positive stand in the last row and never cost precision.
    rows = np.searchsorted(levels, -scores[negative], side="left")
    false = _sums(rows, negative, 1.0, len(levels) + 1, by_sample)
    np.cumsum(false, axis=0, out=false)
    return hits, false


def _sums(
    rows: Integers, samples: Integers, share: float, count: int, by_sample: FloatArray
) -> FloatArray:
    """Add ``share`` of the weights of ``samples`` into ``rows``: float [count, B].

    A sparse product reads each sample's weights once and copies nothing, which is what makes
    this fast: the cumulative sums run over the distinct scores of the positives only.
    """
    from scipy.sparse import csr_array

    matrix = csr_array(
        (np.full(len(rows), share), (rows, samples)), shape=(count, by_sample.shape[0])
    )
    return np.asarray(matrix @ by_sample, dtype=np.float64)


def _decisions(table: ClassTable) -> FloatArray | None:
    """float [N, L] of 0 and 1; None when a multi-label table has no thresholds."""
    if table.multiclass:
        decided = np.zeros_like(table.scores)
        decided[np.arange(len(decided)), table.scores.argmax(axis=1)] = 1.0
        return decided
    if table.thresholds is None:
        return None
    return (table.scores >= table.thresholds).astype(np.float64)


def _decidable(table: ClassTable) -> Flags:
    """bool [N, L]: scored, and with a threshold where one is needed."""
    scored: Flags = ~np.isnan(table.y)
    if table.multiclass or table.thresholds is None:
        return scored
    return scored & ~np.isnan(table.thresholds)


def _undecided(table: ClassTable) -> Flags:
    """bool [L]: labels that no threshold could be chosen for."""
    if table.multiclass or table.thresholds is None:
        return np.zeros(len(table.labels), dtype=np.bool_)
    return ~_any(~np.isnan(table.thresholds))


def _both_classes(table: ClassTable) -> Flags:
    return _any(table.y == 1) & _any(table.y == 0)


def _any(flags: npt.NDArray[np.generic]) -> Flags:
    """[N, L] -> bool [L]: whether any sample has it."""
    return np.asarray(flags.any(axis=0), dtype=np.bool_)


def _macro(
    table: ClassTable,
    columns: FloatArray,
    defined: Flags,
    fault: str,
    undecided: Flags | None = None,
) -> Values:
    """Mean of float [B, L] over the labels defined in each row, naming labels never defined."""
    present = ~np.isnan(columns)
    total = np.where(present, columns, 0.0).sum(axis=1)
    value = _ratio(total, present.sum(axis=1).astype(np.float64))
    per_label = {name: columns[:, k] for k, name in enumerate(table.labels)}
    unset = np.zeros_like(defined) if undecided is None else undecided
    faults = ((~defined & ~unset, fault), (unset, "without a threshold"))
    reasons = []
    for flags, why in faults:
        names = [name for name, flag in zip(table.labels, flags, strict=True) if flag]
        if len(names) == len(table.labels):
            reasons.append(f"every label is {why}")
        elif names:
            reasons.append(f"labels {why}, left out of the mean: {', '.join(names)}")
    return Values(value, per_label, "; ".join(reasons) or None)


def _undefined(weights: FloatArray, reason: str) -> Values:
    return Values(np.full(weights.shape[0], np.nan), None, reason)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient, NaN where the denominator is zero."""
    empty = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    found: FloatArray = np.divide(numerator, denominator, out=empty, where=denominator > 0)
    return found
