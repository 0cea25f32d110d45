"""How names, figures and costs are written in a Markdown cell."""

from __future__ import annotations

import re

from medbench.leaderboard.board import Cost, Figure

#: Where nothing is known.
DASH = "—"

#: What begins a tag or a comment in HTML, which Markdown lets through.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def escaped(value: str) -> str:
    """Text that cannot break out of its cell or line, nor be taken for markup."""
    return " ".join(_TAG.sub("&lt;", value.replace("|", "\\|")).split())


def line(cells: list[str]) -> str:
    """One row of a table."""
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def heading(cells: list[str]) -> list[str]:
    """The first two rows of a table."""
    return [line(cells), f"|{'---|' * len(cells)}"]


def figure_cell(figure: Figure | None, size: int | None = None) -> str:
    """Value with its interval, three digits; † where the interval is a mean of bounds; the number
    of samples where the column names another ``size``."""
    if figure is None:
        return DASH
    low, high = figure.ci95
    other = f" (n={figure.n:,})" if size is not None and figure.n != size else ""
    return f"{figure.value:.3f} [{low:.3f}, {high:.3f}]{'' if figure.exact else '†'}{other}"


def fraction_cell(value: float) -> str:
    """A share of the training labels.

    >>> fraction_cell(1.0), fraction_cell(0.1)
    ('all', '10 %')
    """
    return "all" if value == 1 else f"{100 * value:g} %"


def cost_cells(cost: Cost) -> list[str]:
    """Parameters (trainable), training time, images per second, peak memory in GB."""
    parameters = training = speed = memory = DASH
    if cost.parameters is not None:
        parameters = f"{count(cost.parameters[0])} ({count(cost.parameters[1])})"
    if cost.train_seconds is not None:
        training = duration(cost.train_seconds)
    if cost.images_per_second is not None:
        speed = f"{float(f'{cost.images_per_second:.3g}'):,.10g}"
    if cost.peak_memory_mb is not None:
        memory = f"{cost.peak_memory_mb / 1000:.1f} GB"
    return [parameters, training, speed, memory]


def count(number: int) -> str:
    """A number of parameters, to a tenth of its unit.

    >>> [count(n) for n in (0, 950, 999_960, 12_210_000, 1_300_000_000)]
    ['0', '950', '1.0 M', '12.2 M', '1.3 G']
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.99995 * size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def duration(seconds: float) -> str:
    """Wall time in the unit that suits it.

    >>> [duration(s) for s in (0, 4.21, 88, 640, 9000)]
    ['none', '4.2 s', '88 s', '11 min', '2.5 h']
    """
    if seconds == 0:
        return "none"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
