"""Zero-shot as a difference: what a label adds to a prompt without one."""

from __future__ import annotations

import numpy as np
import pytest

from medbench.errors import PluginError
from medbench.evaluation.zero_shot import zero_shot

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((5, 4))
PROMPTS = [RNG.standard_normal((2, 4)) for _ in range(3)]
NEUTRAL = RNG.standard_normal((2, 4))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def by_hand() -> np.ndarray:
    return np.array(
        [
            [
                sum(cosine(i, p[k]) - cosine(i, NEUTRAL[k]) for k in range(2)) / 2
                for p in PROMPTS
            ]
            for i in IMAGES
        ]
    )  # fmt: skip


def test_scores_are_mean_differences_of_cosines() -> None:
    np.testing.assert_allclose(zero_shot(IMAGES, PROMPTS, False, 0.5, NEUTRAL), by_hand())
    np.testing.assert_allclose(zero_shot(3 * IMAGES, PROMPTS, False, 0.5, 7 * NEUTRAL), by_hand())


def test_several_classes_share_their_neutral_part() -> None:
    scores = zero_shot(IMAGES, PROMPTS, True, 0.5, NEUTRAL)
    weights = np.exp(by_hand() / 0.5)
    np.testing.assert_allclose(scores, weights / weights.sum(axis=1, keepdims=True))


def test_images_that_like_every_text_are_not_ranked_first() -> None:
    """The point of it: without a neutral prompt the first image would win by its neutral part."""
    neutral, label = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])
    images = np.array([[1.0, 0.1], [0.3, 1.0]])
    plain = zero_shot(images, [label], False, 1.0)[:, 0]
    assert abs(plain[1] - plain[0]) < 0.3
    found = zero_shot(images, [label], False, 1.0, neutral)[:, 0]
    assert found[0] < 0 < found[1]


@pytest.mark.parametrize(
    "neutral",
    [np.ones((1, 4)), np.ones((2, 3)), np.ones(4), np.zeros((2, 4)), np.full((2, 4), np.nan)],
)
def test_neutral_prompts_that_do_not_fit(neutral: np.ndarray) -> None:
    with pytest.raises(PluginError):
        zero_shot(IMAGES, PROMPTS, False, 0.5, neutral)
