"""Training on a small drawn corpus, and what is kept of it."""

from __future__ import annotations

import math
import pickletools
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from medbench.models.capabilities import Stage, State
from medbench.run.fit import construct, train
from medbench.run.fitting import StageRun
from medbench.run.load import TASK_CORPUS
from medbench.testing.answers import answers, unlike
from medbench.testing.corpus import corpus
from medbench.testing.inputs import inputs
from medbench.testing.results import NotApplicable, Refused
from medbench.testing.subject import SEED, Subject
from medbench.testing.supervise import ALIVE

#: Losses that a loop must report before it is judged.
ENOUGH = 4
#: Of answers before saving and after loading, relative to the largest value.
RELOADED = 1e-4


class Recorded(StageRun):
    """The harness's own `medbench.FitRun`, which keeps the losses that it is told.

    Each report of progress touches ``alive``. ``loops`` has for each loop over epochs its (epoch,
    loss) in order.
    """

    def __init__(self, folder: Path, alive: Path) -> None:
        super().__init__(
            device=torch.device("cpu"), precision="fp32", seed=SEED, folder=folder,
            advance=lambda done, total, **figures: None, say=lambda message: None, notes=[],
        )  # fmt: skip
        self.loops: list[list[tuple[int, float]]] = [[]]
        self._alive = alive

    def epochs(self, count: int, *parts: Any, title: str = "") -> Iterator[int]:
        self.loops.append([])
        yield from super().epochs(count, *parts, title=title)

    def advance(self, done: int, total: int, **figures: float) -> None:
        if "loss" in figures:
            self.loops[-1].append((self._epoch, float(figures["loss"])))
        self._alive.touch()
        super().advance(done, total, **figures)


def fit(subject: Subject) -> str:
    """Every stage is trained, as the harness trains it, on what the kit draws."""
    if not subject.stages:
        raise NotApplicable("it has nothing to train")
    for stage in subject.stages:
        _, state, run = trained(subject, stage)
        subject.keep(stage.name, state)
        if not stage.cls:
            subject.losses[stage.name] = run.loops
    return ", ".join(stage.name for stage in subject.stages)


def trained(subject: Subject, stage: Stage) -> tuple[Any, State, Recorded]:
    """A fresh object that has trained one stage, what it keeps of it, and the run it was given."""
    unit = "image"
    if stage.corpus != TASK_CORPUS:
        unit = subject.registry.dataset(stage.corpus).unit
    with TemporaryDirectory() as folder:
        run = Recorded(Path(folder), subject.folder / ALIVE)
        model = construct(subject.cell, stage)
        drawn = corpus(stage.corpus, unit)  # type: ignore[arg-type]
        state = train(subject.cell, model, stage, drawn, subject.states, run)
    return model, state, run


def loss(subject: Subject) -> str:
    """Of each loop of the model's own stages, the last epoch's loss is below the first's."""
    if not subject.stages:
        raise NotApplicable("it has nothing to train")
    falls: list[str] = []
    for stage, loops in subject.losses.items():
        for reported in loops:
            if any(not math.isfinite(value) for _, value in reported):
                raise Refused(f"stage '{stage}' reports a loss that is not a finite number")
            if len(reported) < ENOUGH:
                continue
            first, last = _ends(reported)
            if last >= first:
                raise Refused(
                    f"stage '{stage}' goes from a mean loss of {first:.4g} to {last:.4g}, on a "
                    "corpus whose pictures tell their captions"
                )
            falls.append(f"{stage} {first:.3g} to {last:.3g}")
    if not falls:
        raise NotApplicable(
            f"fewer than {ENOUGH} losses are reported: call run.advance(step, steps, loss=...) in "
            "a loop over run.epochs(...)"
        )
    return "; ".join(falls)


def _ends(reported: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Mean loss of the first and of the last epoch, or where there is one of its outer quarters."""
    epochs = [[v for _, v in part] for _, part in groupby(reported, key=lambda pair: pair[0])]
    if len(epochs) < 2:
        quarter = len(reported) // 4
        values = epochs[0]
        epochs = [values[:quarter], values[-quarter:]]
    return sum(epochs[0]) / len(epochs[0]), sum(epochs[-1]) / len(epochs[-1])


def state(subject: Subject) -> str:
    """States are what safetensors can keep, and no bytes of them are code that pickle would run."""
    if not subject.stages:
        raise NotApplicable("it has nothing to keep")
    size = 0
    for stage in subject.stages:
        kept = subject.states[stage.name]
        if not kept:
            raise Refused(f"state('{stage.name}') is empty: what was trained is lost")
        for name, tensor in kept.items():
            size += tensor.nbytes
            if tensor.dtype == torch.uint8 and _pickled(bytes(tensor.flatten().tolist())):
                raise Refused(
                    f"state('{stage.name}') hides a pickle in {name!r}: keep tensors as they are"
                )
    return f"{size / 2**20:.1f} MiB"


def _pickled(content: bytes) -> bool:
    """Whether bytes are a pickle, or an archive as torch.save makes it."""
    if content[:4] == b"PK\3\4":
        return True
    if content[:1] != b"\x80":  # protocols 2 and later begin so
        return False
    try:
        return sum(1 for _ in pickletools.genops(content)) > 1
    except Exception:
        return False


def last_own(subject: Subject) -> Stage:
    """The last stage that the model's own class trains. Raises NotApplicable without one."""
    own = [stage for stage in subject.stages if not stage.cls]
    if not own:
        raise NotApplicable("it trains nothing of its own")
    return own[-1]


def save_load(subject: Subject) -> str:
    """The object that trained last answers like a fresh one that has loaded every state; and what
    that one saves again is what it loaded."""
    stage = last_own(subject)
    fresh = subject.fitted()
    for one in subject.stages:
        if one.cls:
            continue
        again = fresh.state(one.name)
        kept = subject.states[one.name]
        if set(again) != set(kept):
            odd = sorted(set(again) ^ set(kept))
            raise Refused(f"after loading, state('{one.name}') has other names: {odd[0]!r}")
        for name, tensor in kept.items():
            if not torch.equal(again[name].detach().cpu(), tensor):
                raise Refused(f"after loading, {name!r} of state('{one.name}') is another")
    missing = {s.name for s in subject.stages} - {stage.name, *stage.needs}
    if missing:
        return f"states alone: stage '{stage.name}' trains without {', '.join(sorted(missing))}"
    model, _, _ = trained(subject, stage)
    subject.ready(model, torch.device("cpu"))
    given = inputs(subject.image_size)
    gap = unlike(answers(subject.cell, model, given), answers(subject.cell, fresh, given), RELOADED)
    if gap:
        raise Refused(
            f"after saving and loading, {gap}. Something that training changes is not in state()"
        )
    return f"stage '{stage.name}'"
