"""Tables as the pages' templates take them, and addresses of pages."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from medbench.leaderboard.board import Figure, Row
from medbench.leaderboard.cells import DASH, cost_cells
from medbench.schemas.record import Bounded, Estimate
from medbench.site.lead import words

_SAFE = re.compile(r"[a-z0-9]+([-.@][a-z0-9]+)*\Z")


@dataclass(frozen=True)
class Link:
    href: str
    text: str


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what it says.
        note: said after it, smaller; each of its lines stays whole.
        value, low, high: what it is sorted by and drawn from; None: its text.
        links: instead of text.
        mark: class of the cell: ``best``, ``none``, ``good``, ``bad``.
    """

    text: str = ""
    note: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    links: tuple[Link, ...] = ()
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """A head; ``number`` where cells are sorted by value, ``metric`` where they can be drawn,
    ``href`` where it leads somewhere."""

    text: str
    number: bool = False
    metric: str = ""
    href: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table: its head and cells; ``kind`` and ``badge`` are filtered by."""

    head: Cell
    cells: list[Cell]
    kind: str = ""
    badge: str = ""


@dataclass(frozen=True)
class Table:
    """``columns`` begin with that of the heads."""

    caption: str
    columns: list[Column]
    lines: list[Line]
    sortable: bool = True
    compact: bool = False


def slug(name: str) -> str:
    """A file name for any name, one for each: unusual ones end in a hash.

    >>> slug("cls-clip"), slug("<b>../X</b>")
    ('cls-clip', 'b-x-b-9d6a4f2c')
    """
    if _SAFE.match(name) and len(name) < 80:
        return name
    tail = hashlib.sha256(name.encode()).hexdigest()[:8]
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-")
    return f"{plain}-{tail}" if plain else tail


def page_of(kind: str, name: str) -> str:
    """Where a page is, from the top of the site."""
    return f"{kind}/{slug(name)}.html"


def figure_cell(figure: Figure | None, best: bool = False, size: int | None = None) -> Cell:
    """Value and interval, and what a chart draws of them; the number of samples where it is not
    the ``size`` of the column."""
    if figure is None:
        return Cell(DASH, mark="none")
    value, _, interval = words(figure).partition(" ")
    other = f" (n={figure.n:,})" if size is not None and figure.n != size else ""
    return Cell(
        value,
        interval + ("" if figure.exact else "†") + other,
        figure.value,
        *figure.ci95,
        mark="best" if best else "",
    )


def bounded_cell(found: Bounded | None, note: str = "", size: bool = False) -> Cell:
    """A value of a record with its interval and a remark; with ``size`` its number of samples."""
    if found is None:
        return Cell(DASH, mark="none")
    bounds = f"[{found.ci95[0]:.3f}, {found.ci95[1]:.3f}]"
    count = f"n={found.n:,}" if size and isinstance(found, Estimate) else ""
    lines = "\n".join(filter(None, [bounds, count, note]))
    return Cell(f"{found.value:.3f}", lines, found.value, *found.ci95)


def cost_columns() -> list[Column]:
    return [
        Column("Parameters", number=True),
        Column("Parameters trained", number=True),
        Column("Training", number=True),
        Column("Images/s", number=True),
        Column("Memory", number=True),
    ]


def costs(row: Row) -> list[Cell]:
    """Parameters, those trained, training time, images a second, peak memory."""
    both, training, speed, memory = cost_cells(row.cost)
    total, _, trained = both.partition(" (")
    cost = row.cost
    numbers = (
        *(cost.parameters or (None, None)),
        cost.train_seconds,
        cost.images_per_second,
        cost.peak_memory_mb,
    )
    texts = (total, trained.rstrip(")") or DASH, training, speed, memory)
    return [
        Cell(
            text,
            value=None if number is None else float(number),
            mark="" if text != DASH else "none",
        )
        for text, number in zip(texts, numbers, strict=True)
    ]


def record_links(row: Row, root: Path, page: Path, inside: bool) -> Cell:
    """The records behind a row: links where the site lies in the folder that holds them, else
    their run ids, which is how they are found."""
    links = []
    for path, seed in zip(row.records, row.seeds, strict=False):
        text = f"seed {seed}"
        if inside and path.is_relative_to(root):
            links.append(Link(_url(os.path.relpath(path, page.parent)), text))
        else:
            links.append(Link("", f"{text}: {path.parent.name}"))
    return Cell(links=tuple(links)) if links else Cell(DASH, mark="none")


def _url(path: str) -> str:
    from urllib.parse import quote

    return quote(Path(path).as_posix())
