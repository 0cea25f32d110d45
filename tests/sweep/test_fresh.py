"""``--fresh`` with several processes: what was there before is built once more, not once each."""

from __future__ import annotations

import os
from pathlib import Path

from medbench.run.stores import Store

KEY = {"what": "a thing"}


def test_entries_from_before_a_moment_are_built_once_by_all_processes(tmp_path: Path) -> None:
    built = []

    def build(payload: Path, _: Path) -> None:
        built.append(payload)
        (payload / "x").write_text("x")

    place, _ = Store(tmp_path).get("things", KEY, build)
    os.utime(place.parent / "entry.json", (1_000, 1_000))
    since = 2_000.0
    assert not Store(tmp_path, fresh=since).has("things", KEY)
    Store(tmp_path, fresh=since).get("things", KEY, build)
    assert Store(tmp_path, fresh=since).has("things", KEY)
    _, found = Store(tmp_path, fresh=since).get("things", KEY, build)
    assert found
    assert len(built) == 2
