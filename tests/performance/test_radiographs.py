"""How long an annotated radiograph takes to draw, against the general radiograph renderer."""

from __future__ import annotations

import time

import pytest
import torch

from medbench.phantom.cases import sample_cases
from medbench.phantom.chest import FINDINGS, Chest, render
from medbench.phantom.parallel import in_order
from medbench.phantom.radiograph import render_radiographs
from medbench.phantom.scanner import PAIRS_XRAY, XRAY_UNITS

SIZE, BATCH, BATCHES = 224, 16, 6


def chests(start: int) -> list[Chest]:
    rows = range(start, start + BATCH)
    return [
        Chest(f"p{i}", f"i{i}", findings={FINDINGS[i % len(FINDINGS)]: 1.0} if i % 3 else {})
        for i in rows
    ]


@pytest.mark.performance
def test_6000_radiographs_a_minute_on_two_cores() -> None:
    def fast(start: int) -> int:
        return len(render("speed", chests(start), SIZE, XRAY_UNITS["chexpert"]))

    def general(start: int) -> int:
        cases = sample_cases("speed", range(start, start + BATCH))
        return len(
            render_radiographs(
                cases.patients, cases.findings, "frontal", SIZE, PAIRS_XRAY, "speed", cases.rows
            )
        )

    def each(draw: object, batches: int) -> tuple[float, float]:
        """Seconds by the clock and seconds of processor time for an image."""
        start, work = time.perf_counter(), time.process_time()
        count = sum(in_order(draw, range(0, batches * BATCH, BATCH)))  # type: ignore[arg-type]
        return (time.perf_counter() - start) / count, (time.process_time() - work) / count

    list(in_order(fast, [0, BATCH]))
    clock, work = each(fast, BATCHES)
    general_clock, general_work = each(general, 2)
    print(
        f"\n{SIZE} px: {1000 * clock:.1f} ms an image by the clock, {1000 * work:.1f} ms of "
        f"processor time, {60 / clock:.0f} images a minute; general renderer "
        f"{1000 * general_clock:.1f} ms, ratio {general_work / work:.1f}"
    )
    assert torch.get_num_threads() >= 1
    # On an idle machine two cores take 10 ms an image; processor time holds on a busy one, too.
    assert work < 0.030
    assert general_work / work > 2.5
