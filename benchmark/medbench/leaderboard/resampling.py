"""Intervals of means over seeds, and ranks by paired tests, from predictions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from medbench.errors import VerificationError
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.score import evaluate, with_ones
from medbench.metrics.values import FloatArray
from medbench.schemas.specs import MetricSpec
from medbench.statistics.bootstrap import content_clusters, interval, patient_weights
from medbench.statistics.paired import holm, paired
from medbench.statistics.ranking import ALPHA, overlap, ranks

Tables = Sequence[ClassPredictions]

#: A p value cannot fall below 2 / (resamples + 1), and Holm multiplies it by the number of pairs:
#: so many resamples per pair keep the floor at .01, up to the most that are drawn.
PER_PAIR, FEWEST, MOST = 200, 2_000, 10_000
BLOCK = 1_000  # resamples held in memory at once


def same_samples(tables: Tables) -> bool:
    """Whether all tables are of the same samples (they are sorted by key)."""
    return all(table.sample_ids == tables[0].sample_ids for table in tables)


def seed_mean_intervals(
    tables: Tables, specs: Sequence[MetricSpec]
) -> dict[str, tuple[float, float]]:
    """95 % patient interval of the mean over seeds of each metric.

    The patients are drawn once for all seeds, so that the interval is that of the mean shown:
    what differs between seeds averages out, what is shared by them (the patients) does not.
    """
    content = np.concatenate([table.content for table in tables], axis=1)
    clusters = content_clusters(tables[0].patients, content)
    weights = patient_weights(clusters)
    found = {}
    for spec in specs:
        total = np.mean([evaluate(spec, table, weights).value for table in tables], axis=0)
        found[spec.name] = interval(total)
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
        VerificationError: two tables disagree on the reference label of a sample.
    """
    pairs = list(combinations(range(len(values)), 2))
    tested: list[tuple[int, int]] = []
    shared: dict[tuple[int, int], tuple[str, ...]] = {}
    for i, j in pairs:
        if spec is None or not predictions[i] or not predictions[j]:
            continue
        common = _common(predictions[i][0], predictions[j][0])
        if common:
            tested.append((i, j))
            shared[i, j] = common
    resamples = min(MOST, max(FEWEST, PER_PAIR * len(tested)))
    drawn: dict[tuple[int, tuple[str, ...]], FloatArray] = {}
    p_values: list[float] = []
    for i, j in tested:
        for row in (i, j):
            if (row, shared[i, j]) not in drawn and spec is not None:
                drawn[row, shared[i, j]] = _resampled(
                    predictions[row], shared[i, j], spec, resamples
                )
        a, b = drawn[i, shared[i, j]], drawn[j, shared[i, j]]
        p_values.append(paired(float(a[0]), float(b[0]), a[1:], b[1:]).p_value)
    separated = [pair for pair, p in zip(tested, holm(p_values), strict=True) if p < ALPHA]
    by_interval = [pair for pair in pairs if pair not in shared]
    separated += [(i, j) for i, j in by_interval if not overlap(intervals[i], intervals[j])]
    return ranks(values, separated, higher_is_better), len(tested), len(by_interval)


def _common(a: ClassPredictions, b: ClassPredictions) -> tuple[str, ...]:
    """Keys of the samples that both have, sorted."""
    if a.sample_ids == b.sample_ids:
        if not np.array_equal(a.y, b.y, equal_nan=True):
            raise VerificationError(
                "Two predictions of the same data disagree on the reference labels of its samples."
            )
        return tuple(a.sample_ids)
    names = tuple(sorted(set(a.sample_ids) & set(b.sample_ids)))
    if names and not np.array_equal(_select(a, names).y, _select(b, names).y, equal_nan=True):
        raise VerificationError(
            "Two predictions of the same data disagree on the reference labels of its samples."
        )
    return names


def _select(table: ClassPredictions, names: tuple[str, ...]) -> ClassPredictions:
    if table.sample_ids == names:
        return table
    position = {name: row for row, name in enumerate(table.sample_ids)}
    return table.take([position[name] for name in names])


def _resampled(
    tables: Tables, names: tuple[str, ...], spec: MetricSpec, resamples: int
) -> FloatArray:
    """[1 + resamples]: the mean over seeds on the common samples, then on each resample.

    The draws depend on the patients' keys alone, so that every row gets the same ones.
    """
    chosen = [_select(table, names) for table in tables]
    parts: list[FloatArray] = []
    for block in range(0, resamples, BLOCK):
        count = min(BLOCK, resamples - block)
        weights = patient_weights(chosen[0].patients, count, seed=(0, block))
        weights = weights if block else with_ones(weights)
        parts.append(np.mean([evaluate(spec, t, weights).value for t in chosen], axis=0))
    return np.concatenate(parts)
