"""Pre-training of the Adaptor at the published size from stored vectors: samples in a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from medbench.models.contrastive import seeded
from medbench.models.ranks import ALONE
from medbench_adaptor.adaptor import Adaptor
from medbench_adaptor.config import AdaptorConfig
from medbench_adaptor.training import Recipe, train_adaptor

STEPS, VALIDATION = 3, 64


class Timed:
    """`medbench.FitRun` that notes when each step ended."""

    device = torch.device("cpu")
    ranks = ALONE
    seed = 0
    folder = Path()

    def __init__(self) -> None:
        self.times: list[float] = []

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def epochs(self, count: int, *parts: Any, title: str = "") -> Iterator[int]:
        yield from range(count)

    def advance(self, done: int, total: int, **figures: float) -> None:
        self.times.append(time.perf_counter())

    def warn(self, message: str) -> None:
        pass


@pytest.mark.performance
def test_pretraining_goes_nearly_as_fast_as_its_matrix_products() -> None:
    """The paper trains its 50 passes in about 15 minutes on two T4: some 10,000 samples a second
    (213,000 frontal images). On a CPU the bound is arithmetic: 12.2 M parameters, for both
    modalities and thrice (forward and twice backward), are 147 MFLOP a sample."""
    config = AdaptorConfig()
    with seeded(0):
        adaptor = Adaptor(
            768, 768, config.dim, layers=config.layers, heads=config.heads,
            hidden=config.hidden, dropout=config.dropout,
        )  # fmt: skip
        count = STEPS * config.batch + VALIDATION
        images, texts = torch.randn(count, 768), torch.randn(count, 768)
        square = torch.randn(2048, 2048)
    run = Timed()
    train_adaptor(
        adaptor,
        images,
        texts,
        torch.arange(STEPS * config.batch),
        torch.arange(STEPS * config.batch, count),
        Recipe(
            epochs=1, batch=config.batch, lr=config.lr, weight_decay=config.weight_decay,
            warmup=config.warmup, patience=config.patience, image_weight=config.alpha,
        ),
        run,
    )  # fmt: skip
    speed = config.batch * (len(run.times) - 1) / (run.times[-1] - run.times[0])

    started = time.perf_counter()
    for _ in range(4):
        square @ square
    flops = 4 * 2 * 2048**3 / (time.perf_counter() - started)
    bound = flops / (6 * 2 * sum(p.numel() for p in adaptor.parameters()))

    print(
        f"{speed:,.0f} samples a second at batch {config.batch:,} on {torch.get_num_threads()} "
        f"threads; matrix products alone would allow {bound:,.0f} ({flops / 1e9:.0f} GFLOP/s)"
    )
    assert speed >= 0.4 * bound
