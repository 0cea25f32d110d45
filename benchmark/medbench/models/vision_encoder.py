"""What an image encoder is, to the models that are built on one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medbench.models.capabilities import State


class VisionEncoder(nn.Module):
    """Pixels to a vector, and to maps. The encoder's own normalisation is inside.

    Differentiable and trainable until `freeze` or `load`; from then on it has no gradients and
    stays in evaluation mode, whatever the model around it does.

    Attributes:
        dim: length of the vector.
        image_size: side of the images, in pixels.
    """

    dim: int
    image_size: int
    frozen = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in [0, 1], H = W = ``image_size`` -> float32 [B, dim]."""
        raise NotImplementedError

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The same images -> feature maps float32 [B, D, h, h], finest first.

        Of a transformer one map, its patch tokens; of a convolutional network its stages' outputs.
        """
        raise NotImplementedError

    def load(self, state: State) -> None:
        """Load weights, wholly or not at all, and freeze. Raises WeightsError naming keys."""
        raise NotImplementedError

    def freeze(self) -> None:
        """No gradients and evaluation mode, for good."""
        self.requires_grad_(False)
        self.eval()
        self.frozen = True

    def train(self, mode: bool = True) -> VisionEncoder:
        """As any module's, but a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self


def standardise(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """float [B, 3, H, W] -> the same with these channel means and deviations taken out."""
    shape = (1, 3, 1, 1)
    return (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)
