"""Take a verified bundle into the leaderboards."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from medbench.errors import DataError, UsageError, VerificationError
from medbench.evaluation.keyed import PUBLISHED, recognise
from medbench.leaderboard.build import build, held
from medbench.leaderboard.submitted import FOLDER, VERDICT
from medbench.schemas.record import predictions_name
from medbench.schemas.specs import NAME, MetricSpec
from medbench.schemas.task import TaskSpec
from medbench.submission.archive import Archive
from medbench.submission.bundle import RECORD
from medbench.submission.verdicts import Verification


def accept(
    bundle: Path,
    found: Verification,
    root: Path,
    tasks: Mapping[str, TaskSpec],
    metrics: Sequence[MetricSpec],
) -> Path:
    """Write a bundle's records, and what verifying them came to, into
    ``root/submissions/<name of the file>/``; predictions of phantoms beside them, under the keys
    of published ones.

    Returns:
        The new folder. The tables are not built.

    Raises:
        UsageError: the file's name is no name, or taken.
        VerificationError: the bundle failed, or its records cannot share the tables.
    """
    name = bundle.stem
    folder = root / FOLDER / name
    if bundle.suffix != ".zip" or not NAME.match(name):
        raise UsageError(
            f"{bundle.name} is to name a folder: lower-case words joined by hyphens, and .zip."
        )
    if folder.exists():
        raise UsageError(f"{folder} exists: a submission is not replaced. Give it another name.")
    if found.verdict == "failed":
        raise VerificationError(f"{bundle.name} failed and is not accepted.")
    staged = folder.with_name(f".{name}.{os.getpid()}.part")
    staged.mkdir(parents=True)
    try:
        with Archive(bundle) as archive:
            for run in found.runs:
                record = run.record
                assert record is not None
                place = staged / record.task.name / record.run_id
                place.mkdir(parents=True)
                (place / RECORD).write_bytes(archive.read(f"{run.run_id}/{RECORD}"))
                publishable = record.data.track == "phantom" and record.task.type in PUBLISHED
                if run.table is not None and publishable:
                    known = recognise(run.table, record.data.manifest_sha256, record.hashes)
                    known.table.write(place / predictions_name(record.task.type))
        text = json.dumps({"name": name, **found.document()}, indent=2, ensure_ascii=False)
        (staged / VERDICT).write_text(text + "\n", encoding="utf-8")
        os.replace(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory() as tables:
            build(held(root), Path(tables), tasks, metrics=metrics)
    except (DataError, UsageError, VerificationError) as error:
        shutil.rmtree(folder)
        raise VerificationError(
            f"The tables cannot be built with {bundle.name}: {error}"
        ) from error
    return folder
