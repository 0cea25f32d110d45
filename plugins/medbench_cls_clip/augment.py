"""Random rotation, shift and zoom of radiographs, a batch at a time."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

#: Keeps these draws apart from those of the order of an epoch, which has the same seed.
_SALT = 0x5EED_AFF1


class RandomAffine:
    """One draw per image: bilinear, black outside (the official code: torchvision's RandomAffine).

    Args:
        seed: with the epoch, decides every draw.
        rotation: degrees, either way.
        shift: share of the side, either way, on each axis.
        scale: range of the zoom.
        rank: of this process among those that train together: each draws for its own images.
    """

    def __init__(
        self,
        seed: int,
        *,
        rotation: float,
        shift: float,
        scale: tuple[float, float],
        rank: int = 0,
    ) -> None:
        self._seed = seed
        self._rank = rank
        self._rotation = math.radians(rotation)
        self._shift = shift
        self._scale = scale
        self.generator = torch.Generator()

    def begin(self, epoch: int) -> None:
        """Draw as in this epoch from here on; its steps go on from each other."""
        self.generator.manual_seed((self._seed * 1_000_003 + epoch) ^ _SALT ^ (self._rank << 40))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float [B, C, H, W] -> the same shape, on the same device; H = W."""
        drawn = torch.rand(4, len(images), generator=self.generator)
        angle = (2 * drawn[0] - 1) * self._rotation
        low, high = self._scale
        zoom = low + (high - low) * drawn[1]
        x, y = (2 * drawn[2:] - 1) * self._shift * 2  # a side is 2 long in the grid's units
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        # from a place in the result to that in the image: shift, turn and zoom taken back
        theta = torch.stack(
            [
                torch.stack([cos, sin, -(cos * x + sin * y)], dim=1),
                torch.stack([-sin, cos, sin * x - cos * y], dim=1),
            ],
            dim=1,
        ).to(images)  # [B, 2, 3]
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
