"""A node that does not see what the driver sees is named before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from medbench.errors import DataError
from medbench.run.stores import code_sha256
from medbench.sweep import shared
from medbench.sweep.shared import Seen, look, marker, refuse_unshared
from medbench.sweep.work import Session, enter

CODE = code_sha256("medbench")


def test_one_store_with_its_locks_passes_and_is_left_clean(tmp_path: Path) -> None:
    with marker(tmp_path) as path:
        seen = look(Session({}, marker=path), [tmp_path], CODE)
        assert seen.problems == ()
        refuse_unshared([seen])
    assert list(tmp_path.iterdir()) == []


def test_a_node_with_another_store_data_or_code_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    elsewhere = Session({}, marker=tmp_path / ".sweep-of-another-node")
    seen = look(elsewhere, [data], "another hash")
    assert len(seen.problems) == 3
    with pytest.raises(DataError) as caught:
        refuse_unshared([Seen("good", None, ()), seen])
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert seen.node in message
    assert "good" not in message
    for part in ("MEDBENCH_HOME is not one shared file system", f"no {data}", "same version"):
        assert part in message


def test_what_a_node_writes_must_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "PATIENCE", 0.1)
    with pytest.raises(DataError, match=r"n1: what it writes to .* is not seen here"):
        refuse_unshared([Seen("n1", tmp_path / "never", ())])


def test_locks_that_do_not_hold_are_told(tmp_path: Path) -> None:
    with marker(tmp_path) as path:
        other = tmp_path / "other" / path.name
        other.parent.mkdir()
        other.write_text(path.name)  # the same files, but nobody holds the lock
        (problem,) = look(Session({}, marker=other), [], CODE).problems
    assert "mount it with locks" in problem


def test_a_worker_that_joins_later_is_held_against_the_marker_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(DataError, match="does not see"):
        enter(Session({}, marker=tmp_path / "gone"), 1)
