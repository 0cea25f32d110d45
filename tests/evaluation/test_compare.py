"""Comparing two results in pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medbench.errors import DataError, UsageError
from medbench.evaluation.compare import compare, guess_type, permutation
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.evaluation.predictions import ClassPredictions
from medbench.metrics.cards import AUROC
from medbench.plugins import Registry, discover


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover(third_party=False)


def table(noise: float, seed: int, count: int = 240, names: str = "s") -> ClassPredictions:
    truth = np.random.default_rng(7).integers(0, 2, (count, 1)).astype(float)
    scores = truth + noise * np.random.default_rng(seed).normal(size=truth.shape)
    return ClassPredictions(
        [f"{names}{i}" for i in range(count)],
        [f"p{i // 3}" for i in range(count)],
        ["finding"],
        truth,
        scores,
        False,
    )


def test_a_better_result_is_found_better(registry: Registry, tmp_path: Path) -> None:
    table(0.6, 1).write(tmp_path / "a.parquet")
    table(1.8, 2).write(tmp_path / "b.parquet")
    found = compare(tmp_path / "a.parquet", tmp_path / "b.parquet", "auroc", registry)
    assert found["schema"] == "medbench.compare/1"
    assert found["difference"] == pytest.approx(found["a"] - found["b"])
    assert found["ci95"][0] > 0
    assert found["p_value"] < 0.01
    assert found["permutation_p_value"] < 0.01
    assert found["patients"] == 80
    turned = compare(tmp_path / "b.parquet", tmp_path / "a.parquet", "auroc", registry)
    assert turned["difference"] == -found["difference"]
    assert turned["ci95"] == pytest.approx([-found["ci95"][1], -found["ci95"][0]])


def test_a_result_is_no_better_than_itself(registry: Registry, tmp_path: Path) -> None:
    table(1.0, 1).write(tmp_path / "a.parquet")
    found = compare(tmp_path / "a.parquet", tmp_path / "a.parquet", None, registry)
    assert (found["difference"], found["ci95"], found["p_value"]) == (0.0, [0.0, 0.0], 1.0)
    assert found["permutation_p_value"] == 1.0


def test_permutations_swap_whole_patients_as_a_loop_would() -> None:
    """Against swapping the tables row by row, with the same swaps."""
    from sklearn.metrics import roc_auc_score

    a, b = table(1.0, 1, 60), table(1.3, 2, 60)
    difference = roc_auc_score(a.y, a.scores) - roc_auc_score(b.y, b.scores)
    found = permutation(AUROC, a, b, difference, 50)
    cluster = np.unique(np.asarray(a.patients), return_inverse=True)[1]
    swaps = np.random.default_rng(0).integers(0, 2, (50, 20))[:, cluster]
    extreme = 0
    for swap in swaps[:, :, None] == 1:
        left = roc_auc_score(a.y, np.where(swap, a.scores, b.scores))
        right = roc_auc_score(a.y, np.where(swap, b.scores, a.scores))
        extreme += abs(left - right) >= abs(difference) - 1e-12
    assert found == pytest.approx((extreme + 1) / 51)


def test_equal_predictors_are_rarely_called_different() -> None:
    """Under the null hypothesis p falls below .05 about once in twenty."""
    low = 0
    for trial in range(120):
        a, b = table(1.0, 1000 + trial, 90), table(1.0, 5000 + trial, 90)
        from sklearn.metrics import roc_auc_score

        difference = roc_auc_score(a.y, a.scores) - roc_auc_score(b.y, b.scores)
        low += permutation(AUROC, a, b, difference, 199) <= 0.05
    assert low <= 14  # binomial(120, .05): 14 or fewer in 99.8 %


def test_only_common_samples_are_compared_and_that_is_said(
    registry: Registry, tmp_path: Path
) -> None:
    table(1.0, 1).take(range(200)).write(tmp_path / "a.parquet")
    table(1.0, 2).take(range(40, 240)).write(tmp_path / "b.parquet")
    found = compare(tmp_path / "a.parquet", tmp_path / "b.parquet", "auroc", registry)
    assert found["samples"] == 160
    assert "160" in found["notes"][0]


def test_what_cannot_be_compared_is_refused(registry: Registry, tmp_path: Path) -> None:
    table(1.0, 1).write(tmp_path / "a.parquet")
    table(1.0, 1, names="other").write(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="no sample in common"):
        compare(tmp_path / "a.parquet", tmp_path / "b.parquet", "auroc", registry)
    flipped = table(1.0, 1)
    flipped.y[0] = 1 - flipped.y[0]
    flipped.write(tmp_path / "c.parquet")
    with pytest.raises(DataError, match="disagree on the references"):
        compare(tmp_path / "a.parquet", tmp_path / "c.parquet", "auroc", registry)
    with pytest.raises(UsageError, match="no metric called"):
        compare(tmp_path / "a.parquet", tmp_path / "a.parquet", "aurok", registry)
    np.savez(tmp_path / "d.npz", image=np.eye(3), text=np.eye(3))
    with pytest.raises(UsageError, match="nothing to compare"):
        compare(tmp_path / "a.parquet", tmp_path / "d.npz", None, registry)
    with pytest.raises(DataError, match=r"record\.json"):
        compare(tmp_path, tmp_path / "a.parquet", None, registry)


def generated(seed: int, real_seed: int = 0) -> ImagePredictions:
    real = np.random.default_rng(real_seed).normal(size=(40, 4))
    made = np.random.default_rng(seed).normal(0.2 * seed, 1, (40, 4))
    owners = [f"p{i // 2}" for i in range(40)]
    return ImagePredictions(None, None, np.arange(40), {"phantom": (real, made)}, owners)


def test_generated_images_are_compared_within_one_network_only(
    registry: Registry, tmp_path: Path
) -> None:
    generated(1).write(tmp_path / "a.npz")
    generated(9).write(tmp_path / "b.npz")
    generated(9, real_seed=1).write(tmp_path / "c.npz")
    found = compare(tmp_path / "a.npz", tmp_path / "b.npz", "kid-phantom", registry)
    assert found["difference"] < 0
    assert found["p_value"] < 0.01
    with pytest.raises(DataError, match="features by another network"):
        compare(tmp_path / "a.npz", tmp_path / "c.npz", "kid-phantom", registry)
    with pytest.raises(UsageError, match="not made by resampling"):
        compare(tmp_path / "a.npz", tmp_path / "b.npz", "fid-phantom", registry)


def test_runs_judged_by_unlike_weights_are_refused_by_name(
    registry: Registry, tmp_path: Path
) -> None:
    """The digests in the notes of committed-like records decide, before anything is computed."""
    records = Path(__file__).parents[2] / "leaderboards" / "records"
    document = json.loads(min(records.rglob("record.json")).read_text(encoding="utf-8"))
    for name, weights in (("a", "0123456789ab"), ("b", "0123456789ab"), ("c", "ba9876543210")):
        (tmp_path / name).mkdir()
        generated(1 + ord(name) % 2).write(tmp_path / name / "predictions.npz")
        document["task"]["type"] = "image-generation"
        document["notes"] = [f"kid-phantom: features by xrv weights {weights}"]
        (tmp_path / name / "record.json").write_text(json.dumps(document), encoding="utf-8")
    assert compare(tmp_path / "a", tmp_path / "b", "kid-phantom", registry)["samples"] == 40
    with pytest.raises(UsageError, match=r"unlike networks.*0123456789ab and ba9876543210"):
        compare(tmp_path / "a", tmp_path / "c", "kid-phantom", registry)


def test_embeddings_are_matched_by_their_order(registry: Registry, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(30, 8))
    for name, noise in (("a", 0.3), ("b", 3.0)):
        images = texts + noise * rng.normal(size=texts.shape)
        np.savez(tmp_path / f"{name}.npz", image=images, text=texts)
    np.savez(tmp_path / "c.npz", image=texts[:20], text=texts[:20])
    groups = np.arange(30)[::-1]
    np.savez(tmp_path / "d.npz", image=texts, text=texts, image_group=groups, text_group=groups % 7)
    found = compare(tmp_path / "a.npz", tmp_path / "b.npz", None, registry)
    assert found["metric"] == "i2t-recall@1"
    assert found["difference"] > 0
    with pytest.raises(DataError, match="same order"):
        compare(tmp_path / "a.npz", tmp_path / "c.npz", None, registry)
    with pytest.raises(DataError, match="disagree on the references"):
        compare(tmp_path / "a.npz", tmp_path / "d.npz", None, registry)


def test_the_type_of_a_file_is_told_by_its_names(tmp_path: Path) -> None:
    mask = np.zeros((1, 2, 2), bool)
    np.savez(tmp_path / "s.npz", sample_id=["a"], reference=mask, prediction=mask)
    np.savez(tmp_path / "r.npz", image=np.eye(2), text=np.eye(2))
    np.savez(tmp_path / "g.npz", real=mask, generated=mask)
    np.savez(tmp_path / "x.npz", what=mask)
    table(1.0, 1).write(tmp_path / "c.parquet")
    (tmp_path / "t.csv").write_text("sample_id,reference,prediction\na,b,c\n")
    names = ("s.npz", "r.npz", "g.npz", "c.parquet", "t.csv")
    assert [guess_type(tmp_path / name) for name in names] == [
        "segmentation", "retrieval", "image-generation", "classification", "report-generation",
    ]  # fmt: skip
    with pytest.raises(DataError, match="it has what"):
        guess_type(tmp_path / "x.npz")
