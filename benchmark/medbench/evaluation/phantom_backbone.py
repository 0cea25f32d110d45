"""A small classifier of the training split, which judges images where no network is given.

Feature distances and label fidelity mean something by a trained network only, and none ships in a
package. On phantoms one is trained here, on the training part alone. Its values compare generators
on one phantom, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medbench.evaluation.fine_tune import Head
from medbench.metrics.values import FloatArray

WIDTHS = (24, 48, 96, 128)
BATCH = 128


class PhantomBackbone(nn.Module):
    """Strided convolutions and a mean: float32 [B, 3, H, W] in [0, 1] -> [B, D]."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in widths:
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


class PhantomJudge:
    """A trained `PhantomBackbone` and its head.

    Args:
        weights: as `medbench.evaluation.fine_tune` gave them, the backbone as module 0.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.backbone = PhantomBackbone()
        self.backbone.load_state_dict(_part(weights, "0."))
        head = _part(weights, "head.")
        self.head = Head(head["weight"].shape[1], head["bias"])
        self.head.load_state_dict(head)
        self.backbone.eval()

    @torch.inference_mode()
    def features(self, pixels: npt.NDArray[np.uint8]) -> FloatArray:
        """uint8 [N, H, W] -> float64 [N, 128]."""
        parts = [
            self.backbone(torch.from_numpy(some.astype(np.float32) / 255)[:, None]).double().numpy()
            for some in np.array_split(pixels, max(1, -(-len(pixels) // BATCH)))
        ]
        return np.concatenate(parts)

    @torch.inference_mode()
    def scores(self, features: FloatArray) -> FloatArray:
        """Features float64 [N, 128] -> probability of each label, float64 [N, L]."""
        logits = self.head(torch.from_numpy(features))
        return np.asarray(logits.double().sigmoid().numpy(), np.float64)


def _part(weights: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
