"""What the metrics that know labels and prompts read of generated images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from medbench.metrics.values import FloatArray, ImageTable


class JudgedTable(ImageTable, Protocol):
    """Generated images with what was asked of them, and what independent judges see in them.

    Weights are [B, N + G]: real, then generated.
    """

    @property
    def label_names(self) -> Sequence[str]:
        """Names of the L findings; none where there are no labels."""
        ...

    @property
    def labels(self) -> FloatArray | None:
        """float [G, L]: findings of the sample whose prompt an image was generated from: 1, 0, or
        NaN where not scored."""
        ...

    @property
    def real_labels(self) -> FloatArray | None:
        """float [N, L]: findings of the real images, likewise."""
        ...

    @property
    def scores(self) -> FloatArray | None:
        """float [G, L]: an independent classifier's scores of the generated images; a column of
        NaN for a finding that it does not know."""
        ...

    @property
    def judge_images(self) -> FloatArray | None:
        """float [G, D]: the generated images in an independent space of images and texts."""
        ...

    @property
    def judge_texts(self) -> FloatArray | None:
        """float [P, D]: the tested prompts in that space; ``prompts`` are rows of it."""
        ...

    @property
    def judge_real(self) -> FloatArray | None:
        """float [N, D]: the real images in that space."""
        ...

    @property
    def real_prompts(self) -> npt.NDArray[np.int64] | None:
        """int [N]: the prompt of each real image, as ``prompts`` count them; -1: none of these."""
        ...

    @property
    def prompt_texts(self) -> Sequence[str] | None:
        """[P]: the tested prompts themselves; ``prompts`` are rows of it."""
        ...

    @property
    def train_distances(self) -> FloatArray | None:
        """float [G]: distance of each generated image to the nearest training image."""
        ...

    @property
    def real_train_distances(self) -> FloatArray | None:
        """float [N]: distance of each real image to the nearest training image."""
        ...

    @property
    def reports(self) -> Sequence[str] | None:
        """[G]: what a generator of reports says of each generated image."""
        ...

    @property
    def prompt_reports(self) -> Sequence[str] | None:
        """[P]: the report that each prompt is taken from."""
        ...
