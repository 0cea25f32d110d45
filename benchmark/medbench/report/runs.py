"""Runs on disk, checked against their own hashes, and grouped by what may stand in one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from medbench.errors import DataError
from medbench.evaluation.arrays import names, numbers, read_npz
from medbench.evaluation.files import AnyPredictions, read_predictions
from medbench.evaluation.keyed import recognise
from medbench.evaluation.retrieval_predictions import RetrievalPredictions
from medbench.metrics.values import FloatArray
from medbench.plugins import Registry
from medbench.run.records import FEATURES, INPUTS, RECORD
from medbench.run.request import BASELINE
from medbench.run.settings import differences
from medbench.schemas.record import MetricValue, Record
from medbench.schemas.task import TaskSpec, load_task

SCHEMA = "medbench.record/1"


@dataclass(frozen=True, eq=False)
class Features:
    """What a model made of T tested samples.

    Attributes:
        ids: [T], unique.
        vectors: float64 [T, D], finite.
        y: float64 [T, L], NaN where a label is not scored.
    """

    ids: list[str]
    vectors: FloatArray
    y: FloatArray


@dataclass(frozen=True, eq=False)
class Run:
    """One run as its folder has it.

    Attributes:
        number: by which tables and figures of a page call it, from 1.
        task: as installed; None when no plugin has it, or the installed one is another version.
        predictions: None when they are not beside the record.
        features: None when the run kept none.
        limit: of ``--limit``; None when there was none, or the folder does not say.
        settings: those in which it differs from another run of the same model, as ``--set`` has.
    """

    number: int
    record: Record
    task: TaskSpec | None
    predictions: AnyPredictions | None
    features: Features | None
    limit: int | None
    settings: str = ""

    @property
    def name(self) -> str:
        """As tables name it: number, model, and settings that set it apart."""
        return " ".join(filter(None, [str(self.number), self.record.model_id, self.settings]))

    @property
    def label(self) -> str:
        """As legends name it: number, model, and what sets it apart."""
        record = self.record
        parts = [self.name]
        if record.fraction != 1:
            parts.append(f"{100 * record.fraction:.3g} % of labels")
        if record.seed:
            parts.append(f"seed {record.seed}")
        if record.adaptation:
            parts.append(record.adaptation)
        return ", ".join(parts)

    @property
    def is_baseline(self) -> bool:
        """Whether it is a trivial predictor, run alone."""
        return self.record.model.name == BASELINE


@dataclass(frozen=True, eq=False)
class Section:
    """Runs of one task on the same samples, so that their values may stand side by side."""

    runs: list[Run]

    @property
    def first(self) -> Record:
        return self.runs[0].record

    @property
    def task(self) -> TaskSpec | None:
        return self.runs[0].task

    @property
    def models(self) -> list[Run]:
        """The runs without those of trivial predictors."""
        return [run for run in self.runs if not run.is_baseline]

    @property
    def metrics(self) -> dict[str, MetricValue]:
        """Each metric that some run has, the ranking one first."""
        found: dict[str, MetricValue] = {}
        for run in self.runs:
            for name, value in run.record.metrics.items():
                found.setdefault(name, value)
        first = self.task.primary if self.task else ""
        return dict(sorted(found.items(), key=lambda item: item[0] != first))

    @property
    def primary(self) -> str | None:
        """The metric that ranks: the task's, or the first where the task is not installed."""
        return next(iter(self.metrics), None)


def find(paths: Sequence[Path]) -> list[Path]:
    """The folders of runs: each path itself, or those below it, sorted; none twice.

    Raises DataError for a path that is neither.
    """
    found: dict[Path, None] = {}
    for path in paths:
        below = [path] if (path / RECORD).is_file() else []
        if not below and path.is_dir():
            # hidden folders are copies in the making, left by a kill
            below = sorted(
                record.parent
                for record in path.rglob(RECORD)
                if not any(part.startswith(".") for part in record.relative_to(path).parts)
            )
        if not below:
            raise DataError(
                f"{path} is not the folder of a run, nor a folder of such: there is no {RECORD} in "
                "or below it. Runs are written to runs under MEDBENCH_HOME, or where `medbench run "
                "--output` says."
            )
        found.update((folder.resolve(), None) for folder in below)
    return list(found)


def read(folders: Sequence[Path], registry: Registry) -> list[Run]:
    """Read runs, numbered in the order given, trivial predictors after models.

    Raises DataError (exit 3) for a damaged record, one of another schema, predictions or features
    that cannot be read, and predictions that are not those of the record.
    """
    records = [(folder, _record(folder / RECORD)) for folder in folders]
    records.sort(key=lambda pair: pair[1].model.name == BASELINE)
    runs = [_read(number, *pair, registry) for number, pair in enumerate(records, 1)]
    alike: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        record = run.record
        key = (record.model_id, record.task.name, record.model.preset)
        alike.setdefault(key, []).append(run)
    settings: dict[int, str] = {}
    for several in alike.values():
        found = differences([run.record.model.config for run in several])
        for run, differ in zip(several, found, strict=True):
            settings[run.number] = ", ".join([*differ[:3], *(["..."] if len(differ) > 3 else [])])
    return [replace(run, settings=settings[run.number]) for run in runs]


def sections(runs: Sequence[Run]) -> list[Section]:
    """By what a ranking must share, but for adaptation and label fraction; the real track first."""
    grouped: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        record = run.record
        key = (
            record.data.track == "phantom",
            record.task.name,
            record.task.version,
            record.task.sha256,
            record.model.preset,
            record.protocol,
            record.data.manifest_sha256,
        )
        grouped.setdefault(key, []).append(run)
    return [Section(grouped[key]) for key in sorted(grouped, key=repr)]


def _read(number: int, folder: Path, record: Record, registry: Registry) -> Run:
    task = _task(record, registry)
    return Run(
        number,
        record,
        task,
        _predictions(folder, record, task),
        _features(folder / FEATURES),
        _limit(folder / INPUTS),
    )


def _record(path: Path) -> Record:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Record {path} cannot be read: {error}. Run the cell again, or leave the folder out."
        ) from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise DataError(
            f"Record {path} has the schema {schema!r}; this version of medbench reads {SCHEMA} "
            "and never mixes schemas on one page. Run the cell again, or leave the folder out."
        )
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise DataError(
            f"Record {path} is damaged: '{where}': {first['msg']} ({error.error_count()} such "
            "problems). Run the cell again, or leave the folder out."
        ) from error


def _task(record: Record, registry: Registry) -> TaskSpec | None:
    if record.task.name not in registry.names("tasks"):
        return None
    task = load_task(registry.task_file(record.task.name))
    return task if task.sha256 == record.task.sha256 else None


def _predictions(folder: Path, record: Record, task: TaskSpec | None) -> AnyPredictions | None:
    files = [folder / name for name in ("predictions.parquet", "predictions.npz")]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        return None
    multiclass = task.multiclass if task else None
    table = read_predictions(path, record.task.type, multiclass)
    if not _scored(path, table, record):
        raise DataError(
            f"{path} does not have the hash that its record states: these are not the predictions "
            "that were scored. Run the cell again, or leave the folder out."
        )
    return table


def _scored(path: Path, table: AnyPredictions, record: Record) -> bool:
    """Whether the record states the hash of these predictions, with ids or with keys."""
    manifest, stated = record.data.manifest_sha256, record.hashes.get("predictions")
    if table.digest(manifest) == stated:
        return True
    if isinstance(table, RetrievalPredictions):
        # a reader numbers groups anew, and the hash is of the numbers that they had
        own = read_npz(path, (), ("image_group", "text_group"))
        images, texts = (own.get(f"{side}_group", np.zeros(0)) for side in ("image", "text"))
        numbered = images.dtype.kind in "iu" and texts.dtype.kind in "iu"
        if numbered and (
            replace(table, image_group=images, text_group=texts).digest(manifest) == stated
        ):
            return True
    return recognise(table, manifest, record.hashes).sound


def _features(path: Path) -> Features | None:
    if not path.is_file():
        return None
    found = read_npz(path, ("sample_id", "features", "y"))
    vectors = numbers(path, "features", found["features"], 2)
    y = found["y"]
    if y.ndim != 2 or len(y) != len(vectors) or y.dtype.kind != "f":
        raise DataError(f"{path}: 'y' is {y.dtype} of shape {y.shape}; floats [T, L] are expected.")
    ids = names(path, "sample_id", found["sample_id"], len(vectors))
    return Features(ids, vectors, y.astype(np.float64))


def _limit(path: Path) -> int | None:
    """``--limit``, which only the file of what a run was made from has."""
    try:
        limit = json.loads(path.read_text(encoding="utf-8"))["inputs"]["identity"]["limit"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return limit if isinstance(limit, int) else None
