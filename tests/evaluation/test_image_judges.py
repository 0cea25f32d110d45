"""The judges of generated images: a space of images and prompts, and looking up by words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medbench.errors import DataError
from medbench.evaluation.alignment_judge import AlignmentJudge, train_judge
from medbench.evaluation.fine_tune import Schedule, fine_tune
from medbench.evaluation.nearest_image import nearest_images
from medbench.evaluation.nearest_prompt import nearest_texts
from medbench.evaluation.phantom_backbone import PhantomBackbone, PhantomJudge
from medbench.metrics.values import FloatArray
from medbench.run.judges import PixelRows

WORDS = ("effusion", "edema", "pacemaker", "fracture")


def pairs(seed: int, count: int) -> tuple[FloatArray, list[str]]:
    """Features that tell which of four words a text holds."""
    rng = np.random.default_rng(seed)
    has = rng.random((count, 4)) < 0.5
    texts = ["there is " + " ".join(np.array(WORDS)[row]) + " today" for row in has]
    return has @ np.eye(4, 6) + 0.1 * rng.normal(size=(count, 6)), texts


def test_the_space_brings_an_image_to_its_own_words_and_repeats_itself() -> None:
    features, texts = pairs(0, 200)
    val, val_texts = pairs(1, 60)
    before = torch.random.get_rng_state()
    weights = train_judge(features, texts, val, val_texts)
    assert torch.equal(torch.random.get_rng_state(), before)
    again = train_judge(features, texts, val, val_texts)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    judge = AlignmentJudge.of(weights)
    unseen, unseen_texts = pairs(2, 100)
    different = sorted(set(unseen_texts))
    near = judge.embed_images(unseen) @ judge.embed_texts(different).T
    first = np.array(different)[near.argmax(axis=1)]
    assert np.mean(first == np.array(unseen_texts)) > 0.6 > 3 / len(different)
    assert np.linalg.norm(judge.embed_images(unseen), axis=1) == pytest.approx(1, abs=1e-6)


def test_equal_prompts_have_equal_vectors_wherever_they_stand() -> None:
    judge = AlignmentJudge.of(train_judge(*pairs(0, 20), *pairs(1, 20)))
    texts = ["edema", "no effusion is seen", "edema", "fracture"]
    found = judge.embed_texts(texts)
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(judge.embed_texts(["edema"])[0], found[0]) or found[0] == pytest.approx(
        judge.embed_texts(["edema"])[0], abs=1e-6
    )


def test_a_prompt_without_text_and_a_part_without_pairs_are_refused() -> None:
    features, texts = pairs(0, 20)
    with pytest.raises(DataError, match="Prompt 3 of 20 has no text"):
        train_judge(features, [*texts[:3], " ", *texts[4:]], *pairs(1, 20))
    with pytest.raises(DataError, match="there are 20 and 1"):
        train_judge(features, texts, features[:1], texts[:1])


def test_the_nearest_text_is_that_of_most_rare_words() -> None:
    texts = ["no acute disease", "large left effusion", "heart is large", "left effusion, edema"]
    prompts = ["small effusion and edema", "No acute disease.", "unheard-of words"]
    assert nearest_texts(prompts, texts).tolist() == [3, 0, 0]
    assert nearest_texts(prompts * 200, texts).tolist() == [3, 0, 0] * 200  # in blocks
    with pytest.raises(DataError, match="None of 2 texts has a word"):
        nearest_texts(prompts, ["", "..."])


def test_the_judge_has_the_scores_of_the_classifier_that_was_trained() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((60, 2)) < 0.5).astype(float)
    level = 60 + 90 * y[:, :1, None] + np.zeros((60, 32, 32))
    pixels = (level + rng.normal(scale=20, size=level.shape)).clip(0, 255).astype(np.uint8)
    rows = np.arange(60)
    torch.manual_seed(0)
    network = PhantomBackbone()
    found = fine_tune(
        network, [network], PixelRows(pixels), y, rows[:30], rows[30:45], rows[45:], False, 0,
        torch.device("cpu"), schedule=Schedule(backbone_rate=1e-3, head_rate=1e-3, epochs=3),
    )  # fmt: skip
    judge = PhantomJudge(found.weights)
    scores = judge.scores(judge.features(pixels[45:]))
    assert scores == pytest.approx(found.scores, abs=1e-5)
    assert scores[y[45:, 0] == 1, 0].mean() > scores[y[45:, 0] == 0, 0].mean()


def test_the_nearest_image_is_that_of_brute_force_and_a_copy_is_at_zero() -> None:
    rng = np.random.default_rng(3)
    images, training = rng.normal(size=(50, 7)), rng.normal(size=(80, 7))
    images[4] = training[11]
    rows, distance = nearest_images(images, training)
    every = np.linalg.norm(images[:, None] - training[None], axis=2)
    assert np.array_equal(rows, every.argmin(axis=1))
    assert distance == pytest.approx(every.min(axis=1))
    assert distance[4] == 0
    with pytest.raises(DataError, match="no training image"):
        nearest_images(images, training[:0])
