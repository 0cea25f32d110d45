"""The effect of A against B, held against computations that share no code with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from leaderboard.runs import LABELS, predictions
from leaderboard.typed_tables import NAMES, metrics_of, table_of
from medbench.errors import UsageError
from medbench.evaluation.predictions import ClassPredictions
from medbench.metrics.cards import ACCURACY, AUROC, ECE
from medbench.study.effect import effect

RESAMPLES = 2_000


def two_labels(right: np.ndarray) -> ClassPredictions:
    """bool [N] -> one patient a sample, decided rightly or wrongly."""
    y = np.tile([1.0, 0.0], (len(right), 1))
    scores = np.where(right[:, None], y, 1 - y)
    names = [f"{i:04d}" for i in range(len(right))]
    return ClassPredictions(names, names, ("yes", "no"), y, scores, True)


def test_the_values_and_the_mean_are_those_of_scikit_learn() -> None:
    a = [predictions(2.0, seed) for seed in range(3)]
    b = [predictions(0.5, seed + 50) for seed in range(3)]
    found = effect(a, b, AUROC, 0.0, RESAMPLES)
    for side, values in ((a, found.a), (b, found.b)):
        wanted = [roc_auc_score(t.y, t.scores, multi_class="ovr", average="macro") for t in side]
        assert values == pytest.approx(wanted, abs=1e-12)
    assert found.by_seed == pytest.approx(np.subtract(found.a, found.b), abs=1e-12)
    assert found.effect == pytest.approx(np.mean(found.by_seed), abs=1e-12)
    assert (found.patients, found.samples) == (45, 90)


def test_with_one_seed_the_interval_is_that_of_the_patients() -> None:
    """Accuracy of one sample a patient: its error is a standard deviation over a root."""
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.7
    found = effect([two_labels(right)], [two_labels(right | True)], ACCURACY, 0.0, 4_000)
    error = right.std(ddof=1) / np.sqrt(400)
    assert found.ci95 == pytest.approx(
        (found.effect - 1.96 * error, found.effect + 1.96 * error), abs=0.2 * error
    )


def test_where_patients_are_alike_the_interval_is_students_t_over_seeds() -> None:
    rights = [np.full(50, value) for value in (True, False, False, True, True)]
    base = [two_labels(np.ones(50, bool))] * 5
    found = effect([two_labels(r) for r in rights], base, ACCURACY, 0.0, 10_000)
    low, high = stats.t.interval(0.95, 4, loc=-0.4, scale=stats.sem([0, -1, -1, 0, 0]))
    assert found.ci95 == pytest.approx((low, high), rel=0.01)
    wanted = stats.ttest_1samp([0, -1, -1, 0, 0], 0).pvalue
    assert found.p_value == pytest.approx(wanted, rel=0.01)


def test_both_errors_add_up() -> None:
    """AUROC: the patients' error by the jackknife, the seeds' by Student's t, their sum by
    integration: no resample is drawn."""
    a = [predictions(1.5, seed, 300) for seed in range(3)]
    b = [predictions(0.8, seed + 50, 300) for seed in range(3)]
    found = effect(a, b, AUROC, 0.0, 10_000)

    owners = np.array(a[0].patients)
    left_out = []
    for name in np.unique(owners):
        rows = owners != name
        gaps = [
            macro_auroc(x.y[rows], x.scores[rows]) - macro_auroc(z.y[rows], z.scores[rows])
            for x, z in zip(a, b, strict=True)
        ]
        left_out.append(np.mean(gaps))
    count = len(left_out)
    patients = np.sqrt((count - 1) * np.var(left_out))
    seeds = stats.sem(found.by_seed)
    grid = np.linspace(-0.5, 0.5, 2_001)
    candidates = np.linspace(0, 0.3, 301)
    below = [
        integrate(grid, stats.norm.pdf(grid, scale=patients) * stats.t.cdf((q - grid) / seeds, 2))
        for q in candidates
    ]
    half = float(np.interp(0.975, below, candidates))
    assert half > 1.96 * patients  # neither alone
    assert found.ci95 == pytest.approx((found.effect - half, found.effect + half), abs=0.1 * half)


def integrate(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.trapezoid(y, x))


def macro_auroc(y: np.ndarray, scores: np.ndarray) -> float:
    """By its definition: the share of pairs in the right order, ties a half, one label a time."""
    found = []
    for label in range(y.shape[1]):
        ill, well = scores[y[:, label] == 1, label], scores[y[:, label] == 0, label]
        gap = ill[:, None] - well[None]
        found.append((gap > 0).mean() + (gap == 0).mean() / 2)
    return float(np.mean(found))


def test_seeds_that_disagree_widen_the_interval() -> None:
    same = [predictions(1.5, 0)] * 3
    unlike = [predictions(skill, 0) for skill in (0.2, 1.5, 3.5)]
    base = [predictions(1.0, 9)] * 3
    narrow = effect(same, base, AUROC, 0.0, RESAMPLES).ci95
    wide = effect(unlike, base, AUROC, 0.0, RESAMPLES).ci95
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_equal_models_have_no_effect_and_p_1() -> None:
    tables = [predictions(1.0, seed) for seed in range(3)]
    found = effect(tables, tables, AUROC, 0.0, RESAMPLES)
    assert (found.effect, found.ci95, found.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_models_of_equal_skill_are_seldom_told_apart() -> None:
    """Both sides of 80 studies of three seeds come from one distribution, in which seeds differ
    more than patients do: at most some 5 % of p values are below .05."""
    rng = np.random.default_rng(3)
    low = 0
    for _ in range(80):
        hard = rng.normal(size=150)
        sides = [
            [two_labels(hard + 0.4 * rng.normal() + rng.normal(size=150) > 0) for _ in range(3)]
            for _ in range(2)
        ]
        low += effect(sides[0], sides[1], ACCURACY, 0.0, 300).p_value < 0.05
    assert low <= 9  # 11 %: two and a half standard errors above 5 %


def test_the_p_value_is_of_the_margin() -> None:
    a = [predictions(1.6, seed) for seed in range(3)]
    b = [predictions(1.5, seed + 50) for seed in range(3)]
    p = {margin: effect(a, b, AUROC, margin, RESAMPLES).p_value for margin in (-0.3, 0.0, 0.3)}
    assert max(p[-0.3], p[0.3]) < 0.05 < p[0.0]


def test_a_metric_that_should_be_low_favours_the_lower() -> None:
    sure = [predictions(3.0, seed) for seed in range(2)]
    flat = [replace(t, scores=np.full_like(t.scores, 1 / 3)) for t in sure]
    found = effect(flat, sure, ECE, 0.0, RESAMPLES)
    assert found.effect == pytest.approx(np.mean(found.b) - np.mean(found.a))


def test_the_order_of_rows_does_not_matter_to_what_is_compared() -> None:
    a, b = predictions(2.0, 0), predictions(0.5, 1)
    with pytest.raises(UsageError, match="not tested on the same samples"):
        effect([a], [b.take(range(80))], AUROC, 0.0, RESAMPLES)
    other = replace(b, y=np.roll(b.y, 1, axis=1))
    with pytest.raises(UsageError, match="disagree on the references"):
        effect([a], [other], AUROC, 0.0, RESAMPLES)


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_runs_of_every_task_type_can_be_compared(kind: str) -> None:
    a, b = ([table_of(kind, skill, seed) for seed in range(2)] for skill in (0.9, 0.3))
    found = effect(a, b, metrics_of(kind)[0], 0.0, 200)
    assert min(found.by_seed) > 0  # also of kid, where lower is better
    assert found.ci95[0] < found.effect < found.ci95[1]


def test_a_distance_that_cannot_be_resampled_is_refused() -> None:
    table = table_of("image-generation", 0.9, 0)
    _, fid = metrics_of("image-generation")
    with pytest.raises(UsageError, match="cannot be compared in pairs"):
        effect([table], [table], fid, 0.0, 200)


def test_an_undefined_metric_is_refused() -> None:
    y = np.tile([1.0, 0.0, 0.0], (10, 1))
    names = [str(i) for i in range(10)]
    table = ClassPredictions(names, names, LABELS, y, y, True)
    with pytest.raises(UsageError, match="auroc is undefined"):
        effect([table], [table], AUROC, 0.0, RESAMPLES)
