"""Start-up against importing typer, in pairs, because machines are noisy."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).parent / "medbench")
PAIRS = 21


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


@pytest.mark.performance
@pytest.mark.parametrize("arguments", [["--help"], ["models", "list"]], ids=" ".join)
def test_start_up_costs_at_most_three_imports_of_typer(arguments: list[str]) -> None:
    typer = [sys.executable, "-c", "import typer"]
    seconds(typer), seconds([PROGRAM, *arguments])
    ratios = []
    for _ in range(PAIRS):
        base = seconds(typer)
        ratios.append(seconds([PROGRAM, *arguments]) / base)
    ratio = statistics.median(ratios)
    print(f"\nmedbench {' '.join(arguments)}: {ratio:.2f}x import typer (median of {PAIRS})")
    assert ratio <= 3.0
