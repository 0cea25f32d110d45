"""Embedding through the harness against a bare loop over the same model and tensors."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medbench.data.decoded import Decoded, decode
from medbench.data.images import joined, to_tensor, to_unit
from medbench.data.samples import Pixels, Sample
from medbench.run.embed import Embedder
from medbench.run.fit import Fitted
from medbench_radclip import RADCLIP
from medbench_radclip.config import RadclipConfig
from medbench_radclip.model import Radclip

VOLUMES, SLICES, BATCH = 60, 24, 64


class Noise:
    """A reader of volumes of noise."""

    def __init__(self, root: Path) -> None:
        self.generator = np.random.default_rng(0)

    def samples(self) -> list[Sample]:
        return [Sample(id=str(i), patient=str(i), files=(), kind="volume") for i in range(VOLUMES)]

    def pixels(self, sample: Sample) -> Pixels:
        return self.generator.random((SLICES, 64, 64), dtype=np.float32)


@pytest.mark.performance
def test_the_harness_embeds_at_95_percent_of_a_bare_loop(tmp_path: Path) -> None:
    reader = Noise(tmp_path)
    decode(reader, reader.samples(), 64, tmp_path / "images")
    images = Decoded.open(tmp_path / "images")
    model = Radclip(RadclipConfig(**RADCLIP.presets["tiny"]))  # type: ignore[arg-type]
    named = SimpleNamespace(name="radclip")
    cell = SimpleNamespace(device="cpu", precision="fp32", batch_size=BATCH, title="t", model=named)
    fitted = Fitted(model, {}, {}, None, [])
    embedder = Embedder(cell, None, reader.samples(), fitted, images, None, None)  # type: ignore[arg-type]
    everything = torch.cat([to_tensor(images[i]) for i in range(len(images))])
    batches = list(everything.split(BATCH))

    def bare() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            for batch in batches:
                model.encode_images(batch)
        return time.perf_counter() - start

    def harness() -> float:
        start = time.perf_counter()
        embedder._encode_slices(lambda done, total, text="": None)  # type: ignore[arg-type]
        return time.perf_counter() - start

    bare(), harness()
    ratios = [bare() / harness() for _ in range(9)]
    ratio = statistics.median(ratios)
    print(f"\nharness at {100 * ratio:.1f} % of the bare loop's throughput (median of 9)")
    assert ratio >= 0.95


@pytest.mark.performance
def test_pictures_are_collected_far_faster_as_bytes_than_as_floats() -> None:
    """What a CPU core does for each batch before it can travel to a GPU."""
    draws = np.random.default_rng(0)
    pictures = [draws.integers(0, 256, (1, 224, 224), np.uint8) for _ in range(64)]

    def timed(floats: bool) -> float:
        start = time.perf_counter()
        batch = joined(pictures)
        if floats:
            to_unit(batch)
        return time.perf_counter() - start

    pairs = [(timed(False), timed(True)) for _ in range(9)]
    few, many = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"64 pictures at 224 px: {1000 * few:.1f} ms as bytes, {1000 * many:.1f} ms as floats")
    assert many > 5 * few
