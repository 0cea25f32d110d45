"""The kit as a pytest plugin, in a session of its own: one test for each check."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from medbench.testing import CHECKS
from program import Medbench

TEST = """
import pytest

@pytest.mark.medbench_plugin({name!r})
def test_conformance(medbench_check):
    medbench_check()
"""


def session(medbench: Medbench, folder: Path, text: str) -> str:
    (folder / "test_it.py").write_text(text)
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-v", "-rs", "--strict-markers",
            "-p", "no:cacheprovider", "-p", "medbench.testing.pytest_plugin",
            "--rootdir", folder, folder,
        ],
        env=medbench.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_one_test_for_each_check_told_as_it_came_out(medbench: Medbench, tmp_path: Path) -> None:
    medbench.install("ends_in_hook")
    out = session(medbench, tmp_path, TEST.format(name="ends_in_hook"))
    told = dict(re.findall(r"test_conformance\[([\w-]+)\] (PASSED|FAILED|SKIPPED)", out))
    assert list(told) == [check.name for check in CHECKS]
    assert told["spec"] == "FAILED"
    assert told["fit"] == "SKIPPED"
    assert "ended the process with code 3" in out
    assert "stands on 'spec', which failed" in out


def test_without_the_marker_it_says_what_to_write(medbench: Medbench, tmp_path: Path) -> None:
    out = session(medbench, tmp_path, "def test_it(medbench_check): medbench_check()")
    assert '@pytest.mark.medbench_plugin("my-plugin")' in out


def test_loading_it_imports_nothing_of_the_harness() -> None:
    code = "import sys, medbench.testing.pytest_plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert not {"torch", "numpy", "pydantic"} & set(loaded)
