"""Intervals of means over seeds, and ranks by paired tests, from predictions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from medbench.errors import VerificationError
from medbench.evaluation.files import AnyPredictions
from medbench.evaluation.pairing import common, same_references, select
from medbench.evaluation.score import evaluate, with_ones
from medbench.metrics.values import FloatArray
from medbench.schemas.specs import MetricSpec
from medbench.statistics.bootstrap import content_clusters, interval, patient_weights
from medbench.statistics.paired import holm, paired
from medbench.statistics.ranking import ALPHA, overlap, ranks

Tables = Sequence[AnyPredictions]

#: A p value cannot fall below 2 / (resamples + 1), and Holm multiplies it by the number of pairs:
#: so many resamples per pair keep the floor at .01, up to the most that are drawn.
PER_PAIR, FEWEST, MOST = 200, 2_000, 10_000
BLOCK = 1_000  # resamples held in memory at once


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
    shared = {}
    for i, j in pairs:
        if spec is not None and predictions[i] and predictions[j]:
            names = _common(predictions[i][0], predictions[j][0])
            if names is not None:
                shared[i, j] = names
    resamples = min(MOST, max(FEWEST, PER_PAIR * len(shared)))
    drawn: dict[tuple[int, tuple[str, ...]], FloatArray | None] = {}
    tested: list[tuple[int, int]] = []
    p_values: list[float] = []
    for (i, j), names in shared.items():
        for row in (i, j):
            if (row, names) not in drawn and spec is not None:
                drawn[row, names] = _resampled(predictions[row], names, spec, resamples)
        a, b = drawn[i, names], drawn[j, names]
        if a is not None and b is not None:
            tested.append((i, j))
            p_values.append(paired(float(a[0]), float(b[0]), a[1:], b[1:]).p_value)
    separated = [pair for pair, p in zip(tested, holm(p_values), strict=True) if p < ALPHA]
    by_interval = [pair for pair in pairs if pair not in tested]
    separated += [(i, j) for i, j in by_interval if not overlap(intervals[i], intervals[j])]
    return ranks(values, separated, higher_is_better), len(tested), len(by_interval)


def _common(a: AnyPredictions, b: AnyPredictions) -> tuple[str, ...] | None:
    """What names the rows that both have, as `medbench.evaluation.pairing.common` does."""
    names = common(a, b)
    if names is not None and not same_references(select(a, names), select(b, names)):
        raise VerificationError(
            "Two predictions of the same data disagree on the references of its samples: labels, "
            "reports, masks, groups, real images, or the network that gives their features."
        )
    return names


def _resampled(
    tables: Tables, names: tuple[str, ...], spec: MetricSpec, resamples: int
) -> FloatArray | None:
    """[1 + resamples]: the mean over seeds on the common samples, then on each resample; None for
    a metric that cannot be resampled from these tables.

    The draws depend on the patients' names (keys) alone, so that every row gets the same ones.
    """
    chosen = [select(table, names) for table in tables]
    parts: list[FloatArray] = []
    for block in range(0, resamples, BLOCK):
        count = min(BLOCK, resamples - block)
        weights = patient_weights(list(chosen[0].patients), count, seed=(0, block))
        weights = weights if block else with_ones(weights)
        drawn = [evaluate(spec, table, weights) for table in chosen]
        if any(values.interval is not None for values in drawn):
            return None
        parts.append(np.mean([values.value for values in drawn], axis=0))
        if not np.isfinite(parts[0][0]):
            return None
    return np.concatenate(parts)
