"""Does a model keep what it was asked: batch after batch, until memory is full."""

from __future__ import annotations

import gc
import time
import tracemalloc

import torch

from medbench.testing.answers import answers
from medbench.testing.inputs import inputs
from medbench.testing.results import NotApplicable, Refused
from medbench.testing.subject import Subject

WARM, COUNTED = 3, 8  #: batches before memory is read, and between the readings
#: Bytes a batch that tables of Python's own may grow by.
ALLOWED = 4096
#: Seconds after which the rest of the batches is left out.
PATIENCE = 30.0


def memory(subject: Subject) -> str:
    """Tensors and Python's own memory do not grow over batches of different images.

    Generated images are left out, as they take long; texts are always the same ones, since a cache
    of prompts is no leak.
    """
    subject.must_be_in_process()
    skip = ("generate_images",)
    model, size = subject.fitted(), subject.image_size
    if not set(subject.cell.capabilities) - {"fit", *skip}:
        raise NotApplicable("it generates images alone, which takes too long to repeat")
    start = time.monotonic()
    tracemalloc.start()
    try:
        for number in range(WARM):
            answers(subject.cell, model, inputs(size, number), skip)
        before, done = _held(), 0
        while done < COUNTED and (done < 2 or time.monotonic() - start < PATIENCE):
            answers(subject.cell, model, inputs(size, WARM + done), skip)
            done += 1
        after = _held()
    finally:
        tracemalloc.stop()
    growth = (after - before) / done
    if growth > ALLOWED:
        raise Refused(
            f"memory grows by {growth / 1024:,.0f} KiB a batch of {len(inputs(size))}: something "
            "keeps inputs or answers"
        )
    return f"{done} batches"


def _held() -> int:
    """Bytes of all living tensors, each storage once, and of what Python has allocated."""
    gc.collect()
    storages: dict[int, int] = {}
    for thing in gc.get_objects():
        # type(): isinstance would ask lazy modules and proxies for their class, and wake them
        if issubclass(type(thing), torch.Tensor):
            try:
                storage = thing.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
            except (NotImplementedError, RuntimeError):  # tensors without memory of their own
                continue
    return sum(storages.values()) + tracemalloc.get_traced_memory()[0]
