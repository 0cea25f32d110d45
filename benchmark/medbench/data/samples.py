"""What a dataset reader gives: samples with a patient, and their pixels on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """One unit of a dataset: an image, a volume, or an image-text pair.

    Fields of labels and identity come from the dataset's tables as they stand: what a task makes
    of an uncertain or missing label is the task's policy, not the reader's.

    Attributes:
        id: unique in its dataset.
        patient: identifier of the patient, the cluster for splits and intervals; None when the
            dataset does not say (then the sample is its own cluster).
        files: what its pixels are read from, in any order.
        labels: label name (lower-case words joined by hyphens) to 1 (present), 0 (absent),
            -1 (uncertain) or None (not mentioned).
        text: report or caption, or None.
        split: the dataset's own split, "train", "val" or "test" where it has one of these, or None.
        kind: "image" or "volume".
        study: identifier of the examination that the image belongs to, or None.
        view: "PA", "AP", "frontal" (not said which) or "lateral", or None.
        age: years, or None.
        sex: "F", "M", or None.
        sections: section of the report ("findings", "impression") to its text.
        annotation: SHA-256 of the sample's boxes or mask as the tables have them, or None; the
            reader gives them on demand (`Annotates`).
    """

    id: str
    patient: str | None
    files: tuple[Path, ...]
    labels: Mapping[str, int | None] = field(default_factory=dict)
    text: str | None = None
    split: str | None = None
    kind: Literal["image", "volume"] = "image"
    study: str | None = None
    view: Literal["PA", "AP", "frontal", "lateral"] | None = None
    age: float | None = None
    sex: Literal["F", "M"] | None = None
    sections: Mapping[str, str] = field(default_factory=dict)
    annotation: str | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A box around a finding, as fractions of the image's width and height, in [0, 1].

    ``x`` and ``y`` are its upper left corner. So a box says the same at every image size.
    """

    label: str
    x: float
    y: float
    width: float
    height: float


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
        in anatomical order. Called from several threads at once. Raises DataError for damaged
        files.
        """
        ...


@runtime_checkable
class Annotates(Protocol):
    """What a reader of a dataset with regions has besides."""

    def boxes(self, sample: Sample) -> tuple[Box, ...]:
        """The boxes of a sample; none when it has none. Raises DataError for impossible ones."""
        ...

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_]:
        """Lesion mask bool [H, W] at the annotation's own size: boxes are filled, overlaps joined.

        All False for an image without a lesion. Raises DataError for one that does not fit."""
        ...


@dataclass(frozen=True)
class Corpus:
    """A training corpus handed to a model's ``fit``: samples and the reader that decodes them."""

    name: str
    samples: Sequence[Sample]
    reader: Reader
    manifest_sha256: str
    track: Literal["real", "phantom"]
