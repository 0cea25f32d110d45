"""A small classifier of the training split, whose features judge images where no network is given.

Feature distances mean something for a trained network only, and none ships in a package. On
phantoms one is trained here, on the training part alone and on labels that the generator under test
was not given as such. Its distances compare generators on one phantom, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medbench.metrics.values import FloatArray

WIDTHS = (24, 48, 96, 128)
BATCH = 128


class PhantomBackbone(nn.Module):
    """Four strided convolutions and a mean: float32 [B, 3, H, W] in [0, 1] -> [B, 128]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in WIDTHS:
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1),
                nn.GroupNorm(8, width),
                nn.GELU(),
            ]
            before = width
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features of grey or colour images: the mean over channels is what is seen."""
        features: torch.Tensor = self.layers(images.mean(1, keepdim=True) * 2 - 1).mean((2, 3))
        return features

    @classmethod
    def of(cls, weights: Mapping[str, torch.Tensor]) -> PhantomBackbone:
        """With the weights that `medbench.evaluation.fine_tune` gave as module 0."""
        found = cls()
        found.load_state_dict(
            {name[2:]: value for name, value in weights.items() if name.startswith("0.")}
        )
        return found.eval()

    @torch.inference_mode()
    def features(self, pixels: npt.NDArray[np.uint8]) -> FloatArray:
        """uint8 [N, H, W] -> float64 [N, 128]."""
        parts = [
            self(torch.from_numpy(some.astype(np.float32) / 255)[:, None]).double().numpy()
            for some in np.array_split(pixels, max(1, -(-len(pixels) // BATCH)))
        ]
        return np.concatenate(parts)
