"""Whether every node sees what a sweep needs: one store, with its locks, the data, the same code.

The driver leaves a file in the home and holds a lock beside it. Each node looks for both, and
leaves an answer that the driver looks for in turn. What is not so is said with the node's name
before anything is computed: two stores that are not one would have each node do everything.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medbench.errors import DataError
from medbench.run.stores import code_sha256, writing
from medbench.sweep.work import Session, here

#: Seconds that a network file system has to show the driver what a node has written.
PATIENCE = 10.0


@dataclass(frozen=True)
class Seen:
    """What a node says of itself: its name, the file it has left, and what is wrong."""

    node: str
    left: Path | None
    problems: tuple[str, ...]


@contextmanager
def marker(home: Path) -> Iterator[Path]:
    """A file in the home that lasts as long as the sweep, with a lock that is held as long."""
    from filelock import FileLock

    path = home / f".sweep-{uuid.uuid4().hex[:12]}"
    with writing(path):
        home.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name, encoding="ascii")
        lock = FileLock(lock_of(path))
        lock.acquire()
    try:
        yield path
    finally:
        lock.release()
        for left in home.glob(f"{path.name}*"):
            left.unlink(missing_ok=True)


def lock_of(path: Path) -> Path:
    """The lock beside a marker."""
    return path.with_name(f"{path.name}.lock")


def look(session: Session, paths: Sequence[Path], code: str) -> Seen:
    """On a node: what of the sweep's files it does not see.

    Args:
        session: has the marker.
        paths: files and folders of the user's: data, weights.
        code: what `code_sha256` says of medbench where the driver is.
    """
    from filelock import FileLock, Timeout

    path = session.marker
    assert path is not None
    problems = []
    left = None
    if not path.is_file() or path.read_text(encoding="ascii") != path.name:
        problems.append(
            f"it does not see {path}, which was just written: MEDBENCH_HOME is not one shared file "
            "system"
        )
    else:
        left = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
        try:
            left.write_text(here(), encoding="utf-8")
        except OSError as error:
            left = None
            problems.append(f"it cannot write into MEDBENCH_HOME, {path.parent} ({error.strerror})")
        else:
            lock = FileLock(lock_of(path))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                pass  # as it should be: the driver holds it
            else:
                lock.release()
                problems.append(
                    f"a lock in MEDBENCH_HOME, {path.parent}, that the driver holds does not hold "
                    "there: mount it with locks"
                )
    problems += [f"it has no {wanted}" for wanted in paths if not wanted.exists()]
    if code_sha256("medbench") != code:
        problems.append("its medbench is not the driver's: install the same version")
    return Seen(here(), left, tuple(problems))


def refuse_unshared(found: Sequence[Seen]) -> None:
    """Raises DataError (exit 3) that names each node with what is wrong."""
    lines = []
    for seen in found:
        problems = list(seen.problems)
        if seen.left is not None and not _shows(seen.left):
            problems.append(
                f"what it writes to {seen.left.parent} is not seen here: MEDBENCH_HOME is not one "
                "shared file system"
            )
        if problems:
            lines.append(f"{seen.node}: {'; '.join(problems)}.")
    if lines:
        raise DataError(
            "A sweep needs the same medbench, data and MEDBENCH_HOME on every node, under the same "
            f"paths. {' '.join(lines)}"
        )


def _shows(path: Path) -> bool:
    """Whether a file comes into view in time."""
    until = time.monotonic() + PATIENCE
    while True:
        os.listdir(path.parent)  # has a network file system look again
        if path.exists():
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
