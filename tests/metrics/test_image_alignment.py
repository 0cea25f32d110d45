"""Alignment of images with their prompts, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from image_tables import features

from medbench.evaluation.image_predictions import ImagePredictions
from medbench.metrics.image_alignment import (
    alignment_recall_1,
    alignment_recall_5,
    alignment_recall_10,
)
from medbench.metrics.values import FloatArray


def table(images: FloatArray, texts: FloatArray, prompts: object) -> ImagePredictions:
    given = {"phantom": features(0, 3, len(images), 2)}
    numbers = np.asarray(prompts, np.int64)
    return ImagePredictions(None, None, numbers, given, judge_images=images, judge_texts=texts)


def cosines(images: FloatArray, texts: FloatArray) -> FloatArray:
    found: FloatArray = (images / np.linalg.norm(images, axis=1)[:, None]) @ (
        texts / np.linalg.norm(texts, axis=1)[:, None]
    ).T
    return found


@pytest.mark.parametrize("seed", range(3))
def test_an_image_is_aligned_when_its_prompt_is_among_the_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(30, 4))
    prompts = np.repeat(np.arange(30), 2)
    images = texts[prompts] + rng.normal(size=(60, 4))
    near = cosines(images, texts)
    rank = (near > near[np.arange(60), prompts][:, None]).sum(axis=1)
    weights = np.concatenate([np.ones((2, 3)), rng.integers(0, 3, (2, 60))], axis=1)
    for metric, k in ((alignment_recall_1, 1), (alignment_recall_5, 5), (alignment_recall_10, 10)):
        found = metric(table(images, texts, prompts), weights)
        mine = weights[:, 3:]
        assert found.value == pytest.approx((mine @ (rank < k)) / mine.sum(axis=1))
        assert found.reason == f"30 different prompts, chance is {k / 30:.4f}"


def test_equal_prompts_count_as_one() -> None:
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(12, 4))
    images = texts + 0.7 * rng.normal(size=(12, 4))
    doubled = np.concatenate([texts, texts])
    once = alignment_recall_5(table(images, texts, np.arange(12)), np.ones((1, 15)))
    # the second half of the images names its prompts by their second place
    twice = alignment_recall_5(
        table(np.concatenate([images, images]), doubled, np.arange(24)), np.ones((1, 27))
    )
    assert twice.value == pytest.approx(once.value)
    assert twice.reason == once.reason


def test_a_judge_that_sees_nothing_gives_chance() -> None:
    texts = np.ones((20, 3)) * np.arange(1, 21)[:, None]  # one direction, twenty prompts
    found = alignment_recall_5(table(np.ones((20, 3)), texts, np.arange(20)), np.ones((1, 23)))
    assert found.value[0] == pytest.approx(5 / 20)


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    texts, prompts = rng.normal(size=(15, 3)), rng.integers(0, 15, 40)
    images = rng.normal(size=(40, 3))
    rows = rng.permutation(40)
    moved = table(images[rows], texts, prompts[rows])
    assert alignment_recall_5(moved, np.ones((1, 43))).value == pytest.approx(
        alignment_recall_5(table(images, texts, prompts), np.ones((1, 43))).value
    )


def test_too_few_prompts_and_no_judge_are_absent_with_their_reason() -> None:
    rng = np.random.default_rng(2)
    few = table(rng.normal(size=(9, 3)), rng.normal(size=(9, 3)), np.arange(9))
    assert not np.isnan(alignment_recall_5(few, np.ones((1, 12))).value).any()
    found = alignment_recall_10(few, np.ones((2, 12)))
    assert np.isnan(found.value).all()
    assert found.reason == "recall at 10 needs more than 10 different prompts; there are 9"
    plain = ImagePredictions(None, None, np.arange(4), {"phantom": features(0, 3, 4, 2)})
    absent = alignment_recall_1(plain, np.ones((1, 7)))
    assert absent.reason == "there are no images and prompts in an independent space"
