"""Generated reports beside their references: the table, its file and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medbench.errors import DataError
from medbench.evaluation.arrays import no_doubles, row_content
from medbench.evaluation.frames import read_frame, write_frame
from medbench.evaluation.predictions import sample_key
from medbench.evaluation.report_attention import NAME as ATTENTION
from medbench.evaluation.report_attention import Attention
from medbench.metrics.values import FloatArray


@dataclass(frozen=True, eq=False)
class ReportPredictions:
    """N studies.

    Attributes:
        sample_ids: [N], unique.
        patients: [N], the cluster of each.
        references: [N] texts.
        predictions: [N] texts; an empty one is valid and scores zero.
        vocabulary: words that the R2Gen convention keeps; None where it is not known.
        max_length: words after which the R2Gen convention cuts; None where it is not known.
        training: `medbench.metrics.report_wording.fingerprint` of each training report; None where
            they are not known.
        attention: where the model looked in a few of the studies; None where it does not say.

    Raises:
        DataError: lengths that differ, duplicate ids, an empty reference.
    """

    sample_ids: Sequence[str]
    patients: Sequence[str]
    references: Sequence[str]
    predictions: Sequence[str]
    vocabulary: frozenset[str] | None = None
    max_length: int | None = None
    training: frozenset[bytes] | None = None
    attention: Attention | None = None

    def __post_init__(self) -> None:
        count = len(self.sample_ids)
        if not count:
            raise DataError("Predictions hold no samples.")
        for name in ("patients", "references", "predictions"):
            if len(getattr(self, name)) != count:
                raise DataError(
                    f"Predictions have {count} samples and {len(self.patients)} {name}."
                )
        no_doubles("Predictions", self.sample_ids)
        empty = [i for i, text in enumerate(self.references) if not text.strip()]
        if empty:
            raise DataError(
                f"The reference of sample '{self.sample_ids[empty[0]]}' is empty ({len(empty)} "
                "such): there is nothing to compare with. Leave such samples out."
            )

    @cached_property
    def content(self) -> FloatArray:
        """float [N, 4]: stands for everything that a metric reads of a row."""
        pairs = zip(self.references, self.predictions, strict=True)
        return row_content(json.dumps(pair).encode() for pair in pairs)

    def support(self, _: str | None = None) -> int:
        """Number of samples."""
        return len(self.sample_ids)

    def take(self, rows: Sequence[int]) -> ReportPredictions:
        """The same table with these rows, in this order."""
        return replace(
            self,
            sample_ids=[self.sample_ids[i] for i in rows],
            patients=[self.patients[i] for i in rows],
            references=[self.references[i] for i in rows],
            predictions=[self.predictions[i] for i in rows],
        )

    def digest(self, manifest_sha256: str = "") -> str:
        """Hash of the content, with ids as keys of the manifest; whatever the order of rows."""
        ids, owners = (
            [sample_key(manifest_sha256, name) for name in names]
            for names in (self.sample_ids, self.patients)
        )
        rows = zip(ids, owners, self.references, self.predictions, strict=True)
        state = hashlib.sha256()
        for row in sorted(rows):
            state.update(json.dumps(row).encode())
        return state.hexdigest()

    def write(self, path: Path) -> None:
        """Write Parquet with the columns of the contract, and beside it ``attention.npz`` where
        there is attention. Equal tables give equal bytes."""
        columns: dict[str, Any] = {
            "sample_id": list(self.sample_ids),
            "patient_id": list(self.patients),
            "reference": list(self.references),
            "prediction": list(self.predictions),
        }
        write_frame(path, columns)
        beside = path.with_name(ATTENTION)
        if self.attention is None:
            beside.unlink(missing_ok=True)  # of an earlier run of the same cell
        else:
            self.attention.write(beside)

    @classmethod
    def read(cls, path: Path) -> ReportPredictions:
        """Read Parquet, CSV or JSON lines, and the ``attention.npz`` beside it where there is one.

        Raises DataError naming the file and what is wrong.
        """
        frame = read_frame(path, text=("reference", "prediction"))
        for column in ("sample_id", "reference", "prediction"):
            if column not in frame.columns:
                raise DataError(
                    f"{path} has no column '{column}'; a table of reports has sample_id, "
                    "reference, prediction, and patient_id if patients have several."
                )
        if frame["sample_id"].isna().any():
            raise DataError(f"{path} has a row without a sample_id.")
        ids = [str(value) for value in frame["sample_id"]]
        owners = list(ids)
        if "patient_id" in frame.columns:
            given = frame["patient_id"]
            owners = [
                i if blank else str(v) for i, v, blank in zip(ids, given, given.isna(), strict=True)
            ]
        texts = {
            name: ["" if blank else str(v) for v, blank in zip(c, c.isna(), strict=True)]
            for name, c in ((n, frame[n]) for n in ("reference", "prediction"))
        }
        beside = path.with_name(ATTENTION)
        attention = Attention.read(beside) if beside.is_file() else None
        try:
            return cls(ids, owners, texts["reference"], texts["prediction"], attention=attention)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
