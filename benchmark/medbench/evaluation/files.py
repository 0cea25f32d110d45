"""Prediction files of every task type, and the trivial predictions that their references give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from medbench.errors import DataError, unknown_name
from medbench.evaluation.baselines import prior
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.retrieval_predictions import RetrievalPredictions

AnyPredictions = (
    ClassPredictions | ReportPredictions | MaskPredictions | RetrievalPredictions | ImagePredictions
)

_READERS: dict[str, Callable[[Path], AnyPredictions]] = {
    "classification": ClassPredictions.read,
    "report-generation": ReportPredictions.read,
    "segmentation": MaskPredictions.read,
    "retrieval": RetrievalPredictions.read,
    "image-generation": ImagePredictions.read,
}


def read_predictions(path: Path, kind: str, multiclass: bool | None = None) -> AnyPredictions:
    """Read anybody's predictions of a task type.

    Args:
        path: a table for classification and report-generation, ``.npz`` for the others.
        kind: task type.
        multiclass: of a classification task; None: as the contract guesses it from the table.

    Raises:
        UsageError: no such task type.
        DataError: naming the file and what is wrong in it.
    """
    if kind not in _READERS:
        raise unknown_name("task type", kind, _READERS)
    if not path.is_file():
        raise DataError(f"{path} is not a file. Name the predictions to be scored.")
    if kind == "classification":
        return ClassPredictions.read(path, multiclass)
    return _READERS[kind](path)


def trivial(table: AnyPredictions) -> dict[str, AnyPredictions]:
    """Baselines that need nothing but the references: name to predictions of the same samples.

    ``prior``: the frequency of each label. ``most-frequent-report``: the reference that occurs most
    often. ``all-empty``: no lesion anywhere. ``chance``: every candidate ties, so the expectation
    over their order is chance itself. ``real-versus-real``: the real images in two halves, what a
    perfect generator would reach at half the size. All of them know the references they are scored
    on, which flatters them.
    """
    if isinstance(table, ClassPredictions):
        thresholds = None if table.thresholds is None else np.full_like(table.scores, 0.5)
        return {
            "prior": ClassPredictions(
                table.sample_ids, table.patients, table.labels, table.y, prior(table.y),
                table.multiclass, thresholds, table.keyed,
            )
        }  # fmt: skip
    if isinstance(table, ReportPredictions):
        counts: dict[str, int] = {}
        for text in table.references:
            counts[text] = counts.get(text, 0) + 1
        # the first in the alphabet of equally frequent ones, so that order does not matter
        best = min(counts, key=lambda text: (-counts[text], text))
        return {
            "most-frequent-report": ReportPredictions(
                table.sample_ids, table.patients, table.references, [best] * len(table.references),
                table.vocabulary, table.max_length,
            )
        }  # fmt: skip
    if isinstance(table, MaskPredictions):
        empty = np.zeros_like(table.prediction)
        return {
            "all-empty": MaskPredictions(
                table.sample_ids, table.patients, table.reference, empty, table.spacing
            )
        }
    if isinstance(table, RetrievalPredictions):
        return {
            "chance": RetrievalPredictions(
                np.ones((len(table.image), 1)), np.ones((len(table.text), 1)),
                table.image_group, table.text_group, table.image_patients,
            )
        }  # fmt: skip
    if table.reals < 4 or len(set(table.patients[: table.reals])) < 2:
        return {}
    return {"real-versus-real": table.halves()}
