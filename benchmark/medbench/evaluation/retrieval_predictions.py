"""Image and text embeddings to be matched: the arrays, their file and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medbench.errors import DataError
from medbench.evaluation.arrays import Array, names, numbers, read_npz, row_content, write_npz
from medbench.metrics.values import FloatArray

Groups = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RetrievalPredictions:
    """N images and M texts.

    Attributes:
        image: float [N, D], no zero vector.
        text: float [M, D], no zero vector.
        image_group: int [N]; an image and a text of equal group match.
        text_group: int [M].
        image_patients: [N], the cluster of each image query.

    Raises:
        DataError: shapes that differ, a zero vector, no image with a matching text.
    """

    image: FloatArray
    text: FloatArray
    image_group: Groups
    text_group: Groups
    image_patients: Sequence[str]

    def __post_init__(self) -> None:
        if self.image.ndim != 2 or self.text.ndim != 2 or not len(self.image) or not len(self.text):
            raise DataError(
                f"Embeddings have shapes {self.image.shape} and {self.text.shape}; [N, D] and "
                "[M, D] are expected."
            )
        if self.image.shape[1] != self.text.shape[1]:
            raise DataError(
                f"Images have {self.image.shape[1]} dimensions and texts {self.text.shape[1]}: not "
                "one space."
            )
        counts = (len(self.image_group), len(self.image_patients), len(self.text_group))
        if counts != (len(self.image), len(self.image), len(self.text)):
            raise DataError(
                f"{len(self.image)} images have {counts[0]} groups and {counts[1]} patients, "
                f"{len(self.text)} texts have {counts[2]} groups."
            )
        for what, vectors in (("image", self.image), ("text", self.text)):
            zero = np.flatnonzero(~vectors.any(axis=1))
            if len(zero):
                raise DataError(
                    f"The {what} embedding of row {zero[0]} is a zero vector ({len(zero)} such), "
                    "which has no direction."
                )
        if not np.isin(self.image_group, self.text_group).any():
            raise DataError("No image has a matching text: image and text groups share nothing.")

    @cached_property
    def patients(self) -> list[str]:
        """[N + M] clusters of the queries. With as many texts as images, text i is of the patient
        of image i; else of the patient of its group's images if they have one, or of its group."""
        if len(self.text) == len(self.image):
            return [*self.image_patients, *self.image_patients]
        owners: dict[int, set[str]] = {}
        for group, patient in zip(self.image_group.tolist(), self.image_patients, strict=True):
            owners.setdefault(group, set()).add(patient)
        texts = []
        for group in self.text_group.tolist():
            known = owners.get(group, set())
            texts.append(next(iter(known)) if len(known) == 1 else f"text group {group}")
        return [*self.image_patients, *texts]

    @cached_property
    def content(self) -> FloatArray:
        """float [N + M, 4]: stands for everything that a metric reads of a query."""
        return row_content([*self._rows(self.image), *self._rows(self.text)])

    def _rows(self, vectors: FloatArray) -> list[bytes]:
        kind = b"i" if vectors is self.image else b"t"
        return [kind + row.astype("<f8").tobytes() for row in vectors]

    def support(self, metric: str | None = None) -> int:
        """Number of queries that have a match: of images, or of texts for ``t2i-`` metrics."""
        if metric is not None and metric.startswith("t2i"):
            return int(np.isin(self.text_group, self.image_group).sum())
        return int(np.isin(self.image_group, self.text_group).sum())

    def digest(self, _: str = "") -> str:
        """Hash of the content, whatever the order of rows. It holds no ids."""
        groups = [f"i{g}" for g in self.image_group] + [f"t{g}" for g in self.text_group]
        rows = [*self._rows(self.image), *self._rows(self.text)]
        state = hashlib.sha256()
        for group, patient, row in sorted(zip(groups, self.patients, rows, strict=True)):
            state.update(f"{group}\0{patient}\0".encode() + row)
        return state.hexdigest()

    def write(self, path: Path) -> None:
        """Write ``.npz`` with the arrays of the contract."""
        arrays: dict[str, Array] = {
            "image": self.image.astype(np.float32),
            "text": self.text.astype(np.float32),
            "image_group": self.image_group,
            "text_group": self.text_group,
            "patient_id": np.array(self.image_patients, str),
        }
        write_npz(path, arrays)

    @classmethod
    def read(cls, path: Path) -> RetrievalPredictions:
        """Read ``.npz``. Raises DataError naming the file and what is wrong."""
        found = read_npz(path, ("image", "text"), ("image_group", "text_group", "patient_id"))
        image = numbers(path, "image", found["image"], 2)
        text = numbers(path, "text", found["text"], 2)
        grouped = [name for name in ("image_group", "text_group") if name in found]
        if len(grouped) == 1:
            raise DataError(f"{path} has '{grouped[0]}' but not its other half; give both or none.")
        if not grouped and len(image) != len(text):
            raise DataError(
                f"{path} has {len(image)} images and {len(text)} texts and no groups: without "
                "'image_group' and 'text_group' row i matches row i, and there must be as many."
            )
        if grouped:
            given = [
                names(path, "image_group", found["image_group"], len(image)),
                names(path, "text_group", found["text_group"], len(text)),
            ]
            number = {name: i for i, name in enumerate(sorted({*given[0], *given[1]}))}
            groups = [np.array([number[name] for name in some], np.int64) for some in given]
        else:
            groups = [np.arange(len(image)), np.arange(len(text))]
        owners = [f"image {i}" for i in range(len(image))]
        if "patient_id" in found:
            owners = names(path, "patient_id", found["patient_id"], len(image))
        try:
            return cls(image, text, groups[0], groups[1], owners)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
