"""Intervals of means over seeds, and ranks by paired tests, from predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from medbench.errors import VerificationError
from medbench.evaluation.files import AnyPredictions
from medbench.evaluation.pairing import common, same_references, select
from medbench.evaluation.score import evaluate
from medbench.metrics.values import FloatArray
from medbench.schemas.specs import MetricSpec
from medbench.statistics.bootstrap import content_clusters, interval, patient_weights
from medbench.statistics.paired import holm, paired
from medbench.statistics.ranking import ALPHA, overlap, ranks

Tables = Sequence[AnyPredictions]
Names = tuple[str, ...]

#: A counted p value cannot fall below 2 / (resamples + 1), and Holm multiplies it by the number of
#: pairs: so many resamples per pair keep the floor at .01, up to the most that are drawn.
PER_PAIR, FEWEST, MOST = 200, 2_000, 10_000
BLOCK = 1_000  # resamples of one draw: what is drawn depends on it
HELD = 2**22  # weights held in memory at once, or one block of them


def same_samples(tables: Tables) -> bool:
    """Whether all tables are of the same samples in the same order (of keys, where they have
    keys)."""
    if not tables:
        return True
    first = common(tables[0], tables[0])
    return all(
        common(tables[0], table) == first and list(table.patients) == list(tables[0].patients)
        for table in tables
    )


def seed_mean_intervals(
    tables: Tables, specs: Sequence[MetricSpec]
) -> dict[str, tuple[float, float]]:
    """95 % patient interval of the mean over seeds of each metric.

    The patients are drawn once for all seeds, so that the interval is that of the mean shown:
    what differs between seeds averages out, what is shared by them (the patients) does not.
    Metrics that cannot be resampled from these tables are left out: those that give an interval
    of their own, and those that need what a file does not hold, such as a vocabulary.
    """
    content = np.concatenate([table.content for table in tables], axis=1)
    clusters = content_clusters(tables[0].patients, content)
    weights = patient_weights(clusters)
    found = {}
    for spec in specs:
        drawn = [evaluate(spec, table, weights) for table in tables]
        if any(values.interval is not None for values in drawn):
            continue
        low, high = interval(np.mean([values.value for values in drawn], axis=0))
        if np.isfinite([low, high]).all():
            found[spec.name] = (low, high)
    return found


def rank_rows(
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    predictions: Sequence[Tables],
    spec: MetricSpec | None,
    higher_is_better: bool,
) -> tuple[list[int], int, int]:
    """Ranks with ties (see `medbench.statistics.ranking`).

    Args:
        values: of each row.
        intervals: of each row.
        predictions: per row its tables, one per seed, of the same samples; empty when they are
            not at hand.
        spec: the metric; None when this installation has no metric of its identity card.
        higher_is_better: direction.

    Returns:
        Rank per row, the number of pairs tested, and of pairs compared by their intervals.

    Raises:
        VerificationError: two tables disagree on the reference of a sample.
    """
    pairs = list(combinations(range(len(values)), 2))
    shared: dict[tuple[int, int], Names] = {}
    if spec is not None:
        for i, j in pairs:
            if predictions[i] and predictions[j]:
                names = _common(predictions[i][0], predictions[j][0])
                if names is not None:
                    shared[i, j] = names
    p_values = {} if spec is None else _p_values(shared, predictions, spec)
    corrected = holm(list(p_values.values()))
    separated = [pair for pair, p in zip(p_values, corrected, strict=True) if p < ALPHA]
    by_interval = [pair for pair in pairs if pair not in p_values]
    separated += [(i, j) for i, j in by_interval if not overlap(intervals[i], intervals[j])]
    return ranks(values, separated, higher_is_better), len(p_values), len(by_interval)


def _p_values(
    shared: Mapping[tuple[int, int], Names], predictions: Sequence[Tables], spec: MetricSpec
) -> dict[tuple[int, int], float]:
    """Of each pair of rows whose metric can be resampled on the samples that they share.

    Every row is resampled once for all of its pairs on the same samples. Where there are so many
    pairs that no count of resamples could stay below `ALPHA` once it is corrected, p is that of
    `_student`, which needs few resamples.
    """
    counted = 2 * len(shared) / (MOST + 1) < ALPHA
    resamples = min(MOST, max(FEWEST, PER_PAIR * len(shared))) if counted else FEWEST
    rows: dict[Names, dict[int, None]] = {}
    for pair, names in shared.items():
        rows.setdefault(names, {}).update(dict.fromkeys(pair))
    found = {}
    for names, some in rows.items():
        tables = {row: [select(table, names) for table in predictions[row]] for row in some}
        drawn = _resampled(tables, spec, resamples)
        patients = {row: len(set(tables[row][0].patients)) for row in drawn}
        for (i, j), theirs in shared.items():
            if theirs == names and i in drawn and j in drawn:
                a, b = drawn[i], drawn[j]
                found[i, j] = (
                    paired(float(a[0]), float(b[0]), a[1:], b[1:]).p_value
                    if counted
                    else _student(a - b, patients[i])
                )
    return {pair: found[pair] for pair in shared if pair in found}


def _student(differences: FloatArray, patients: int) -> float:
    """Two-sided p value of a difference over its bootstrap standard error, by Student's t with
    one degree of freedom less than there are patients (Efron and Tibshirani 1993, chapter 12).

    Args:
        differences: [1 + B] on the whole table, then on each resample, NaN where undefined.
        patients: behind it.

    Returns 1 where resamples say nothing: one patient, or no two different values.
    """
    from scipy.special import stdtr

    drawn = differences[1:][np.isfinite(differences[1:])]
    error = float(drawn.std()) if len(drawn) else 0.0
    if patients < 2 or error == 0:
        return 1.0
    return min(1.0, 2 * float(stdtr(patients - 1, -abs(differences[0]) / error)))


def _common(a: AnyPredictions, b: AnyPredictions) -> Names | None:
    """What names the rows that both have, as `medbench.evaluation.pairing.common` does."""
    names = common(a, b)
    if names is not None and not same_references(select(a, names), select(b, names)):
        raise VerificationError(
            "Two predictions of the same data disagree on the references of its samples: labels, "
            "reports, masks, groups, real images, or the network that gives their features."
        )
    return names


def _resampled(
    rows: Mapping[int, Tables], spec: MetricSpec, resamples: int
) -> dict[int, FloatArray]:
    """Float [1 + resamples] of each row: the mean over seeds, then on each resample. Rows whose
    metric cannot be resampled from their tables are left out.

    Args:
        rows: tables of the same samples, one per seed, of each row.
        spec: the metric.
        resamples: of patients, at least `BLOCK`.

    The draws depend on the patients' names (keys) alone, so that every row gets the same ones.
    """
    parts: dict[int, list[FloatArray]] = {row: [] for row in rows}
    alike: dict[tuple[str, ...], list[int]] = {}
    for row, tables in rows.items():
        alike.setdefault(tuple(tables[0].patients), []).append(row)
    for owners, some in alike.items():
        step = BLOCK * max(1, HELD // (BLOCK * len(owners)))
        for start in range(0, resamples, step):
            weights = _weights(owners, start, min(start + step, resamples))
            for row in some:
                if row in parts:
                    drawn = [evaluate(spec, table, weights) for table in rows[row]]
                    mean = np.mean([values.value for values in drawn], axis=0)
                    own = any(values.interval is not None for values in drawn)
                    if own or (start == 0 and not np.isfinite(mean[0])):
                        del parts[row]
                    else:
                        parts[row].append(mean)
    return {row: np.concatenate(some) for row, some in parts.items()}


def _weights(owners: Sequence[str], start: int, stop: int) -> FloatArray:
    """Of the resamples from ``start`` to ``stop``, with the whole table before the first of all;
    stored by sample."""
    whole = int(start == 0)
    found = np.ones((len(owners), whole + stop - start))
    for block in range(start, stop, BLOCK):
        count = min(BLOCK, stop - block)
        at = whole + block - start
        found[:, at : at + count] = patient_weights(owners, count, seed=(0, block)).T
    return found.T
