"""Build leaderboards from records, check them, and publish runs into them.

A table is a pure function of the records, of the predictions beside them and of the task files:
no clock, no machine, no order of files. So anybody can build it again and compare bytes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medbench.errors import DataError, MedbenchError, UsageError, VerificationError
from medbench.evaluation.files import read_predictions
from medbench.evaluation.keyed import PUBLISHED, recognise
from medbench.leaderboard.board import Board, make_board
from medbench.leaderboard.collect import (
    RECORD,
    Entry,
    Group,
    by_group,
    find,
    group_of,
    identity_of,
    latest,
    read,
)
from medbench.leaderboard.render import index_page, task_csv, task_page
from medbench.leaderboard.submitted import FOLDER
from medbench.leaderboard.verify import verify
from medbench.metrics.cards import CLASSIFICATION
from medbench.schemas.record import Record, predictions_name
from medbench.schemas.specs import MetricSpec
from medbench.schemas.task import TaskSpec

INDEX = "README.md"


@dataclass(frozen=True)
class Ranked:
    """The rankings of one task.

    Attributes:
        task: its definition.
        boards: one for each ranking, in order.
        entries: the runs behind them, one per cell.
        replaced: how many earlier runs of these cells are left out.
    """

    task: TaskSpec
    boards: list[Board]
    entries: list[Entry]
    replaced: int


def build(
    records: Sequence[Path],
    out: Path,
    tasks: Mapping[str, TaskSpec],
    *,
    metrics: Sequence[MetricSpec] = CLASSIFICATION,
) -> list[Path]:
    """Write ``<task>.md`` and ``<task>.csv`` for each task with records, and ``README.md``.

    Args:
        records: record files, or folders that hold them (see `medbench.leaderboard.collect.find`);
            predictions are found beside them. Of two records of one cell the later given stands.
        out: folder to write into; only these files are touched.
        tasks: every known task, by name.
        metrics: metrics from which intervals over seeds and paired tests are computed; they are
            used only where their identity card is that of the records.

    Returns:
        The files written, sorted.

    Raises:
        DataError: a record or its predictions cannot be read.
        UsageError: a record of a task that is not among ``tasks``.
        VerificationError: a metric with unlike identity cards would share a table.
    """
    texts = _texts([read(path, tasks) for path in find(records)], tasks, metrics)
    return write(texts, out)


def write(texts: Mapping[str, str], out: Path) -> list[Path]:
    """Write files by name into a folder, each whole or not at all; returns them, sorted."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        _write(out / name, text.encode())
    return [out / name for name in sorted(texts)]


def check(
    root: Path,
    tasks: Mapping[str, TaskSpec],
    *,
    metrics: Sequence[MetricSpec] = CLASSIFICATION,
) -> list[str]:
    """Everything in ``root`` that does not follow from its records; empty when all does.

    Found: a record that is not valid, of an unknown task or of another task file; predictions
    that do not have the hash in the record, hold sample ids, or must not be published; metrics that
    do not follow from the predictions; tables that differ from what the records give.
    """
    problems: list[str] = []
    entries: list[Entry] = []
    for path in held(root):
        try:
            entry = read(path, tasks)
        except MedbenchError as error:
            problems.append(f"{path.relative_to(root)}: {error}")
            continue
        found = verify(entry, metrics)
        problems += [f"{path.relative_to(root)}: {problem}" for problem in found]
        entries.append(entry)
    try:
        texts = _texts(entries, tasks, metrics)
    except MedbenchError as error:
        return [*problems, f"The tables cannot be built again: {error}"]
    for name, text in sorted(texts.items()):
        path = root / name
        if not path.is_file():
            problems.append(f"{name} is missing. Run `medbench leaderboard build`.")
        elif path.read_bytes() != text.encode():
            problems.append(
                f"{name} is not what the records give. Run `medbench leaderboard build` and look "
                "at the difference."
            )
    tables = {p.name for pattern in ("*.md", "*.csv") for p in root.glob(pattern)}
    problems += [f"{name} has no records." for name in sorted(tables - set(texts))]
    return problems


def held(root: Path) -> list[Path]:
    """Record files of ``root``: those of ``records``, then those of ``submissions``."""
    return find([part for part in (root / "records", root / FOLDER) if part.is_dir()])


def publish(run_dir: Path, root: Path) -> Path:
    """Copy a run into ``root/records/<task>/<run-id>/``, sample ids replaced by keys.

    On the real track the record alone is copied: predictions carry labels of real patients, whose
    data use agreements do not allow that. So it is for generated reports and images on any track
    (see `medbench.evaluation.keyed`). An earlier record of the same cell under another run id
    is removed. Build the tables afterwards.

    Returns:
        The new folder.

    Raises:
        DataError: no valid record or predictions in ``run_dir``.
        UsageError: the run is incomplete, limited, or of changed sources (``dirty``).
        VerificationError: the predictions do not have the hash in the record.
    """
    try:
        text = (run_dir / RECORD).read_bytes()
        record = Record.model_validate_json(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{run_dir} holds no valid {RECORD}: {error}.") from error
    barred: list[str] = [flag for flag in ("dirty", "limited") if flag in record.flags]
    if record.status != "complete":
        barred.append(record.status)
    if barred:
        raise UsageError(
            f"Run {record.run_id} is {' and '.join(barred)} and is not published. Run it whole, "
            "from committed sources."
        )
    for name in (record.run_id, record.task.name):
        if Path(name).name != name or name.startswith("."):
            raise DataError(f"{run_dir / RECORD} names '{name}', which cannot name a folder.")
    folder = root / "records" / record.task.name / record.run_id
    staged = folder.with_name(f".{record.run_id}.{os.getpid()}.part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        if record.data.track == "phantom" and record.task.type in PUBLISHED:
            _publish_predictions(run_dir, record, staged)
        (staged / RECORD).write_bytes(text)
        for other in _same_cell(record, folder.parent):
            shutil.rmtree(other)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _publish_predictions(run_dir: Path, record: Record, folder: Path) -> None:
    name = predictions_name(record.task.type)
    # The hash does not depend on how labels are decided, so neither does what is published.
    table = read_predictions(run_dir / name, record.task.type, multiclass=False)
    found = recognise(table, record.data.manifest_sha256, record.hashes)
    if not found.sound:
        raise VerificationError(
            f"{run_dir / name} does not have the hash in its record. Run it again with --fresh."
        )
    found.table.write(folder / name)


def _same_cell(record: Record, folder: Path) -> list[Path]:
    """Folders of published records of the same cell."""
    mine = _cell(record)
    found = []
    for path in sorted(folder.glob(f"*/{RECORD}")):
        if path.parent.name.startswith("."):
            continue  # a copy in the making
        try:
            other = Record.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            continue  # `check` reports it; it is not ours to remove
        if _cell(other) == mine:
            found.append(path.parent)
    return found


def _cell(record: Record) -> tuple[object, ...]:
    return (
        record.task.name,
        record.task.sha256,
        group_of(record),
        identity_of(record),
        record.seed,
    )


def _other_fractions(group: Group, groups: Mapping[Group, Sequence[Entry]]) -> list[Entry]:
    """Entries of the tables that differ in their label fraction alone."""
    here = replace(group, fraction=1.0)
    return [e for g in groups if replace(g, fraction=1.0) == here for e in groups[g]]


def _texts(
    entries: Sequence[Entry], tasks: Mapping[str, TaskSpec], metrics: Sequence[MetricSpec]
) -> dict[str, str]:
    """File name to content."""
    by_task: dict[str, list[Entry]] = {}
    for entry in entries:
        by_task.setdefault(entry.record.task.name, []).append(entry)
    texts: dict[str, str] = {}
    boards: dict[str, list[Board]] = {}
    for name, given in sorted(by_task.items()):
        found = rank(tasks[name], given, metrics)
        boards[name] = found.boards
        texts |= task_texts(found)
    texts[INDEX] = index_page(tasks, boards)
    return texts


def rank(task: TaskSpec, given: Sequence[Entry], metrics: Sequence[MetricSpec]) -> Ranked:
    """The rankings of one task from all of its runs. Predictions are read for one ranking at a
    time and let go of.

    Raises what `make_board` does, and DataError for predictions that cannot be read.
    """
    specs = {spec.name: spec for spec in metrics}
    kept, replaced = latest(given)
    groups = by_group(kept)
    boards = []
    for group in sorted(groups):
        board = make_board(group, groups[group], task, specs, _other_fractions(group, groups))
        for row in (*board.rows, *board.unranked):
            row.tables = ()
        for entry in groups[group]:
            entry.forget()
        boards.append(board)
    return Ranked(task, boards, kept, replaced)


def task_texts(found: Ranked) -> dict[str, str]:
    """The tables of one task: file name to content."""
    name = found.task.name
    return {
        f"{name}.md": task_page(found.task, found.boards, found.replaced),
        f"{name}.csv": task_csv(found.boards),
    }


def _write(path: Path, content: bytes) -> None:
    """All or nothing: a full disk leaves the older table."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as f:
        partial = Path(f.name)
        try:
            f.write(content)
            f.close()
            partial.chmod(0o644)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
