"""Vectors of the frozen encoders: each is computed once, also across a kill."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from safetensors.torch import load_file, save_file

from medbench.models.capabilities import FitRun

#: Vectors in one file of the scratch folder: what a kill can cost.
CHUNK = 2048

#: Inputs in a batch.
BATCH = 128

#: First and last row -> float [last - first, D].
Encode = Callable[[int, int], torch.Tensor]


def embed_once(name: str, count: int, encode: Encode, run: FitRun) -> torch.Tensor:
    """Vectors float32 [N, D] on the CPU; what an interrupted fit has computed is read.

    Args:
        name: of the files in ``run.folder``.
        count: N, at least 1.
        encode: gives the vectors of some rows; called under autocast, without gradients.
        run: folder, precision, progress.
    """
    parts: list[torch.Tensor] = []
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        path = run.folder / f"{name}-{start:09d}.safetensors"
        if not path.is_file():
            chunk = []
            for first in range(start, stop, BATCH):
                last = min(first + BATCH, stop)
                with torch.no_grad(), run.autocast():
                    chunk.append(encode(first, last).float().cpu())
                run.advance(last, count)
            temporary = path.with_suffix(".part")
            save_file({"vectors": torch.cat(chunk).contiguous()}, temporary)
            os.replace(temporary, path)
        parts.append(load_file(path)["vectors"])
    return torch.cat(parts)
