"""The worker: the process that holds the models of an isolated plugin.

Started as ``python -P -m medbench.isolation.worker READ WRITE`` with the plugin's own Python, it
answers one request after the other until its pipe is closed. Of medbench it imports what a model's
own code may see and nothing that needs more than numpy, pydantic, pluggy and torch, so that little
can conflict with what the plugin requires. Its standard output is the harness's stderr; its
standard input tells it that the harness has gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medbench import __version__
from medbench.errors import MedbenchError, PluginError
from medbench.isolation.frames import Channel, ClosedError
from medbench.isolation.values import Tensors, pack, unpack

#: Raised when requests or their answers change.
PROTOCOL = 1
#: What may be asked of it: methods of `Worker`.
REQUESTS = ("describe", "configure", "construct", "get", "call", "parameters", "memory", "fit")


class Peer:
    """This end of the pipes. A request that is being answered may ask the harness in turn."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.RLock()  # plugins read pixels from several threads
        self._open = False
        self._process = os.getpid()

    def send(self, what: str, value: Any = None, **more: Any) -> None:
        tensors: Tensors = {}
        packed = pack(value, tensors)
        with self._lock:
            self._channel.send({"what": what, "value": packed, **more}, tensors)

    def receive(self) -> tuple[str, Any]:
        document, tensors = self._channel.receive()
        return document["what"], unpack(document["value"], tensors)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """While this lasts the harness can be asked: a thread that a plugin leaves behind cannot
        take what is meant for the next request."""
        self._open = True
        try:
            yield
        finally:
            with self._lock:
                self._open = False

    def ask(self, name: str, *arguments: Any, **lent: Callable[..., Any]) -> Any:
        """Ask the harness something; meanwhile it may call what is ``lent`` to it.

        Raises what the harness met: a `MedbenchError`, such as DataError for a damaged file.
        RuntimeError outside `asking`, and in another process, whose frames would mix with ours.
        """
        if os.getpid() != self._process:
            raise RuntimeError(
                "an isolated plugin reads its corpus in the process that trains: use threads, or "
                "num_workers=0"
            )
        with self._lock:
            if not self._open:
                raise RuntimeError(f"'{name}' is asked for when its training is over")
            self.send("ask", [name, arguments])
            while True:
                what, value = self.receive()
                if what == "told":
                    return value
                if what == "refused":
                    raise error_of(*value)
                name, given = value
                try:
                    self.send("told", lent[name](*given))
                except Exception as error:
                    self.send("raised", described(error))


def error_of(kind: str, message: str) -> Exception:
    """An error of medbench's by the name of its class; else RuntimeError."""
    from medbench import errors

    cls = getattr(errors, kind, None)
    if isinstance(cls, type) and issubclass(cls, MedbenchError):
        return cls(message)
    return RuntimeError(f"{kind}: {message}")


def described(error: BaseException) -> dict[str, str]:
    """What the harness is told of an error: its class, message, place and traceback."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "place": "".join(f"{Path(p.filename).name}, line {p.lineno}" for p in place),
        "traceback": "".join(traceback.format_exception(error)),
    }


class Worker:
    """Answers requests, each a method of this class, and holds the objects that they are about."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._objects: dict[int, Any] = {}
        self._ready: set[int] = set()  # on their device, in evaluation mode
        self._devices: dict[int, str] = {}

    def answer(self, name: str, arguments: dict[str, Any]) -> Any:
        if name not in REQUESTS:
            raise PluginError(f"medbench asks its worker for '{name}', which it does not know.")
        return getattr(self, name)(**arguments)

    def describe(self) -> dict[str, Any]:
        """The plugins of this environment, their specs and settings, and what is installed."""
        from medbench.isolation.description import describe

        return describe()

    def configure(
        self, model: dict[str, Any], preset: str, variant: str | None, settings: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values of a configuration as JSON, and those that are assumed."""
        from medbench.isolated import model_spec
        from medbench.plugins import Plugin
        from medbench.run.settings import configure
        from medbench.schemas.specs import ModelSpec

        spec = model_spec(model, ModelSpec)
        plugin = Plugin(spec.name, "", "", "")
        _, values, assumed = configure(
            spec, plugin, preset, spec.variant(variant) if variant else None, settings
        )
        return values, assumed

    def construct(
        self,
        number: int,
        cls: str,
        config: str | None,
        values: Any,
        capabilities: list[str],
        seed: int,
        device: str,
        threads: int,
    ) -> list[str]:
        """Make object ``number``; or, without it, names of capabilities that its class lacks."""
        import torch

        from medbench.plugins import load_reference
        from medbench.run.fitting import seed_everything

        torch.set_num_threads(threads)
        found = load_reference(cls)
        missing = [name for name in capabilities if not callable(getattr(found, name, None))]
        if missing:
            return missing
        given = () if values is None else (values,)
        if config:
            given = (load_reference(config).model_validate(values),)
        seed_everything(seed)
        self._objects[number] = found(*given)
        self._devices[number] = device
        return []

    def forget(self, numbers: list[int]) -> None:
        """Let go of objects that the harness has let go of."""
        for number in numbers:
            self._objects.pop(number, None)
            self._ready.discard(number)

    def get(self, number: int, name: str) -> tuple[str, Any]:
        """An attribute: ("value", it), ("method", None), or ("none", None)."""
        try:
            value = getattr(self._objects[number], name)
        except AttributeError:
            return "none", None
        return ("method", None) if callable(value) else ("value", value)

    def call(self, number: int, name: str, arguments: list[Any], mode: dict[str, Any]) -> Any:
        """Call a method, with gradients and autocast as they are where it is called."""
        import torch

        from medbench.models.modules import modules_of

        model = self._objects[number]
        if name == "load":
            self._ready.discard(number)
        elif name not in ("stages", "state") and number not in self._ready:
            for module in modules_of(model):
                module.to(self._devices[number])
                module.eval()
            self._ready.add(number)
        kind, dtype = mode["autocast"]
        with (
            torch.inference_mode(mode["inference"]),
            torch.set_grad_enabled(mode["grad"]),
            torch.autocast(kind, getattr(torch, dtype or "bfloat16"), enabled=bool(dtype)),
        ):
            return getattr(model, name)(*arguments)

    def parameters(self, number: int) -> dict[str, int]:
        """Total and trainable parameters."""
        from medbench.models.modules import count_parameters

        return count_parameters(self._objects[number])

    def memory(self, number: int) -> float:
        """Most memory in use at once, in MiB: as `medbench.run.work` measures it."""
        from medbench.run.work import peak_memory_mb

        return peak_memory_mb(self._devices[number])

    def fit(self, number: int, stage: Any, corpus: dict[str, Any], run: dict[str, Any]) -> None:
        """Train one stage; samples, pixels, epochs and progress are the harness's."""
        from medbench.isolation.training import RemoteRun, remote_corpus
        from medbench.models.modules import modules_of

        model = self._objects[number]
        self._ready.discard(number)
        for module in modules_of(model):
            module.to(run["device"])
        with self._peer.asking():
            model.fit(stage, remote_corpus(self._peer, **corpus), RemoteRun(self._peer, **run))


def serve(channel: Channel) -> None:
    """Answer until the pipe is closed."""
    peer = Peer(channel)
    worker = Worker(peer)
    peer.send("hello", {"protocol": PROTOCOL, "medbench": __version__, "python": sys.version})
    while True:
        _, (name, arguments, forgotten) = peer.receive()
        worker.forget(forgotten)
        try:
            value = worker.answer(name, arguments)
            peer.send("answer", value)
        except ClosedError:
            raise
        except BaseException as error:  # an exit, too, is a model's answer
            peer.send("raised", described(error))
            # its traceback would keep what a call has allocated
            error.__traceback__ = None


def _watch_life() -> None:
    """End this process, and those it has started, when the harness is gone."""
    life = os.dup(0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(life, 1):
                pass
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Serve on the descriptors that the command line names."""
    reading, writing = map(int, sys.argv[1:])
    _watch_life()
    with contextlib.suppress(ClosedError, KeyboardInterrupt):
        serve(Channel(reading, writing))


if __name__ == "__main__":
    main()
