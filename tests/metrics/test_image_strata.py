"""Metrics of short, medium and long prompts, each against the metric of those images alone."""

from __future__ import annotations

import numpy as np
import pytest
from image_tables import features, resamples
from sklearn.metrics import roc_auc_score

from medbench.evaluation.image_predictions import ImagePredictions
from medbench.evaluation.score import score
from medbench.metrics.image_alignment import alignment_recall_1
from medbench.metrics.image_cards import LABEL_AUROC
from medbench.metrics.image_fidelity import label_auroc
from medbench.metrics.image_kernel import kernel_distance, kid_phantom
from medbench.metrics.image_strata import NAMES, thirds


def judged(words: list[int], seed: int = 0, each: int = 2) -> ImagePredictions:
    """Images of prompts of so many words, whose scores are the better the shorter their prompt."""
    rng = np.random.default_rng(seed)
    count = len(words)
    prompts = np.repeat(np.arange(count), each)
    x, y = features(seed, count, len(prompts), 4)
    own = (rng.random(count) < 0.5).astype(float)[:, None]
    noise = rng.normal(size=(len(prompts), 1)) * np.array(words)[prompts][:, None]
    texts = rng.normal(size=(count, 5))
    return ImagePredictions(
        None,
        None,
        prompts,
        {"phantom": (x, y)},
        label_names=("edema",),
        labels=own[prompts],
        real_labels=own,
        scores=own[prompts] + 0.2 * noise,
        judge_images=texts[prompts] + 0.1 * rng.normal(size=(len(prompts), 5)) * np.abs(noise),
        judge_texts=texts,
        real_prompts=np.arange(count),
        prompt_texts=[" ".join(["word"] * n) for n in words],
    )


def test_thirds_hold_as_many_prompts_as_equal_lengths_allow() -> None:
    found = thirds(judged(list(range(1, 31))))
    assert tuple(found.parts) == NAMES
    assert [len(part.real) for part in found.parts.values()] == [10, 10, 10]
    assert found.counts == dict.fromkeys(NAMES, 20)
    assert found.note is not None
    assert "prompts-medium: 10 of 11 to 20 words" in found.note
    alike = thirds(judged([4] * 25 + [9] * 15))
    assert {name: len(part.real) for name, part in alike.parts.items()} == {
        "prompts-short": 25,
        "prompts-medium": 15,
    }
    assert alike.note is not None
    assert "prompts-long: none" in alike.note


def test_a_third_of_few_images_has_no_value_and_says_how_many() -> None:
    found = thirds(judged(list(range(1, 28))))
    assert not found.parts
    assert found.note is not None
    assert "prompts-long: 9 of 19 to 27 words, 18 images, too few for a value" in found.note


def test_each_third_has_the_value_of_its_own_images() -> None:
    table = judged([2] * 20 + [5] * 20 + [11] * 20)
    weights = resamples(table, 50)
    cut = thirds(table)
    auroc, recall, kid = (
        metric(table, weights) for metric in (label_auroc, alignment_recall_1, kid_phantom)
    )
    x, y = table.given["phantom"]
    assert table.labels is not None
    assert table.scores is not None
    for name, part in cut.parts.items():
        rows = part.generated
        expected = roc_auc_score(table.labels[rows, 0], table.scores[rows, 0])
        assert auroc.per_label is not None
        assert auroc.per_label[name][0] == pytest.approx(expected)
        assert recall.per_label is not None
        assert recall.per_label[name][0] == pytest.approx(nearest(table)[rows].mean())
        clusters = np.concatenate([np.arange(20), 20 + np.repeat(np.arange(20), 2)])
        distance = kernel_distance(
            x[part.real], y[rows], np.ones((1, 60)), clusters.astype(np.int64)
        )
        assert kid.per_label is not None
        assert kid.per_label[name][0] == pytest.approx(distance[0])
        assert not np.isnan(kid.per_label[name]).any()
    # the shorter the prompt, the better these follow it
    assert auroc.per_label is not None
    values = [auroc.per_label[name][0] for name in NAMES]
    assert values == sorted(values, reverse=True)


def nearest(table: ImagePredictions) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    assert table.judge_images is not None
    assert table.judge_texts is not None
    texts = table.judge_texts / np.linalg.norm(table.judge_texts, axis=1)[:, None]
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = (table.judge_images @ texts.T).argmax(
        axis=1
    ) == table.prompts
    return found


def test_a_record_keeps_thirds_beside_findings_with_their_numbers() -> None:
    found = score(judged([2] * 20 + [5] * 20 + [11] * 20), [LABEL_AUROC], resamples=100)
    per_label = found.metrics["label-auroc"].per_label
    assert per_label is not None
    assert set(per_label) == {"edema", *NAMES}
    assert {name: part.n for name, part in per_label.items()} == {
        "edema": 120, "prompts-short": 40, "prompts-medium": 40, "prompts-long": 40,
    }  # fmt: skip
    assert all(part.ci95[0] <= part.value <= part.ci95[1] for part in per_label.values())
    assert any("prompts-long: 20 of 11 to 11 words" in note for note in found.notes)


def test_without_prompts_there_are_no_thirds() -> None:
    table = judged([2] * 20 + [9] * 20)
    plain = ImagePredictions(None, None, table.prompts, table.given)
    assert thirds(plain).parts == {}
    assert kid_phantom(plain, np.ones((1, 120))).per_label is None
