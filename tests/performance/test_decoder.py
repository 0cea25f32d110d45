"""The segmentation decoder at `tiny` works at half the masks' side, and its logits are enlarged:
at least 1.5 times cheaper to train than at their whole side, behind a residual network's maps and
behind a transformer's patches alike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from medbench.evaluation.segmentation import train_decoder
from medbench.run.segmentation import SIZE, schedule_of

IMAGES, TURNS = 64, 3
SIDE = SIZE["tiny"]
#: Channels and sides of feature maps of images of 64 px, finest first: RadCLIP's at `tiny`, and
#: patches of 8 px.
MAPS = {
    "residual network": ((64, 16), (128, 8), (256, 4), (512, 2)),
    "transformer": ((64, 8),),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.performance
@pytest.mark.parametrize("kind", MAPS)
def test_half_the_side_makes_the_decoder_at_least_1_5_times_cheaper(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(IMAGES, d, side, side, generator=generator) for d, side in MAPS[kind]]
    masks = torch.zeros(IMAGES, SIDE, SIDE, dtype=torch.bool)
    masks[:, 10:20, 30:50] = True
    rows = torch.arange(IMAGES)

    def cost(coarser: int, images: int = IMAGES) -> float:
        """Milliseconds of processor time for an image: one epoch, one row to validate on."""
        plan = replace(schedule_of("tiny"), epochs=1, coarser=coarser)
        started = time.process_time()
        train_decoder(
            lambda some: [found[some] for found in maps],
            masks, rows[:images], rows[:1], 0, torch.device("cpu"), plan,
        )  # fmt: skip
        return 1000 * (time.process_time() - started) / images

    assert schedule_of("tiny").coarser == 2
    cost(1, 32), cost(2, 32)
    # in turns, the best of each
    both = [(cost(1), cost(2)) for _ in range(TURNS)]
    whole, half = (min(each) for each in zip(*both, strict=True))
    print(f"\n{kind}: {half:.1f} ms against {whole:.1f} ms, {whole / half:.1f} times cheaper")
    assert whole / half >= 1.5
