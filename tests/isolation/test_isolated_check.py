"""The conformance kit on a plugin that is isolated: what can be checked through its worker is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medbench.errors import UsageError
from medbench.testing import check_plugin
from medbench.testing.candidate import Candidate
from medbench.testing.ladder import CHECKS, do
from medbench.testing.subject import Subject


def test_every_check_passes_or_is_skipped_with_its_reason(home: Path, tmp_path: Path) -> None:
    candidate = Candidate("able-model", "", tmp_path)
    subject = Subject(candidate.registry, "able", tmp_path)
    done = {}
    for check in CHECKS:
        model: Any = subject if check.model else candidate
        done[check.name] = do(check, "able" if check.model else "", model)
    assert all(result.status != "failed" for result in done.values()), done
    passed = {name for name, result in done.items() if result.status == "passed"}
    assert {"spec", "construct", "outputs", "determinism", "batches"} <= passed
    for name, words in {
        "light-import": "written down when it was installed",
        "side-effects": "in a process of their own",
        "memory": "in a process of their own",
    }.items():
        assert done[name].status == "skipped"
        assert words in done[name].reason


def test_isolated_plugins_are_found_by_name(home: Path) -> None:
    with pytest.raises(UsageError, match=r"able-model.*edge-cases"):
        check_plugin("not-there")
