"""The ladder in a process of its own, watched: a plugin may hang, or end its process.

The process appends what it does to a file. When it is silent for too long, or gone, the check that
it was at has failed; another process goes on behind it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medbench.errors import PluginError, UsageError, unknown_name
from medbench.isolated import isolated_names
from medbench.testing.ladder import rungs
from medbench.testing.results import Result

CHECK_SECONDS = 300.0  #: what one check may take without a sign of life
TOTAL_SECONDS = 1800.0  #: what all checks of a plugin may take
PROGRESS = "progress.jsonl"
OUTPUT = "output.txt"
ALIVE = "alive"  #: touched whenever a training reports progress


def check_plugin(
    name: str,
    model: str = "",
    *,
    say: Callable[[Result], None] = lambda result: None,
    check_seconds: float = CHECK_SECONDS,
    total_seconds: float = TOTAL_SECONDS,
) -> list[Result]:
    """Climb the ladder with a plugin.

    Args:
        name: of its entry point; ``medbench-`` in front may be left out.
        model: ``name`` or ``name@variant`` of the one model to check; empty: all, as they are.
        say: called with each result as soon as it is there.
        check_seconds: what one check may take; in training, without progress being reported.
        total_seconds: what all of them may take; what is left then is skipped.

    Returns:
        A result for every check, and for those of a model one for each model, in order.

    Raises:
        UsageError: there is no plugin, or it has no model, of that name.
        PluginError: the process ended while it was at no check.
    """
    points = {point.name for point in entry_points(group="medbench")} | set(isolated_names())
    if name not in points and f"medbench-{name}" in points:
        name = f"medbench-{name}"
    if name not in points:
        raise unknown_name("plugin", name, points)
    deadline = time.monotonic() + total_seconds
    with TemporaryDirectory(prefix="medbench-check-") as folder:
        watch = _Watch(Path(folder), say)
        while not watch.ended:
            watch.attempt(name, model, check_seconds, deadline)
        return watch.results


class _Watch:
    """Results so far, and the process that adds to them."""

    def __init__(self, folder: Path, say: Callable[[Result], None]) -> None:
        self.folder = folder
        self.say = say
        self.results: list[Result] = []
        self.models: list[str] = []
        self.ended = False
        self._read = 0
        self._at: tuple[str, str] | None = None  # check and model
        self._since = 0.0
        self._alive = 0

    def attempt(self, name: str, model: str, check_seconds: float, deadline: float) -> None:
        """One process, until it ends, is killed, or has done everything."""
        command = [sys.executable, "-m", "medbench.testing", name, str(self.folder), model]
        self._since, self._at = time.monotonic(), None
        with (self.folder / OUTPUT).open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while True:
                gone = process.poll() is not None  # asked first: nothing is written after it
                self._take()
                if self.ended:
                    return
                now = time.monotonic()
                if gone:
                    self._lost(f"it ended the process with code {process.returncode}")
                    return
                if now > deadline:
                    self._out_of_time()
                    return
                if now - self._since > check_seconds:
                    self._lost(f"it did not end within {check_seconds:.0f} s")
                    return
                time.sleep(0.05)
        finally:
            _end(process)

    def _take(self) -> None:
        """Read what the process has written since, and whether its training goes on."""
        with suppress(FileNotFoundError):
            alive = (self.folder / ALIVE).stat().st_mtime_ns
            if alive != self._alive:
                self._alive, self._since = alive, time.monotonic()
        path = self.folder / PROGRESS
        if not path.is_file():
            return
        with path.open("rb") as stream:
            stream.seek(self._read)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                self._step(json.loads(line))

    def _step(self, told: dict[str, Any]) -> None:
        self._since = time.monotonic()
        match told.pop("what"):
            case "models":
                self.models = told["models"]
            case "at":
                self._at = (told["check"], told["model"])
            case "result":
                self._at = None
                self.results.append(Result(**told))
                self.say(self.results[-1])
            case "usage":
                raise UsageError(told["message"])
            case "end":
                self.ended = True

    def _lost(self, why: str) -> None:
        """The process is gone: the check it was at has failed."""
        if self._at is None:
            raise PluginError(
                f"The checks broke off between two of them: {why}. {self._last_words()}"
            )
        result = Result(*self._at, "failed", f"{why}. {self._last_words()}".strip())
        told = {"what": "result", **asdict(result)}
        with (self.folder / PROGRESS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(told) + "\n")

    def _last_words(self) -> str:
        lines = (self.folder / OUTPUT).read_text(encoding="utf-8", errors="replace").split("\n")
        last = [line.strip() for line in lines if line.strip()][-1:]
        return f"Its last line: {last[0][:300]}" if last else ""

    def _out_of_time(self) -> None:
        self.ended = True
        done = {(result.check, result.model) for result in self.results}
        for check, model in rungs(self.models or [""]):
            if (check.name, model) not in done:
                status = "failed" if (check.name, model) == self._at else "skipped"
                self.results.append(
                    Result(check.name, model, status, "there was no time left")  # type: ignore[arg-type]
                )
                self.say(self.results[-1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it with all that it has started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
