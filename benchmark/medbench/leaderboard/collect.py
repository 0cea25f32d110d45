"""Finding, reading and grouping records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from medbench.errors import DataError, unknown_name
from medbench.evaluation.files import AnyPredictions, read_predictions
from medbench.evaluation.keyed import Arrays, Recognised, recognise
from medbench.evaluation.predictions import ClassPredictions
from medbench.leaderboard.submitted import RERUN, SELF_REPORTED, Submitted, submitted
from medbench.schemas.contamination import contamination
from medbench.schemas.record import Record, predictions_name
from medbench.schemas.task import TaskSpec

RECORD = "record.json"

#: The model that stands for the trivial predictors; it has no adaptation.
BASELINE = "baseline"

#: Flags with which a run is listed, but not ranked.
UNRANKED = ("limited", "contaminated", "undeclared", "phantom-pretrained", "dirty")


@dataclass(frozen=True, order=True)
class Group:
    """What rows of one ranking share. Nothing is ranked across two of these."""

    phantom: bool  # first, so that real groups come before phantom ones
    preset: str
    protocol: str
    adaptation: str
    version: int
    fraction: float
    dataset: str
    renderer: str
    manifest: str

    @property
    def track(self) -> str:
        return "phantom" if self.phantom else "real"


@dataclass(frozen=True, eq=False)
class Entry:
    """A record, where it was found, the task it belongs to, and who sent it, if somebody did."""

    record: Record
    path: Path
    task: TaskSpec
    sent: Submitted | None = None

    @property
    def table(self) -> Path:
        """Where its predictions are, if they are there."""
        name = predictions_name(self.record.task.type)
        if self.path.name == RECORD:
            return self.path.with_name(name)
        return self.path.with_suffix(Path(name).suffix)

    def recognised(self) -> Recognised | None:
        """Its predictions, read anew and held against its hashes; None when they are not there."""
        table = self._read()
        if table is None:
            return None
        return recognise(table, self.record.data.manifest_sha256, self.record.hashes)

    def _read(self) -> AnyPredictions | None:
        if not self.table.is_file():
            return None
        return read_predictions(self.table, self.record.task.type, self.task.multiclass)

    @cached_property
    def predictions(self) -> AnyPredictions | None:
        """With keys for ids and sorted by key, where its type has keys; None when they are not
        beside the record. Not held against the hashes, which takes longer than reading."""
        table = self._read()
        manifest = self.record.data.manifest_sha256
        if isinstance(table, Arrays):  # whose hashes tell keys from ids
            return recognise(table, manifest, self.record.hashes).table
        return table.publishable(manifest) if isinstance(table, ClassPredictions) else table

    def forget(self) -> None:
        """Let go of predictions that were read; they are read anew when they are asked for."""
        self.__dict__.pop("predictions", None)

    @property
    def baseline(self) -> bool:
        """Whether it is a trivial predictor that was run alone."""
        return self.record.model.name == BASELINE

    @property
    def group(self) -> Group:
        return group_of(self.record)

    @property
    def identity(self) -> tuple[str, str]:
        """Of `identity_of`; what was submitted never shares a row with what was not."""
        model, tail = identity_of(self.record)
        return (model if self.sent is None else f"{model} [{self.sent.name}]", tail)

    @property
    def badge(self) -> str:
        """What stands behind it: see `medbench.leaderboard.submitted`."""
        return RERUN if self.sent is None else self.sent.badge

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it has no rank; empty when it has one."""
        record = self.record
        found = {flag for flag in record.flags if flag in UNRANKED}
        # a task may have learnt of an overlap since the run
        if contamination(record.model.weights_data or (), self.task, record.protocol):
            found.add("contaminated")
        if self.badge == SELF_REPORTED:
            found.add(SELF_REPORTED)
        if record.status != "complete":
            found.add(record.status)
        same = record.task.version == self.task.version
        if same and record.task.sha256 != self.task.sha256:
            found.add("other-task-file")
        return tuple(sorted(found))

    @property
    def cell(self) -> tuple[object, ...]:
        """Two records with the same cell are two runs of the same thing.

        A run that cannot be ranked never stands in the way of one that can.
        """
        return (self.record.task.name, self.group, self.identity, self.record.seed, self.reasons)


def group_of(record: Record) -> Group:
    """The ranking it belongs to."""
    return Group(
        phantom=record.data.track == "phantom",
        preset=record.model.preset,
        protocol=record.protocol,
        adaptation=record.adaptation or "",
        version=record.task.version,
        fraction=record.fraction,
        dataset=record.data.dataset,
        renderer=record.data.renderer or "",
        manifest=record.data.manifest_sha256,
    )


def identity_of(record: Record) -> tuple[str, str]:
    """Model and settings: runs that differ in their seed only share it."""
    settings = [record.model.config, record.model.weights_sha256, record.precision]
    text = json.dumps(settings, sort_keys=True, default=str)
    return (record.model_id, hashlib.sha256(text.encode()).hexdigest()[:6])


def find(paths: Iterable[Path]) -> list[Path]:
    """Record files: a file stands for itself, a folder for every ``record.json`` below it and
    every ``*.json`` below a folder ``records`` (sorted). Each once, in the order given."""
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            found[path] = None
            continue
        below = set(path.rglob(RECORD))
        below |= {
            p
            for p in path.rglob("*.json")
            if "records" in (path.name, *p.relative_to(path).parts[:-1])
        }
        # Hidden folders are copies in the making, left by a kill.
        seen = [p for p in below if not any(n.startswith(".") for n in p.relative_to(path).parts)]
        found.update(dict.fromkeys(sorted(seen, key=lambda p: p.as_posix())))
    return list(found)


def read(path: Path, tasks: Mapping[str, TaskSpec]) -> Entry:
    """Read one record. Raises DataError when it is not a valid one, UsageError for a task that
    nothing defines."""
    try:
        content = path.read_bytes()
        record = Record.model_validate_json(content)
    except OSError as error:
        raise DataError(f"Record {path} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise DataError(
            f"{path} is not a valid record: '{where}': {first['msg']} "
            f"({error.error_count()} such problems)."
        ) from error
    if record.task.name not in tasks:
        raise unknown_name("task", record.task.name, tasks)
    return Entry(record, path, tasks[record.task.name], submitted(path, content))


def by_group(entries: Iterable[Entry]) -> dict[Group, list[Entry]]:
    """The entries of each ranking. A baseline that was run alone has no adaptation: it stands in
    every ranking that differs from its own in that alone."""
    groups: dict[Group, list[Entry]] = {}
    alone = []
    for entry in entries:
        if entry.baseline:
            alone.append(entry)
        else:
            groups.setdefault(entry.group, []).append(entry)
    ranked = list(groups)
    for entry in alone:
        homes = [g for g in ranked if replace(g, adaptation=entry.group.adaptation) == entry.group]
        for group in homes or [entry.group]:
            groups.setdefault(group, []).append(entry)
    return groups


def latest(entries: Sequence[Entry]) -> tuple[list[Entry], int]:
    """One entry per cell, the last of those given; and how many gave way."""
    kept = {entry.cell: entry for entry in entries}
    return list(kept.values()), len(entries) - len(kept)
