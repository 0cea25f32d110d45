"""What the parts of a cell cost: measured when they are done, kept with what they gave.

A cached checkpoint cost nothing today and an hour last week. What a reader wants to know is the
hour, so a store keeps the work behind each entry beside it, and a record reports that work whoever
did it.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Seconds between two notes of work in progress, which survive a kill.
NOTED = 5.0


@dataclass(frozen=True)
class Work:
    """One finished stage.

    Attributes:
        name: of the stage, as in a record's ``timing``.
        seconds: wall time over all attempts, a killed one up to its last note.
        items: how many things it worked through, such as images; None where it did not say.
    """

    name: str
    seconds: float
    items: int | None = None


@dataclass
class Ledger:
    """The finished stages of this process in order, and the scratch folder of the entry being
    built, where work in progress is noted."""

    done: list[Work] = field(default_factory=list)
    scratch: Path | None = None


class Clock:
    """Measures one stage from now on, with the time of attempts that were killed.

    Args:
        note: file in which the time so far is noted; None: nowhere.
    """

    def __init__(self, note: Path | None) -> None:
        self._note = note
        self._started = self._noted = time.perf_counter()
        self._before = 0.0
        if note is not None:
            with suppress(OSError, ValueError):
                self._before = float(note.read_text(encoding="ascii"))

    @property
    def elapsed(self) -> float:
        """Seconds of this attempt."""
        return time.perf_counter() - self._started

    def tick(self) -> None:
        """Note the time so far, now and then."""
        if time.perf_counter() - self._noted >= NOTED:
            self.pause()

    def pause(self) -> None:
        """Note the time so far. Where that cannot be written, a kill loses it and nothing else."""
        self._noted = time.perf_counter()
        if self._note is not None:
            with suppress(OSError):
                self._note.write_text(f"{self._before + self.elapsed:.3f}", encoding="ascii")

    def stop(self) -> float:
        """Seconds over all attempts; the note is removed."""
        if self._note is not None:
            with suppress(OSError):
                self._note.unlink(missing_ok=True)
        return round(self._before + self.elapsed, 3)


def costs(
    timing: Mapping[str, float], entries: Iterable[tuple[list[Work] | None, bool]], device: str
) -> dict[str, Any]:
    """What a cell cost, for its record.

    Args:
        timing: seconds of the stages of this run.
        entries: for each store entry that the cell used, the work behind it (None: not known) and
            whether it was found rather than built.
        device: torch's name of the device.

    Returns:
        ``train_seconds``: of every training stage, shared ones counted in full; absent where the
        work behind a part is not known. ``images_per_second`` of embedding; absent without.
        ``cached``: stages whose figures are those of an earlier run. ``peak_memory_mb``.
    """
    known = True
    done: dict[str, float] = {}
    images, embedding = 0, 0.0
    cached: list[str] = []
    for works, found in entries:
        known = known and works is not None
        for work in works or ():
            if work.name == "embed" and work.items and work.seconds:
                images, embedding = images + work.items, embedding + work.seconds
            elif not _trains(work.name):
                continue
            else:
                done[work.name] = done.get(work.name, 0.0) + work.seconds
            if found:
                cached.append(work.name)
    # a stage of which nothing is kept was done in this run
    done |= {n: s for n, s in timing.items() if _trains(n) and n not in done}
    costs: dict[str, Any] = {"train_seconds": round(sum(done.values()), 3)} if known else {}
    if images:
        costs["images_per_second"] = round(images / embedding, 3)
    return costs | {"cached": sorted(set(cached)), "peak_memory_mb": peak_memory_mb(device)}


def _trains(name: str) -> bool:
    return name.startswith("fit-") or name in ("fine-tune", "decoder")


def watch_memory(device: str) -> None:
    """Let the peak on a GPU be that of what follows; the peak of a process cannot be set back."""
    if device.startswith("cuda"):
        import torch

        # before it there is no peak to set back, which torch refuses
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: str) -> float:
    """Most memory in use at once, in MiB: torch's tensors on a GPU, else the whole process's,
    whatever it has run before."""
    if device.startswith("cuda"):
        import torch

        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on a Mac, else KiB
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
