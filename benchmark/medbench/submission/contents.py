"""The files of a bundle: whether they are those that belong in it, and a run's predictions."""

from __future__ import annotations

import hashlib
import re

import numpy as np

from medbench.schemas.record import Record
from medbench.schemas.task import TaskSpec
from medbench.submission import bundle, npy
from medbench.submission.archive import Archive
from medbench.submission.bundle import INDEX, KEYS, RECORD, Index, IndexedRun
from medbench.submission.keys import DIGITS
from medbench.submission.problems import Problem, RefusedError

_KEY = re.compile(rb"[0-9a-f]{%d}\Z" % DIGITS)
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")

#: How a stranger's file is called by what it is.
_SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".dcm", ".nii"),
    "pickle": (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin"),
    "weights": (".safetensors", ".onnx", ".h5", ".gguf"),
}
_HEADS = {
    "image": (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*"),
    "pickle": (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
}
_REFERENCES = ("label", "labels", "y", "reference", "references", "real", "patient_id", "sample_id")


def read_index(archive: Archive) -> Index:
    """``submission.json``. Raises RefusedError (schema, nan, too-large)."""
    if INDEX not in archive.names:
        raise RefusedError("schema", f"There is no {INDEX}: this is not a bundle.")
    index = bundle.read_index(archive.read(INDEX))
    names = [run.run_id for run in index.runs]
    for name in names:
        if not _RUN_ID.match(name) or names.count(name) > 1:
            raise RefusedError("schema", f"{INDEX} names the run {name!r} twice or not plainly.")
    return index


def check_files(archive: Archive, index: Index) -> list[Problem]:
    """Whether the entries are those that the index names, with their hashes, and of runs."""
    found = []
    known = {run.run_id for run in index.runs}
    wanted = {RECORD, *(f"{name}.npy" for types in bundle.ARRAYS.values() for name in types)}
    for name in sorted({*archive.names} - {INDEX}):
        data = archive.read(name)
        folder, _, file = name.partition("/")
        kind = _foreign(name, data)
        if folder not in known or file not in wanted or kind != "extra-file":
            found.append(Problem(kind, f"'{name}' does not belong in a bundle."))
        elif name not in index.files:
            found.append(Problem("extra-file", f"'{name}' is not named in {INDEX}."))
        elif hashlib.sha256(data).hexdigest() != index.files[name]:
            found.append(Problem("hash", f"'{name}' does not have the hash in {INDEX}."))
    missing = sorted({*index.files} - {*archive.names})
    missing += [f"{n}/{RECORD}" for n in sorted(known) if f"{n}/{RECORD}" not in archive.names]
    found += [Problem("missing-file", f"'{name[:200]}' is missing.") for name in missing[:10]]
    return found


def _foreign(name: str, data: bytes) -> str:
    """The kind of a file that does not belong in a bundle."""
    for kind, suffixes in _SUFFIXES.items():
        if name.lower().removesuffix(".gz").endswith(suffixes):
            return kind
    for kind, heads in _HEADS.items():
        if data.startswith(heads):
            return kind
    if data[128:132] == b"DICM":
        return "image"
    stem = name.rpartition("/")[2].partition(".")[0]
    return "reference" if stem in _REFERENCES else "extra-file"


def read_arrays(
    archive: Archive, run: IndexedRun, record: Record, task: TaskSpec
) -> dict[str, npy.Array] | None:
    """The predictions, alike in length and finite; None where the bundle must not hold them."""
    there = {n.partition("/")[2] for n in archive.names if n.startswith(f"{run.run_id}/")}
    there -= {RECORD}
    if bundle.left_out(record):
        if there or run.key_id is not None:
            raise RefusedError(
                "extra-file",
                f"Predictions of run {run.run_id} must not be handed on: "
                f"{bundle.left_out(record)}.",
            )
        return None
    types = bundle.ARRAYS[task.type]
    needed = {f"{name}.npy" for name in types if name not in bundle.OPTIONAL}
    if needed - there or run.key_id is None:
        raise RefusedError(
            "missing-file",
            f"Run {run.run_id} lacks {', '.join(sorted(needed - there)) or 'the id of its keys'}.",
        )
    if stray := there - {f"{name}.npy" for name in types}:
        raise RefusedError(
            "extra-file", f"Run {run.run_id} has '{min(stray)}', which {task.type} has not."
        )
    found = {}
    for name, kind in types.items():
        if f"{name}.npy" in there:
            where = f"{run.run_id}/{name}.npy"
            found[name] = npy.from_bytes(where, archive.read(where), kind, 1 + (name != KEYS))
    keys = found[KEYS].tolist()
    for key in keys:
        if not _KEY.match(key):
            raise RefusedError(
                "clear-ids",
                f"Run {run.run_id}: a sample is called something that is no key of {DIGITS} "
                "hexadecimal digits. Ids must not be handed on.",
            )
    if len(set(keys)) != len(keys):
        raise RefusedError("duplicate-sample", f"Run {run.run_id} has a sample twice.")
    for name, array in found.items():
        width = {"score": len(task.labels), "threshold": len(task.labels)}.get(name)
        if (name != "text" and len(array) != len(keys)) or (width and array.shape[1] != width):
            raise RefusedError(
                "array",
                f"Run {run.run_id}: {name} has shape {array.shape} for {len(keys)} samples.",
            )
        if array.dtype.kind == "f":
            bad = np.isinf(array) if name == "threshold" else ~np.isfinite(array)
            if bad.any():
                raise RefusedError(
                    "nan",
                    f"Run {run.run_id}: {name} holds {bad.sum():,} values that are no number.",
                )
    if len(keys) != record.data.samples.get("test"):
        raise RefusedError(
            "missing-samples",
            f"Run {run.run_id} has {len(keys)} predictions and states "
            f"{record.data.samples.get('test')} tested samples.",
        )
    return found
