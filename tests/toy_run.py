"""A `medbench.FitRun` for tests of training: it saves, resumes, and may be killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from medbench.models.ranks import ALONE


class Killed(Exception):
    """Raised in the middle of a fit."""


class ToyRun:
    """`medbench.FitRun`: saves parts after each epoch; may be killed after some steps of training,
    or (``counts_all``) after some steps of whatever it reports, reading and embedding too.
    """

    device = torch.device("cpu")
    ranks = ALONE

    def __init__(
        self,
        folder: Path,
        seed: int = 0,
        kill_after: int | None = None,
        counts_all: bool = False,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.seed = seed
        self.warnings: list[str] = []
        self.losses: list[float] = []
        self.states: list[dict[str, torch.Tensor]] = []  # of the first part, after each epoch
        self._left = kill_after
        self._any = counts_all

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def epochs(self, count: int, *parts: Any, title: str = "") -> Iterator[int]:
        path = self.folder / f"{title}.pt"
        start = 0
        if path.is_file():
            saved = torch.load(path, weights_only=True)
            start = saved["epoch"]
            for part, state in zip(parts, saved["parts"], strict=True):
                part.load_state_dict(state)
        for epoch in range(start, count):
            torch.manual_seed(self.seed * 1_000_003 + epoch)
            yield epoch
            torch.save({"epoch": epoch + 1, "parts": [p.state_dict() for p in parts]}, path)
            self.states.append({k: v.clone() for k, v in parts[0].state_dict().items()})

    def advance(self, done: int, total: int, **figures: float) -> None:
        if "loss" in figures:
            self.losses.append(figures["loss"])
        if self._left is not None and ("loss" in figures or self._any):
            self._left -= 1
            if self._left < 0:
                raise Killed

    def warn(self, message: str) -> None:
        self.warnings.append(message)
