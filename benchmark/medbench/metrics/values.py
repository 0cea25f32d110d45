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
        label_counts: label name to the number of samples behind its value, where it is not the
            number that the table says.
        interval: the 95 % interval of ``value[0]``, by a metric that cannot be computed under many
            weightings; its identity card says how. The rest of ``value`` is then not read.
    """

    value: FloatArray
    per_label: Mapping[str, FloatArray] | None = None
    reason: str | None = None
    interval: tuple[float, float] | None = None
    label_counts: Mapping[str, int] | None = None


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


class ReportTable(Protocol):
    """What a report-generation metric reads."""

    @property
    def references(self) -> Sequence[str]:
        """Reference reports, N of them."""
        ...

    @property
    def predictions(self) -> Sequence[str]:
        """Generated reports, N of them; an empty one is valid."""
        ...

    @property
    def vocabulary(self) -> frozenset[str] | None:
        """Words that the R2Gen convention keeps, or None where it is not known."""
        ...

    @property
    def max_length(self) -> int | None:
        """Words after which the R2Gen convention cuts a report, or None."""
        ...


class MaskTable(Protocol):
    """What a segmentation metric reads."""

    @property
    def reference(self) -> npt.NDArray[np.bool_]:
        """bool [N, H, W]."""
        ...

    @property
    def prediction(self) -> npt.NDArray[np.bool_]:
        """bool [N, H, W]."""
        ...

    @property
    def spacing(self) -> FloatArray | None:
        """float [N, 2], mm per pixel down and across, or None: distances are in pixels."""
        ...


class RetrievalTable(Protocol):
    """What a retrieval metric reads. Weights are [B, N + M]: image queries, then text queries."""

    @property
    def image(self) -> FloatArray:
        """float [N, D], compared by cosine."""
        ...

    @property
    def text(self) -> FloatArray:
        """float [M, D]."""
        ...

    @property
    def image_group(self) -> npt.NDArray[np.int64]:
        """int [N]: an image and a text of equal group match."""
        ...

    @property
    def text_group(self) -> npt.NDArray[np.int64]:
        """int [M]."""
        ...


class ImageTable(Protocol):
    """What an image-generation metric reads. Weights are [B, N + G]: real, then generated."""

    @property
    def real(self) -> npt.NDArray[np.uint8] | None:
        """uint8 [N, H, W], or None where only features are given."""
        ...

    @property
    def generated(self) -> npt.NDArray[np.uint8] | None:
        """uint8 [G, H, W], or None."""
        ...

    @property
    def prompts(self) -> npt.NDArray[np.int64] | None:
        """int [G]: images of one prompt share a number; None where there is no prompt."""
        ...

    def features(self, backbone: str) -> tuple[FloatArray, FloatArray] | None:
        """Features float [N, D] and [G, D] of a backbone, or None where it is not to be had."""
        ...
