"""What a text encoder is, to the models that are built on one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medbench.models.capabilities import State


class TextEncoder(nn.Module):
    """Texts to vectors. The tokenizer is inside.

    Trainable until `freeze` or `load`; from then on it has no gradients and stays in evaluation
    mode, whatever the model around it does.

    Attributes:
        dim: length of the vector.
    """

    dim: int
    frozen = False

    def forward(self, texts: Sequence[str]) -> torch.Tensor:
        """B texts -> float32 [B, dim], not normalised, on the encoder's device.

        A text's vector does not depend on the others in its batch.
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

    def train(self, mode: bool = True) -> TextEncoder:
        """As any module's, but a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self
