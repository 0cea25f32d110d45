"""A worker that fails is named and ended, and the next one is fresh."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from medbench.errors import CellError, DataError, MedbenchError, PluginError, UsageError
from medbench.isolated import IsolatedSpec, read
from medbench.isolation import process
from medbench.isolation.model import configure
from medbench.isolation.process import Process, worker
from medbench.isolation.worker import Peer

Do = Callable[..., Any]


def edge(installed: Path) -> IsolatedSpec:
    """The spec of model ``edge``."""
    found = read(installed)
    specs = (spec for plugin in found.plugins for spec in found.specs(plugin))
    return next(spec for spec in specs if spec.name == "edge")


@pytest.fixture
def do(home: Path, installed: Path) -> Do:
    """Have the configuration of model ``edge`` do a deed, in the worker."""
    spec = edge(installed)

    def configured(deed: str = "") -> Any:
        return configure(spec, "tiny", None, {"deed": deed} if deed else {})

    return configured


@pytest.mark.parametrize(
    ("deed", "kind", "words"),
    [
        ("exit", CellError, "ended by itself with code 7"),
        ("crash", CellError, "was ended by signal SIGSEGV"),
        ("kill", CellError, "was ended by signal SIGKILL, as happens when memory is exhausted"),
        ("close", CellError, "ended by itself with code 1. Its last lines: "),
        ("garbage", PluginError, "broke the protocol of its pipe: a frame begins with b'mbf1'"),
    ],
)
def test_a_worker_that_fails_is_named_and_the_next_is_fresh(
    do: Do, installed: Path, deed: str, kind: type[MedbenchError], words: str
) -> None:
    do()
    before = worker(installed)
    with pytest.raises(kind, match=re.escape(words)) as caught:
        do(deed)
    assert "plugin 'edge-cases'" in str(caught.value)
    assert before.gone
    assert do() == ({"size": 8, "deed": ""}, {})
    assert worker(installed) is not before


def test_a_worker_that_hangs_is_ended_with_its_children(
    do: Do, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    process.end_all()
    monkeypatch.setenv("MEDBENCH_WORKER_SECONDS", "2")
    with pytest.raises(CellError, match="gave no sign of life for 2 s and was ended"):
        do("hang")
    printed = re.search(r"pid (\d+), child (\d+)", capfd.readouterr().err)
    assert printed
    for number in map(int, printed.groups()):
        assert_gone(number)


def assert_gone(number: int) -> None:
    """A process ends within some seconds; one that nobody has waited for yet counts as ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError, ProcessLookupError):
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z":
                time.sleep(0.05)
                continue
        return
    raise AssertionError(f"process {number} is still there")


def test_what_a_model_raises_leaves_its_worker_alone(do: Do, installed: Path) -> None:
    do()
    before = worker(installed)
    with pytest.raises(PluginError, match=r"model 'edge' raised ZeroDivisionError"):
        do("raise")
    with pytest.raises(DataError, match="this file is damaged"):
        do("data")
    with pytest.raises(Exception, match="3") as caught:
        do("sys-exit")
    assert getattr(caught.value, "kind", "") == "SystemExit"
    assert worker(installed) is before


def test_an_unknown_setting_is_the_users_mistake(do: Do, installed: Path) -> None:
    with pytest.raises(UsageError, match=r"no setting 'sise'\. Did you mean 'size'"):
        configure(edge(installed), "tiny", None, {"sise": 1})


def test_noise_on_stdout_is_told_as_the_plugins(do: Do, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PluginError):
        do("raise")
    time.sleep(0.2)
    said = capfd.readouterr()
    assert said.out == ""
    assert "medbench: plugin 'edge-cases' printed: a line of C's" in said.err


def test_a_thread_that_is_left_behind_cannot_ask() -> None:
    channel: Any = None
    peer = Peer(channel)
    with pytest.raises(RuntimeError, match="'pixels' is asked for when its training is over"):
        peer.ask("pixels", "image-0-0")


def test_a_child_process_is_told_that_it_cannot_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames would mix with those of its siblings, as in a DataLoader with workers."""
    channel: Any = None
    peer = Peer(channel)
    monkeypatch.setattr("os.getpid", lambda: -1)
    with peer.asking(), pytest.raises(RuntimeError, match="num_workers=0"):
        peer.ask("pixels", "image-0-0")


FAKE = """#!{python}
import sys
sys.path.insert(0, {source!r})
from medbench.isolation.frames import Channel
reading, writing = map(int, sys.argv[-2:])
{then}
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], Process]:
    """A worker that does something else instead."""

    def start(then: str) -> Process:
        import medbench

        python = tmp_path / "python"
        source = str(Path(medbench.__file__).parents[1])
        python.write_text(FAKE.format(python=sys.executable, source=source, then=then))
        python.chmod(0o755)
        return Process(tmp_path, python, seconds=30)

    return start


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (
            "Channel(reading, writing).send({'what': 'hello', 'value': {'$dict': "
            "[['protocol', 99], ['medbench', '7.0']]}})",
            "speaks protocol 99 (medbench 7.0); this medbench speaks 1. Install the plugin again",
        ),
        ("Channel(reading, writing).send({'what': 'good day', 'value': None})", "good day"),
        ("Channel(reading, writing).send([1, 2])", "its document is not a message"),
        ("import os; os.write(writing, b'x' * 100)", "a frame begins with"),
        ("import a_library_that_is_not_there", "No module named 'a_library_that_is_not_there'"),
    ],
)
def test_what_is_no_worker_of_ours_is_refused(
    fake: Callable[[str], Process], then: str, words: str
) -> None:
    with pytest.raises(PluginError, match=re.escape(words)):
        fake(then)


LONELY = """
from pathlib import Path
from medbench.isolation.process import worker
running = worker(Path({folder!r}))
print(running._process.pid, flush=True)
{then}
"""


@pytest.mark.parametrize(
    "then",
    [
        "import os; os._exit(1)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "raise KeyboardInterrupt",
    ],
)
def test_no_worker_outlives_the_harness(installed: Path, home: Path, then: str) -> None:
    code = LONELY.format(folder=str(installed), then=then)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert_gone(int(done.stdout.split()[0]))


def test_a_time_limit_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("soon", "-1", "nan", "inf"):
        monkeypatch.setenv("MEDBENCH_WORKER_SECONDS", given)
        with pytest.raises(UsageError, match="a number of seconds"):
            process.patience()
