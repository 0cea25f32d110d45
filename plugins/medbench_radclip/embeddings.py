"""Slice embeddings of a corpus of volumes: each slice is embedded once, also across a kill."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from safetensors.torch import load_file, save_file

from medbench.data.samples import Corpus, Sample
from medbench.models.capabilities import FitRun
from medbench.models.pairs import evenly

#: Volumes in one file of the scratch folder: what a kill can cost.
CHUNK = 64

#: Slices in a batch.
BATCH = 128


class SliceEmbeddings:
    """Embeddings float32 [N, P, D] of N volumes of at most P slices, and which are real.

    Args:
        max_slices: P; of a longer volume as many slices are taken, evenly spread.
        dim: D.
        device: where `batch` puts them.
    """

    def __init__(self, max_slices: int, dim: int, device: torch.device) -> None:
        self.max_slices = max_slices
        self.dim = dim
        self.device = device
        self._volumes: list[torch.Tensor] = []  # [S_i, D] each, on the CPU

    def compute(
        self,
        corpus: Corpus,
        samples: Sequence[Sample],
        encode: Callable[[torch.Tensor], torch.Tensor],
        size: int,
        run: FitRun,
    ) -> None:
        """Embed the volumes, or read what an interrupted fit has embedded of them."""
        from medbench.data.images import Volumes, to_tensor

        volumes = Volumes(corpus.reader, samples, size, memory_bytes=0)
        self._volumes = []
        for start in range(0, len(samples), CHUNK):
            path = run.folder / f"slices-{start:07d}.safetensors"
            stop = min(start + CHUNK, len(samples))
            if path.is_file():
                saved = load_file(path)
                self._volumes += [saved[str(i)] for i in range(start, stop)]
                continue
            chunk: list[torch.Tensor] = []
            for i in range(start, stop):
                pixels = volumes.volume(i)  # uint8 [S, size, size]
                slices = to_tensor(pixels[evenly(len(pixels), self.max_slices)])  # [P, 3, H, W]
                parts = []
                for part in torch.split(slices, BATCH):
                    with torch.no_grad(), run.autocast():
                        parts.append(encode(part.to(run.device)).float().cpu())
                chunk.append(torch.cat(parts))  # [P, D]
                run.advance(i + 1, len(samples))
            temporary = path.with_suffix(".part")
            save_file({str(start + i): v for i, v in enumerate(chunk)}, temporary)
            os.replace(temporary, path)
            self._volumes += chunk

    def batch(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings float32 [B, P, D], padded with zeros, and bool [B, P]: which are real."""
        volumes = [self._volumes[int(i)] for i in chosen]
        longest = max(len(v) for v in volumes)
        out = torch.zeros(len(volumes), longest, self.dim)
        mask = torch.zeros(len(volumes), longest, dtype=torch.bool)
        for row, volume in enumerate(volumes):
            out[row, : len(volume)] = volume
            mask[row, : len(volume)] = True
        return out.to(self.device), mask.to(self.device)
