"""Pack runs into a bundle that can be handed on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medbench.errors import DataError, UsageError, VerificationError
from medbench.evaluation.files import AnyPredictions, read_predictions
from medbench.evaluation.keyed import recognise
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.predictions import ClassPredictions, sample_key
from medbench.evaluation.retrieval_predictions import RetrievalPredictions
from medbench.run.stores import writing
from medbench.schemas.record import Record, predictions_name
from medbench.schemas.specs import MetricSpec
from medbench.schemas.task import TaskSpec
from medbench.submission import bundle, npy
from medbench.submission.archive import write_archive
from medbench.submission.bundle import INDEX, KEYS, RECORD
from medbench.submission.held import Held, Holdings, LackingError
from medbench.submission.verdicts import Verification
from medbench.submission.verify import verify


def pack(
    runs: Sequence[Path],
    output: Path,
    tasks: Mapping[str, TaskSpec],
    metrics: Sequence[MetricSpec],
    holdings: Holdings,
) -> Verification:
    """Write the bundle of some runs, after verifying it as a receiver would.

    Args:
        runs: folders of runs, or folders of such.
        output: the zip file; nothing is overwritten.
        tasks: every known task, by name.
        metrics: every known metric.
        holdings: the data that this machine has: keys follow from the data.

    Returns:
        What verifying it here came to.

    Raises:
        UsageError: no runs, too many, one run twice, or ``output`` exists.
        DataError: a record, its predictions or the data behind it cannot be read.
        VerificationError: a run is not whole, or does not agree with itself.
    """
    if output.exists():
        raise UsageError(f"{output} exists and is not overwritten. Choose another with --output.")
    files: dict[str, bytes] = {}
    keys: dict[str, str | None] = {}
    for folder in _folders(runs):
        data, record = _read(folder)
        if record.run_id in keys:
            raise UsageError(f"Run {record.run_id} is given twice.")
        if record.task.name not in tasks:
            raise UsageError(f"{folder}: there is no task called '{record.task.name}'.")
        files[f"{record.run_id}/{RECORD}"] = data
        keys[record.run_id] = None
        if bundle.left_out(record):
            continue
        try:
            held = holdings.find(record, tasks[record.task.name])
        except LackingError as error:
            raise DataError(
                f"The keys of run {record.run_id} follow from its data, and {error}."
            ) from error
        if record.data.manifest_sha256 != held.loaded.manifest.sha256:
            raise DataError(
                f"Run {record.run_id} was made on other data than these "
                f"({held.loaded.dataset.root}): name its own with --data, or run it again."
            )
        keys[record.run_id] = held.key_id
        for name, array in _arrays(folder, record, tasks[record.task.name], held).items():
            files[f"{record.run_id}/{name}.npy"] = npy.to_bytes(array)
    files[INDEX] = bundle.index_bytes(keys, files)
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    with writing(output):
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            write_archive(partial, files)
            found = verify(partial, tasks, metrics, holdings)
            wrong = [*found.problems, *(p for run in found.runs for p in run.problems)]
            if wrong:
                raise VerificationError(
                    f"These runs cannot be submitted: {' '.join(p.message for p in wrong[:5])}"
                )
            os.replace(partial, output)
        finally:
            partial.unlink(missing_ok=True)
    return found


def _folders(runs: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in runs:
        some = (
            [path]
            if (path / RECORD).is_file()
            else sorted(p.parent for p in path.glob(f"*/{RECORD}"))
        )
        if not some:
            raise UsageError(f"{path} is no folder of a run, and holds none: {RECORD} is missing.")
        found += some
    if len(found) > bundle.MOST_RUNS:
        raise UsageError(f"A bundle holds at most {bundle.MOST_RUNS} runs, not {len(found)}.")
    return found


def _read(folder: Path) -> tuple[bytes, Record]:
    try:
        data = (folder / RECORD).read_bytes()
        return data, Record.model_validate_json(data)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no valid {RECORD}: {error}.") from error


def _arrays(folder: Path, record: Record, task: TaskSpec, held: Held) -> dict[str, npy.Array]:
    """The predictions of a run, under keys and without references."""
    path = folder / predictions_name(task.type)
    found = recognise(
        read_predictions(path, task.type, task.multiclass),
        record.data.manifest_sha256,
        record.hashes,
    )
    if not found.sound:
        raise VerificationError(
            f"{path} does not have the hash in its record. Run it again with --fresh."
        )
    return {KEYS: _keys(path, found.table, held), **_predicted(found.table)}


def _keys(path: Path, table: AnyPredictions, held: Held) -> npy.Array:
    """bytes [N], for the rows of a table that is published under keys of its own."""
    manifest = held.loaded.manifest.sha256
    if isinstance(table, RetrievalPredictions):  # it has no sample ids, and the task's own order
        mine, theirs = held.patients, list(table.image_patients)
        if [sample_key(manifest, name) for name in mine] != theirs:
            raise DataError(f"{path} is not in the order of the task's samples.")
        return np.array([key.encode() for key in held.keys])
    known = {sample_key(manifest, name): key for name, key in zip(held.ids, held.keys, strict=True)}
    ids = list(table.sample_ids)  # type: ignore[union-attr]
    if set(ids) != set(known):
        raise DataError(f"{path} does not hold the samples that its task tests.")
    return np.array([known[name].encode() for name in ids])


def _predicted(table: AnyPredictions) -> dict[str, npy.Array]:
    if isinstance(table, MaskPredictions):
        flat = table.prediction.reshape(len(table.prediction), -1)
        return {"prediction": np.packbits(flat, axis=1)}
    if isinstance(table, RetrievalPredictions):
        return {"image": table.image.astype("<f4"), "text": table.text.astype("<f4")}
    assert isinstance(table, ClassPredictions)
    limits = {} if table.thresholds is None else {"threshold": table.thresholds.astype("<f8")}
    return {"score": table.scores.astype("<f8"), **limits}
