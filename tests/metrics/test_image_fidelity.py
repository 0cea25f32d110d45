"""Label fidelity against scikit-learn, on the real images themselves, and where it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_tables import features, pictures, resamples

from medbench.evaluation.image_predictions import ImagePredictions
from medbench.evaluation.score import score
from medbench.metrics import backbones
from medbench.metrics.image_cards import IMAGE_GENERATION, LABEL_AUROC
from medbench.metrics.image_fidelity import label_auroc
from medbench.metrics.values import FloatArray

NAMES = ("cardiomegaly", "edema", "zebra")


def table(
    y: FloatArray, scores: FloatArray | None, names: tuple[str, ...] = NAMES
) -> ImagePredictions:
    x, _ = features(0, 5, 5, 3)
    return ImagePredictions(
        None,
        None,
        np.arange(len(y)) // 2,
        {"phantom": (x, np.resize(x, (len(y), 3)))},
        label_names=names,
        labels=y,
        scores=scores,
    )


def drawn(seed: int, count: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    y = (rng.random((count, 3)) < 0.4).astype(float)
    scores = np.round(y + rng.normal(size=y.shape), 1)  # with ties
    y[rng.random(y.shape) < 0.1] = np.nan
    return y, scores


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_label_auroc_is_that_of_scikit_learn_where_labels_are_scored(seed: int) -> None:
    from sklearn.metrics import roc_auc_score

    y, scores = drawn(seed, 60)
    found = label_auroc(table(y, scores), np.ones((1, 65)))
    expected = []
    for k in range(3):
        known = ~np.isnan(y[:, k])
        expected.append(roc_auc_score(y[known, k], scores[known, k]))
    assert found.per_label is not None
    assert [found.per_label[n][0] for n in NAMES] == pytest.approx(expected)
    assert found.value[0] == pytest.approx(np.mean(expected))


def test_weights_of_prompts_repeat_their_images_and_real_ones_do_not_count() -> None:
    y, scores = drawn(1, 40)
    counts = np.random.default_rng(0).integers(0, 3, 20)
    weights = np.concatenate([[9, 9, 9, 9, 9], np.repeat(counts, 2)]).astype(float)[None]
    rows = np.repeat(np.arange(40), np.repeat(counts, 2))
    repeated = label_auroc(table(y[rows], scores[rows]), np.ones((1, 5 + len(rows))))
    assert label_auroc(table(y, scores), weights).value == pytest.approx(repeated.value)


def test_a_generator_that_is_the_real_images_scores_as_they_do() -> None:
    """The strongest degenerate generator: every image is the real one of its prompt."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    y = (rng.random((150, 3)) < 0.4).astype(float)
    x = rng.normal(size=(150, 4)) + y @ rng.normal(size=(3, 4))
    scores = x @ np.linalg.lstsq(x, y - y.mean(0), rcond=None)[0]
    texts = rng.normal(size=(150, 4))
    same = ImagePredictions(
        None,
        None,
        np.arange(150),
        {"phantom": (x, x)},
        label_names=NAMES,
        labels=y,
        real_labels=y,
        scores=scores,
        judge_images=texts,
        judge_texts=texts,
    )
    found = score(same, IMAGE_GENERATION, resamples=300).metrics
    real = np.mean([roc_auc_score(y[:, k], scores[:, k]) for k in range(3)])
    assert found["label-auroc"].value == pytest.approx(real)
    assert found["label-auroc"].ci95[0] < real < found["label-auroc"].ci95[1]
    assert found["fid-phantom"].value == pytest.approx(0, abs=1e-9)
    assert found["fid-phantom"].ci95[0] == 0
    low, high = found["kid-phantom"].ci95
    assert low < 0 < high
    assert found["kid-phantom"].value < 0.01
    per_finding = found["kid-phantom"].per_label
    assert per_finding is not None
    assert set(per_finding) == set(NAMES)
    assert found["alignment-recall@1"].value == 1
    # a generator that deals the same images out to the wrong prompts is as real, and unfaithful
    turned = np.roll(np.arange(150), 1)
    wrong = ImagePredictions(
        None,
        None,
        np.arange(150),
        {"phantom": (x, x[turned])},
        label_names=NAMES,
        labels=y,
        real_labels=y,
        scores=scores[turned],
        judge_images=texts[turned],
        judge_texts=texts,
    )
    other = score(wrong, IMAGE_GENERATION, resamples=300).metrics
    assert other["fid-phantom"].value == pytest.approx(0, abs=1e-9)
    assert other["label-auroc"].ci95[1] < found["label-auroc"].ci95[0]
    assert other["label-auroc"].ci95[0] < 0.5 < other["label-auroc"].ci95[1]
    assert other["alignment-recall@1"].value < 0.1


def test_a_finding_that_the_classifier_does_not_know_is_left_out_and_named() -> None:
    y, scores = drawn(2, 60)
    scores[:, 2] = np.nan
    found = label_auroc(table(y, scores), np.ones((1, 65)))
    assert found.per_label is not None
    assert set(found.per_label) == {"cardiomegaly", "edema"}
    assert found.reason == "the classifier does not know zebra"
    scores[:] = np.nan
    nothing = label_auroc(table(y, scores), np.ones((2, 65)))
    assert np.isnan(nothing.value).all()
    assert nothing.reason == "the classifier knows none of cardiomegaly, edema, zebra"


def test_one_class_only_is_absent_with_the_number_of_images() -> None:
    y, scores = drawn(3, 7)
    found = label_auroc(table(np.ones_like(y), scores), np.ones((1, 12)))
    assert np.isnan(found.value).all()
    assert found.reason == "no finding has both classes among 7 images"


def test_without_labels_or_scores_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(backbones.VARIABLE, raising=False)
    y, _ = drawn(4, 20)
    found = label_auroc(table(y, None), np.ones((1, 25)))
    assert found.reason is not None
    assert "no scores of an independent classifier" in found.reason
    plain = ImagePredictions(None, None, None, {"phantom": features(0, 5, 5, 3)})
    assert label_auroc(plain, np.ones((1, 10))).reason == "there are no labels of the prompts"


def test_xrv_scores_are_its_classifiers_for_the_labels_that_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from sklearn.metrics import roc_auc_score
    from torchxrayvision.models import DenseNet

    torch.manual_seed(0)
    network: Any = DenseNet(weights=None)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    torch.save(network.eval().state_dict(), tmp_path / "xrv.pth")
    monkeypatch.setenv(backbones.VARIABLE, f"xrv={tmp_path / 'xrv.pth'}")
    images = pictures(0, 8, 64)
    names = ("pleural-effusion", "support-devices")
    y = np.stack([np.arange(8) % 2, np.arange(8) < 4], axis=1).astype(float)
    found = label_auroc(
        ImagePredictions(images[:2], images, np.arange(8), label_names=names, labels=y),
        np.ones((1, 10)),
    )
    levels = (torch.tensor(images)[:, None].float() * (2 / 255) - 1) * 1024
    large = torch.nn.functional.interpolate(levels, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        scores = network.classifier(network.features2(large))[:, 7].numpy()  # Effusion
    assert found.per_label is not None
    assert set(found.per_label) == {"pleural-effusion"}
    assert found.value[0] == pytest.approx(roc_auc_score(y[:, 0], scores))
    assert found.reason is not None
    assert "scores by xrv weights" in found.reason
    assert "does not know support-devices" in found.reason


def test_the_interval_resamples_prompts() -> None:
    y, scores = drawn(5, 80)
    y, scores = np.nan_to_num(np.repeat(y[:40], 2, axis=0)), np.repeat(scores[:40], 2, axis=0)
    both = table(y, scores)
    wide = score(both, [LABEL_AUROC], resamples=300).metrics["label-auroc"].ci95
    alone = resamples(
        ImagePredictions(None, None, None, {"phantom": features(0, 5, 80, 3)}), count=300
    )
    values = label_auroc(both, alone).value[1:]
    narrow = np.quantile(values, 0.975) - np.quantile(values, 0.025)
    assert wide[1] - wide[0] > 1.2 * narrow
