"""The harness's end of a worker: started when it is needed, watched, and ended with all it started.

One process for each plugin's environment holds all objects of its models. One that crashes, falls
silent, runs out of memory or breaks the protocol is ended and forgotten: whoever was waiting gets
an error that names it, and the next object is made in a fresh one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medbench.errors import CellError, MedbenchError, PluginError
from medbench.isolated import read
from medbench.isolation.frames import BrokenFrameError, Channel, ClosedError
from medbench.isolation.raised import RaisedError
from medbench.isolation.values import Tensors, pack, unpack
from medbench.isolation.worker import PROTOCOL, error_of

#: Seconds without a frame after which a worker counts as hung; MEDBENCH_WORKER_SECONDS. In
#: training every step reported is a frame; a batch that is embedded or drawn must end within it.
SECONDS = 1800.0
#: Lines of a worker's last output that an error shows.
LAST_LINES = 5
#: Bytes that a pipe holds, where the system allows it: fewer switches between the two processes.
_PIPE_BYTES = 2**20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ on Linux
#: What an exception is called that says there is no memory left.
_NO_MEMORY = ("OutOfMemoryError", "MemoryError", "CUDAOutOfMemoryError")

#: Answers a worker's question: name and arguments.
Serve = Callable[[str, Any], Any]


class Process:
    """A running worker of one plugin.

    Args:
        folder: of the isolated plugin.
        python: its Python.
        seconds: without a frame, after which it counts as hung; None: the environment's or
            `SECONDS`.
    """

    def __init__(self, folder: Path, python: Path, seconds: float | None = None) -> None:
        self.name = folder.name
        self.ended = ""  # why, once it has
        self._refused: Exception | None = None  # what it was told instead of an answer
        self.unwanted: list[int] = []  # objects that it may forget before its next answer
        self._seconds = seconds or patience()
        self._since = time.monotonic()
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        theirs_in, out = os.pipe()
        into, theirs_out = os.pipe()
        for number in (theirs_in, theirs_out):
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                fcntl.fcntl(number, _SET_PIPE_SIZE, _PIPE_BYTES)
        self._channel = Channel(into, out, self._wait)
        command = [str(python), "-P", "-m", "medbench.isolation.worker"]
        try:
            self._process = subprocess.Popen(
                [*command, str(theirs_in), str(theirs_out)],
                pass_fds=(theirs_in, theirs_out),
                stdin=subprocess.PIPE,  # closed when we end, however that is
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
                start_new_session=True,
            )
        except OSError as error:
            for number in (into, out):
                os.close(number)
            raise PluginError(
                f"The Python of isolated plugin '{self.name}', {python}, cannot be started "
                f"({error.strerror}). Install the plugin again, or remove {folder}."
            ) from error
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._files: tuple[int, ...] = (into, out)
        self._reader = threading.Thread(target=self._forward, daemon=True)
        self._reader.start()
        try:
            self._greet(folder)
        except BaseException:
            self.end()
            raise

    @property
    def gone(self) -> bool:
        """Whether it has ended, or was."""
        if not self.ended and self._process.poll() is not None:
            self.end(f"{self._how_it_ended()}.")
        return bool(self.ended)

    def ask(self, request: str, /, serve: Serve | None = None, **arguments: Any) -> Any:
        """Send a request and wait for its answer; ``serve`` answers what the worker asks meanwhile.

        Raises:
            RaisedError: the model raised.
            MedbenchError: the model, or ``serve``, raised one of these.
            CellError: the worker ended, fell silent or ran out of memory, or has ended before.
            PluginError: it broke the protocol.
        """
        if self.ended:
            raise CellError(f"The worker of plugin '{self.name}' is gone: {self.ended}")
        try:
            forgotten, self.unwanted[:] = list(self.unwanted), []
            self._send("do", [request, arguments, forgotten])
            while True:
                what, value = self._receive()
                if what == "answer":
                    return value
                if what == "raised":
                    break
                if what != "ask" or serve is None:
                    raise BrokenFrameError(f"{what!r} comes where an answer is expected")
                self._serve(serve, *value)
        except BrokenFrameError as error:
            raise self._lost(
                PluginError, f"broke the protocol of its pipe: {str(error)[:200]}"
            ) from error
        except ClosedError as error:
            raise self._lost(CellError, self._how_it_ended()) from error
        except BaseException:
            self.end()  # what it would send now, nobody waits for
            raise
        raise self._raised(value)

    def _serve(self, serve: Serve, name: str, arguments: Any) -> None:
        try:
            value = serve(name, arguments)
        except (BrokenFrameError, ClosedError):
            raise
        except Exception as error:  # the model sees it, and may let it through
            if self.ended:
                raise
            self._refused = error
            self._send("refused", [type(error).__name__, str(error)])
        else:
            self._send("told", value)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call what a worker has lent, while its question is being answered."""
        self._send("call", [name, arguments])
        what, value = self._receive()
        if what == "raised":
            raise self._raised(value)
        return value

    def end(self, why: str = "it was ended.") -> None:
        """Kill it with all that it has started. Does nothing the second time."""
        if not self._files:
            return
        self.ended = why
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._reader.join(timeout=1)
        for number in self._files:
            os.close(number)
        self._files = ()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _greet(self, folder: Path) -> None:
        """Take its greeting. Raises PluginError for a worker that is none or speaks otherwise."""
        mend = f"Install the plugin again, or remove {folder}."
        try:
            what, told = self._receive()
            if what != "hello":
                raise BrokenFrameError(f"it begins with {what!r}")
            if told["protocol"] != PROTOCOL:
                raise PluginError(
                    f"The worker of isolated plugin '{self.name}' speaks protocol "
                    f"{told['protocol']} (medbench {told['medbench']}); this medbench speaks "
                    f"{PROTOCOL}. {mend}"
                )
        except (ClosedError, BrokenFrameError, KeyError, TypeError) as error:
            how = self._how_it_ended() if isinstance(error, ClosedError) else str(error)[:200]
            raise PluginError(
                f"The worker of isolated plugin '{self.name}' cannot be started: {how}. "
                f"{self._last_words()}{mend}"
            ) from error

    def _send(self, what: str, value: Any) -> None:
        tensors: Tensors = {}
        packed = pack(value, tensors)
        self._since = time.monotonic()
        self._channel.send({"what": what, "value": packed}, tensors)

    def _receive(self) -> tuple[str, Any]:
        self._since = time.monotonic()
        document, tensors = self._channel.receive()
        try:
            return document["what"], unpack(document["value"], tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenFrameError(f"its document is not a message ({error!r})") from error

    def _wait(self, number: int, event: str) -> None:
        """Wait until a pipe can be read or written. Raises ClosedError when the worker has ended,
        CellError when it has been silent for too long."""
        watched = select.poll()
        watched.register(number, select.POLLIN if event == "r" else select.POLLOUT)
        while not watched.poll(200):
            # a process that it has left behind may still hold the pipe
            if self._process.poll() is not None and not watched.poll(0):
                raise ClosedError("the worker has ended")
            if time.monotonic() - self._since > self._seconds:
                raise self._lost(
                    CellError,
                    f"gave no sign of life for {self._seconds:.0f} s and was ended "
                    "(MEDBENCH_WORKER_SECONDS sets this limit)",
                )

    def _raised(self, told: dict[str, str]) -> Exception:
        """What a model raised, as an exception of this process."""
        if told["kind"] in _NO_MEMORY:
            message = " ".join(told["message"].split())[:300]
            return self._lost(
                CellError, f"ran out of memory ({told['kind']} at {told['place']}: {message})"
            )
        if self._refused is not None:
            mine, self._refused = self._refused, None
            seen = error_of(type(mine).__name__, str(mine))
            if (type(seen).__name__, str(seen)) == (told["kind"], told["message"]):
                return mine
        error = error_of(told["kind"], told["message"])
        if isinstance(error, MedbenchError):
            return error
        return RaisedError(told["kind"], told["message"], told["place"], told["traceback"])

    def _lost(self, kind: type[MedbenchError], how: str) -> MedbenchError:
        """The error for a worker that is of no more use; it is ended."""
        self._reader.join(timeout=0.5 if self._process.poll() is not None else 0)
        self.end(how)
        return kind(
            f"The worker of plugin '{self.name}' {how}. {self._last_words()}The next cell of this "
            "plugin starts a fresh one."
        )

    def _how_it_ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
        self._reader.join(timeout=1)
        code = self._process.returncode
        if code is None:
            return "closed its pipe"
        if code >= 0:
            return f"ended by itself with code {code}"
        name = signal.Signals(-code).name
        hint = ", as happens when memory is exhausted" if name == "SIGKILL" else ""
        return f"was ended by signal {name}{hint}"

    def _last_words(self) -> str:
        said = " | ".join(line for line in self._lines if line.strip())
        return f"Its last lines: {said[-600:]}. " if said else ""

    def _forward(self) -> None:
        """Everything that it prints goes to our stderr, each line with its name."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode(errors="replace").rstrip("\n")
            self._lines.append(text)
            print(f"medbench: plugin '{self.name}' printed: {text}", file=sys.stderr, flush=True)


def patience() -> float:
    """``MEDBENCH_WORKER_SECONDS``, or `SECONDS`. Raises UsageError for what is no time."""
    given = os.environ.get("MEDBENCH_WORKER_SECONDS", "")
    try:
        seconds = float(given or SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        from medbench.errors import UsageError

        raise UsageError(f"MEDBENCH_WORKER_SECONDS is a number of seconds, not '{given}'.")
    return seconds


def clean_environment() -> dict[str, str]:
    """Our environment variables but those that would lead its Python to our packages."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")
    return {key: value for key, value in os.environ.items() if key not in ours} | {
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",  # its last words must not be lost with it
    }


_RUNNING: dict[Path, Process] = {}


def worker(folder: Path) -> Process:
    """The running worker of an isolated plugin, started if there is none.

    Raises PluginError where the environment is broken.
    """
    running = _RUNNING.get(folder)
    if running is None or running.gone:
        _RUNNING[folder] = running = Process(folder, read(folder).executable)
    return running


@atexit.register
def end_all() -> None:
    """End every worker."""
    for process in list(_RUNNING.values()):
        process.end()
