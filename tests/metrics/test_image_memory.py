"""The share of memorised images: new ones have one in twenty, copies all of them."""

from __future__ import annotations

import numpy as np
import pytest
from image_tables import features, resamples

from medbench.evaluation.image_predictions import ImagePredictions
from medbench.evaluation.nearest_image import nearest_images
from medbench.metrics.image_memory import memorised_share, percentile
from medbench.metrics.values import FloatArray


def table(generated: FloatArray, real: FloatArray) -> ImagePredictions:
    given = {"phantom": features(0, len(real), len(generated), 3)}
    return ImagePredictions(
        None, None, np.arange(len(generated)) // 2, given,
        train_distances=generated, real_train_distances=real,
    )  # fmt: skip


def test_new_images_of_the_same_kind_have_one_in_twenty_and_copies_all() -> None:
    rng = np.random.default_rng(0)
    train, real, fresh = (rng.normal(size=(n, 6)) for n in (500, 400, 400))
    distances = {
        name: nearest_images(some, train)[1]
        for name, some in {
            "real": real,
            "fresh": fresh,
            "copies": train[:400],
            "far": fresh + 9,
        }.items()
    }
    shares = {}
    for name, found in distances.items():
        some = table(found, distances["real"])
        values = memorised_share(some, resamples(some, 300)).value
        low, high = np.quantile(values[1:], (0.025, 0.975))
        assert low <= values[0] <= high
        shares[name] = (values[0], low, high)
    assert shares["real"][0] == pytest.approx(0.05)
    assert shares["fresh"][1] < 0.05 < shares["fresh"][2]
    assert shares["copies"] == (1, 1, 1)
    assert shares["far"] == (0, 0, 0)


def test_the_limit_is_the_inverted_percentile_and_moves_with_the_weights() -> None:
    rng = np.random.default_rng(1)
    values = rng.random(47)
    counts = rng.integers(0, 4, (30, 47))
    found = percentile(values, counts.astype(float), 0.05)
    expected = [np.quantile(np.repeat(values, row), 0.05, method="inverted_cdf") for row in counts]
    assert found == pytest.approx(expected, abs=0)
    assert np.isnan(percentile(values, np.zeros((1, 47)), 0.05)).all()


def test_weights_stand_for_repeated_images() -> None:
    rng = np.random.default_rng(2)
    generated, real = rng.random(60), rng.random(40)
    counts = rng.integers(0, 3, 100)
    limit = np.quantile(np.repeat(real, counts[:40]), 0.05, method="inverted_cdf")
    expected = (np.repeat(generated, counts[40:]) <= limit).mean()
    found = memorised_share(table(generated, real), counts[None].astype(float))
    assert found.value[0] == pytest.approx(expected)


def test_copies_are_found_although_real_images_repeat_training_images() -> None:
    found = memorised_share(table(np.zeros(30), np.zeros(25)), np.ones((1, 55)))
    assert found.value[0] == 1


def test_it_says_how_near_images_are_and_why_it_is_absent() -> None:
    some = table(np.full(30, 2.0), np.arange(1, 101) / 10)
    found = memorised_share(some, np.ones((1, 130)))
    assert found.reason == (
        "median distance to the nearest training image 2, of the real test images 5.05 and their "
        "5th percentile 0.5"
    )
    few = memorised_share(table(np.ones(4), np.ones(19)), np.ones((2, 23)))
    assert np.isnan(few.value).all()
    assert few.reason == "its percentile needs 20 real images; there are 19"
    plain = ImagePredictions(None, None, None, {"phantom": features(0, 30, 4, 2)})
    assert memorised_share(plain, np.ones((1, 34))).reason == (
        "there are no distances to training images"
    )
