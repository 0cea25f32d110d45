"""Synthetic inputs of every capability: smooth noise for pixels, radiologists' words for texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

COUNT = 6  #: inputs of a kind
VIEWS = 2
#: Slices of each volume, and views of each study: of the others the mask is False.
LENGTHS = (5, 3, 4, 1, 5, 2)
VIEWS_OF = (2, 1, 2, 2, 1, 1)
TEXTS = (
    "Chest X-ray, pleural effusion",
    "No acute cardiopulmonary abnormality.",
    "Brain MRI, glioma",
    "The heart is enlarged. There is a small left pleural effusion and mild interstitial edema.",
    "Lung CT, COVID-19 pneumonia",
    "Normal.",
)


@dataclass(frozen=True)
class Inputs:
    """B inputs for each capability.

    Attributes:
        images: float32 [B, 3, H, W] in [0, 1].
        slices: float32 [B, S, 3, H, W] in [0, 1], with ``slice_mask`` bool [B, S].
        views: float32 [B, V, 3, H, W] in [0, 1], with ``view_mask`` bool [B, V].
        texts: B texts, prompts likewise.
        seeds: B seeds of generated images.
    """

    images: torch.Tensor
    slices: torch.Tensor
    slice_mask: torch.Tensor
    views: torch.Tensor
    view_mask: torch.Tensor
    texts: Sequence[str]
    seeds: Sequence[int]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Sequence[int]) -> Inputs:
        """Some of them, in that order, with no more padding than they need."""
        chosen = torch.tensor(rows)
        slices = int(self.slice_mask[chosen].sum(1).max())
        views = int(self.view_mask[chosen].sum(1).max())
        return Inputs(
            self.images[chosen],
            self.slices[chosen, :slices],
            self.slice_mask[chosen, :slices],
            self.views[chosen, :views],
            self.view_mask[chosen, :views],
            [self.texts[row] for row in rows],
            [self.seeds[row] for row in rows],
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor by name."""
        names = ("images", "slices", "slice_mask", "views", "view_mask")
        return {name: getattr(self, name) for name in names}


def inputs(size: int, seed: int = 0) -> Inputs:
    """`COUNT` inputs at ``size`` pixels a side; what the mask hides is black, as in a run."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(*shape: int) -> torch.Tensor:
        coarse = torch.rand(*shape, 1, 4, 4, generator=generator).flatten(0, -4)
        fine = torch.rand(*shape, 1, size, size, generator=generator).flatten(0, -4)
        grown = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
        grey = (0.8 * grown + 0.2 * fine).reshape(*shape, 1, size, size)
        return grey.expand(*shape, 3, size, size).contiguous()

    def mask(lengths: Sequence[int]) -> torch.Tensor:
        return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]

    slice_mask, view_mask = mask(LENGTHS), mask(VIEWS_OF)
    return Inputs(
        smooth(COUNT),
        smooth(COUNT, max(LENGTHS)) * slice_mask[..., None, None, None],
        slice_mask,
        smooth(COUNT, VIEWS) * view_mask[..., None, None, None],
        view_mask,
        TEXTS,
        [11 * k + seed for k in range(COUNT)],
    )
