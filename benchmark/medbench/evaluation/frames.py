"""Tables of predictions on disk: CSV, JSON lines or Parquet in, Parquet out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbench.errors import DataError, StorageError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".jsonl", ".json", ".parquet", ".pq")


def read_frame(path: Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table; ids, and the columns named in ``text``, as they stand.

    Raises:
        DataError: another suffix, not readable as such, not UTF-8.
    """
    import pandas as pd

    keep = {*text, "sample_id", "patient_id", "sample_key", "patient_key"}
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path} is not a table that is read: {', '.join(SUFFIXES)} are. Arrays (.npz) hold "
            "masks, embeddings and images."
        )
    try:
        if path.suffix.lower() == ".csv":
            # A report that reads "None" or "NA" is a report.
            blank = {name: [""] for name in _columns(path) if name not in text}
            return pd.read_csv(
                path, dtype=dict.fromkeys(keep, str), keep_default_na=False, na_values=blank
            )
        if path.suffix.lower() in (".jsonl", ".json"):
            lines = path.read_text(encoding="utf-8").splitlines()
            return pd.DataFrame([json.loads(line) for line in lines if line.strip()])
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pandas' and Arrow's own errors are ValueErrors too
        raise DataError(f"Predictions {path} cannot be read: {error}.") from error


def _columns(path: Path) -> list[str]:
    import pandas as pd

    return [str(name) for name in pd.read_csv(path, nrows=0).columns]


def write_frame(path: Path, columns: Mapping[str, Any]) -> None:
    """Write Parquet. Equal columns give equal bytes.

    Raises StorageError when the file cannot be written; an older file then stays as it was.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(dict(columns)), partial, compression="zstd", version="2.6")
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise StorageError(f"Predictions cannot be written to {path}: {error}.") from error
