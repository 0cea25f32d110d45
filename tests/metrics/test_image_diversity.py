"""MS-SSIM within prompts against torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
from image_tables import features, on_phantom, pictures

from medbench.evaluation.image_predictions import ImagePredictions
from medbench.metrics import image_diversity as metrics

BETAS = (0.0448, 0.2856, 0.3001)


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


@pytest.mark.parametrize(("size", "scales"), [(64, 3), (180, 5)])
def test_identical_images_are_wholly_alike(size: int, scales: int) -> None:
    images = np.repeat(pictures(5, 1, size), 4, axis=0)
    assert metrics.pairwise_ms_ssim(images, scales) == pytest.approx(1, abs=1e-6)
    table = ImagePredictions(images, images, np.zeros(4, np.int64))
    metric = metrics.ms_ssim if scales == 5 else metrics.ms_ssim_3
    assert metric(table, np.ones((1, 8))).value[0] == pytest.approx(1, abs=1e-6)


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
