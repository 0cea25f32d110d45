"""Alignment of images with their prompts, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from image_tables import features

from medbench.evaluation.image_predictions import ImagePredictions
from medbench.metrics.image_alignment import (
    Matching,
    alignment_recall_1,
    alignment_recall_5,
    alignment_recall_10,
    chance,
    image_recall_1,
    image_recall_5,
    image_recall_10,
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


def beside_real(
    images: FloatArray, real: FloatArray, prompts: object, own: object, texts: int
) -> ImagePredictions:
    """Images and real ones of numbered prompts, of which equal numbers modulo ``texts`` are equal
    texts."""
    numbers, owners = (np.asarray(some, np.int64) for some in (prompts, own))
    count = int(max(numbers.max(), owners.max())) + 1
    words = np.random.default_rng(9).normal(size=(texts, images.shape[1]))
    given = {"phantom": features(0, len(real), len(images), 2)}
    return ImagePredictions(
        None, None, numbers, given, judge_images=images, judge_real=real,
        judge_texts=words[np.arange(count) % texts], real_prompts=owners,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_an_image_recalls_real_ones_of_its_prompt_or_an_equal_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(40, 4))
    prompts = np.repeat(np.arange(40), 2)
    images = real[prompts] + rng.normal(size=(80, 4))
    table = beside_real(images, real, prompts, np.arange(40), 25)  # prompts 25 to 39 repeat others
    near = cosines(images, real)
    first = np.argsort(-near, axis=1)
    weights = np.concatenate([np.ones((2, 40)), rng.integers(0, 3, (2, 80))], axis=1)
    mine = weights[:, 40:]
    for metric, k in ((image_recall_1, 1), (image_recall_5, 5), (image_recall_10, 10)):
        hit = (first[:, :k] % 25 == (prompts % 25)[:, None]).any(axis=1)
        found = metric(table, weights)
        assert found.value == pytest.approx((mine @ hit) / mine.sum(axis=1))
        assert found.reason is not None
        assert found.reason.startswith("40 real images, chance is 0.")


def test_the_real_images_themselves_recall_themselves_and_others_are_at_chance() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(60, 5))
    perfect = beside_real(real, real, np.arange(60), np.arange(60), 60)
    assert image_recall_1(perfect, np.ones((1, 120))).value[0] == 1
    blind = beside_real(np.ones((60, 5)), real, np.arange(60), np.arange(60), 60)
    found = image_recall_10(blind, np.ones((1, 120)))
    assert found.value[0] == pytest.approx(10 / 60)
    assert found.reason == "60 real images, chance is 0.1667"


def test_chance_is_that_of_drawing_candidates_without_looking() -> None:
    rng = np.random.default_rng(1)
    queries, candidates = rng.integers(0, 6, 40), rng.integers(0, 5, 30)  # nothing matches 5
    nothing = np.zeros((1, 1))
    drawn = np.array([rng.permutation(candidates)[:4] for _ in range(4000)])
    hit = [np.mean((drawn == q).any(axis=1)) for q in queries.tolist() if q < 5]
    found = chance(Matching(nothing, np.zeros((30, 1)), queries, candidates), 4)
    assert found == pytest.approx(np.mean(hit), abs=0.01)


def test_real_images_of_other_prompts_are_candidates_alone() -> None:
    rng = np.random.default_rng(2)
    real = rng.normal(size=(30, 4))
    own = np.where(np.arange(30) < 20, np.arange(30), -1)
    some = beside_real(real[:25], real, np.arange(25), own, 25)
    found = image_recall_1(some, np.ones((1, 55)))
    assert found.value[0] == 1
    assert found.reason is not None
    assert found.reason.endswith("; images of prompts without a real image, left out: 5")
    none = beside_real(real[:25], real, np.arange(25), np.full(30, -1), 25)
    assert image_recall_1(none, np.ones((1, 55))).reason == (
        "none of the real images is of a prompt that was drawn from"
    )


def test_without_real_images_in_the_space_image_recall_is_absent() -> None:
    rng = np.random.default_rng(3)
    plain = table(rng.normal(size=(9, 3)), rng.normal(size=(9, 3)), np.arange(9))
    assert image_recall_1(plain, np.ones((1, 12))).reason == (
        "there are no generated and real images of known prompts in one space"
    )
    real = rng.normal(size=(9, 3))
    few = beside_real(real, real, np.arange(9), np.arange(9), 9)
    assert image_recall_10(few, np.ones((1, 18))).reason == (
        "recall at 10 needs more than 10 real images; there are 9"
    )
