"""Small tables of features and pictures for the tests of image-generation metrics."""

from __future__ import annotations

from typing import Any

import numpy as np

from medbench.evaluation.image_predictions import ImagePredictions
from medbench.metrics.values import FloatArray
from medbench.statistics.bootstrap import patient_weights


def features(
    seed: int, real: int, generated: int, width: int, shift: float = 0.5
) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(width, width)) / np.sqrt(width)
    x = rng.normal(size=(real, width)) @ mix
    y = rng.normal(size=(generated, width)) @ (mix + 0.3 * np.eye(width)) + shift
    return x, y


def on_phantom(
    x: FloatArray, y: FloatArray, prompts: Any = None, backbone: str = "phantom"
) -> ImagePredictions:
    numbers = None if prompts is None else np.asarray(prompts, np.int64)
    return ImagePredictions(None, None, numbers, {backbone: (x, y)})


def resamples(table: ImagePredictions, count: int = 200, seed: int = 0) -> FloatArray:
    drawn = patient_weights(table.patients, count, seed)
    return np.concatenate([np.ones((1, drawn.shape[1])), drawn])


def pictures(seed: int, count: int, height: int, width: int | None = None) -> Any:
    """Smooth random pictures with noise: uint8 [count, height, width]."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    shape = (count, height, width or height)
    smooth = gaussian_filter(rng.normal(size=shape), (0, 6, 6)) * 900 + 128
    return np.clip(smooth + rng.normal(scale=12, size=shape), 0, 255).astype(np.uint8)
