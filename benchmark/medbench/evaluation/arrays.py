"""Arrays from strangers: ``.npz`` files read as data, never as objects."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medbench.errors import DataError, StorageError
from medbench.metrics.values import FloatArray

Array = npt.NDArray[Any]

#: More bytes than this, unpacked, are not read: 5,000 masks of 1,024 x 1,024 twice are 10 GB.
MOST = 16 * 2**30


def read_npz(
    path: Path, needed: Collection[str], optional: Collection[str] = ()
) -> dict[str, Array]:
    """The named arrays of an ``.npz`` file; others are left unread.

    Each header is read before its array: object arrays, which only Python's pickle could load and
    which could run code, are refused unread, and so is a file that says it is larger than it is.

    Raises:
        DataError: not an ``.npz`` file, a missing array, an object array, too large, damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            missing = [name for name in needed if name not in members]
            if missing:
                raise DataError(
                    f"{path} has no array '{missing[0]}'; it has {', '.join(sorted(members))}. "
                    f"This type needs {', '.join(needed)}."
                )
            wanted = [name for name in (*needed, *optional) if name in members]
            total = sum(archive.getinfo(members[name]).file_size for name in wanted)
            if total > MOST:
                raise DataError(
                    f"{path} unpacks to {total:,} bytes, more than the {MOST:,} that are read."
                )
            return {name: _member(path, archive, members[name]) for name in wanted}
    except (OSError, zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as .npz: {error}.") from error


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise DataError(f"{path}: array '{name}' has format version {version}.")
        shape, fortran, dtype = read(stream)
        if dtype.hasobject:
            raise DataError(
                f"{path}: '{name}' is an object array, which only Python's pickle could load, and "
                "which is refused because that could run code. Save plain numbers, or ids as "
                "unicode strings (np.array(ids, dtype=str))."
            )
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        data = stream.read(size + 1)
        if len(data) != size:
            raise DataError(f"{path}: array '{name}' is cut short or longer than its shape says.")
        order = "F" if fortran else "C"
        return np.frombuffer(data, dtype).reshape(shape, order=order)  # type: ignore[call-overload,no-any-return]


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays; equal ones give equal bytes. Raises StorageError; an older file then stays."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in sorted(arrays):
                # a fixed date: zip files carry one
                info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w", force_zip64=True) as stream:
                    array = np.asarray(arrays[name], order="C")
                    np.lib.format.write_array(stream, array, allow_pickle=False)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise StorageError(f"Predictions cannot be written to {path}: {error}.") from error


def numbers(path: Path, name: str, array: Array, dimensions: int) -> FloatArray:
    """float64 of the stated number of dimensions, finite. Raises DataError."""
    if array.ndim != dimensions or array.dtype.kind not in "fiub":
        raise DataError(
            f"{path}: '{name}' is {array.dtype} of shape {array.shape}; {dimensions}-dimensional "
            "numbers are expected."
        )
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise DataError(f"{path}: '{name}' holds {bad:,} values that are NaN or infinite.")
    return values


def names(path: Path, name: str, array: Array, count: int) -> list[str]:
    """``count`` strings. Raises DataError."""
    if array.shape != (count,) or array.dtype.kind not in "Uiu":
        raise DataError(
            f"{path}: '{name}' is {array.dtype} of shape {array.shape}; {count} unicode strings "
            "are expected."
        )
    return [str(value) for value in array]


def no_doubles(where: object, ids: Iterable[str]) -> None:
    """Raises DataError naming the first id that occurs twice."""
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise DataError(f"{where}: sample id '{name}' occurs twice.")
        seen.add(name)


def row_content(rows: Iterable[bytes]) -> FloatArray:
    """Each row's content as four numbers of its SHA-256, float64 [N, 4]: exact, below 2**32.

    Resamples are drawn over patients as their content orders them
    (`medbench.statistics.bootstrap.content_clusters`), so an interval does not depend on how
    samples are called or sorted.
    """
    found = [np.frombuffer(hashlib.sha256(row).digest()[:16], ">u4") for row in rows]
    return np.array(found, np.float64).reshape(-1, 4)
