"""Kernel distance against torchmetrics, explicit sums over pairs and simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_tables import features, on_phantom, resamples

from medbench.evaluation.image_predictions import ImagePredictions
from medbench.metrics import image_kernel as metrics
from medbench.metrics.values import FloatArray


@pytest.mark.parametrize(("seed", "count", "width"), [(0, 20, 5), (1, 64, 200), (2, 1500, 8)])
def test_kernel_distance_agrees_with_torchmetrics(seed: int, count: int, width: int) -> None:
    import torch
    from torchmetrics.image.kid import KernelInceptionDistance

    x, y = features(seed, count, count, width)
    reference = KernelInceptionDistance(
        feature=torch.nn.Identity(), subsets=1, subset_size=count
    ).set_dtype(torch.float64)
    reference.update(torch.tensor(x), real=True)
    reference.update(torch.tensor(y), real=False)
    found = metrics.kid_phantom(on_phantom(x, y), np.ones((1, 2 * count)))
    assert found.value[0] == pytest.approx(float(reference.compute()[0]), rel=1e-6, abs=1e-12)


def by_pairs(x: FloatArray, y: FloatArray, u: Any, v: Any, cu: Any, cv: Any) -> float:
    """The weighted U statistic written out: copies of a cluster never meet."""

    def mean(a: FloatArray, b: FloatArray, p: Any, q: Any, ca: Any, cb: Any, same: bool) -> float:
        total = pairs = 0.0
        for i in range(len(a)):
            for j in range(len(b)):
                if same and i == j:
                    continue
                share = p[i] if ca[i] == cb[j] else p[i] * q[j]
                total += share * (a[i] @ b[j] / a.shape[1] + 1) ** 3
                pairs += share
        return total / pairs if pairs else float("nan")

    within = mean(x, x, u, u, cu, cu, True) + mean(y, y, v, v, cv, cv, True)
    return within - 2 * mean(x, y, u, v, cu, cv, False)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), shared=st.booleans(), block=st.sampled_from([3, 1024]))
def test_weighted_kernel_distance_is_the_sum_over_pairs(
    seed: int, shared: bool, block: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = features(seed, 9, 7, 4)
    clusters = rng.integers(0, 5, 16)
    if not shared:
        clusters[9:] += 100
    counts = rng.integers(0, 3, (4, 200)).astype(float)
    weights = np.stack([np.ones(16), *(row[clusters] for row in counts)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BLOCK", block)
        found = metrics.kernel_distance(x, y, weights, clusters)
    for row, value in zip(weights, found, strict=True):
        expected = by_pairs(x, y, row[:9], row[9:], clusters[:9], clusters[9:])
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


def test_resamples_are_centred_on_the_value_though_images_of_a_prompt_are_alike() -> None:
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(40), 4)
    y = rng.normal(size=(40, 8))[prompts] + 0.05 * rng.normal(size=(160, 8))
    x = rng.normal(size=(160, 8))
    table = on_phantom(x, y, prompts)
    weights = resamples(table, 1000)
    value = metrics.kid_phantom(table, weights).value
    spread = value[1:].std()
    assert abs(value[1:].mean() - value[0]) < 0.15 * spread
    # paired with their own copies, which a plain weighted mean does, they are off to one side
    naive = metrics.kernel_distance(x, y, weights, np.arange(320))
    assert naive[1:].mean() - value[0] > 0.3 * spread


def test_kernel_distance_between_halves_of_one_set_averages_zero() -> None:
    rng = np.random.default_rng(1)
    values = []
    for _ in range(200):
        x, y = rng.normal(size=(2, 30, 6))
        values.append(metrics.kernel_distance(x, y, np.ones((1, 60)), np.arange(60))[0])
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
    assert min(values) < 0


def test_a_resample_of_one_image_has_no_kernel_distance() -> None:
    x, y = features(0, 3, 3, 2)
    weights = np.array([[1, 1, 1, 1, 1, 1], [3, 0, 0, 1, 1, 1]], float)
    found = metrics.kernel_distance(x, y, weights, np.arange(6))
    assert np.isnan(found).tolist() == [False, True]


# Per finding


def with_findings(seed: int, real: int, generated: int) -> ImagePredictions:
    rng = np.random.default_rng(seed)
    x, y = features(seed, real, generated, 5)
    return ImagePredictions(
        None,
        None,
        np.arange(generated) // 2,
        {"phantom": (x, y)},
        label_names=("common", "rare"),
        labels=np.stack([rng.random(generated) < 0.5, np.arange(generated) < 8], 1).astype(float),
        real_labels=np.stack([rng.random(real) < 0.5, rng.random(real) < 0.5], 1).astype(float),
    )


def test_the_value_of_a_finding_is_that_of_its_images_alone() -> None:
    table = with_findings(0, 120, 80)
    assert table.labels is not None
    assert table.real_labels is not None
    weights = resamples(table, 60)
    found = metrics.kid_phantom(table, weights)
    real = table.real_labels[:, 0] == 1
    generated = table.labels[:, 0] == 1
    x, y = table.given["phantom"]
    alone = ImagePredictions(
        None,
        None,
        None if table.prompts is None else table.prompts[generated],
        {"phantom": (x[real], y[generated])},
    )
    expected = metrics.kid_phantom(alone, weights[:, np.concatenate([real, generated])])
    assert found.per_label is not None
    assert found.per_label["common"] == pytest.approx(expected.value, nan_ok=True)
    # the whole is untouched by labels
    plain = ImagePredictions(None, None, table.prompts, table.given)
    assert found.value == pytest.approx(metrics.kid_phantom(plain, weights).value)


def test_a_finding_with_fewer_than_twenty_images_has_no_value_and_is_counted() -> None:
    found = metrics.kid_phantom(with_findings(1, 120, 80), np.ones((1, 200)))
    assert found.per_label is not None
    assert set(found.per_label) == {"common"}
    assert found.reason is not None
    assert "fewer than 20 real images" in found.reason
    assert "and 8)" in found.reason


def test_without_labels_there_is_no_value_per_finding() -> None:
    assert (
        metrics.kid_phantom(on_phantom(*features(2, 30, 30, 4)), np.ones((1, 60))).per_label is None
    )
