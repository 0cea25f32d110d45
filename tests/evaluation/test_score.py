"""Scoring: intervals, absences, purity, and metrics of plugins that break their contract."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medbench.errors import PluginError
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.score import baseline_estimates, score
from medbench.metrics.cards import ACCURACY, AUROC, CLASSIFICATION, card_sha256
from medbench.metrics.values import Values
from medbench.schemas.specs import MetricSpec

MANIFEST = "cd" * 32


def example(n: int = 80, seed: int = 0) -> ClassPredictions:
    rng = np.random.default_rng(seed)
    y = np.eye(3)[rng.integers(0, 3, n)]
    raw = np.exp(rng.normal(size=(n, 3)) + y)
    patients = [f"p{i}" for i in rng.integers(0, n // 2, n)]
    return ClassPredictions(
        [f"s{i}" for i in range(n)], patients, ["a", "b", "c"], y,
        raw / raw.sum(axis=1, keepdims=True), True,
    )  # fmt: skip


def test_every_metric_has_value_interval_count_and_card() -> None:
    scored = score(example(), CLASSIFICATION)
    assert list(scored.metrics) == [spec.name for spec in CLASSIFICATION]
    assert scored.notes == []
    for spec in CLASSIFICATION:
        metric = scored.metrics[spec.name]
        assert metric.ci95[0] < metric.ci95[1]
        assert metric.n == 80
        assert metric.card_sha256 == card_sha256(spec)
        assert metric.higher_is_better == spec.higher_is_better
    assert scored.metrics["auroc"].per_label is not None
    assert set(scored.metrics["auroc"].per_label) == {"a", "b", "c"}


def test_value_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    table = example()
    expected = roc_auc_score(table.y.argmax(axis=1), table.scores, multi_class="ovr")
    assert score(table, [AUROC]).metrics["auroc"].value == pytest.approx(expected)


def test_scores_are_the_same_in_any_order_and_under_any_names() -> None:
    table = example()
    order = np.random.default_rng(1).permutation(80).tolist()
    first = score(table, CLASSIFICATION).metrics
    for other in (table.take(order), table.publishable(MANIFEST)):
        again = score(other, CLASSIFICATION).metrics
        for name, metric in first.items():
            assert again[name].value == pytest.approx(metric.value, abs=1e-12)
            assert again[name].ci95 == pytest.approx(metric.ci95, abs=1e-12)


def test_patients_widen_the_interval_when_their_samples_agree() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((60, 1)) < 0.5).astype(float)
    scores = np.clip(y * 0.2 + rng.random((60, 1)) * 0.8, 0, 1)
    index = np.repeat(np.arange(60), 4)
    ids = [str(i) for i in range(240)]
    apart = ClassPredictions(ids, ids, ["x"], y[index], scores[index], False)
    together = replace(apart, patients=[str(i) for i in index])
    narrow, wide = (score(t, [AUROC]).metrics["auroc"].ci95 for t in (apart, together))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_an_undefined_metric_is_absent_with_its_reason() -> None:
    table = ClassPredictions(
        ["a", "b"], ["a", "b"], ["x"], np.ones((2, 1)), np.zeros((2, 1)), False
    )
    scored = score(table, [AUROC, ACCURACY])
    assert scored.metrics == {}
    assert any("auroc is absent" in n and "one class" in n for n in scored.notes)
    assert any("accuracy is absent" in n and "threshold" in n for n in scored.notes)


def test_resamples_without_a_class_are_counted_in_a_note() -> None:
    y = np.zeros((10, 1))
    y[0] = 1
    ids = [str(i) for i in range(10)]
    table = ClassPredictions(ids, ids, ["x"], y, np.linspace(0, 1, 10)[:, None], False)
    scored = score(table, [AUROC])
    assert "auroc" in scored.metrics
    # One patient of ten is missed with probability .9 ** 10 = .35.
    note = next(n for n in scored.notes if "undefined in" in n)
    assert 280 < int(note.split("undefined in ")[1].split()[0]) < 420


def test_one_patient_is_said_to_make_intervals_void() -> None:
    table = replace(example(), patients=["p"] * 80)
    assert any("one patient" in note for note in score(table, [AUROC]).notes)


def test_baseline_estimates_are_the_metrics_without_their_cards() -> None:
    table = example()
    metric = score(table, [AUROC]).metrics["auroc"]
    found = baseline_estimates(table, [AUROC])["auroc"]
    assert (found.value, found.ci95, found.n) == (metric.value, metric.ci95, metric.n)


def raises(table, weights):
    raise RuntimeError("boom")


def wrong_shape(table, weights):
    return Values(np.zeros(len(weights) + 1))


def infinite(table, weights):
    return Values(np.full(len(weights), np.inf))


def not_values(table, weights):
    return 0.5


@pytest.mark.parametrize("name", ["raises", "wrong_shape", "infinite", "not_values", "nowhere"])
def test_a_metric_that_breaks_its_contract_is_named(name: str) -> None:
    spec = MetricSpec(
        name="broken",
        function=f"{__name__}:{name}",
        task_types=("classification",),
        definition="x",
        higher_is_better=True,
        aggregation="x",
    )
    with pytest.raises(PluginError, match="'broken'"):
        score(example(), [spec])
