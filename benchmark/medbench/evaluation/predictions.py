"""Per-sample predictions of a classification run: the table, its file and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medbench.errors import DataError, PluginError
from medbench.evaluation.frames import read_frame, write_frame
from medbench.metrics.values import FloatArray

if TYPE_CHECKING:
    import pandas as pd


def sample_key(manifest_sha256: str, name: str) -> str:
    """What stands for a sample or patient id in a published table: 16 hexadecimal digits."""
    return hashlib.sha256(f"{manifest_sha256}:{name}".encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class ClassPredictions:
    """N samples, L labels.

    Attributes:
        sample_ids: [N], unique.
        patients: [N], the cluster of each sample.
        labels: [L], unique.
        y: float64 [N, L]: 1 present, 0 absent, NaN not scored; exactly one 1 and no NaN per row
            when multiclass.
        scores: float64 [N, L], finite.
        multiclass: decided by arg max.
        thresholds: float64 [N, L] ([L] is accepted, and repeated), or None; NaN for a label
            without one, which metrics of decisions leave out.
        keyed: True when ids are already keys, as in a published table.

    Raises:
        PluginError: scores of the wrong shape or not finite: a model broke its contract.
        DataError: anything else that is wrong.
    """

    sample_ids: Sequence[str]
    patients: Sequence[str]
    labels: Sequence[str]
    y: FloatArray
    scores: FloatArray
    multiclass: bool
    thresholds: FloatArray | None = None
    keyed: bool = False

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("sample_ids", "patients", "labels"):
            put(self, name, tuple(str(v) for v in getattr(self, name)))
        put(self, "y", np.array(self.y, dtype=np.float64))
        put(self, "scores", np.array(self.scores, dtype=np.float64))
        if self.thresholds is not None:
            given = np.array(self.thresholds, dtype=np.float64)
            if given.shape == (len(self.labels),):
                given = np.tile(given, (len(self.sample_ids), 1))
            put(self, "thresholds", given)
        self._check_reference()
        self._check_scores()

    def _check_reference(self) -> None:
        count, shape = len(self.sample_ids), (len(self.sample_ids), len(self.labels))
        if not count or not self.labels:
            raise DataError(f"Predictions hold {count} samples and {len(self.labels)} labels.")
        for kind, names in (("sample id", self.sample_ids), ("label", self.labels)):
            if len(set(names)) != len(names):
                twice = next(n for i, n in enumerate(names) if n in names[:i])
                raise DataError(f"Predictions name {kind} '{twice}' twice.")
        if len(self.patients) != count:
            raise DataError(f"Predictions have {count} samples and {len(self.patients)} patients.")
        if self.y.shape != shape:
            raise DataError(f"Reference labels have shape {self.y.shape}, not {shape}.")
        if not np.isin(self.y[~np.isnan(self.y)], (0.0, 1.0)).all():
            raise DataError("Reference labels must be 0, 1 or blank.")
        wrong = np.flatnonzero(self.y.sum(axis=1) != 1).tolist() if self.multiclass else []
        if wrong:
            raise DataError(
                f"Sample '{self.sample_ids[wrong[0]]}' has not exactly one label, which a "
                f"multiclass task needs ({len(wrong)} such samples)."
            )
        if self.thresholds is not None:
            if self.thresholds.shape != shape:
                raise DataError(f"Thresholds have shape {self.thresholds.shape}, not {shape}.")
            if np.isinf(self.thresholds).any():
                raise DataError("Thresholds must be finite numbers, or blank for none.")

    def _check_scores(self) -> None:
        shape = (len(self.sample_ids), len(self.labels))
        if self.scores.shape != shape:
            raise PluginError(f"Scores have shape {self.scores.shape}, not {shape}.")
        wrong = np.argwhere(~np.isfinite(self.scores))
        if len(wrong):
            row, column = wrong[0]
            raise PluginError(
                f"The score of sample '{self.sample_ids[row]}' for label '{self.labels[column]}' "
                f"is {self.scores[row, column]}, not a finite number ({len(wrong)} such scores)."
            )

    @property
    def content(self) -> FloatArray:
        """float [N, C]: everything a metric reads."""
        parts = [self.y, self.scores]
        if self.thresholds is not None:
            parts.append(self.thresholds)
        return np.concatenate(parts, axis=1)

    def support(self, _: str | None = None) -> int:
        """Number of samples with a label."""
        return int((~np.isnan(self.y)).any(axis=1).sum())

    def take(self, rows: Sequence[int]) -> ClassPredictions:
        """The same table with these rows, in this order."""
        index = np.asarray(rows, dtype=np.intp)
        return replace(
            self,
            sample_ids=[self.sample_ids[i] for i in index],
            patients=[self.patients[i] for i in index],
            y=self.y[index],
            scores=self.scores[index],
            thresholds=None if self.thresholds is None else self.thresholds[index],
        )

    def publishable(self, manifest_sha256: str) -> ClassPredictions:
        """The same table with keys for ids, rows sorted by key; itself when it has keys."""
        keyed = self
        if not self.keyed:
            keyed = replace(
                self,
                sample_ids=[sample_key(manifest_sha256, i) for i in self.sample_ids],
                patients=[sample_key(manifest_sha256, i) for i in self.patients],
                keyed=True,
            )
        return keyed.take(sorted(range(len(keyed.sample_ids)), key=keyed.sample_ids.__getitem__))

    def digest(self, manifest_sha256: str) -> str:
        """Hash of the content: independent of the order of rows and of how the file is packed.

        A published table has the digest of the table it was made from.
        """
        table = self.publishable(manifest_sha256)
        head = [list(table.labels), table.thresholds is not None]
        state = hashlib.sha256(json.dumps(head, separators=(",", ":")).encode() + b"\n")
        numbers = np.ascontiguousarray(table.content + 0.0, dtype="<f8")
        numbers[np.isnan(numbers)] = np.nan  # one bit pattern for every NaN
        for key, patient, row in zip(table.sample_ids, table.patients, numbers, strict=True):
            state.update(f"{key} {patient} ".encode() + row.tobytes())
        return state.hexdigest()

    def write(self, path: Path) -> None:
        """Write Parquet with the columns of the contract. Equal tables give equal bytes.

        Raises StorageError when the file cannot be written; an older file then stays as it was.
        """
        import pyarrow as pa

        names = ("sample_key", "patient_key") if self.keyed else ("sample_id", "patient_id")
        columns: dict[str, Any] = dict(zip(names, (self.sample_ids, self.patients), strict=True))
        columns = {name: pa.array(list(ids), pa.string()) for name, ids in columns.items()}
        for k, label in enumerate(self.labels):
            # A missing label is null, as a blank cell is in CSV, not a NaN.
            truth = self.y[:, k]
            columns[f"label:{label}"] = pa.array(truth, pa.float64(), mask=np.isnan(truth))
        for k, label in enumerate(self.labels):
            columns[f"score:{label}"] = pa.array(self.scores[:, k], pa.float64())
        if self.thresholds is not None:
            for k, label in enumerate(self.labels):
                limit = self.thresholds[:, k]
                columns[f"threshold:{label}"] = pa.array(limit, pa.float64(), mask=np.isnan(limit))
        write_frame(path, columns)

    def publish(self, path: Path, manifest_sha256: str) -> None:
        """Write the same table with keys in place of ids. It has the same digest."""
        self.publishable(manifest_sha256).write(path)

    @classmethod
    def read(cls, path: Path, multiclass: bool | None = None) -> ClassPredictions:
        """Read Parquet, CSV or JSON lines, with ids or with keys.

        Args:
            path: the file; its suffix says which.
            multiclass: None: three or more labels with exactly one 1 in each row and no blank.

        Raises DataError naming the file and what is wrong in it.
        """
        frame = read_frame(path)
        keyed = "sample_key" in frame.columns
        sample, patient = ("sample_key", "patient_key") if keyed else ("sample_id", "patient_id")
        if sample not in frame.columns:
            raise DataError(f"{path} has no column 'sample_id'.")
        labels = [str(c)[6:] for c in frame.columns if str(c).startswith("label:")]
        missing = [n for n in labels if f"score:{n}" not in frame.columns]
        stray = [str(c) for c in frame.columns if str(c).startswith("score:")]
        missing += [c[6:] for c in stray if c[6:] not in labels]
        if missing or not labels:
            what = f"label and score of '{missing[0]}'" if missing else "columns 'label:<name>'"
            raise DataError(f"{path} lacks the {what}.")
        if frame[sample].isna().any():
            raise DataError(f"{path} has a row without a {sample.replace('_', ' ')}.")
        ids = [str(v) for v in frame[sample]]
        owners = list(ids)
        if patient in frame.columns:
            blank = frame[patient].isna()
            owners = [
                i if b else str(v) for i, v, b in zip(ids, frame[patient], blank, strict=True)
            ]
        y = _numbers(path, frame, [f"label:{n}" for n in labels])
        given = [n for n in labels if f"threshold:{n}" in frame.columns]
        if given and len(given) != len(labels):
            raise DataError(f"{path} has thresholds for some labels only: {', '.join(given)}.")
        if multiclass is None:
            multiclass = len(labels) >= 3 and bool((y.sum(axis=1) == 1).all())
        try:
            return cls(
                sample_ids=ids,
                patients=owners,
                labels=labels,
                y=y,
                scores=_numbers(path, frame, [f"score:{n}" for n in labels]),
                multiclass=multiclass,
                thresholds=_numbers(path, frame, [f"threshold:{n}" for n in given])
                if given
                else None,
                keyed=keyed,
            )
        except (DataError, PluginError) as error:
            raise DataError(f"{path}: {error}") from error


def _numbers(path: Path, frame: pd.DataFrame, columns: list[str]) -> FloatArray:
    """float64 [N, len(columns)], NaN where blank."""
    try:
        return frame[columns].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} holds something that is no number: {error}.") from error
