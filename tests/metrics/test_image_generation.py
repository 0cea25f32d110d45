"""Image-generation metrics against scipy, torchmetrics, explicit loops and simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.errors import WeightsError
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.metrics import backbones
from medbench.metrics import image_generation as metrics
from medbench.metrics.cards import card_sha256
from medbench.metrics.image_cards import FID, IMAGE_GENERATION, KID
from medbench.metrics.values import FloatArray
from medbench.statistics.bootstrap import patient_weights

BETAS = (0.0448, 0.2856, 0.3001)


def features(
    seed: int, real: int, generated: int, width: int, shift: float = 0.5
) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(width, width)) / np.sqrt(width)
    x = rng.normal(size=(real, width)) @ mix
    y = rng.normal(size=(generated, width)) @ (mix + 0.3 * np.eye(width)) + shift
    return x, y


def on_phantom(
    x: FloatArray, y: FloatArray, prompts: Any = None, backbone: str = "phantom"
) -> ImagePredictions:
    numbers = None if prompts is None else np.asarray(prompts, np.int64)
    return ImagePredictions(None, None, numbers, {backbone: (x, y)})


def resamples(table: ImagePredictions, count: int = 200, seed: int = 0) -> FloatArray:
    drawn = patient_weights(table.patients, count, seed)
    return np.concatenate([np.ones((1, drawn.shape[1])), drawn])


def pictures(seed: int, count: int, height: int, width: int | None = None) -> Any:
    """Smooth random pictures with noise: uint8 [count, height, width]."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    shape = (count, height, width or height)
    smooth = gaussian_filter(rng.normal(size=shape), (0, 6, 6)) * 900 + 128
    return np.clip(smooth + rng.normal(scale=12, size=shape), 0, 255).astype(np.uint8)


# Frechet distance


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
    for metric in (metrics.fid_phantom, metrics.kid_phantom):
        found = metric(table, resamples(table))
        assert np.isnan(found.value).all()
        assert found.reason == "needs two real and two generated images"


@pytest.mark.parametrize("prompts", [None, [0, 0]])
def test_a_distance_without_an_interval_is_not_given(prompts: list[int] | None) -> None:
    table = on_phantom(*features(0, 30, 2, 3), prompts)
    found = metrics.fid_phantom(table, resamples(table))
    assert np.isnan(found.value).all()
    assert found.reason == "too few patients or prompts for an interval"


# Kernel distance


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


# Diversity


@pytest.mark.parametrize("size", [(176, 176), (201, 187), (256, 256)])
def test_pairwise_ms_ssim_agrees_with_torchmetrics(size: tuple[int, int]) -> None:
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms

    images = pictures(0, 3, *size)
    found = metrics.pairwise_ms_ssim(images)
    exact = torch.tensor(images, dtype=torch.float64)[:, None]
    for i in range(3):
        for j in range(3):
            expected = float(ms(exact[i : i + 1], exact[j : j + 1], data_range=255.0))
            assert found[i, j] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(44, 44), (64, 81), (128, 128)])
def test_three_scales_agree_with_torchmetrics(size: tuple[int, int]) -> None:
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms

    betas = tuple(b / sum(BETAS) for b in BETAS)
    images = pictures(1, 2, *size)
    exact = torch.tensor(images, dtype=torch.float64)[:, None]
    expected = float(ms(exact[:1], exact[1:], data_range=255.0, betas=betas))
    assert metrics.pairwise_ms_ssim(images, 3)[0, 1] == pytest.approx(expected, abs=1e-5)


def test_extreme_images_agree_with_torchmetrics() -> None:
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms

    base = pictures(2, 1, 180)[0]
    board = (np.indices((180, 180)).sum(axis=0) % 2 * 255).astype(np.uint8)
    flat = np.zeros((180, 180), np.uint8)
    images = np.stack([base, 255 - base, board, 255 - board, flat, flat + 255, flat])
    found = metrics.pairwise_ms_ssim(images)
    exact = torch.tensor(images, dtype=torch.float64)[:, None]
    for i in range(len(images)):
        for j in range(i):
            expected = float(ms(exact[i : i + 1], exact[j : j + 1], data_range=255.0))
            assert found[i, j] == pytest.approx(expected, abs=1e-5), (i, j)
    assert found[0, 1] == 0  # a negative picture: contrast is opposite, counted as none
    assert found[4, 6] == 1


def test_diversity_is_the_mean_over_prompts_of_the_mean_over_pairs() -> None:
    images = pictures(3, 9, 64)
    images[4] = images[3]
    prompts = np.array([7, 7, 7, 2, 2, 5, 7, 9, 9])
    table = ImagePredictions(images[:3], images, prompts)
    first = metrics.pairwise_ms_ssim(images[[0, 1, 2, 6]], 3)[np.triu_indices(4, 1)].mean()
    third = metrics.pairwise_ms_ssim(images[7:], 3)[0, 1]
    weights = np.ones((2, 12))
    weights[1, 3 + np.flatnonzero(prompts == 7)] = 2
    weights[1, 3 + np.flatnonzero(prompts == 9)] = 0
    found = metrics.ms_ssim_3(table, weights)
    assert found.value == pytest.approx([(first + 1 + third) / 3, (2 * first + 1) / 3], abs=1e-6)
    assert found.reason == "prompts with one image, left out of the mean: 1"


def test_of_more_than_four_images_content_chooses_four() -> None:
    images = pictures(4, 7, 48)
    order = np.random.default_rng(0).permutation(7)
    first, second = (
        metrics.ms_ssim_3(
            ImagePredictions(images[:1], some, np.zeros(7, np.int64)), np.ones((1, 8))
        ).value[0]
        for some in (images, images[order])
    )
    assert first == pytest.approx(second, abs=1e-7)
    among = metrics.pairwise_ms_ssim(images, 3)
    from itertools import combinations

    means = [
        among[np.ix_(four, four)][np.triu_indices(4, 1)].mean()
        for four in combinations(range(7), 4)
    ]
    assert min(abs(m - first) for m in means) < 1e-6


@pytest.mark.parametrize(
    ("metric", "size", "prompts", "reason"),
    [
        ("ms_ssim", 175, [0, 0, 0], "5 scales need 176 px, images have 175"),
        ("ms_ssim_3", 43, [0, 0, 0], "3 scales need 44 px, images have 43"),
        ("ms_ssim_3", 176, [0, 0, 0], "images of 176 px take 5 scales: see ms-ssim"),
        ("ms_ssim", 180, None, "there are no prompts: images of one prompt are compared"),
        ("ms_ssim", 180, [0, 1, 2], "no prompt has two images"),
    ],
)
def test_where_diversity_is_undefined_it_says_why(
    metric: str, size: int, prompts: list[int] | None, reason: str
) -> None:
    images = pictures(5, 3, size)
    numbers = None if prompts is None else np.array(prompts)
    found = getattr(metrics, metric)(ImagePredictions(images, images, numbers), np.ones((2, 6)))
    assert np.isnan(found.value).all()
    assert found.reason == reason


def test_diversity_needs_pixels() -> None:
    found = metrics.ms_ssim(on_phantom(*features(0, 3, 3, 2)), np.ones((2, 6)))
    assert np.isnan(found.value).all()
    assert found.reason == "there are no generated pixels"


# Backbones


def test_without_weights_a_backbone_is_absent_and_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(backbones.VARIABLE, raising=False)
    images = pictures(0, 3, 32)
    table = ImagePredictions(images, images)
    for name, how in (("xrv", "torchxrayvision"), ("inception", "pytorch-fid")):
        for kind in ("fid", "kid"):
            found = getattr(metrics, f"{kind}_{name}")(table, np.ones((3, 6)))
            assert np.isnan(found.value).all()
            assert found.reason is not None
            assert f"MEDBENCH_BACKBONE='{name}=PATH'" in found.reason
            assert how in found.reason
    found = metrics.kid_phantom(table, np.ones((3, 6)))
    assert found.reason == "there are no features of the phantom backbone: they come from a run"
    lacking = metrics.fid_xrv(on_phantom(*features(0, 3, 3, 2)), np.ones((3, 6)))
    assert lacking.reason == "there are neither xrv features nor pixels"


def seasoned(module: Any) -> Any:
    """A random network that looks trained: its batch statistics have moved."""
    import torch

    torch.manual_seed(0)
    for buffer_name, buffer in module.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        if buffer_name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return module.eval()


@pytest.fixture(scope="module")
def densenet() -> Any:
    from torchxrayvision.models import DenseNet

    return seasoned(DenseNet(weights=None))


@pytest.fixture(scope="module")
def inception() -> Any:
    """The network of FID with random weights, small enough in output to be quick."""
    from torchvision.models import inception_v3

    return seasoned(
        inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    )


def test_xrv_features_are_those_of_torchxrayvision(
    densenet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import torchxrayvision as xrv
    from safetensors.torch import save_file

    images = pictures(6, 4, 300, 260)
    table = ImagePredictions(images[:2], images[2:])
    state = {key: value.contiguous() for key, value in densenet.state_dict().items()}
    save_file(state, tmp_path / "xrv.safetensors")
    torch.save(state, tmp_path / "xrv.pth")
    monkeypatch.setenv(backbones.VARIABLE, f"inception=nowhere xrv={tmp_path / 'xrv.safetensors'}")
    found = backbones.table_features(table, "xrv")
    assert not isinstance(found, str)
    levels = xrv.utils.normalize(images[:2, 20:280].astype(np.float32), 255)
    with torch.no_grad():
        small = xrv.utils.fix_resolution(torch.tensor(levels)[:, None], 224, densenet)
        expected = densenet.features2(small).numpy()
    assert found.real.shape == (2, 1024)
    assert np.abs(found.real - expected).max() < 1e-4 * np.abs(expected).max()
    # computed once for the table, whichever metric asks
    assert backbones.table_features(table, "xrv") is found
    # the digest is of the tensors, not of the file
    again = backbones.load("xrv", tmp_path / "xrv.pth")
    assert found.note == f"features by xrv weights {again.digest[:12]}"
    assert metrics.kid_xrv(table, np.ones((2, 4))).reason == found.note


def test_given_features_come_before_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backbones.VARIABLE, "xrv=nowhere.safetensors")
    x, y = features(0, 6, 5, 3)
    found = backbones.table_features(on_phantom(x, y, backbone="xrv"), "xrv")
    assert not isinstance(found, str)
    assert found.real == pytest.approx(x)
    assert found.note is None


def test_a_network_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    import torch
    from torchxrayvision.models import DenseNet

    path = tmp_path / "fresh.pth"
    torch.save(DenseNet(weights=None).state_dict(), path)
    with pytest.raises(WeightsError, match="never trained"):
        backbones.load("xrv", path)


def test_weights_of_another_network_are_refused(
    densenet: Any, inception: Any, tmp_path: Path
) -> None:
    import torch

    torch.save(densenet.state_dict(), tmp_path / "xrv.pth")
    with pytest.raises(WeightsError, match="not of the inception backbone"):
        backbones.load("inception", tmp_path / "xrv.pth")
    torch.save(inception.state_dict(), tmp_path / "fid.pth")
    with pytest.raises(WeightsError, match="they have 1,008 outputs, not 1,000"):
        backbones.load("inception-torchvision", tmp_path / "fid.pth")
    with pytest.raises(WeightsError, match="There are no weights at"):
        backbones.load("xrv", tmp_path / "missing.pth")
    partial = dict(list(densenet.state_dict().items())[:-9])
    torch.save({**partial, "classifier.weight": torch.zeros(18, 1024)}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match="tensors are missing"):
        backbones.load("xrv", tmp_path / "part.pth")


def test_weights_that_need_code_are_refused(densenet: Any, tmp_path: Path) -> None:
    import torch

    torch.save(densenet, tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match="not unpickled"):
        backbones.load("xrv", tmp_path / "whole.pt")


def test_pooling_of_the_fid_network() -> None:
    import torch
    from torch.nn.functional import avg_pool2d, max_pool2d, relu
    from torchvision.models.inception import InceptionA, InceptionE

    torch.manual_seed(0)
    x = relu(torch.randn(2, 16, 7, 9))
    block = InceptionA(16, 8).eval()
    seen: list[Any] = []
    block.branch_pool.register_forward_pre_hook(backbones.unpadded_average)
    block.branch_pool.conv.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        block(x)
        expected = avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        assert torch.allclose(seen[0], expected, atol=1e-6)
        other = InceptionE(16).eval()
        backbones.maximum_pooling(other)
        other.branch_pool.conv.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        for _ in range(2):
            other(x)
            assert torch.equal(seen[-1], max_pool2d(x, 3, stride=1, padding=1))


def test_inception_features_see_scaled_pixels_and_fid_pooling(
    inception: Any, tmp_path: Path
) -> None:
    import torch

    path = tmp_path / "fid.pth"
    # old files carry no counters of batches
    state = inception.state_dict()
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)
    network = backbones.load("inception", path)
    images = pictures(7, 2, 150, 120)
    prepared = network.prepare(torch.tensor(images))
    assert prepared.shape == (2, 3, 299, 299)
    assert torch.equal(prepared[:, 0], prepared[:, 2])
    assert -1 <= float(prepared.min()) < float(prepared.max()) <= 1
    found = backbones.extract(network, images)
    assert found.shape == (2, 2048)
    assert found.dtype == np.float64
    with torch.no_grad():
        kept = inception.fc
        inception.fc = torch.nn.Identity()
        plain = inception(prepared).numpy()
        inception.fc = kept
    # torchvision's own pooling gives other features
    assert np.abs(found - plain).max() > 1e-3 * np.abs(plain).max()
    assert np.corrcoef(found[0], plain[0])[0, 1] > 0.5


def test_features_of_unequal_width_are_an_error() -> None:
    table = on_phantom(np.zeros((4, 3)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="have 3 dimensions, those of generated ones 2"):
        metrics.kid_phantom(table, np.ones((2, 8)))


def test_weights_of_another_number_of_images_are_an_error() -> None:
    table = on_phantom(*features(0, 4, 5, 2))
    for metric in (metrics.kid_phantom, metrics.fid_phantom):
        with pytest.raises(ValueError, match="for 9 images"):
            metric(table, np.ones((2, 8)))


# The floor


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 5), min_size=2, max_size=30))
def test_halves_keep_patients_whole_and_nearly_equal(seed: int, sizes: list[int]) -> None:
    clusters = np.repeat(np.arange(len(sizes)) * 3, sizes)
    x = np.arange(len(clusters), dtype=float)[:, None]
    halves = metrics.real_versus_real(on_phantom(x, x[:1]), clusters, seed)
    assert sorted([*halves.first, *halves.second]) == list(range(len(clusters)))
    assert not set(clusters[halves.first]) & set(clusters[halves.second])
    assert abs(len(halves.first) - len(halves.second)) <= max(sizes)
    pair = halves.features("phantom")
    assert pair is not None
    assert np.array_equal(pair[0], x[halves.first])
    assert np.array_equal(pair[1], x[halves.second])
    assert np.array_equal(halves.clusters, clusters[[*halves.first, *halves.second]])
    assert np.array_equal(halves.prompts, clusters[halves.second])


def test_real_images_are_nearer_to_themselves_than_a_generator_comes() -> None:
    x, y = features(0, 120, 60, 4, shift=1.0)
    table = on_phantom(x, y)
    halves = metrics.real_versus_real(table)
    weights = np.concatenate([np.ones((1, 120)), patient_weights(halves.clusters, 200)])
    floor = metrics.fid_phantom(halves, weights)
    assert floor.interval is not None
    assert floor.value[0] < 0.2 * metrics.fid_phantom(table, resamples(table)).value[0]
    kid = metrics.kid_phantom(halves, weights).value
    low, high = np.quantile(kid[1:], [0.025, 0.975])
    assert low < 0 < high


def test_the_floor_works_on_pixels_and_refuses_one_patient() -> None:
    images = pictures(8, 6, 48)
    table = ImagePredictions(images, images[:2])
    halves = metrics.real_versus_real(table, np.array([1, 1, 2, 2, 3, 3]))
    assert halves.real is not None
    assert halves.generated is not None
    assert np.array_equal(halves.real, images[halves.first])
    assert np.array_equal(halves.generated, images[halves.second])
    with pytest.raises(ValueError, match="1 cluster"):
        metrics.real_versus_real(table, np.zeros(6, np.int64))
    with pytest.raises(ValueError, match="6 real images have 5 clusters"):
        metrics.real_versus_real(table, np.arange(5))


# Cards


def test_each_metric_has_a_card_of_its_own_and_a_function() -> None:
    from importlib import import_module

    names = [spec.name for spec in IMAGE_GENERATION]
    assert names[:4] == ["fid-xrv", "fid-inception", "fid-inception-torchvision", "fid-phantom"]
    assert names[-2:] == ["ms-ssim", "ms-ssim-3"]
    assert len({card_sha256(spec) for spec in IMAGE_GENERATION}) == len(names) == 10
    for spec in IMAGE_GENERATION:
        module, _, function = spec.function.partition(":")
        assert callable(getattr(import_module(module), function))
        assert not spec.higher_is_better
        assert "interval" in spec.aggregation
    assert all(spec.backbone and spec.normalisation != "none" for spec in (*FID, *KID))
    assert all("biased upward" in spec.definition for spec in FID)


def test_scales_of_the_cards_are_those_computed() -> None:
    assert (*BETAS, 0.2363, 0.1333) == metrics.SCALES
    assert sum(metrics.SCALES) == pytest.approx(1, abs=1e-3)
    assert metrics.GROUPS == 20
