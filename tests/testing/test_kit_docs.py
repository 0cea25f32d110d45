"""Every check is documented, and every command of the tutorial is run as it stands."""

from __future__ import annotations

import re
import resource
import shlex
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from throwaway import OFFLINE, Throwaway

from medbench.testing import CHECKS

DOCS = Path(__file__).parents[2] / "docs"


def test_every_check_is_documented() -> None:
    text = (DOCS / "plugins.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `([\w-]+)` \| .+ \| .+ \|$", text.partition("## The conformance")[2], re.M
    )
    assert rows == [check.name for check in CHECKS]


def commands() -> list[list[str]]:
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    return [shlex.split(line) for line in re.findall(r"^    (\S.*)$", text, re.M)]


def test_the_tutorial_takes_at_most_six_commands() -> None:
    assert [words[0] for words in commands()].count("medbench") >= 4
    assert len(commands()) <= 6


@pytest.mark.slow  # minutes: an installation, a training, a run
def test_every_command_of_the_tutorial_runs(tmp_path: Path) -> None:
    place = Throwaway(tmp_path)
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    for words in commands():
        offline = OFFLINE if "pip" in words else ()
        out = place.run(*words, *offline)
        if "check" in words:
            assert "failed" not in out
        if "build" in words:
            assert "| my-encoder |" in out
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = used.ru_utime + used.ru_stime - start.ru_utime - start.ru_stime
            print(f"from nothing to a row: {seconds:.0f} s of processor time")
            assert seconds < 300
    assert "| my-encoder |" in (tmp_path / "tables" / "covid-ct.md").read_text(encoding="utf-8")
    # what becomes of the bundle: verified without the plugin, and in the tables with its badge
    out = place.run("medbench", "submission", "verify", "my-lab.zip", "--accept", "boards")
    assert "recomputed" in out
    place.run("medbench", "leaderboard", "build", "--root", "boards")
    table = (tmp_path / "boards" / "covid-ct.md").read_text(encoding="utf-8")
    (row,) = [line for line in table.splitlines() if "my-encoder [my-lab]" in line][:1]
    assert "recomputed" in row
    # its own tests; the kit comes by itself once medbench is installed with its entry points
    known = {point.name for point in entry_points(group="pytest11")}
    kit = (
        ()
        if "medbench.testing.pytest_plugin" in known
        else ("-p", "medbench.testing.pytest_plugin")
    )
    out = place.run("python", "-m", "pytest", "-q", *kit, cwd=tmp_path / "my-encoder")
    assert re.search(r"\d+ passed", out)
