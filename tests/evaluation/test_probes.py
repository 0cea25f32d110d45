"""Linear probe, zero-shot and baselines."""

from __future__ import annotations

import numpy as np
import pytest

from medbench.data.splits import TRAIN, VAL
from medbench.errors import DataError, PluginError, UsageError
from medbench.evaluation import linear_probe as probes
from medbench.evaluation.baseline_cards import names
from medbench.evaluation.baselines import baseline_scores, prior
from medbench.evaluation.linear_probe import GRID, linear_probe, torch_path
from medbench.evaluation.zero_shot import zero_shot


def data(n: int = 120, width: int = 12, seed: int = 0, multiclass: bool = True):
    rng = np.random.default_rng(seed)
    patients = [f"p{i // 2}" for i in range(n)]
    classes = np.repeat(rng.integers(0, 3, n // 2), 2)
    y = np.eye(3)[classes]
    features = rng.normal(size=(n, width))
    features[:, :3] += 1.2 * y
    folds = np.repeat(np.arange(n // 2) % 4, 2)
    if not multiclass:
        y = y.copy()
        y[::7, 1] = np.nan
    return features, y, folds, patients


@pytest.mark.parametrize("multiclass", [True, False])
def test_probe_learns_and_gives_probabilities(multiclass: bool) -> None:
    from sklearn.metrics import roc_auc_score

    features, y, folds, patients = data(multiclass=multiclass, seed=1)
    probe = linear_probe(features, y, folds, patients, multiclass, 0)
    assert probe.scores.shape == y.shape
    assert ((probe.scores >= 0) & (probe.scores <= 1)).all()
    assert probe.chosen.shape == (4, 1 if multiclass else 3)
    if multiclass:
        assert probe.scores.sum(axis=1) == pytest.approx(1.0)
    known = ~np.isnan(y[:, 0])
    assert roc_auc_score(y[known, 0], probe.scores[known, 0]) > 0.7


@pytest.mark.parametrize("multiclass", [True, False])
def test_probe_never_sees_labels_of_the_test_fold(multiclass: bool) -> None:
    features, y, folds, patients = data(multiclass=multiclass)
    before = linear_probe(features, y, folds, patients, multiclass, 0)
    test = folds == 2
    changed = y.copy()
    changed[test] = np.roll(np.nan_to_num(y[test]), 1, axis=1)
    after = linear_probe(features, changed, folds, patients, multiclass, 0)
    assert (after.scores[test] == before.scores[test]).all()
    assert (after.chosen[2] == before.chosen[2]).all() or np.isnan(before.chosen[2]).any()
    # The same change must be felt where it is training data, or this test could not fail.
    assert (after.scores[~test] != before.scores[~test]).any()


def test_probe_never_sees_features_of_other_test_samples() -> None:
    features, y, folds, patients = data()
    before = linear_probe(features, y, folds, patients, True, 0).scores
    changed = features.copy()
    index = int(np.flatnonzero(folds == 1)[0])
    changed[index] = 1e3
    after = linear_probe(changed, y, folds, patients, True, 0).scores
    others = (folds == 1) & (np.arange(len(folds)) != index)
    assert (after[others] == before[others]).all()
    assert (after[folds != 1] != before[folds != 1]).any()


def test_probe_is_deterministic() -> None:
    given = data()
    assert (linear_probe(*given, True, 3).scores == linear_probe(*given, True, 3).scores).all()


@pytest.mark.parametrize("width", [8, 200])
def test_probe_equals_standardised_logistic_regression_at_the_chosen_strength(width: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, y, folds, patients = data(width=width)
    probe = linear_probe(features, y, folds, patients, True, 0)
    for fold in range(4):
        test = folds == fold
        scaler = StandardScaler().fit(features[~test])
        model = LogisticRegression(C=probe.chosen[fold, 0], tol=1e-8, max_iter=5000)
        model.fit(scaler.transform(features[~test]), y[~test].argmax(axis=1))
        expected = model.predict_proba(scaler.transform(features[test]))
        assert probe.scores[test] == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("width", [8, 60])
def test_the_gpus_solver_finds_the_optimum_of_scikit_learn(classes: int, width: int) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(classes)
    inputs, outputs = rng.normal(size=(150, width)), rng.normal(size=(40, width))
    truth = (inputs[:, :3] + rng.normal(size=(150, 3))).argmax(axis=1) % classes
    # Class 1 of four does not occur: it gets no chance.
    truth = np.array([0, 2, 3])[truth]
    grid = (1e-4, 1e-2, 10.0)
    found = torch_path(inputs, truth, outputs, 4, grid, "cpu")
    assert (found[:, :, 1] == 0).all()
    assert found.sum(axis=2) == pytest.approx(1.0)
    for row, strength in enumerate(grid):
        model = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000).fit(inputs, truth)
        assert found[row][:, model.classes_] == pytest.approx(
            model.predict_proba(outputs), abs=1e-4
        )


@pytest.mark.parametrize("multiclass", [True, False])
def test_a_large_probe_goes_to_the_gpu_and_comes_to_the_same(
    multiclass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def stand_in(*given):
        asked.append(given[-1])
        return torch_path(*given[:-1], "cpu")

    monkeypatch.setattr(probes, "torch_path", stand_in)
    monkeypatch.setattr(probes, "GRID", (1e-2, 1.0))
    given = data(n=60, width=5, multiclass=multiclass)
    plain = linear_probe(*given, multiclass)
    small = linear_probe(*given, multiclass, device="cuda:0")
    assert asked == []
    assert (small.scores == plain.scores).all()
    monkeypatch.setattr(probes, "LARGE", 1)
    large = linear_probe(*given, multiclass, device="cuda:0")
    assert set(asked) == {"cuda:0"}
    assert (large.chosen == plain.chosen).all()
    assert large.scores == pytest.approx(plain.scores, abs=5e-3)


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    rng = np.random.default_rng(0)
    inputs, outputs = rng.normal(size=(400, 30)), rng.normal(size=(50, 30))
    classes = inputs[:, :3].argmax(axis=1)
    given = inputs, classes, outputs, 3, GRID
    assert torch_path(*given, "cuda") == pytest.approx(torch_path(*given, "cpu"), abs=1e-4)


@pytest.mark.parametrize("width", [12, 300])
def test_constant_features_change_nothing(width: int) -> None:
    features, y, folds, patients = data(width=width)
    padded = np.concatenate([features, np.full((len(y), 3), 0.1), np.zeros((len(y), 2))], axis=1)
    plain = linear_probe(features, y, folds, patients, True, 0).scores
    assert linear_probe(padded, y, folds, patients, True, 0).scores == pytest.approx(
        plain, abs=1e-3
    )


def test_nothing_but_constant_features_gives_frequencies() -> None:
    _, y, folds, patients = data()
    scores = linear_probe(np.ones((len(y), 4)), y, folds, patients, True, 0).scores
    assert scores[folds == 0] == pytest.approx(
        np.tile(y[folds != 0].mean(axis=0), (int((folds == 0).sum()), 1)), abs=0.02
    )


def test_a_label_with_one_class_in_training_gets_its_frequency() -> None:
    features, y, folds, patients = data(multiclass=False)
    y[:, 2] = 0.0
    assert (linear_probe(features, y, folds, patients, False, 0).scores[:, 2] == 0).all()


def test_a_class_with_one_training_patient_falls_back_to_a_fixed_strength() -> None:
    features, y, folds, patients = data(n=40)
    y[:] = np.eye(3)[0]
    y[20:] = np.eye(3)[1]
    y[:2] = np.eye(3)[2]
    probe = linear_probe(features, y, folds, patients, True, 0)
    assert np.isfinite(probe.scores).all()
    assert 1e-2 in probe.chosen


def parts(n: int) -> np.ndarray:
    """The first half trains, a quarter validates, a quarter is tested."""
    folds = np.full(n, TRAIN)
    folds[n // 2 : 3 * n // 4] = VAL
    folds[3 * n // 4 :] = 0
    return folds


@pytest.mark.parametrize("multiclass", [True, False])
def test_with_a_split_the_test_part_decides_nothing(multiclass: bool) -> None:
    features, y, _, patients = data(n=160, multiclass=multiclass)
    folds = parts(160)
    before = linear_probe(features, y, folds, patients, multiclass)
    assert np.isfinite(before.scores[folds == 0]).all()
    assert np.isnan(before.scores[folds != 0]).all()
    changed, flipped = features.copy(), y.copy()
    changed[-1] += 50
    flipped[120:] = np.roll(np.nan_to_num(y[120:]), 1, axis=1)
    after = linear_probe(changed, flipped, folds, patients, multiclass)
    assert (after.scores[120:-1] == before.scores[120:-1]).all()
    assert (after.chosen == before.chosen).all()


def test_with_a_split_the_strength_is_the_best_on_validation() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    features, y, _, patients = data(n=400, width=30)
    folds = parts(400)
    probe = linear_probe(features, y, folds, patients, True)
    mean, scale = features[:200].mean(axis=0), features[:200].std(axis=0)
    standard, classes = (features - mean) / scale, y.argmax(axis=1)
    losses = {}
    for strength in GRID:
        model = LogisticRegression(C=strength, max_iter=1000).fit(standard[:200], classes[:200])
        losses[strength] = log_loss(classes[200:300], model.predict_proba(standard[200:300]))
    assert probe.chosen[0, 0] == min(losses, key=losses.__getitem__)


def test_labels_outside_the_fraction_change_nothing() -> None:
    features, y, _, patients = data(n=160)
    folds = parts(160)
    labelled = np.ones(160, bool)
    labelled[40:80] = False
    before = linear_probe(features, y, folds, patients, True, 0, labelled).scores
    changed = y.copy()
    changed[40:80] = np.roll(y[40:80], 1, axis=1)
    after = linear_probe(features, changed, folds, patients, True, 0, labelled).scores
    assert (before[120:] == after[120:]).all()
    whole = linear_probe(features, y, folds, patients, True, 0).scores
    assert (before[120:] != whole[120:]).any()


def test_the_prior_of_a_split_is_that_of_its_training_labels() -> None:
    _, y, _, patients = data(n=160)
    labelled = np.arange(160) < 40
    scores, _ = baseline_scores(
        "prior", y=y, folds=parts(160), patients=patients, multiclass=True, labelled=labelled
    )
    assert scores[-1] == pytest.approx(y[:40].mean(axis=0))


def test_a_patient_in_two_folds_is_refused() -> None:
    features, y, folds, patients = data()
    folds = folds.copy()
    folds[0] = (folds[0] + 1) % 4
    with pytest.raises(DataError, match="'p0' is in folds"):
        linear_probe(features, y, folds, patients, True, 0)


def test_features_that_are_not_finite_are_refused() -> None:
    features, y, folds, patients = data()
    features[3, 3] = np.nan
    with pytest.raises(PluginError):
        linear_probe(features, y, folds, patients, True, 0)


def test_zero_shot_follows_the_nearest_prompt() -> None:
    prompts = [np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[0.0, 3.0]])]
    scores = zero_shot(np.array([[5.0, 0.0], [0.0, 0.1], [1.0, 1.0]]), prompts, True, 0.5)
    assert scores.argmax(axis=1).tolist()[:2] == [0, 1]
    assert scores[0, 0] == pytest.approx(np.exp(2) / (np.exp(2) + 1))
    assert scores[2] == pytest.approx([0.5, 0.5])
    assert zero_shot(np.array([[3.0, 3.0]]), prompts, False, 0.5) == pytest.approx(
        np.sqrt([[0.5, 0.5]])
    )


def test_zero_shot_at_a_small_temperature_stays_finite() -> None:
    prompts = [np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])]
    scores = zero_shot(np.array([[1.0, 0.0]]), prompts, True, 1e-6)
    assert scores.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("features", "prompts", "temperature"),
    [
        (np.zeros((1, 2)), [np.ones((1, 2))], 1.0),
        (np.full((1, 2), np.nan), [np.ones((1, 2))], 1.0),
        (np.ones((1, 2)), [np.ones((1, 3))], 1.0),
        (np.ones((1, 2)), [np.ones((0, 2))], 1.0),
        (np.ones((1, 2)), [np.ones((1, 2))], 0.0),
    ],
)
def test_zero_shot_refuses_what_has_no_meaning(features, prompts, temperature: float) -> None:
    with pytest.raises(PluginError):
        zero_shot(features, prompts, True, temperature)


def test_prior_cannot_rank() -> None:
    from sklearn.metrics import roc_auc_score

    _, y, folds, patients = data()
    scores, _ = baseline_scores("prior", y=y, folds=folds, patients=patients, multiclass=True)
    assert roc_auc_score(y[:, 0], scores[:, 0]) == 0.5
    assert scores[0] == pytest.approx(y.mean(axis=0))
    assert prior(np.array([[np.nan], [1.0], [0.0]]))[0, 0] == 0.5


def test_a_prior_per_fold_would_rank_below_chance() -> None:
    """Why the prior is taken over all samples."""
    from sklearn.metrics import roc_auc_score

    _, y, _, _ = data()
    folds = np.random.default_rng(0).integers(0, 4, len(y))
    per_fold = np.array([y[folds != fold, 0].mean() for fold in folds])
    assert roc_auc_score(y[:, 0], per_fold) < 0.5


def test_pixels_are_probed_like_features() -> None:
    features, y, folds, patients = data(width=1024)
    given = {"y": y, "folds": folds, "patients": patients, "multiclass": True}
    flat, _ = baseline_scores("pixels-32", **given, thumbnails=features)
    square, _ = baseline_scores("pixels-32", **given, thumbnails=features.reshape(-1, 32, 32))
    assert (flat == square).all()
    assert (flat == linear_probe(features, y, folds, patients, True, 0).scores).all()
    with pytest.raises(DataError, match="thumbnail"):
        baseline_scores("pixels-32", **given)


def test_an_unknown_baseline_names_the_known_ones() -> None:
    known = {"prior", "all-positive", "nearest-32", "pixels-32", "real-only"}
    assert set(names("classification")) == known
    with pytest.raises(UsageError, match="'prior'"):
        baseline_scores(
            "priors", y=np.ones((1, 1)), folds=np.zeros(1, int), patients=["a"], multiclass=False
        )
