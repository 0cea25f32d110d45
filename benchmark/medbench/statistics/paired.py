"""Paired, patient-clustered comparison of two predictors, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medbench.metrics.values import FloatArray
from medbench.statistics.bootstrap import interval, undefined


class Paired(NamedTuple):
    """Difference a - b on common samples, its 95 % interval, and the two-sided p value."""

    difference: float
    ci95: tuple[float, float]
    p_value: float


def paired(value_a: float, value_b: float, a: FloatArray, b: FloatArray) -> Paired:
    """Compare two values by their resamples.

    Both were resampled with the *same* weights, so what they share (a hard patient is hard for
    both) cancels. The p value inverts the percentile interval: twice the smaller share of
    resampled differences on either side of zero, each counted with one more resample so that it
    is never zero (Davison and Hinkley 1997, section 4.2). It falls below .05 when the
    interval leaves zero out. Its floor is 2 / (B + 1): many comparisons need many resamples.

    Args:
        value_a: value of a on all common samples.
        value_b: value of b on them.
        a: float [B] resampled values of a.
        b: float [B] resampled values of b, from the same weights.

    Returns:
        The comparison; p 1 and a NaN interval when no resample defines both.
    """
    differences = a - b
    total = len(differences) - undefined(differences)
    below = int((differences <= 0).sum())
    above = int((differences >= 0).sum())
    p_value = min(1.0, 2 * (min(below, above) + 1) / (total + 1)) if total else 1.0
    return Paired(float(value_a - value_b), interval(differences), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is below the one
    before it, none above 1.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * (len(values) - np.arange(len(values)))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p) for p in corrected]
