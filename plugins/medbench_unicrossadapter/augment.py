"""Random crops and mirror images, a batch at a time."""

from __future__ import annotations

import torch


def crop_and_flip(images: torch.Tensor, size: int, flip: bool) -> torch.Tensor:
    """float [R, 3, S, S] -> [R, 3, size, size]: a square of each at a place of its own, and with
    ``flip`` half of them mirrored. Draws from torch's generator of the CPU."""
    room = images.shape[-1] - size
    top, left = torch.randint(room + 1, (2, len(images)))
    mirrored = torch.rand(len(images)) < (0.5 if flip else 0.0)
    result = images.new_empty(*images.shape[:2], size, size)
    for i, (y, x, turn) in enumerate(zip(top.tolist(), left.tolist(), mirrored, strict=True)):
        square = images[i, :, y : y + size, x : x + size]
        result[i] = square.flip(-1) if turn else square
    return result
