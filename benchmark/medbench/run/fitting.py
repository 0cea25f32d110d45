"""What a model's ``fit`` is given: device, seed, precision, progress, survival of a kill."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medbench.models.ranks import ALONE, Ranks
from medbench.run.stores import writing


def seed_everything(seed: int) -> None:
    """Seed every generator a model may draw from, and ask torch for repeatable kernels."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - third-party models draw from the global one
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS is not repeatable
    torch.use_deterministic_algorithms(True, warn_only=True)
    # its debugging aid of filling every new tensor costs a pass over memory each time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> None:
    """What the generators are at the start of an epoch of a fit with that seed, in one of the
    processes that train together: each draws for its own share of a batch."""
    seed_everything((seed + rank * 100_003) * 1_000_003 + epoch)


class StageRun:
    """The `medbench.FitRun` of one training stage."""

    def __init__(
        self,
        *,
        device: torch.device,
        precision: str,
        seed: int,
        folder: Path,
        advance: Callable[..., None],
        say: Callable[[str], None],
        notes: list[str],
        ranks: Ranks = ALONE,
    ) -> None:
        self.device = device
        self.ranks = ranks
        self.seed = seed
        self.folder = folder
        self._precision = precision
        self._advance = advance
        self._say = say
        self._notes = notes
        self._epoch = 0
        self._epochs = 1

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 autocast when the run's precision is bf16, else nothing."""
        if self._precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def epochs(self, count: int, *parts: Any, title: str = "") -> Iterator[int]:
        """Yield the epochs still to run; see `medbench.FitRun.epochs`."""
        path = self.folder / f"epochs-{title or 'fit'}.pt"
        start = self._restore(path, parts)
        self.ranks.wait()  # nobody writes the file before everybody has read it
        self._epochs = count
        for epoch in range(start, count):
            self._epoch = epoch
            # Every epoch starts from a state that depends on nothing before it, so that a fit
            # resumed here draws what an unbroken one would have drawn.
            seed_epoch(self.seed, epoch, self.ranks.rank)
            yield epoch
            if self.ranks.rank == 0:
                self._save(path, epoch + 1, parts)

    def _save(self, path: Path, epoch: int, parts: tuple[Any, ...]) -> None:
        with writing(path):
            temporary = path.with_suffix(".tmp")
            torch.save({"epoch": epoch, "parts": [part.state_dict() for part in parts]}, temporary)
            os.replace(temporary, path)

    def _restore(self, path: Path, parts: tuple[Any, ...]) -> int:
        if not path.is_file():
            return 0
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            for part, state in zip(parts, saved["parts"], strict=True):
                part.load_state_dict(state)
        except Exception as error:
            raise RuntimeError(
                f"{path} cannot be resumed from ({error}); remove it or use --fresh"
            ) from error
        epoch = int(saved["epoch"])
        self._say(f"  going on after epoch {epoch}")
        return epoch

    def advance(self, done: int, total: int, **figures: float) -> None:
        """Progress within an epoch."""
        self._advance(self._epoch * total + done, self._epochs * total, **figures)

    def warn(self, message: str) -> None:
        """A line for the user, and a note in the record."""
        self._say(f"  {message}")
        self._notes.append(message)
