"""Predicted masks beside their references: the arrays, their file and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medbench.errors import DataError
from medbench.evaluation.arrays import (
    Array,
    names,
    no_doubles,
    numbers,
    read_npz,
    row_content,
    write_npz,
)
from medbench.evaluation.predictions import sample_key
from medbench.metrics.values import FloatArray

Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class MaskPredictions:
    """N images.

    Attributes:
        sample_ids: [N], unique.
        patients: [N], the cluster of each.
        reference: bool [N, H, W].
        prediction: bool [N, H, W].
        spacing: float [N, 2], mm per pixel down and across, positive; None: not known.

    Raises:
        DataError: shapes or lengths that differ, duplicate ids, spacing that is not positive.
    """

    sample_ids: Sequence[str]
    patients: Sequence[str]
    reference: Masks
    prediction: Masks
    spacing: FloatArray | None = None

    def __post_init__(self) -> None:
        count = len(self.sample_ids)
        if not count:
            raise DataError("Predictions hold no samples.")
        if self.reference.ndim != 3 or self.reference.shape != self.prediction.shape:
            raise DataError(
                f"Reference masks have shape {self.reference.shape} and predictions "
                f"{self.prediction.shape}; both must be [N, H, W]."
            )
        if len(self.reference) != count or len(self.patients) != count:
            raise DataError(
                f"There are {count} sample ids, {len(self.patients)} patients and "
                f"{len(self.reference)} masks."
            )
        no_doubles("Predictions", self.sample_ids)
        if self.spacing is not None and (
            self.spacing.shape != (count, 2) or not (self.spacing > 0).all()
        ):
            raise DataError(
                f"The spacing, of shape {self.spacing.shape}, is not two positive numbers of mm "
                f"for each of {count} images."
            )

    @cached_property
    def content(self) -> FloatArray:
        """float [N, 4]: stands for everything that a metric reads of a row."""
        return row_content(self._rows())

    def support(self, metric: str | None = None) -> int:
        """Number of images that a metric is taken over."""
        if metric == "dice-positive":
            return int(self.reference.any(axis=(1, 2)).sum())
        return len(self.sample_ids)

    def take(self, rows: Sequence[int]) -> MaskPredictions:
        """The same table with these rows, in this order."""
        index = np.asarray(rows, dtype=np.intp)
        return MaskPredictions(
            [self.sample_ids[i] for i in index],
            [self.patients[i] for i in index],
            self.reference[index],
            self.prediction[index],
            None if self.spacing is None else self.spacing[index],
        )

    def digest(self, manifest_sha256: str = "") -> str:
        """Hash of the content, with ids as keys of the manifest; whatever the order of rows."""
        state = hashlib.sha256(repr(self.reference.shape[1:]).encode())
        ids, owners = (
            [sample_key(manifest_sha256, name) for name in some]
            for some in (self.sample_ids, self.patients)
        )
        rows = zip(ids, owners, self._rows(), strict=True)
        for name, patient, row in sorted(rows):
            state.update(f"{name}\0{patient}\0".encode() + hashlib.sha256(row).digest())
        return state.hexdigest()

    def _rows(self) -> list[bytes]:
        spacing = np.ones((len(self.sample_ids), 2)) if self.spacing is None else self.spacing
        return [
            np.packbits(a).tobytes() + np.packbits(b).tobytes() + s.astype("<f8").tobytes()
            for a, b, s in zip(self.reference, self.prediction, spacing, strict=True)
        ]

    def write(self, path: Path) -> None:
        """Write ``.npz`` with the arrays of the contract."""
        arrays: dict[str, Array] = {
            "sample_id": np.array(self.sample_ids, str),
            "patient_id": np.array(self.patients, str),
            "reference": self.reference,
            "prediction": self.prediction,
        }
        if self.spacing is not None:
            arrays["spacing"] = self.spacing
        write_npz(path, arrays)

    @classmethod
    def read(cls, path: Path) -> MaskPredictions:
        """Read ``.npz``. Raises DataError naming the file and what is wrong."""
        found = read_npz(path, ("sample_id", "reference", "prediction"), ("patient_id", "spacing"))
        for name in ("reference", "prediction"):
            if found[name].dtype != np.bool_:
                raise DataError(
                    f"{path}: '{name}' is {found[name].dtype}; masks are bool. Choose the "
                    "threshold yourself, as in `probability >= 0.5`."
                )
        count = len(found["reference"])
        ids = names(path, "sample_id", found["sample_id"], count)
        owners = ids
        if "patient_id" in found:
            owners = names(path, "patient_id", found["patient_id"], count)
        spacing = numbers(path, "spacing", found["spacing"], 2) if "spacing" in found else None
        try:
            return cls(ids, owners, found["reference"], found["prediction"], spacing)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
