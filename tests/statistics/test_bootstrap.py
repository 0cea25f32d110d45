"""The clustered bootstrap, paired tests, Holm's correction and ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.evaluation.predictions import ClassPredictions
from medbench.metrics.classification import auroc
from medbench.statistics.bootstrap import content_clusters, interval, patient_weights, undefined
from medbench.statistics.paired import holm, paired
from medbench.statistics.ranking import overlap, ranks


def test_samples_of_a_patient_are_drawn_together() -> None:
    patients = ["b", "a", "b", "c", "a", "d"]
    weights = patient_weights(patients, 200, 3)
    assert weights.shape == (200, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    people = weights[:, [0, 1, 3, 5]]
    assert (people.sum(axis=1) == 4).all()
    assert people.mean() == pytest.approx(1.0)
    # A draw with replacement from 4: the count of one is binomial(4, 1/4), variance 3/4.
    assert patient_weights(patients, 20_000, 0)[:, 0].var() == pytest.approx(0.75, abs=0.03)


def test_draws_do_not_depend_on_the_order_of_samples() -> None:
    patients = np.array(["b", "a", "b", "c"])
    order = [2, 3, 1, 0]
    a, b = patient_weights(patients, 50, 1), patient_weights(patients[order], 50, 1)
    assert (a[:, order] == b).all()


def test_another_seed_draws_otherwise() -> None:
    patients = [str(i) for i in range(20)]
    assert (patient_weights(patients, 5, 0) == patient_weights(patients, 5, 0)).all()
    assert (patient_weights(patients, 5, 0) != patient_weights(patients, 5, 1)).any()


def test_interval_equals_a_loop_over_resampled_tables_scored_by_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    patients = [f"p{i}" for i in rng.integers(0, 25, 60)]
    y = (rng.random((60, 1)) < 0.4).astype(float)
    scores = np.round(rng.random((60, 1)) + 0.4 * y, 1)
    ids = [str(i) for i in range(60)]
    weights = patient_weights(patients, 100, 5)
    values = auroc(ClassPredictions(ids, patients, ["x"], y, scores, False), weights).value
    people = np.unique(patients)
    members = {p: [i for i, q in enumerate(patients) if q == p] for p in people}
    looped = []
    for row in weights:
        drawn = [p for p in people for _ in range(int(row[members[p][0]]))]
        index = [i for p in drawn for i in members[p]]
        looped.append(roc_auc_score(y[index, 0], scores[index, 0]))
    assert values == pytest.approx(looped)
    assert interval(values) == pytest.approx(np.percentile(looped, [2.5, 97.5]))


@given(st.integers(1, 30), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_one_patient_per_sample_is_the_plain_bootstrap(count: int, seed: int) -> None:
    names = [f"{i:03d}" for i in range(count)]
    drawn = np.random.default_rng(seed).integers(0, count, size=(7, count))
    plain = np.stack([np.bincount(row, minlength=count) for row in drawn])
    assert (patient_weights(names, 7, seed) == plain).all()


def test_undefined_resamples_are_counted_and_left_out() -> None:
    values = np.array([np.nan, 0.2, 0.4, np.nan])
    assert undefined(values) == 2
    assert interval(values) == pytest.approx((0.205, 0.395))
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_clusters_follow_the_content_not_the_names_or_the_order() -> None:
    rng = np.random.default_rng(1)
    content = rng.random((30, 3))
    content[4, 1] = np.nan
    patients = [f"p{i}" for i in rng.integers(0, 12, 30)]
    first = content_clusters(patients, content)
    renamed = content_clusters([f"x{hash(p)}" for p in patients], content)
    order = rng.permutation(30)
    moved = content_clusters([patients[i] for i in order], content[order])
    assert (first == renamed).all()
    assert (first[order] == moved).all()
    assert len(set(first.tolist())) == len(set(patients))


def test_holm_against_a_worked_example() -> None:
    # Sorted: .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 = .04 raised to .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_paired_test_finds_a_shared_difference_that_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.1, 1000)
    a, b = 0.82 + shared, 0.80 + shared + rng.normal(0, 0.002, 1000)
    found = paired(0.82, 0.80, a, b)
    assert overlap(interval(a), interval(b))
    assert found.difference == pytest.approx(0.02)
    assert found.ci95[0] > 0
    assert found.p_value == pytest.approx(2 / 1001)


def test_paired_test_of_equal_predictors_is_not_significant() -> None:
    same = np.random.default_rng(0).random(500)
    assert paired(0.5, 0.5, same, same).p_value == 1.0
    assert paired(0.5, 0.5, np.full(5, np.nan), same[:5]).p_value == 1.0


def test_p_value_is_below_5_percent_just_when_the_interval_leaves_zero_out() -> None:
    rng = np.random.default_rng(0)
    for shift in np.linspace(0, 4, 41):
        a = rng.normal(shift, 1, 999)
        found = paired(shift, 0, a, np.zeros(999))
        excluded = found.ci95[0] > 0 or found.ci95[1] < 0
        if abs(found.p_value - 0.05) > 0.006:
            assert (found.p_value < 0.05) == excluded


def test_p_values_of_equal_models_are_rarely_small() -> None:
    """Under the null a test at 5 % rejects about 5 %: here two noisy copies of one signal."""
    rng = np.random.default_rng(0)
    rejected = 0
    for trial in range(120):
        patients = [str(i) for i in range(120)]
        y = (np.arange(120) % 2 == 0).astype(float)[:, None]
        signal = rng.normal(size=(120, 1)) + y
        weights = patient_weights(patients, 300, trial)
        stacked = np.concatenate([np.ones((1, 120)), weights])
        values = []
        for _ in range(2):
            scores = signal + rng.normal(size=(120, 1))
            t = ClassPredictions(patients, patients, ["x"], y, scores, False)
            values.append(auroc(t, stacked).value)
        a, b = values
        rejected += paired(a[0], b[0], a[1:], b[1:]).p_value < 0.05
    assert rejected <= 14  # 5 % of 120 is 6; binomial(120, .05) exceeds 14 in 0.1 % of cases


def test_rows_that_no_test_separates_share_a_rank() -> None:
    assert ranks([0.9, 0.8, 0.7], []) == [1, 1, 1]
    assert ranks([0.9, 0.8, 0.7], [(0, 1), (0, 2), (1, 2)]) == [1, 2, 3]
    assert ranks([0.7, 0.9, 0.8], [(0, 1), (1, 2)]) == [2, 1, 2]


def test_direction_is_respected() -> None:
    assert ranks([0.1, 0.3], [(0, 1)], higher_is_better=False) == [1, 2]
    assert ranks([0.1, 0.3], [(1, 0)], higher_is_better=True) == [2, 1]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.data())
@settings(max_examples=80, deadline=None)
def test_ranks_never_improve_down_a_table_and_beaten_rows_are_below(values, data) -> None:
    pairs = [(i, j) for i in range(len(values)) for j in range(i)]
    separated = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    found = ranks(values, separated)
    assert min(found) == 1
    for i, j in ((i, j) for i in range(len(values)) for j in range(len(values))):
        if values[i] > values[j]:
            assert found[i] <= found[j]
            if (i, j) in separated or (j, i) in separated:
                beaten = sum(
                    1
                    for k in range(len(values))
                    if values[k] > values[j] and ((k, j) in separated or (j, k) in separated)
                )
                assert found[j] >= 1 + beaten
    order = data.draw(st.permutations(range(len(values))))
    position = {old: new for new, old in enumerate(order)}
    moved = ranks([values[i] for i in order], [(position[i], position[j]) for i, j in separated])
    assert [moved[position[i]] for i in range(len(values))] == found
