"""The next batch on its way to a GPU while the current one computes.

Pictures travel as bytes and become floats on the device: on a CPU core that conversion costs tens
of times what collecting the bytes does (docs/performance.md). On a CPU all this is the plain loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Protocol, TypeVar

import torch

from medbench.data.images import to_unit

T = TypeVar("T")
_NONE = torch.empty(0, dtype=torch.long)


class Stacks(Protocol):
    """Pictures by index, as `medbench.data.images.Images` gives them."""

    def stack(self, indices: Sequence[int], /) -> torch.Tensor:
        """[B] -> uint8 [B, H, W] or [B, H, W, 3]. It draws nothing from any generator."""
        ...


def ahead(
    batches: Iterable[torch.Tensor], device: torch.device
) -> Generator[torch.Tensor, None, None]:
    """Batches on the device, in order, each as it is on the CPU.

    For a GPU the next one is made in a thread, put into page-locked memory and copied on a stream
    of its own while the caller works with the current one. So making a batch must draw nothing at
    random. What it raises is raised here in its turn. The thread ends with this generator.
    """
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    with closing(one_ahead(_sent(batches, device))) as arriving:
        for batch, copied in arriving:
            here = torch.cuda.current_stream(device)
            here.wait_event(copied)
            batch.record_stream(here)  # or its memory is given away when the other stream is done
            yield batch


def one_ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """The items in order, the next one made in a thread as soon as one is handed out.

    What making one raises is raised in its turn. However this generator ends, it waits for the item
    that is being made, and the thread is gone.
    """
    source = iter(items)
    end = object()
    with ThreadPoolExecutor(1, "prefetch") as maker:
        waiting = maker.submit(next, source, end)
        while (item := waiting.result()) is not end:
            waiting = maker.submit(next, source, end)
            yield item  # type: ignore[misc]


def _sent(
    batches: Iterable[torch.Tensor], device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.cuda.Event]]:
    """Each batch on the device and what tells when it has arrived."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        with torch.cuda.stream(stream):
            moved = batch.pin_memory().to(device, non_blocking=True)
            copied = stream.record_event()
        yield moved, copied


class Pictures:
    """Pictures by index, float32 on the device; those that are expected are made ahead.

    Args:
        images: where they come from.
        device: where they go.
    """

    def __init__(self, images: Stacks, device: torch.device) -> None:
        self._images = images
        self._device = device
        self._coming: deque[torch.Tensor] = deque()
        self._made: Generator[torch.Tensor, None, None] | None = None
        self._rows = self._held = _NONE

    def expect(self, batches: Sequence[torch.Tensor]) -> None:
        """Say which batches, int64 [B] each, will be asked for, in this order; what was expected
        before is forgotten. Other things may be asked for, and are then made at once."""
        self.close()
        self._coming.extend(batches)
        self._made = ahead((self._images.stack(rows.tolist()) for rows in batches), self._device)

    def __call__(self, chosen: torch.Tensor) -> torch.Tensor:
        """int64 [B] on the CPU -> float32 [B, 3, H, W] in [0, 1] on the device.

        Of an expected batch any run of its samples may be asked for, again and again, until one
        of the next batch is.
        """
        found = self._expected(chosen)
        if found is None:
            found = self._images.stack(chosen.tolist()).to(self._device)
        return to_unit(found)

    def close(self) -> None:
        """Forget what is expected; the thread, where there is one, ends."""
        self._coming.clear()
        self._rows, self._held = _NONE, _NONE
        if self._made is not None:
            self._made.close()
            self._made = None

    def _expected(self, chosen: torch.Tensor) -> torch.Tensor | None:
        """The bytes of these samples out of the current batch or the next; None: in neither."""
        if (part := _within(self._rows, chosen)) is None:
            if not self._coming or (part := _within(self._coming[0], chosen)) is None:
                return None
            assert self._made is not None
            try:
                self._held = next(self._made)
            except BaseException:  # nothing more will come
                self.close()
                raise
            self._rows = self._coming.popleft()
        return self._held[part]


def _within(rows: torch.Tensor, chosen: torch.Tensor) -> slice | None:
    """Where ``chosen`` stands in ``rows``, one after the other."""
    if not len(chosen) or not len(places := (rows == chosen[0]).nonzero()):
        return None
    first = int(places[0])
    part = slice(first, first + len(chosen))
    return part if torch.equal(rows[part], chosen) else None
