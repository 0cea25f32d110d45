"""The content-addressed stores: keys, damage, locks, disks that are full."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medbench.errors import StorageError, UsageError
from medbench.run.stores import ENTRY, Store, canonical, digest, write_atomically

KEY: dict[str, Any] = {"what": "checkpoint", "seed": 0, "config": {"epochs": 3, "lr": 0.1}}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


class Builds:
    """Counts how often it builds."""

    def __init__(self, text: str = "content") -> None:
        self.text, self.count = text, 0

    def __call__(self, payload: Path, scratch: Path) -> None:
        self.count += 1
        (payload / "file.txt").write_text(self.text)


def test_an_entry_is_built_once_and_found_again(tmp_path: Path) -> None:
    builds = Builds()
    folder, found = Store(tmp_path).get("things", KEY, builds)
    assert not found
    assert (folder / "file.txt").read_text() == "content"
    again, found = Store(tmp_path).get("things", KEY, builds)
    assert (again, found, builds.count) == (folder, True, 1)


@given(json_values, json_values)
def test_unlike_keys_have_unlike_hashes(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (canonical(one) == canonical(other))


def test_the_order_of_a_key_does_not_matter() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": float("nan")})


@pytest.mark.parametrize("damage", ["content", "missing", "entry", "truncated"])
def test_a_damaged_entry_is_said_and_built_again(tmp_path: Path, damage: str) -> None:
    builds = Builds()
    folder, _ = Store(tmp_path).get("things", KEY, builds)
    if damage == "content":
        (folder / "file.txt").write_text("CONTENT")
    elif damage == "missing":
        (folder / "file.txt").unlink()
    elif damage == "truncated":
        (folder / "file.txt").write_text("con")
    else:
        (folder.parent / ENTRY).write_text("{")
    said: list[str] = []
    again, found = Store(tmp_path, say=said.append).get("things", KEY, builds)
    assert not found
    assert builds.count == 2
    assert (again / "file.txt").read_text() == "content"
    assert any("damaged" in line for line in said)


def test_fresh_builds_once_more_in_each_process(tmp_path: Path) -> None:
    builds = Builds()
    Store(tmp_path).get("things", KEY, builds)
    fresh = Store(tmp_path, fresh=True)
    assert not fresh.has("things", KEY)
    fresh.get("things", KEY, builds)
    fresh.get("things", KEY, builds)
    assert builds.count == 2


def test_a_build_that_fails_leaves_nothing_but_its_scratch(tmp_path: Path) -> None:
    def fails(payload: Path, scratch: Path) -> None:
        (payload / "half.txt").write_text("half")
        (scratch / "progress").write_text("epoch 3")
        raise RuntimeError("stop")

    store = Store(tmp_path)
    with pytest.raises(RuntimeError, match="stop"):
        store.get("things", KEY, fails)
    assert not store.has("things", KEY)

    def goes_on(payload: Path, scratch: Path) -> None:
        assert (scratch / "progress").read_text() == "epoch 3"
        (payload / "file.txt").write_text("done")

    folder, _ = store.get("things", KEY, goes_on)
    assert sorted(p.name for p in folder.iterdir()) == ["file.txt"]
    assert not [p for p in folder.parent.parent.iterdir() if p.name.endswith(("half", "scratch"))]


def test_no_room_is_one_paragraph_and_keeps_what_was_finished(tmp_path: Path) -> None:
    """A real limit on file size stands for a full disk: the system refuses the write."""
    code = f"""
import resource, signal
from pathlib import Path
from medbench.errors import StorageError
from medbench.run.stores import Store
store = Store(Path({str(tmp_path)!r}))
store.get("things", {{"n": 1}}, lambda p, s: (p / "a").write_text("finished") and None)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.get("things", {{"n": 2}}, lambda p, s: (p / "b").write_bytes(bytes(5000)) and None)
except StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "No room left" in done.stdout
    assert "is kept" in done.stdout
    store = Store(tmp_path)
    assert store.find("things", {"n": 1}) is not None
    assert store.find("things", {"n": 2}) is None
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_errors_of_the_disk_have_their_own_exit_codes(tmp_path: Path) -> None:
    def raises(number: int) -> None:
        def build(payload: Path, scratch: Path) -> None:
            raise OSError(number, os.strerror(number), str(payload))

        Store(tmp_path).get("things", {"errno": number}, build)

    with pytest.raises(StorageError):
        raises(errno.ENOSPC)
    with pytest.raises(UsageError):
        raises(errno.EROFS)


def _slow(root: str, log: str) -> None:
    def build(payload: Path, scratch: Path) -> None:
        with open(log, "a") as stream:
            stream.write("built\n")
        time.sleep(0.4)
        (payload / "file.txt").write_text("content")

    Store(Path(root)).get("things", KEY, build)


def test_two_processes_build_an_entry_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_slow, args=(str(tmp_path / "home"), str(log))) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert log.read_text() == "built\n"


def test_an_atomic_write_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, json.dumps({"a": 1}))
    write_atomically(path, json.dumps({"a": 2}))
    assert json.loads(path.read_text()) == {"a": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]
