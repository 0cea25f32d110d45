"""What a metric function is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Values:
    """One metric under many weightings of the same samples.

    Attributes:
        value: float [B], one value per row of weights; NaN where it is undefined.
        per_label: label name to float [B], or None when the metric has no value per label.
        reason: why the value, or the value of some labels, is undefined; None when all are.
    """

    value: FloatArray
    per_label: Mapping[str, FloatArray] | None = None
    reason: str | None = None


class ClassTable(Protocol):
    """What a classification metric reads; `medbench.evaluation.predictions.ClassPredictions`."""

    @property
    def labels(self) -> Sequence[str]:
        """Label names, L of them."""
        ...

    @property
    def y(self) -> FloatArray:
        """float [N, L]: 1 present, 0 absent, NaN not scored."""
        ...

    @property
    def scores(self) -> FloatArray:
        """float [N, L]: finite; higher means more likely present."""
        ...

    @property
    def multiclass(self) -> bool:
        """True when each sample has exactly one label, decided by arg max."""
        ...

    @property
    def thresholds(self) -> FloatArray | None:
        """float [N, L]: a label is called present where its score is at least this."""
        ...
