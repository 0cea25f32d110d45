"""Latents of a corpus, computed once and kept on disk: the autoencoder never learns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from medbench.data.images import Images
from medbench.data.samples import Corpus, Sample
from medbench.errors import CellError
from medbench.models.capabilities import FitRun
from medbench.models.latent_diffusion import LatentDiffusion

#: Images at a time.
_BATCH = 16


@torch.no_grad()
def latents_of(
    model: LatentDiffusion, corpus: Corpus, samples: Sequence[Sample], run: FitRun
) -> npt.NDArray[np.float16]:
    """Scaled latents float16 [N, C, h, w], mapped from a file in ``run.folder``, which a killed
    attempt goes on with. Raises CellError, naming the image, where one is not finite."""
    side = model.config.image_size // model.config.factor
    shape = (len(samples), model.config.latent_channels, side, side)
    path, mark = run.folder / "latents.npy", run.folder / "latents-done.txt"
    done = int(mark.read_text(encoding="ascii")) if mark.is_file() else 0
    if done:
        kept = np.lib.format.open_memmap(path, mode="r+")
    else:
        kept = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    images = Images(corpus.reader, samples, model.config.image_size)
    with ThreadPoolExecutor() as pool:
        for start in range(done, len(samples), _BATCH):
            rows = range(start, min(start + _BATCH, len(samples)))
            list(pool.map(images.get, rows))  # decoded by several threads, then kept
            with run.autocast():
                found = model.encode(images.batch(rows).to(run.device)).float().cpu()
            bad = ~found.flatten(1).isfinite().all(dim=1)
            if bad.any():
                name = samples[start + int(bad.nonzero()[0])].id
                raise CellError(
                    f"The autoencoder's latents of image '{name}' are not finite. Use --precision "
                    "fp32, or other weights."
                )
            kept[start : rows.stop] = found.numpy()
            kept.flush()
            temporary = mark.with_suffix(".tmp")
            temporary.write_text(str(rows.stop), encoding="ascii")
            os.replace(temporary, mark)
            run.advance(rows.stop, len(samples))
    return kept
