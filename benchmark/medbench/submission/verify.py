"""Verify a bundle: everything in it is data to be judged, and nothing of it is run.

A run ends as ``recomputed`` (its metrics follow from the submitted predictions and the verifier's
own references), ``self-reported`` (the verifier lacks what that would take) or ``failed``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from medbench.errors import DataError, MedbenchError
from medbench.evaluation.files import AnyPredictions
from medbench.evaluation.keyed import hashes
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.retrieval_predictions import RetrievalPredictions
from medbench.leaderboard.collect import Entry
from medbench.leaderboard.verify import disagreements
from medbench.schemas.record import Record
from medbench.schemas.specs import MetricSpec
from medbench.schemas.task import TaskSpec
from medbench.submission import bundle, npy
from medbench.submission.archive import Archive
from medbench.submission.bundle import KEYS, RECORD, IndexedRun
from medbench.submission.contents import check_files, read_arrays, read_index
from medbench.submission.held import Held, Holdings, LackingError
from medbench.submission.problems import Problem, RefusedError
from medbench.submission.statements import check_statements, check_texts, ids_named, task_of
from medbench.submission.verdicts import RunVerdict, Verification

#: After so many seconds no further run is looked at.
SECONDS = 1800.0


def verify(
    path: Path,
    tasks: Mapping[str, TaskSpec],
    metrics: Sequence[MetricSpec],
    holdings: Holdings,
    *,
    seconds: float = SECONDS,
) -> Verification:
    """Verify a bundle. What is wrong with it is in the answer.

    Args:
        path: the zip file; read, and never unpacked to disk.
        tasks: every known task, by name.
        metrics: every known metric.
        holdings: the data that this machine has.
        seconds: after these no further run is looked at.

    Raises DataError where there is no such file.
    """
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"Bundle {path} cannot be read: {error.strerror}.") from error
    found = Verification(sha256)
    started = time.monotonic()
    try:
        with Archive(path) as archive:
            index = read_index(archive)
            found.problems += check_files(archive, index)
            if found.problems:
                return found
            for run in index.runs:
                if time.monotonic() - started > seconds:
                    raise RefusedError(
                        "time", f"After {seconds:,.0f} s runs were left; split the bundle."
                    )
                found.runs.append(_run(archive, run, tasks, metrics, holdings))
    except RefusedError as error:
        found.problems.append(error.problem)
    return found


def _run(
    archive: Archive,
    run: IndexedRun,
    tasks: Mapping[str, TaskSpec],
    metrics: Sequence[MetricSpec],
    holdings: Holdings,
) -> RunVerdict:
    found = RunVerdict(run.run_id)
    name = f"{run.run_id}/{RECORD}"
    try:
        data = archive.read(name)
        found.record_sha256 = hashlib.sha256(data).hexdigest()
        record = bundle.read_record(name, data)
        task = task_of(record, run.run_id, tasks)
        found.primary = task.primary
        found.problems += [*check_statements(record, task, metrics), *check_texts(record)]
        if found.problems:
            return found
        found.record = record
        arrays = read_arrays(archive, run, record, task)
        found.reasons += [reason] if (reason := bundle.left_out(record)) else []
        if arrays is None:
            return found
        try:
            held = holdings.find(record, task)
        except LackingError as error:
            found.reasons.append(f"the verifier lacks the data: {str(error).rstrip('.')}")
            return found
        found.reasons += _other_copy(run, record, held)
        if not found.reasons:
            found.table = _recompute(record, task, arrays, held, metrics, found.problems)
    except RefusedError as error:
        found.problems.append(error.problem)
    except Exception as error:  # whatever a hostile record makes of the code that judges it
        known = isinstance(error, MedbenchError)
        what = str(error) if known else f"{type(error).__name__}: {error}"
        found.problems.append(
            Problem("record", f"Run {run.run_id} can be held against nothing: {what}")
        )
    return found


def _other_copy(run: IndexedRun, record: Record, held: Held) -> list[str]:
    """Why the verifier's copy of the data cannot say anything of a run. Raises RefusedError (data,
    keys) where phantoms differ, since they are the same everywhere."""
    mine = held.loaded
    if record.data.renderer != mine.dataset.renderer:
        return [
            f"it was made with renderer {record.data.renderer}, and the verifier has "
            f"{mine.dataset.renderer}"
        ]
    stated = record.data.manifest_sha256
    if stated != mine.manifest.sha256:
        message = f"the manifest is {stated[:12]}, and the verifier's {mine.manifest.sha256[:12]}"
        if record.data.track == "phantom":
            raise RefusedError("data", f"Run {run.run_id}: {message}, of the same phantom.")
        return [f"{message}: another version or part of the data"]
    if run.key_id != held.key_id:
        if record.data.track == "phantom":
            raise RefusedError("keys", f"Run {run.run_id} has keys that no phantom gives.")
        return ["the image files differ from the verifier's copy"]
    return []


def _recompute(
    record: Record,
    task: TaskSpec,
    arrays: Mapping[str, npy.Array],
    held: Held,
    metrics: Sequence[MetricSpec],
    problems: list[Problem],
) -> AnyPredictions | None:
    """The table of a run, from its predictions and the verifier's references; what does not follow
    from it is added to ``problems``."""
    who = f"Run {record.run_id}"
    given = {key.decode(): row for row, key in enumerate(arrays[KEYS].tolist())}
    unknown, missing = len(given.keys() - {*held.keys}), len({*held.keys} - given.keys())
    if unknown or missing:
        kind = "unknown-samples" if unknown else "missing-samples"
        raise RefusedError(
            kind,
            f"{who}: {unknown} keys are of no tested sample, and {missing} of {len(held.keys)} "
            "tested samples have no prediction.",
        )
    stated = (record.data.samples.get("test"), record.data.patients.get("test"))
    if stated != (len(held.ids), len(set(held.patients))):
        problems.append(
            Problem("data", f"{who} states {stated[0]} samples of {stated[1]} patients.")
        )
    if named := ids_named(record, held.loaded.samples):
        problems.append(Problem("clear-ids", f"{who}: its record names {named} ids of the data."))
    _fits(record, arrays, held.references)
    table = held.with_predictions(arrays, [given[key] for key in held.keys])
    expected = hashes(table, record.data.manifest_sha256)
    if any(record.hashes.get(name) != value for name, value in expected.items()):
        problems.append(
            Problem(
                "predictions",
                f"{who}: its predictions, beside the true references, do not have the hash in its "
                "record.",
            )
        )
    entry = Entry(record, Path(record.run_id) / RECORD, task)
    problems += [
        Problem("metric", f"{who}: {text}.") for text in disagreements(entry, table, metrics)
    ]
    return None if problems else table


def _fits(record: Record, arrays: Mapping[str, npy.Array], table: AnyPredictions) -> None:
    """Raises RefusedError (array) for predictions of another size than the references."""
    if isinstance(table, MaskPredictions):
        wanted = -(-table.reference[0].size // 8)
        given = arrays["prediction"].shape[1]
    elif isinstance(table, RetrievalPredictions):
        wanted, given = len(table.text), len(arrays["text"])
    else:
        return
    if wanted != given:
        raise RefusedError(
            "array",
            f"Run {record.run_id}: predictions are of size {given}, and the task's of {wanted}.",
        )
