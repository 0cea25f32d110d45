"""Which images belong together, as their weights tell.

Nothing in this family of metrics looks at ids: images of one patient or prompt share their weights
in every resample, and that is how they are known to belong together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medbench.metrics.values import FloatArray, ImageTable

Integers = npt.NDArray[np.int64]

#: Rows of weights that tell clusters apart: two are alike by chance with odds below 1e-16.
SIGNATURE = 32


def hold(weights: FloatArray, images: int) -> None:
    """Raises ValueError unless there is one column of weights for each image."""
    if weights.ndim != 2 or weights.shape[1] != images:
        raise ValueError(f"weights of shape {weights.shape} for {images} images")


def clusters_of(table: ImageTable, weights: FloatArray, real: int) -> Integers:
    """Number of each image's patient or prompt, int [N + G], the same for any order of rows.

    Resamples give images of one cluster equal weights and tell clusters apart. With too few rows
    to do so, prompts say it for the generated images, and each real one stands for itself.
    """
    if len(weights) > SIGNATURE:
        columns = np.ascontiguousarray(weights[1 : SIGNATURE + 1].T)
        return np.asarray(np.unique(columns, axis=0, return_inverse=True)[1], np.int64).ravel()
    generated = weights.shape[1] - real
    prompts = np.arange(generated) if table.prompts is None else table.prompts
    _, number = np.unique(prompts, return_inverse=True)
    return np.concatenate([np.arange(real), real + number]).astype(np.int64)
