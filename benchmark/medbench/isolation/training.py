"""Training in a worker on a corpus that the harness holds.

The worker asks for samples, pixels and epochs; the harness answers from its own corpus and its own
`medbench.FitRun`, which saves and restores the worker's optimiser through the pipe. So readers,
stores and the survival of a kill are the same code as for any plugin, none of their libraries is
needed in the plugin's environment, and pixels never lie decoded on a disk for a stranger to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbench.data.samples import Annotates, Box, Corpus, Pixels, Sample
from medbench.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from medbench.isolation.worker import Peer
    from medbench.models.capabilities import FitRun

#: Samples that go over the pipe at once.
CHUNK = 2000


# In the worker


class RemoteReader:
    """`medbench.data.samples.Reader` of the samples of one corpus, which the harness decodes."""

    def __init__(self, peer: Peer, samples: Sequence[Sample]) -> None:
        self._peer = peer
        self._samples = samples

    def samples(self) -> Sequence[Sample]:
        """Those of the corpus: others are not for training."""
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """As the harness's reader gives them. Raises DataError as that does."""
        found: Pixels = self._peer.ask("pixels", sample.id)
        return found


class RemoteAnnotations(RemoteReader):
    """The same of a dataset with regions."""

    def boxes(self, sample: Sample) -> tuple[Box, ...]:
        return tuple(Box(**box) for box in self._peer.ask("boxes", sample.id))

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = self._peer.ask("mask", sample.id)
        return found


def remote_corpus(peer: Peer, count: int, annotated: bool, **named: Any) -> Corpus:
    """The corpus with its samples, fetched in parts; pixels come when they are asked for."""
    samples: list[Sample] = []
    while len(samples) < count:
        samples += peer.ask("samples", len(samples))
    reader = (RemoteAnnotations if annotated else RemoteReader)(peer, samples)
    return Corpus(samples=samples, reader=reader, **named)


class RemoteRun:
    """`medbench.FitRun` whose work is done by the harness's."""

    def __init__(
        self, peer: Peer, device: str, seed: int, folder: Path, autocast: tuple[str, str | None]
    ) -> None:
        import torch

        from medbench.models.ranks import ALONE

        self.device = torch.device(device)
        self.ranks = ALONE
        self.seed = seed
        self.folder = folder
        self._peer = peer
        self._autocast = autocast

    def autocast(self) -> AbstractContextManager[Any]:
        import torch

        kind, dtype = self._autocast
        return torch.autocast(kind, getattr(torch, dtype)) if dtype else nullcontext()

    def epochs(self, count: int, *parts: Any, title: str = "") -> Iterator[int]:
        from medbench.run.fitting import seed_epoch

        def load(number: int, state: Any) -> None:
            parts[number].load_state_dict(state)

        def state(number: int) -> Any:
            return parts[number].state_dict()

        loop = self._peer.ask("epochs", count, len(parts), title)
        while True:
            epoch = self._peer.ask("next", loop, load=load, state=state)
            if epoch is None:
                return
            seed_epoch(self.seed, epoch)
            yield epoch

    def advance(self, done: int, total: int, **figures: float) -> None:
        self._peer.ask("advance", done, total, {k: float(v) for k, v in figures.items()})

    def warn(self, message: str) -> None:
        self._peer.ask("warn", str(message))


# In the harness


class RemotePart:
    """A part of a worker's loop, as something that has a state."""

    def __init__(self, call: Any, number: int) -> None:
        self._call, self._number = call, number

    def state_dict(self) -> Any:
        return self._call("state", self._number)

    def load_state_dict(self, state: Any) -> None:
        self._call("load", self._number, state)


class Host:
    """Answers what a worker asks while it trains: each question a method by name."""

    def __init__(self, corpus: Corpus, run: FitRun, call: Any) -> None:
        self._corpus, self._run, self._call = corpus, run, call
        self._by_id: Mapping[str, Sample] = {sample.id: sample for sample in corpus.samples}
        self._loops: list[Iterator[int]] = []

    def description(self) -> dict[str, Any]:
        """What a worker needs to know before it asks: of the corpus, and of the run."""
        corpus, run = self._corpus, self._run
        return {
            "corpus": {
                "name": corpus.name,
                "count": len(corpus.samples),
                "manifest_sha256": corpus.manifest_sha256,
                "track": corpus.track,
                "annotated": isinstance(corpus.reader, Annotates),
            },
            "run": {
                "device": str(run.device),
                "seed": run.seed,
                "folder": run.folder,
                "autocast": self._autocast(run.device),
            },
        }

    def _autocast(self, device: torch.device) -> tuple[str, str | None]:
        with self._run.autocast():
            return autocast_mode(device.type)

    def samples(self, start: int) -> list[Sample]:
        return list(self._corpus.samples[start : start + CHUNK])

    def pixels(self, name: str) -> Pixels:
        return self._corpus.reader.pixels(self._sample(name))

    def boxes(self, name: str) -> list[dict[str, Any]]:
        reader = self._corpus.reader
        assert isinstance(reader, Annotates)
        from dataclasses import asdict

        return [asdict(box) for box in reader.boxes(self._sample(name))]

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        reader = self._corpus.reader
        assert isinstance(reader, Annotates)
        return reader.mask(self._sample(name))

    def _sample(self, name: str) -> Sample:
        if name not in self._by_id:
            raise DataError(f"Sample '{name}' is not in corpus '{self._corpus.name}'.")
        return self._by_id[name]

    def epochs(self, count: int, parts: int, title: str) -> int:
        remote = [RemotePart(self._call, number) for number in range(parts)]
        self._loops.append(self._run.epochs(count, *remote, title=title))
        return len(self._loops) - 1

    def next(self, loop: int) -> int | None:
        return next(self._loops[loop], None)

    def advance(self, done: int, total: int, figures: dict[str, float]) -> None:
        self._run.advance(done, total, **figures)

    def warn(self, message: str) -> None:
        self._run.warn(message)


def autocast_mode(kind: str) -> tuple[str, str | None]:
    """Kind of device, and the type that autocast uses there now; None when it is off."""
    import torch

    if not torch.is_autocast_enabled(kind):
        return kind, None
    return kind, str(torch.get_autocast_dtype(kind)).removeprefix("torch.")
