"""What a dataset reader gives: samples with a patient, and their pixels on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """One unit of a dataset: an image, a volume, or an image-text pair.

    Attributes:
        id: unique in its dataset.
        patient: identifier of the patient, the cluster for splits and intervals; None when the
            dataset does not say (then the sample is its own cluster).
        files: what its pixels are read from, in any order.
        labels: label name to 1 (present), 0 (absent) or None (uncertain or not scored).
        text: report or caption, or None.
        split: the dataset's own split name, or None.
        kind: "image" or "volume".
    """

    id: str
    patient: str | None
    files: tuple[Path, ...]
    labels: Mapping[str, int | None] = field(default_factory=dict)
    text: str | None = None
    split: str | None = None
    kind: Literal["image", "volume"] = "image"


class Reader(Protocol):
    """Reads one on-disk layout, real or phantom alike.

    A reader is constructed with the dataset's root folder. It raises `medbench.errors.DataError`,
    naming the path, for whatever it cannot read; it never skips or replaces in silence.
    """

    def __init__(self, root: Path) -> None: ...

    def samples(self) -> Sequence[Sample]:
        """All samples, from folders and tables alone: no pixel is decoded. Order is stable."""
        ...

    def pixels(self, sample: Sample) -> Pixels:
        """Decode one sample: float32 in [0, 1].

        Shape [H, W] (grey) or [H, W, 3] (colour) for an image; [S, H, W] for a volume, its slices
        in anatomical order. Raises DataError for damaged files.
        """
        ...


@dataclass(frozen=True)
class Corpus:
    """A training corpus handed to a model's ``fit``: samples and the reader that decodes them."""

    name: str
    samples: Sequence[Sample]
    reader: Reader
    manifest_sha256: str
    track: Literal["real", "phantom"]
