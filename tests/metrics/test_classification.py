"""Metrics against scikit-learn and torchmetrics: random, tied, weighted and edge cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.evaluation.predictions import ClassPredictions
from medbench.metrics import classification as metrics
from medbench.metrics.cards import CLASSIFICATION, card_sha256
from medbench.metrics.thresholds import best_thresholds
from medbench.metrics.values import FloatArray, Values


def table(
    y: FloatArray, scores: FloatArray, multiclass: bool, thresholds: FloatArray | None = None
) -> ClassPredictions:
    count, width = np.shape(y)
    ids = [f"s{i}" for i in range(count)]
    labels = [f"l{k}" for k in range(width)]
    return ClassPredictions(ids, ids, labels, y, scores, multiclass, thresholds)


def random_table(seed: int, *, multiclass: bool, ties: bool, n: int = 60) -> ClassPredictions:
    rng = np.random.default_rng(seed)
    if multiclass:
        y = np.eye(3)[np.concatenate([[0, 1, 2], rng.integers(0, 3, n - 3)])]
        raw = rng.integers(1, 4, (n, 3)).astype(float) if ties else rng.random((n, 3))
        return table(y, raw / raw.sum(axis=1, keepdims=True), True)
    y = (rng.random((n, 3)) < 0.4).astype(float)
    y[0], y[1] = 1, 0
    scores = rng.integers(0, 3, (n, 3)) / 3 if ties else rng.random((n, 3))
    return table(y, scores, False, np.array([0.3, 0.5, 0.6]))


def weightings(seed: int, n: int) -> FloatArray:
    """Ones, real weights, and counts with zeros; the first rows stay so that classes do."""
    rng = np.random.default_rng(seed + 1)
    counts = rng.integers(0, 4, n).astype(float)
    counts[:3] = 1
    return np.stack([np.ones(n), rng.random(n) + 0.01, counts])


CASES = [(s, m, t) for s in range(2) for m in (True, False) for t in (True, False)]


@pytest.mark.parametrize(("seed", "multiclass", "ties"), CASES)
@pytest.mark.parametrize("name", ["auroc", "auprc"])
def test_ranking_metrics_agree_with_scikit_learn(
    name: str, seed: int, multiclass: bool, ties: bool
) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    reference = {"auroc": roc_auc_score, "auprc": average_precision_score}[name]
    found = random_table(seed, multiclass=multiclass, ties=ties)
    weights = weightings(seed, len(found.y))
    values: Values = getattr(metrics, name)(found, weights)
    assert values.per_label is not None
    for b, row in enumerate(weights):
        each = [reference(found.y[:, k], found.scores[:, k], sample_weight=row) for k in range(3)]
        assert [values.per_label[f"l{k}"][b] for k in range(3)] == pytest.approx(each, abs=1e-12)
        assert values.value[b] == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.parametrize(("seed", "ties"), [(s, t) for s in range(4) for t in (True, False)])
def test_multiclass_decisions_agree_with_scikit_learn(seed: int, ties: bool) -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    found = random_table(seed, multiclass=True, ties=ties)
    truth, called = found.y.argmax(axis=1), found.scores.argmax(axis=1)
    weights = weightings(seed, len(truth))
    for b, row in enumerate(weights):
        assert metrics.accuracy(found, weights).value[b] == pytest.approx(
            accuracy_score(truth, called, sample_weight=row)
        )
        assert metrics.balanced_accuracy(found, weights).value[b] == pytest.approx(
            balanced_accuracy_score(truth, called, sample_weight=row)
        )
        assert metrics.f1(found, weights).value[b] == pytest.approx(
            f1_score(truth, called, average="macro", sample_weight=row)
        )


@pytest.mark.parametrize("seed", range(4))
def test_multilabel_decisions_agree_with_scikit_learn(seed: int) -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    found = random_table(seed, multiclass=False, ties=True)
    assert found.thresholds is not None
    called = (found.scores >= found.thresholds).astype(int)
    weights = weightings(seed, len(found.y))
    for name, reference in (
        ("accuracy", accuracy_score),
        ("balanced_accuracy", balanced_accuracy_score),
        ("f1", f1_score),
    ):
        values = getattr(metrics, name)(found, weights)
        for b, row in enumerate(weights):
            each = [reference(found.y[:, k], called[:, k], sample_weight=row) for k in range(3)]
            assert values.value[b] == pytest.approx(np.mean(each)), name


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_agrees_with_torchmetrics(seed: int) -> None:
    import torch
    from torchmetrics.functional.classification import (
        binary_calibration_error,
        multiclass_calibration_error,
    )

    many = random_table(seed, multiclass=True, ties=False, n=200)
    ones = np.ones((1, 200))
    expected = multiclass_calibration_error(
        torch.tensor(many.scores), torch.tensor(many.y.argmax(axis=1)), num_classes=3, n_bins=15
    )
    assert metrics.ece(many, ones).value[0] == pytest.approx(float(expected), abs=1e-6)
    labels = random_table(seed, multiclass=False, ties=False, n=200)
    each = [
        float(
            binary_calibration_error(
                torch.tensor(labels.scores[:, k]), torch.tensor(labels.y[:, k]).int(), n_bins=15
            )
        )
        for k in range(3)
    ]
    assert metrics.ece(labels, ones).value[0] == pytest.approx(np.mean(each), abs=1e-6)


def test_a_confidence_at_the_edge_of_a_bin_is_in_the_bin_above_and_one_in_the_last() -> None:
    y = np.array([[1.0], [0.0]])
    ones = np.ones((1, 2))
    # .2 = 3/15 shares [3/15, 4/15) with .26; 1 shares [14/15, 1] with .95.
    low = metrics.ece(table(y, np.array([[0.2], [0.26]]), False), ones).value[0]
    assert low == pytest.approx(abs(0.8 - 0.26) / 2)
    high = metrics.ece(table(1 - y, np.array([[1.0], [0.95]]), False), ones).value[0]
    assert high == pytest.approx(abs(-1 + 0.05) / 2)


@pytest.mark.parametrize(("seed", "multiclass", "ties"), CASES)
def test_sensitivity_agrees_with_the_curve_of_scikit_learn(
    seed: int, multiclass: bool, ties: bool
) -> None:
    from sklearn.metrics import roc_curve

    found = random_table(seed, multiclass=multiclass, ties=ties)
    weights = weightings(seed, len(found.y))
    values = metrics.sensitivity(found, weights)
    assert values.per_label is not None
    for b, row in enumerate(weights):
        each = []
        for k in range(3):
            false, true, _ = roc_curve(
                found.y[:, k], found.scores[:, k], sample_weight=row, drop_intermediate=False
            )
            each.append(true[1 - false >= 0.9 - 1e-12].max())
        assert [values.per_label[f"l{k}"][b] for k in range(3)] == pytest.approx(each, abs=1e-12)
        assert values.value[b] == pytest.approx(np.mean(each), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_sensitivity_agrees_with_torchmetrics(seed: int) -> None:
    import torch
    from torchmetrics.functional.classification import binary_sensitivity_at_specificity

    rng = np.random.default_rng(seed)
    # 2^5 + 1 negatives: no specificity is .9 itself, which float32 would miss.
    y = np.concatenate([np.ones(40), np.zeros(33)])[:, None]
    scores = rng.random((73, 1)) * 0.7 + 0.3 * y
    expected, _ = binary_sensitivity_at_specificity(
        torch.from_numpy(scores[:, 0]), torch.from_numpy(y[:, 0]).int(), min_specificity=0.9
    )
    found = metrics.sensitivity(table(y, scores, False), np.ones((1, 73))).value[0]
    assert 0 < found < 1
    assert found == pytest.approx(float(expected), abs=1e-6)


def test_a_specificity_of_exactly_90_percent_is_enough_and_ties_go_together() -> None:
    y = np.array([1.0, 1, 1, 1] + [0.0] * 10)[:, None]
    # The highest negative stands between the second and the third positive: 9 of 10 are below.
    scores = np.array([0.9, 0.8, 0.6, 0.1] + [0.7] + [0.2] * 9)[:, None]
    ones = np.ones((1, 14))
    assert metrics.sensitivity(table(y, scores, False), ones).value[0] == 0.75
    three = metrics.sensitivity(table(y, scores, False), 3 * ones).value[0]
    assert three == 0.75
    scores[5] = 0.6  # level with the third positive: calling that one calls two negatives
    assert metrics.sensitivity(table(y, scores, False), ones).value[0] == 0.5
    nothing = metrics.sensitivity(table(y, np.full((14, 1), 0.5), False), ones).value[0]
    assert nothing == 0.0


def test_best_thresholds_agree_with_trying_every_score() -> None:
    from sklearn.metrics import f1_score

    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = (rng.random((30, 4)) < 0.3).astype(float)
        y[0], y[1] = 1, 0
        scores = np.round(rng.random((30, 4)), 1 if seed % 2 else 3)
        y[rng.random((30, 4)) < 0.1] = np.nan
        found = best_thresholds(y, scores)
        for k in range(4):
            scored = ~np.isnan(y[:, k])
            truth, given_scores = y[scored, k], scores[scored, k]
            tried = {t: f1_score(truth, given_scores >= t) for t in set(given_scores.tolist())}
            best = max(tried.values())
            expected = max(t for t, f in tried.items() if f == pytest.approx(best, abs=1e-12))
            assert found[k] == expected


def test_of_thresholds_with_equal_f1_the_highest_is_taken() -> None:
    # At .9: TP 1, FN 1, F1 = 2/3. At .1: TP 2, FP 2, F1 = 4/6.
    y = np.array([[1.0], [0.0], [0.0], [1.0]])
    assert best_thresholds(y, np.array([[0.9], [0.5], [0.4], [0.1]])).tolist() == [0.9]


def test_labels_with_one_class_get_no_threshold() -> None:
    y = np.array([[1.0, 0.0, np.nan, 1.0], [1.0, 0.0, np.nan, 0.0]])
    found = best_thresholds(y, np.array([[0.5, 0.5, 0.5, -0.0], [0.4, 0.4, 0.4, -1.0]]))
    assert np.isnan(found).tolist() == [True, True, True, False]
    assert str(found[3]) == "0.0"


def test_thresholds_of_malformed_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        best_thresholds(np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="not finite"):
        best_thresholds(np.array([[1.0], [0.0]]), np.array([[np.nan], [0.0]]))


@dataclass(frozen=True, eq=False)
class Bare:
    """A table that keeps thresholds as they are given."""

    labels: tuple[str, ...]
    y: FloatArray
    scores: FloatArray
    thresholds: FloatArray
    multiclass: bool = False


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "f1"])
def test_a_label_without_a_threshold_is_left_out_of_decisions_and_named(name: str) -> None:
    found = random_table(1, multiclass=False, ties=True)
    assert found.thresholds is not None
    thresholds = found.thresholds.copy()
    thresholds[:, 1] = np.nan
    bare = Bare(tuple(found.labels), found.y, found.scores, thresholds)
    function = getattr(metrics, name)
    weights = weightings(1, len(found.y))
    values, whole = function(bare, weights), function(found, weights)
    assert values.reason == "labels without a threshold, left out of the mean: l1"
    assert np.isnan(values.per_label["l1"]).all()
    assert values.value == pytest.approx((whole.per_label["l0"] + whole.per_label["l2"]) / 2)
    nothing = function(
        Bare(bare.labels, bare.y, bare.scores, np.full_like(thresholds, np.nan)), weights
    )
    assert np.isnan(nothing.value).all()
    assert nothing.reason == "every label is without a threshold"


@pytest.mark.parametrize("spec", CLASSIFICATION, ids=lambda spec: spec.name)
@pytest.mark.parametrize("multiclass", [True, False])
def test_integer_weights_equal_repeated_samples(spec, multiclass: bool) -> None:
    function = getattr(metrics, spec.function.partition(":")[2])
    found = random_table(7, multiclass=multiclass, ties=True)
    counts = np.random.default_rng(0).integers(0, 4, len(found.y))
    rows = np.repeat(np.arange(len(found.y)), counts)
    thresholds = None if found.thresholds is None else found.thresholds[rows]
    repeated = table(found.y[rows], found.scores[rows], multiclass, thresholds)
    weighted = function(found, counts[None].astype(float)).value[0]
    assert weighted == pytest.approx(function(repeated, np.ones((1, len(rows)))).value[0])


def test_all_scores_tied_is_one_half() -> None:
    y = np.array([[1.0], [0.0], [0.0]])
    found = table(y, np.full((3, 1), 0.2), False)
    assert metrics.auroc(found, np.ones((1, 3))).value[0] == 0.5
    assert metrics.auprc(found, np.ones((1, 3))).value[0] == pytest.approx(1 / 3)


def test_a_label_with_one_class_is_left_out_and_named() -> None:
    y = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, np.nan]])
    found = table(y, np.array([[0.9, 0.1], [0.2, 0.4], [0.3, 0.6]]), False)
    values = metrics.auroc(found, np.ones((2, 3)))
    assert values.value.tolist() == [1.0, 1.0]
    assert values.reason is not None
    assert "l1" in values.reason
    assert "l0" not in values.reason
    assert values.per_label is not None
    assert np.isnan(values.per_label["l1"]).all()


def test_samples_that_are_not_scored_for_a_label_do_not_count() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((40, 1)) < 0.5).astype(float)
    scores = rng.random((40, 1))
    blanked = y.copy()
    blanked[:10] = np.nan
    whole = table(y[10:], scores[10:], False, np.array([0.5]))
    part = table(blanked, scores, False, np.array([0.5]))
    for name in ("auroc", "auprc", "accuracy", "balanced_accuracy", "f1", "ece", "sensitivity"):
        function = getattr(metrics, name)
        a, b = function(part, np.ones((1, 40))), function(whole, np.ones((1, 30)))
        assert a.value[0] == pytest.approx(b.value[0]), name


def test_a_resample_without_positives_is_undefined_and_raises_no_warning() -> None:
    y = np.array([[1.0], [0.0], [0.0]])
    found = table(y, np.array([[0.9], [0.1], [0.2]]), False, np.array([0.5]))
    weights = np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    with np.errstate(all="raise"):
        for name in ("auroc", "auprc", "balanced_accuracy", "f1", "sensitivity"):
            values = getattr(metrics, name)(found, weights).value
            assert np.isnan(values[0]), name
            assert values[1] == 1.0, name
            assert np.isnan(values[2]), name


def test_multilabel_decisions_without_thresholds_say_why_they_are_absent() -> None:
    found = table(np.array([[1.0], [0.0]]), np.array([[0.9], [0.1]]), False)
    for name in ("accuracy", "balanced_accuracy", "f1"):
        values = getattr(metrics, name)(found, np.ones((1, 2)))
        assert np.isnan(values.value[0])
        assert "threshold" in values.reason


def test_calibration_of_scores_that_are_no_probabilities_is_undefined() -> None:
    found = table(np.array([[1.0], [0.0]]), np.array([[3.0], [-1.0]]), False)
    values = metrics.ece(found, np.ones((1, 2)))
    assert np.isnan(values.value[0])
    assert values.reason is not None
    assert "not probabilities" in values.reason


def test_a_class_that_neither_occurs_nor_is_called_is_left_out_of_f1() -> None:
    from sklearn.metrics import f1_score

    y = np.eye(3)[[0, 1, 0, 1]]
    scores = np.eye(3)[[0, 1, 1, 1]]
    values = metrics.f1(table(y, scores, True), np.ones((1, 4)))
    assert values.value[0] == pytest.approx(f1_score([0, 1, 0, 1], [0, 1, 1, 1], average="macro"))
    assert values.reason is not None
    assert "l2" in values.reason


finite = st.integers(-50, 50).map(float)


@given(st.lists(st.tuples(finite, st.booleans()), min_size=2, max_size=40), st.randoms())
@settings(max_examples=60, deadline=None)
def test_ranking_survives_monotone_maps_and_permutations(rows, random) -> None:
    scores = np.array([[r[0]] for r in rows])
    y = np.array([[float(r[1])] for r in rows])
    ones = np.ones((1, len(rows)))
    for name in ("auroc", "auprc", "sensitivity"):
        function = getattr(metrics, name)
        value = function(table(y, scores, False), ones).value
        mapped = function(table(y, np.exp(scores / 20) * 3 - 1, False), ones).value
        order = list(range(len(rows)))
        random.shuffle(order)
        moved = function(table(y[order], scores[order], False), ones).value
        assert np.array_equal(value, mapped, equal_nan=True)
        assert moved == pytest.approx(value, abs=1e-12, nan_ok=True)


@given(st.lists(st.tuples(finite, st.booleans()), min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_reversing_scores_mirrors_auroc(rows) -> None:
    scores = np.array([[r[0]] for r in rows])
    y = np.array([[float(r[1])] for r in rows])
    ones = np.ones((1, len(rows)))
    forward = metrics.auroc(table(y, scores, False), ones).value[0]
    backward = metrics.auroc(table(y, -scores, False), ones).value[0]
    if len({r[1] for r in rows}) == 2:
        assert forward + backward == pytest.approx(1.0)
    else:
        assert np.isnan([forward, backward]).all()


def test_cards_are_complete_and_distinct() -> None:
    assert [spec.name for spec in CLASSIFICATION] == [
        "auroc", "auprc", "accuracy", "balanced-accuracy", "f1", "ece",
        "sensitivity-at-specificity-90",
    ]  # fmt: skip
    assert len({card_sha256(spec) for spec in CLASSIFICATION}) == len(CLASSIFICATION)
    for spec in CLASSIFICATION:
        assert spec.definition
        assert spec.aggregation
        assert spec.reference
        assert callable(getattr(metrics, spec.function.partition(":")[2]))


def test_listing_cards_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys, medbench.metrics.cards; "
        "print([m for m in ('numpy', 'pandas', 'sklearn', 'scipy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
