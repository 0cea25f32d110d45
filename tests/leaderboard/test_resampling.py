"""Ranks from paired tests: one resampling of each row gives what a loop over pairs gives, and in a
long ranking a lead that is real is still found."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.score import evaluate, with_ones
from medbench.leaderboard import resampling
from medbench.leaderboard.resampling import rank_rows
from medbench.metrics.cards import CLASSIFICATION
from medbench.metrics.values import FloatArray
from medbench.schemas.specs import MetricSpec
from medbench.statistics.bootstrap import patient_weights
from medbench.statistics.paired import holm, paired
from medbench.statistics.ranking import ranks

AUROC = next(spec for spec in CLASSIFICATION if spec.name == "auroc")
SAMPLES, LONG = 60, 24  # 24 rows have 276 pairs, more than counts of 10,000 resamples can tell


def table(skill: float, seed: Sequence[int], rows: slice = slice(None)) -> ClassPredictions:
    """One label; samples are hard or easy for all models, and two are of each patient."""
    fixed = np.random.default_rng(seed[0])
    y = (fixed.random(SAMPLES) < 0.4).astype(float)
    hardness = fixed.normal(size=SAMPLES)
    scores = skill * y + hardness + np.random.default_rng(seed).normal(size=SAMPLES)
    whole = ClassPredictions(
        [f"sample-{i:03d}" for i in range(SAMPLES)],
        [f"patient-{i // 2:03d}" for i in range(SAMPLES)],
        ["nodule"],
        y[:, None],
        scores[:, None],
        multiclass=False,
    )
    return whole.take(range(SAMPLES)[rows])


def values_of(rows: Sequence[Sequence[ClassPredictions]]) -> list[float]:
    ones = np.ones((1, SAMPLES))
    return [
        float(np.mean([evaluate(AUROC, t, ones[:, : len(t.sample_ids)]).value[0] for t in some]))
        for some in rows
    ]


def rank(rows: Sequence[Sequence[ClassPredictions]]) -> list[int]:
    # intervals that overlap, so that only paired tests can tell rows apart
    return rank_rows(values_of(rows), [(0.0, 1.0)] * len(rows), rows, AUROC, True)[0]


def test_ranks_are_those_of_a_loop_over_pairs() -> None:
    rows = [[table(skill, (0, n, s)) for s in range(2)] for n, skill in enumerate((3, 2, 1, 1, 0))]
    rows.append([table(0.5, (0, 9, s), slice(6, None)) for s in range(2)])  # of fewer patients

    def drawn(tables: Sequence[ClassPredictions], names: Sequence[str], block: int) -> FloatArray:
        part = [t.take([t.sample_ids.index(name) for name in names]) for t in tables]
        weights = patient_weights(part[0].patients, resampling.BLOCK, seed=(0, block))
        weights = weights if block else with_ones(weights)
        return np.mean([evaluate(AUROC, t, weights).value for t in part], axis=0)

    pairs = list(combinations(range(len(rows)), 2))
    p_values = []
    for i, j in pairs:
        names = [n for n in rows[i][0].sample_ids if n in rows[j][0].sample_ids]
        a, b = (
            np.concatenate([drawn(rows[k], names, block) for block in (0, 1_000, 2_000)])
            for k in (i, j)
        )
        p_values.append(paired(a[0], b[0], a[1:], b[1:]).p_value)
    separated = [pair for pair, p in zip(pairs, holm(p_values), strict=True) if p < 0.05]
    assert 0 < len(separated) < len(pairs)
    assert rank(rows) == ranks(values_of(rows), separated)


def test_each_row_is_resampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, int] = {}

    def counted(spec: MetricSpec, given: ClassPredictions, weights: FloatArray):  # type: ignore[no-untyped-def]
        seen[id(given)] = seen.get(id(given), 0) + len(weights)
        return evaluate(spec, given, weights)

    monkeypatch.setattr(resampling, "evaluate", counted)
    monkeypatch.setattr(resampling, "HELD", 1)  # a block at a time
    rows = [[table(1.0, (0, n, s)) for s in range(2)] for n in range(4)]
    rank(rows)
    assert seen == {id(t): 2_001 for some in rows for t in some}


@pytest.mark.parametrize("held", [1, 150_000, 2**22])
def test_ranks_do_not_depend_on_how_many_weights_are_held(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[table(2.0 - n / 5, (3, n))] for n in range(8)]
    expected = rank(rows)
    assert len(set(expected)) > 1
    monkeypatch.setattr(resampling, "HELD", held)
    assert rank(rows) == expected


def test_a_clear_leader_of_a_long_ranking_is_alone_on_rank_1() -> None:
    rows = [[table(6.0 if n == 0 else 0.5, (1, n))] for n in range(LONG)]
    found = rank(rows)
    assert found[0] == 1
    assert set(found[1:]) == {2}


def test_equals_of_a_long_ranking_are_tied() -> None:
    apart = 0
    for board in range(20):
        rows = [[table(1.0, (board, n))] for n in range(LONG)]
        apart += max(rank(rows)) > 1
    assert apart <= 3  # 5 % of 20, and what chance adds


def test_a_difference_that_no_resample_changes_separates_nothing() -> None:
    one = [table(1.0, (2, 0))]
    assert rank([one] * LONG) == [1] * LONG
