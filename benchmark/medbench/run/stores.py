"""Content-addressed stores: phantoms, decoded images, checkpoints, features, baselines.

An entry is a folder named after the hash of *everything that determines it* (its key). It holds
the key, the hash of each of its files, and the files. It is built in a folder beside its place and
moved there whole, under a lock: a reader never sees half an entry, and two runs never build the
same one twice. An entry whose files do not match their hashes is named and built again. What it
cost to build stands beside its hashes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from medbench.errors import MedbenchError, StorageError, UsageError
from medbench.home import home as home
from medbench.isolated import IsolatedSpec, read
from medbench.run.work import Ledger, Work
from medbench.schemas.specs import ModelSpec

#: What a write raises when there is no room: full disk, quota, file size limit.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: Files up to this size are hashed before they are used; of larger ones the size is compared.
HASHED = 2 * 2**30

#: Stores of data: making them is no cost of a model.
DATA = ("phantoms", "images")

ENTRY = "entry.json"
PAYLOAD = "payload"


def canonical(value: Any) -> str:
    """JSON with one spelling per value. Raises ValueError for NaN, TypeError for non-JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def code_sha256(package: str) -> str:
    """SHA-256 over the Python sources of a top-level package.

    Part of every key whose result that code computes, so that an edited plugin or harness never
    meets what its former self has left behind.
    """
    module = import_module(package)
    if module.__file__ is None:
        raise UsageError(f"Package {package} has no source files to identify it by.")
    return sources_sha256(Path(module.__file__))


@cache
def sources_sha256(first: Path) -> str:
    """SHA-256 over a module's source, or, of an ``__init__.py``, all sources of its package."""
    files = sorted(first.parent.rglob("*.py")) if first.name == "__init__.py" else [first]
    total = hashlib.sha256()
    for path in files:
        total.update(path.relative_to(first.parent).as_posix().encode() + b"\0")
        total.update(path.read_bytes() + b"\0")
    return total.hexdigest()


def code_there(spec: ModelSpec, package: str) -> str:
    """As `code_sha256`, of a package in the environment of an isolated model;
    empty for any other.

    The lock is part of it: with other libraries the same code may give another result.
    """
    if not isinstance(spec, IsolatedSpec):
        return ""
    found = read(Path(spec.environment))
    if package not in found.packages:
        return ""
    return digest([sources_sha256(Path(found.packages[package])), found.lock_sha256])


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn "no room" and "not allowed" while writing ``path`` into one clear paragraph."""
    try:
        yield
    except OSError as error:
        explained = explain_os_error(error, path)
        if explained is None:
            raise
        raise explained from error


def explain_os_error(error: BaseException, path: Path | None = None) -> MedbenchError | None:
    """The user's error for a failed write: no room (exit 1) or not allowed (exit 2); else None.

    Libraries wrap the system's error in their own, so causes are followed.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    where = path or cause.filename or "a file"
    if cause.errno in _NO_ROOM:
        return StorageError(
            f"No room left while writing {where} ({cause.strerror}). What was finished before is "
            "kept; free some space, or set MEDBENCH_HOME or --output to another disk, and run the "
            "same command again."
        )
    if cause.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return UsageError(
            f"{where} cannot be used ({cause.strerror}). Choose another folder with --output or "
            "MEDBENCH_HOME, or mend its permissions."
        )
    return None


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a kill leaves the old content or the new, never half."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


class Store:
    """The stores under one home folder.

    Args:
        root: the home folder; made when the first entry is built.
        fresh: True to build anew, once in this process, whatever is asked for; a time, in seconds
            of the clock that stamps the store's files, to do so with what was built before it, so
            that several processes build it once.
        say: called with one line when something unusual happens (waiting, damage).
        ledger: where the stages of a build are entered as they finish; None: nobody does.
    """

    def __init__(
        self,
        root: Path,
        *,
        fresh: bool | float = False,
        say: Callable[[str], None] = lambda _: None,
        ledger: Ledger | None = None,
    ) -> None:
        self.root = root
        self.fresh = fresh
        self.say = say
        self.ledger = ledger or Ledger()
        #: Entries that were asked for, and whether they were found; cleared by who counts them.
        self.used: dict[Path, bool] = {}
        self._good: dict[Path, bool] = {}

    def place(self, kind: str, key: Mapping[str, Any]) -> Path:
        """The folder of the entry with that key, existing or not."""
        return self.root / kind / digest(key)[:24]

    def find(self, kind: str, key: Mapping[str, Any]) -> Path | None:
        """The payload folder of a sound entry, or None. Damage is said once."""
        place = self.place(kind, key)
        if place not in self._good:
            if not place.is_dir() or self._outdated(place):
                return None
            damage = _damage(place)
            if damage:
                self.say(f"The {kind} entry {place} is damaged ({damage}); it is built again.")
                return None
            self._good[place] = True
        self.used.setdefault(place, True)
        return place / PAYLOAD

    def has(self, kind: str, key: Mapping[str, Any]) -> bool:
        """Whether an entry exists, unverified: for plans."""
        place = self.place(kind, key)
        return (place / ENTRY).is_file() and not self._outdated(place)

    def _outdated(self, place: Path) -> bool:
        """Whether an entry is to be built anew although it is there."""
        if isinstance(self.fresh, bool):
            return self.fresh
        with suppress(OSError):
            return (place / ENTRY).stat().st_mtime < self.fresh
        return True

    def get(
        self, kind: str, key: Mapping[str, Any], build: Callable[[Path, Path], None]
    ) -> tuple[Path, bool]:
        """The payload of an entry, built when it is missing or damaged.

        Args:
            kind: name of the store.
            key: everything that determines the result; JSON types.
            build: called with (payload folder, scratch folder). The scratch folder outlives a
                kill and is handed to the next attempt at the same key.

        Returns:
            The payload folder, and whether it was found rather than built.
        """
        found = self.find(kind, key)
        if found:
            return found, True
        place = self.place(kind, key)
        with self.lock(place):
            found = self.find(kind, key)  # another run may have built it while we waited
            if found:
                return found, True
            return self._build(place, key, build), False

    def _build(
        self, place: Path, key: Mapping[str, Any], build: Callable[[Path, Path], None]
    ) -> Path:
        half = place.with_name(f".{place.name}.half")
        scratch = place.with_name(f".{place.name}.scratch")
        with writing(place):
            if half.exists():
                shutil.rmtree(half)  # left by a killed run; the lock says nobody writes it now
            ledger = self.ledger
            outer, before = ledger.scratch, len(ledger.done)
            try:
                (half / PAYLOAD).mkdir(parents=True)
                scratch.mkdir(exist_ok=True)
                ledger.scratch = scratch
                build(half / PAYLOAD, scratch)
                work = [asdict(stage) for stage in ledger.done[before:]]
                entry = {"key": dict(key), "files": _hashes(half / PAYLOAD), "work": work}
                (half / ENTRY).write_text(canonical(entry), encoding="utf-8")
                if place.exists():
                    shutil.rmtree(place)
                os.replace(half, place)
            finally:
                ledger.scratch = outer
                shutil.rmtree(half, ignore_errors=True)
            shutil.rmtree(scratch, ignore_errors=True)
        self._good[place] = True
        self.used[place] = False
        return place / PAYLOAD

    def work(self) -> Iterator[tuple[list[Work] | None, bool]]:
        """For each entry in `used` but data, the stages that built it and whether it was found;
        None for an entry that does not say."""
        for place, found in self.used.items():
            if place.parent.name in DATA:
                continue
            try:
                entry = json.loads((place / ENTRY).read_text(encoding="utf-8"))
                stages = [Work(**stage) for stage in entry["work"]]
            except (OSError, ValueError, KeyError, TypeError):
                yield None, found
            else:
                yield stages, found

    @contextmanager
    def lock(self, place: Path) -> Iterator[None]:
        """One builder at a time for ``place``, across processes; a crash frees it."""
        from filelock import FileLock, Timeout

        path = place.with_name(f".{place.name}.lock")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self.say(f"Waiting for another run that is building {place.name} ...")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _hashes(folder: Path) -> dict[str, list[Any]]:
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_size, file_sha256(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _damage(place: Path) -> str:
    """What is wrong with an entry, in a few words; empty when every file is as it was written."""
    try:
        files = json.loads((place / ENTRY).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{ENTRY} is missing or unreadable"
    payload = place / PAYLOAD
    with suppress(OSError):
        for name, (size, sha256) in files.items():
            path = payload / name
            if not path.is_file() or path.stat().st_size != size:
                return f"{name} is not what was written"
            # A hash of what is larger would take longer than most runs.
            if size <= HASHED and file_sha256(path) != sha256:
                return f"{name} is not what was written"
        return ""
    return "a file cannot be read"
