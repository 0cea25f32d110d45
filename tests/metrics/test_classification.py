"""Metrics against scikit-learn and torchmetrics: random, tied, weighted and edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.evaluation.predictions import ClassPredictions
from medbench.metrics import classification as metrics
from medbench.metrics.cards import CLASSIFICATION, card_sha256
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
    for name in ("auroc", "auprc", "accuracy", "balanced_accuracy", "f1", "ece"):
        function = getattr(metrics, name)
        a, b = function(part, np.ones((1, 40))), function(whole, np.ones((1, 30)))
        assert a.value[0] == pytest.approx(b.value[0]), name


def test_a_resample_without_positives_is_undefined_and_raises_no_warning() -> None:
    y = np.array([[1.0], [0.0], [0.0]])
    found = table(y, np.array([[0.9], [0.1], [0.2]]), False, np.array([0.5]))
    weights = np.array([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    with np.errstate(all="raise"):
        for name in ("auroc", "auprc", "balanced_accuracy", "f1"):
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
    for name in ("auroc", "auprc"):
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
