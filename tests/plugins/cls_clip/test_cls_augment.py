"""Random rotation, shift and zoom."""

from __future__ import annotations

import math

import pytest
import torch

from medbench_cls_clip.augment import RandomAffine


def dot(y: int, x: int, size: int = 65) -> torch.Tensor:
    """A picture [1, 1, size, size] with a small square around one place."""
    picture = torch.zeros(1, 1, size, size)
    picture[..., y - 1 : y + 2, x - 1 : x + 2] = 1
    return picture


def centre(picture: torch.Tensor) -> tuple[float, float]:
    """Centre of mass, relative to the middle, as a share of half the side."""
    size = picture.shape[-1]
    axis = torch.linspace(-1 + 1 / size, 1 - 1 / size, size)
    weight = picture / picture.sum()
    return float((weight.sum(-1) * axis).sum()), float((weight.sum(-2) * axis).sum())


def affine(rotation: float = 0, shift: float = 0, low: float = 1, high: float = 1) -> RandomAffine:
    found = RandomAffine(0, rotation=rotation, shift=shift, scale=(low, high))
    found.begin(0)
    return found


def test_nothing_drawn_changes_nothing() -> None:
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(affine()(images), images, atol=1e-5, rtol=0)


def test_rotation_keeps_the_distance_and_stays_in_range() -> None:
    augment, angles = affine(rotation=45), []
    for _ in range(200):
        y, x = centre(augment(dot(32, 48)))
        assert math.hypot(y, x) == pytest.approx(16 * 2 / 65, abs=0.02)
        angles.append(math.degrees(math.atan2(y, x)))
    assert -46 < min(angles) < -35
    assert 35 < max(angles) < 46


def test_shift_and_zoom_stay_in_range() -> None:
    moved = affine(shift=0.15)
    places = [centre(moved(dot(32, 32))) for _ in range(200)]
    for axis in zip(*places, strict=True):
        assert -0.31 < min(axis) < -0.25
        assert 0.25 < max(axis) < 0.31
    zoomed = affine(low=0.9, high=1.1)
    far = [centre(zoomed(dot(32, 52)))[1] / (20 * 2 / 65) for _ in range(200)]
    assert 0.88 < min(far) < 0.92
    assert 1.08 < max(far) < 1.12


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    images = torch.rand(1, 3, 24, 24).expand(4, -1, -1, -1)

    def drawn(seed: int, epoch: int) -> list[torch.Tensor]:
        found = RandomAffine(seed, rotation=45, shift=0.15, scale=(0.9, 1.1))
        found.begin(epoch)
        return [found(images) for _ in range(2)]

    first, second = drawn(1, 2)
    torch.rand(5)
    assert torch.equal(first, drawn(1, 2)[0])
    assert torch.equal(second, drawn(1, 2)[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1]), "one draw per image"
    assert not torch.equal(first, drawn(1, 3)[0])
    assert not torch.equal(first, drawn(2, 2)[0])
