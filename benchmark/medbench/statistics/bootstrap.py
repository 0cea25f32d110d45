"""The patient-clustered bootstrap: whole patients are drawn, never samples of one apart.

Source: Field and Welsh 2007, "Bootstrapping clustered data" (the cluster bootstrap). Draws are not
stratified by class: a new set of patients would not have these class counts either, and a
stratified interval would leave that part of the uncertainty out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medbench.metrics.values import FloatArray

#: Resamples and seed behind every interval in a record: with them it can be derived again.
RESAMPLES = 1000
SEED = 0


def patient_weights(
    patients: Sequence[str] | npt.NDArray[np.generic],
    resamples: int = RESAMPLES,
    seed: int | Sequence[int] = SEED,
) -> FloatArray:
    """How often each sample stands in each resample.

    Args:
        patients: [N] cluster of each sample.
        resamples: B.
        seed: of the draws; the same seed and the same sorted patients give the same draws.

    Returns:
        float64 [B, N], counts; all samples of a patient share theirs. Stored by sample (Fortran
        order), the layout in which metrics read it.
    """
    _, cluster = np.unique(np.asarray(patients), return_inverse=True)
    count = int(cluster.max()) + 1 if len(cluster) else 0
    if count == 0:
        return np.zeros((resamples, 0))
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, count, size=(resamples, count), dtype=np.int64)
    flat = (drawn * resamples + np.arange(resamples)[:, None]).ravel()
    by_patient = np.bincount(flat, minlength=count * resamples).reshape(count, resamples)
    return by_patient[cluster].astype(np.float64).T


def interval(values: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of float [B], over the resamples where the value is defined.

    (NaN, NaN) when it is defined in none; `undefined` counts the others.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return (float("nan"), float("nan"))
    tail = (1 - level) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return (float(low), float(high))


def undefined(values: FloatArray) -> int:
    """Number of resamples in which the value is not defined."""
    return int(np.isnan(values).sum())


def content_clusters(patients: Sequence[str], content: FloatArray) -> npt.NDArray[np.int64]:
    """Number the patients by what the table says of them: int64 [N], 0..P-1.

    Resamples drawn over these numbers depend on the content of a table alone, not on the order of
    its rows nor on how samples and patients are called; so an interval can be derived again from
    a published table whose ids were replaced by keys. Patients of equal content are
    interchangeable: which of them comes first changes no metric.

    Args:
        patients: [N] cluster of each sample.
        content: float [N, C], NaN allowed: everything that a metric reads.
    """
    # -0.0 becomes 0.0 and every NaN the same one, so that equal rows are equal as bytes.
    rows = np.where(np.isnan(content), -np.inf, content + 0.0)
    _, rank = np.unique(np.ascontiguousarray(rows, dtype=">f8"), axis=0, return_inverse=True)
    known: dict[str, list[int]] = {}
    for patient, position in zip(patients, rank.ravel().tolist(), strict=True):
        known.setdefault(patient, []).append(position)
    ordered = sorted(known, key=lambda name: sorted(known[name]))
    number = {name: index for index, name in enumerate(ordered)}
    return np.array([number[name] for name in patients], dtype=np.int64)
