"""What a record says of itself: whether it can be so, and may be shown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from medbench.data.samples import Sample
from medbench.metrics.cards import card_sha256
from medbench.schemas.record import Record
from medbench.schemas.specs import PRESETS, MetricSpec
from medbench.schemas.task import TaskSpec
from medbench.submission.problems import Problem, RefusedError

#: What could end a cell, a line or a comment, or make a link or an element of a page.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029<>\[\]|`\\]|://")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_WORD = re.compile(r"[\w./-]{5,}")
_LONGEST = 2_000


def task_of(record: Record, run_id: str, tasks: Mapping[str, TaskSpec]) -> TaskSpec:
    """The task of a record that stands in the folder of a run. Raises RefusedError (record, task)
    where it is of another run, or made with another task file."""
    if record.run_id != run_id:
        raise RefusedError("record", f"The record in '{run_id}' is of run '{record.run_id}'.")
    task = tasks.get(record.task.name)
    if task is None:
        raise RefusedError("task", f"There is no task called '{record.task.name}' here.")
    mine = (task.version, task.type, task.sha256, task.dataset)
    stated = (record.task.version, record.task.type, record.task.sha256, record.data.dataset)
    if mine != stated:
        raise RefusedError(
            "task",
            f"Run {run_id} was made with another task '{task.name}': version, type, file and "
            f"dataset are {stated}, here {mine}.",
        )
    return task


def check_statements(
    record: Record, task: TaskSpec, metrics: Sequence[MetricSpec]
) -> Iterator[Problem]:
    """What is wrong with what a record says of itself."""
    who = f"Run {record.run_id}"
    if record.status != "complete" or "limited" in record.flags:
        yield Problem("incomplete", f"{who} is {record.status}, flagged {record.flags}.")
    counts = record.counts
    if counts.failed or counts.scored != counts.expected:
        yield Problem(
            "incomplete",
            f"{who} scored {counts.scored} of {counts.expected} samples, {counts.failed} failed.",
        )
    adaptations = task.adaptations or (None,)
    if (
        not 0 < record.fraction <= 1
        or record.protocol not in task.protocols
        or record.model.preset not in PRESETS
        or (record.model.name != "baseline" and record.adaptation not in adaptations)
    ):
        yield Problem(
            "record",
            f"{who} states what cannot be: preset '{record.model.preset}', protocol "
            f"'{record.protocol}', adaptation {record.adaptation}, fraction {record.fraction}.",
        )
    known = {spec.name: spec for spec in metrics}
    for name, metric in record.metrics.items():
        spec = known.get(name)
        if spec is None or name not in task.metrics:
            yield Problem("metric", f"{who} states '{name}', which task '{task.name}' has not.")
        elif metric.card_sha256 != card_sha256(spec):
            yield Problem("metric", f"{who} states '{name}' with an unlike identity card.")
    for attribute, found in (record.subgroups or {}).items():
        if found.metric != task.primary:
            yield Problem(
                "metric",
                f"{who} states subgroups by {attribute} of another metric than the task's.",
            )


def check_texts(record: Record) -> Iterator[Problem]:
    """Names, settings and places stand in tables and comments; notes only in the record."""
    content = record.model_dump(mode="json", by_alias=True)
    for note in content.pop("notes"):
        if _CONTROL.search(note) or len(note) > _LONGEST:
            yield Problem("text", f"Run {record.run_id}: a note is too long or not plain text.")
    for text in _strings(content):
        if _UNSAFE.search(text) or len(text) > _LONGEST:
            yield Problem(
                "text", f"Run {record.run_id}: {text[:80]!r} could change a page that shows it."
            )
            return


def _strings(content: Any) -> Iterator[str]:
    """Every string of a JSON document, keys included."""
    todo = [content]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            todo += value
        elif isinstance(value, dict):
            todo += [*value.keys(), *value.values()]


def ids_named(record: Record, samples: Collection[Sample]) -> int:
    """How many ids of samples or patients stand in the texts of a record; shorter ones than five
    characters, and those without a digit, may be any word."""
    ids = {sample.id for sample in samples} | {sample.patient or "" for sample in samples}
    told = {name for name in ids if len(name) >= 5 and any(c.isdigit() for c in name)}
    content = record.model_dump(mode="json", by_alias=True)
    words = {word for text in _strings(content) for word in _WORD.findall(text)}
    return len(told & (words | {word.strip("./-") for word in words}))
