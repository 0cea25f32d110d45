"""Plugin packages on the path of this process, and one rung of the ladder at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medbench.testing import Result
from medbench.testing.candidate import Candidate
from medbench.testing.ladder import CHECKS, do
from medbench.testing.subject import Subject
from program import Medbench

Rung = Callable[..., Result]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install packages of tests/plugin_packages for this process and those that it starts."""
    program = Medbench(tmp_path / "home")
    monkeypatch.syspath_prepend(str(program.site))
    monkeypatch.setenv("PYTHONPATH", str(program.site))
    monkeypatch.setenv("MEDBENCH_HOME", str(program.home))
    return program.install


@pytest.fixture
def climb(site: Callable[[str], None], tmp_path: Path) -> Rung:
    """``climb(package, model, *checks)``: do these checks in this process; the last one's result,
    the others passed."""

    def run(package: str, model: str, *names: str) -> Result:
        site(package)
        candidate = Candidate(package, model, tmp_path)
        subject: Any = Subject(candidate.registry, model, tmp_path) if model else candidate
        by_name = {check.name: check for check in CHECKS}
        results = [do(by_name[name], model, subject) for name in names]
        assert all(r.status != "failed" for r in results[:-1]), results
        return results[-1]

    return run
