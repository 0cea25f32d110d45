"""Zero-shot classification: an image or volume goes to the label whose prompts it is nearest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medbench.errors import PluginError
from medbench.metrics.values import FloatArray


def zero_shot(
    features: npt.NDArray[np.floating],
    prompts: Sequence[npt.NDArray[np.floating]],
    multiclass: bool,
    temperature: float,
    neutral: npt.NDArray[np.floating] | None = None,
) -> FloatArray:
    """Scores from cosine similarity to each label's mean prompt (prompt ensembling).

    Source: Radford et al. 2021, section 3.1.4: prompts are normalised, averaged, normalised again.
    With neutral prompts: Wiehe et al. 2022, who score a label by how much nearer an image is to a
    prompt with it than to the same prompt without, averaged over prompts.

    Args:
        features: float [N, D] of images or volumes; need not be normalised.
        prompts: per label, float [P, D] of its prompts, P >= 1.
        multiclass: softmax over labels of cosine / temperature; else the cosine itself, which
            ranks samples but is no probability (there is no prompt for absence).
        temperature: of the softmax, positive.
        neutral: float [P, D]: of each prompt the text without a label; every label then has P
            prompts, and what was the cosine is the mean of P differences.

    Returns:
        float64 [N, L], in [0, 1] with rows summing to 1 when multiclass, else in [-1, 1] (in
        [-2, 2] with neutral prompts).

    Raises:
        PluginError: shapes that do not fit, zero vectors, values that are not finite, a
            temperature that is not positive.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise PluginError(f"The softmax temperature is {temperature}, not a positive number.")
    images = _unit("features", np.asarray(features, dtype=np.float64))
    if not prompts or any(np.ndim(p) != 2 or len(p) == 0 for p in prompts):
        raise PluginError("Zero-shot needs text features [P, D] with one prompt or more per label.")
    if any(np.shape(p)[1] != images.shape[1] for p in prompts):
        widths = sorted({np.shape(p)[1] for p in prompts})
        raise PluginError(
            f"Images have {images.shape[1]} features and texts {widths}: not one space."
        )
    units = [_unit("prompts", np.asarray(p, dtype=np.float64)) for p in prompts]
    cosine: FloatArray
    if neutral is None:
        means = [unit.mean(axis=0) for unit in units]
        cosine = np.clip(images @ _unit("mean prompts", np.stack(means)).T, -1.0, 1.0)
    else:
        cosine = images @ _directions(units, np.asarray(neutral, dtype=np.float64)).T
    if not multiclass:
        return cosine
    logits = cosine / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return scores


def _directions(prompts: Sequence[FloatArray], neutral: FloatArray) -> FloatArray:
    """float64 [L, D]: a cosine difference, averaged over prompts, is a product with one vector."""
    if {np.shape(p) for p in prompts} != {neutral.shape}:
        raise PluginError(
            f"Zero-shot with neutral prompts of shape {neutral.shape} needs as many prompts of "
            f"every label, not {sorted({np.shape(p) for p in prompts})}."
        )
    means: FloatArray = np.stack(prompts).mean(axis=1)
    difference: FloatArray = means - _unit("neutral prompts", neutral).mean(axis=0)
    return difference


def _unit(what: str, vectors: FloatArray) -> FloatArray:
    """[N, D] with rows of length one."""
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise PluginError(f"Zero-shot {what} of shape {vectors.shape} are not finite vectors.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise PluginError(f"Zero-shot {what} hold a zero vector, which has no direction.")
    unit: FloatArray = vectors / lengths
    return unit
