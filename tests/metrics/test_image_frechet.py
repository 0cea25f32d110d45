"""Frechet distance against scipy, torchmetrics, explicit loops and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_tables import features, on_phantom, resamples

from medbench.metrics import image_frechet as metrics
from medbench.metrics import image_kernel
from medbench.metrics.values import FloatArray


def by_matrix_root(x: FloatArray, y: FloatArray) -> float:
    from scipy.linalg import sqrtm

    gap = x.mean(axis=0) - y.mean(axis=0)
    one, other = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.trace(sqrtm(one @ other)).real
    return float(gap @ gap + np.trace(one) + np.trace(other) - 2 * root)


SHAPES = [(200, 150, 12), (40, 30, 64), (300, 40, 64), (40, 300, 64), (66, 65, 64), (64, 64, 64)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("real", "generated", "width"), SHAPES)
def test_frechet_distance_agrees_with_the_matrix_root(
    seed: int, real: int, generated: int, width: int
) -> None:
    x, y = features(seed, real, generated, width)
    # scipy's root of a singular product is itself good to about 1e-8
    assert metrics.frechet(x, y) == pytest.approx(by_matrix_root(x, y), rel=1e-6)


def test_frechet_distance_agrees_with_torchmetrics() -> None:
    import torch
    from torchmetrics.image.fid import _compute_fid

    x, y = features(5, 300, 200, 16)
    parts = [torch.tensor(p) for z in (x, y) for p in (z.mean(0), np.cov(z, rowvar=False))]
    assert metrics.frechet(x, y) == pytest.approx(float(_compute_fid(*parts)), rel=1e-9)


def test_frechet_distance_of_known_gaussians() -> None:
    # exact moments: whitened, then scaled by 3 and moved by 2 along each of 4 axes
    raw = np.random.default_rng(0).normal(size=(50, 4))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    assert metrics.frechet(white, 3 * white + 2) == pytest.approx(4 * 4 + 4 * (3 - 1) ** 2)


@pytest.mark.parametrize(("real", "width"), [(200, 12), (40, 64)])
def test_frechet_distance_from_stored_moments_is_that_of_the_features(
    real: int, width: int
) -> None:
    x, y = features(11, real, real, width)
    stored = [part for z in (x, y) for part in (z.mean(axis=0), np.cov(z, rowvar=False))]
    # a singular covariance alone knows its zeros to rounding only
    assert metrics.frechet_of_moments(*stored) == pytest.approx(metrics.frechet(x, y), rel=1e-6)


@pytest.mark.parametrize(("real", "width"), [(200, 10), (20, 50)])
def test_frechet_distance_of_a_set_to_itself_is_zero(real: int, width: int) -> None:
    x, _ = features(1, real, 5, width)
    assert metrics.frechet(x, x) == pytest.approx(0, abs=1e-10)


def test_frechet_distance_grows_with_added_noise() -> None:
    x, _ = features(3, 300, 5, 8)
    noise = np.random.default_rng(4).normal(size=x.shape)
    found = [metrics.frechet(x, x + level * noise) for level in (0, 0.1, 0.3, 1, 3)]
    assert found[0] == pytest.approx(0, abs=1e-10)
    assert found == sorted(set(found))


def test_features_that_never_vary_or_repeat_each_other_lose_no_digits() -> None:
    x, y = features(2, 400, 300, 12)
    expected = metrics.frechet(x, y)
    never = np.zeros((400, 5)), np.zeros((300, 5))
    padded = [np.hstack([z, n + 7.5]) for z, n in zip((x, y), never, strict=True)]
    assert metrics.frechet(*padded) == pytest.approx(expected, rel=1e-10)
    # each feature twice: means, traces and roots all double
    assert metrics.frechet(np.hstack([x, x]), np.hstack([y, y])) == pytest.approx(
        2 * expected, rel=1e-10
    )
    # one unit fires for generated images only
    dead = np.hstack([x, np.zeros((400, 1))]), np.hstack([y, y[:, :1]])
    alone = y[:, 0]
    assert metrics.frechet(*dead) == pytest.approx(
        expected + alone.mean() ** 2 + alone.var(ddof=1), rel=1e-10
    )


def test_far_from_the_origin_nothing_is_lost() -> None:
    x, y = features(3, 300, 300, 8)
    assert metrics.frechet(x + 1e6, y + 1e6) == pytest.approx(metrics.frechet(x, y), rel=1e-8)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    real=st.integers(2, 40),
    generated=st.integers(2, 40),
    width=st.integers(1, 12),
)
def test_frechet_distance_is_symmetric_and_does_not_turn(
    seed: int, real: int, generated: int, width: int
) -> None:
    x, y = features(seed, real, generated, width)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))
    value = metrics.frechet(x, y)
    assert value >= 0
    assert metrics.frechet(y, x) == pytest.approx(value, rel=1e-6, abs=1e-9)
    assert metrics.frechet(x @ turn, y @ turn) == pytest.approx(value, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("real", "generated", "width"), [(90, 70, 6), (30, 40, 50), (80, 20, 30)])
def test_the_jackknife_is_that_of_recomputing_without_each_group(
    real: int, generated: int, width: int
) -> None:
    from scipy.stats import t

    x, y = features(4, real, generated, width)
    clusters = np.concatenate([np.arange(real) // 2, 1000 + np.arange(generated) // 4])
    groups = 5
    dealt = np.concatenate([(np.arange(real) // 2) % groups, (np.arange(generated) // 4) % groups])
    left = np.array(
        [metrics.frechet(x[dealt[:real] != k], y[dealt[real:] != k]) for k in range(groups)]
    )
    error = np.sqrt((groups - 1) * left.var())
    value = metrics.frechet(x, y)
    found = metrics.frechet_interval(x, y, clusters, groups)
    reach = t.ppf(0.975, groups - 1) * error
    assert found == pytest.approx((max(value - reach, 0), value + reach), rel=1e-5)


def test_a_cluster_of_both_sides_leaves_both_together() -> None:
    x, y = features(6, 40, 40, 3)
    paired = np.tile(np.arange(40), 2)
    left = [metrics.frechet(np.delete(x, k, 0), np.delete(y, k, 0)) for k in range(40)]
    found = metrics.frechet_interval(x, y, paired, 40)
    assert found is not None
    reach = 2.0226909 * np.sqrt(39 * np.var(left))  # t(39) at .975
    assert found[1] - metrics.frechet(x, y) == pytest.approx(reach, rel=1e-6)


@pytest.mark.parametrize(("images", "width"), [(160, 6), (60, 80)])
def test_the_jackknife_interval_covers_the_mean_distance_at_this_size(
    images: int, width: int
) -> None:
    rng = np.random.default_rng(0)
    scale = 1 / (1 + np.arange(width))
    values, intervals = [], []
    for _ in range(150):
        prompts = images // 4
        # four images of a prompt share most of what they are
        shared = np.repeat(rng.normal(size=(prompts, width)), 4, axis=0)
        y = (0.8 * shared + 0.6 * rng.normal(size=(images, width))) * scale + 0.3
        x = rng.normal(size=(images, width)) * scale
        clusters = np.concatenate([np.arange(images), images + np.repeat(np.arange(prompts), 4)])
        values.append(metrics.frechet(x, y))
        interval = metrics.frechet_interval(x, y, clusters)
        assert interval is not None
        intervals.append(interval)
    low, high = np.array(intervals).T
    covered = np.mean((low <= np.mean(values)) & (np.mean(values) <= high))
    assert 0.90 <= covered <= 0.99


def test_the_metric_gives_value_interval_and_names_what_is_small() -> None:
    x, y = features(7, 60, 48, 64)
    table = on_phantom(x, y, np.repeat(np.arange(12), 4))
    found = metrics.fid_phantom(table, resamples(table))
    assert found.value[0] == metrics.frechet(x, y)
    assert np.isnan(found.value[1:]).all()
    assert found.interval is not None
    assert found.interval[0] < found.value[0] < found.interval[1]
    assert found.reason is not None
    assert "interval from 12 groups" in found.reason
    assert "48 images in 64 dimensions" in found.reason


def test_the_interval_does_not_depend_on_the_order_of_rows() -> None:
    x, y = features(8, 50, 40, 5)
    table = on_phantom(x, y, np.repeat(np.arange(20), 2))
    weights = resamples(table)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(50), rng.permutation(40)
    other = on_phantom(x[rows], y[columns], np.repeat(np.arange(20), 2)[columns])
    moved = weights[:, np.concatenate([rows, 50 + columns])]
    first = metrics.fid_phantom(table, weights).interval
    assert metrics.fid_phantom(other, moved).interval == pytest.approx(first, rel=1e-9)


def test_counts_in_the_first_row_stand_for_repeated_images() -> None:
    x, y = features(9, 30, 25, 4)
    counts = np.random.default_rng(0).integers(0, 4, 55)
    repeated = metrics.frechet(np.repeat(x, counts[:30], 0), np.repeat(y, counts[30:], 0))
    weighted = metrics.fid_phantom(on_phantom(x, y), counts[None].astype(float))
    assert weighted.value[0] == pytest.approx(repeated, rel=1e-10)


@pytest.mark.parametrize(("real", "generated"), [(1, 30), (30, 1)])
def test_one_image_on_a_side_has_no_distance(real: int, generated: int) -> None:
    table = on_phantom(*features(0, real, generated, 3))
    for metric in (metrics.fid_phantom, image_kernel.kid_phantom):
        found = metric(table, resamples(table))
        assert np.isnan(found.value).all()
        assert found.reason == (
            f"needs two real and two generated images; there are {real} and {generated}"
        )


@pytest.mark.parametrize("prompts", [None, [0, 0]])
def test_a_distance_without_an_interval_is_not_given(prompts: list[int] | None) -> None:
    table = on_phantom(*features(0, 30, 2, 3), prompts)
    found = metrics.fid_phantom(table, resamples(table))
    assert np.isnan(found.value).all()
    assert found.reason == "too few patients or prompts for an interval"
