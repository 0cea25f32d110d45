"""Findings of images in an ``.npz`` file: one array ``<kind>:<finding>`` for each."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medbench.errors import DataError
from medbench.evaluation.arrays import Array, read_npz
from medbench.metrics.values import FloatArray

#: Findings of the prompts' samples and of the real images, and scores of the generated images.
KINDS = ("label", "real_label", "score")


def finding_arrays(kind: str, names: Sequence[str], table: FloatArray | None) -> dict[str, Array]:
    """Columns of float [n, L] as arrays; those of a classifier that does not know them left out."""
    if table is None:
        return {}
    return {
        f"{kind}:{name}": column
        for name, column in zip(names, table.T, strict=True)
        if kind != "score" or not np.isnan(column).all()
    }


def read_findings(path: Path) -> tuple[tuple[str, ...], dict[str, FloatArray]]:
    """Names of the findings, and each kind that the file has as float64 [n, L].

    Raises DataError: not numbers in one row each, of unequal length, a label given for the prompts
    and not for the real images or the other way, a score without a label.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(name.removesuffix(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}.") from error
    columns: dict[str, dict[str, FloatArray]] = {}
    wanted = [name for name in members if name.partition(":")[0] in KINDS and ":" in name]
    for member, array in read_npz(path, wanted).items():
        kind, _, name = member.partition(":")
        if array.ndim != 1 or array.dtype.kind not in "fiub":
            raise DataError(
                f"{path}: '{member}' is {array.dtype} of shape {array.shape}; one number for each "
                "image is expected."
            )
        columns.setdefault(kind, {})[name] = array.astype(np.float64)
    names = tuple(sorted(columns.get("label", columns.get("real_label", {}))))
    tables = {}
    for kind, some in columns.items():
        missing = [] if kind == "score" else [name for name in names if name not in some]
        unknown = [name for name in some if name not in names]
        if missing or unknown:
            raise DataError(
                f"{path} has unequal findings: '{(missing + unknown)[0]}' is not among both its "
                f"labels and its '{kind}:' arrays."
            )
        lengths = {len(column) for column in some.values()}
        if len(lengths) != 1:
            raise DataError(f"{path}: arrays '{kind}:' are of unequal lengths {sorted(lengths)}.")
        table = np.full((lengths.pop(), len(names)), np.nan)
        for name, column in some.items():
            if kind == "score" and np.isnan(column).any():
                raise DataError(
                    f"{path}: 'score:{name}' holds {int(np.isnan(column).sum()):,} values that are "
                    "NaN. Leave out the array of a finding that is not scored."
                )
            table[:, names.index(name)] = column
        tables[kind] = table
    return names, tables
