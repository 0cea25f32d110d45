"""Two predictions of the same data, row by row: by their ids, or by the order that both share."""

from __future__ import annotations

import numpy as np

from medbench.evaluation.files import AnyPredictions
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.retrieval_predictions import RetrievalPredictions
from medbench.metrics.values import FloatArray

#: Tables whose rows have ids.
Named = ClassPredictions | ReportPredictions | MaskPredictions

#: Largest difference between features of the same things by the same network, as a share of the
#: largest feature: sums in another order. A network trained anew differs by more.
NEAR = 1e-3


def common(a: AnyPredictions, b: AnyPredictions) -> tuple[str, ...] | None:
    """What names the rows that two tables share; None when they cannot be matched.

    Sample ids, sorted. Embeddings and images have no ids: their patients and prompts, row by row,
    must be the same ones in the same order.
    """
    if isinstance(a, Named) and isinstance(b, Named):
        if tuple(a.sample_ids) == tuple(b.sample_ids):
            return tuple(a.sample_ids)
        return tuple(sorted(set(a.sample_ids) & set(b.sample_ids))) or None
    if isinstance(a, RetrievalPredictions) and isinstance(b, RetrievalPredictions):
        # the clusters of texts follow from the groups, which are references
        alike = (list(a.image_patients), len(a.text)) == (list(b.image_patients), len(b.text))
        return tuple(a.image_patients) if alike else None
    if isinstance(a, ImagePredictions) and isinstance(b, ImagePredictions):
        return tuple(a.patients) if a.patients == b.patients else None
    return None


def select(table: AnyPredictions, names: tuple[str, ...]) -> AnyPredictions:
    """The rows of these ids, in this order; a table without ids as it is."""
    if not isinstance(table, Named) or tuple(table.sample_ids) == names:
        return table
    position = {name: row for row, name in enumerate(table.sample_ids)}
    return table.take([position[name] for name in names])


def same_references(a: AnyPredictions, b: AnyPredictions) -> bool:
    """Whether two tables of the same rows were measured against the same things.

    Labels, reports, masks, groups, or real images; what a network makes of the real images and of
    the prompts too, since a distance means something within one network's features alone.
    """
    if isinstance(a, ClassPredictions) and isinstance(b, ClassPredictions):
        return a.labels == b.labels and np.array_equal(a.y, b.y, equal_nan=True)
    if isinstance(a, ReportPredictions) and isinstance(b, ReportPredictions):
        return list(a.references) == list(b.references)
    if isinstance(a, MaskPredictions) and isinstance(b, MaskPredictions):
        return np.array_equal(a.reference, b.reference)
    if isinstance(a, RetrievalPredictions) and isinstance(b, RetrievalPredictions):
        return np.array_equal(a.image_group, b.image_group) and np.array_equal(
            a.text_group, b.text_group
        )
    if isinstance(a, ImagePredictions) and isinstance(b, ImagePredictions):
        return _same_reals(a, b)
    return False


def _same_reals(a: ImagePredictions, b: ImagePredictions) -> bool:
    for one, other in (
        (a.real, b.real),
        (a.real_labels, b.real_labels),
        (a.labels, b.labels),
    ):
        if one is not None and other is not None and not np.array_equal(one, other, equal_nan=True):
            return False
    pairs = [(a.given[name][0], b.given[name][0]) for name in set(a.given) & set(b.given)]
    if a.judge_texts is not None and b.judge_texts is not None:
        pairs.append((a.judge_texts, b.judge_texts))
    return all(_near(one, other) for one, other in pairs)


def _near(one: FloatArray, other: FloatArray) -> bool:
    """Whether two arrays are what one network makes of the same things."""
    if one.shape != other.shape:
        return False
    largest = max(np.abs(one).max(), np.abs(other).max())
    return bool(np.abs(one - other).max() <= NEAR * largest)
