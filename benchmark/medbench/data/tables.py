"""Reading the CSV tables of published datasets, and saying which rows are wrong.

The standard library reads them: its rows are text as it stands, so an odd cell is named by its row
instead of changing the type of a column, and listing a dataset does not cost the import of pandas.
"""

from __future__ import annotations

import csv
import gc
import gzip
import sys
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from itertools import repeat
from pathlib import Path
from typing import TypeVar

from medbench.data.folders import names_in
from medbench.data.samples import Sample
from medbench.errors import DataError

Value = TypeVar("Value")

_NAMED = 5  #: as many wrong rows or missing files are named; the others are counted


@dataclass(frozen=True)
class Table:
    """A CSV file: its rows as text.

    Attributes:
        path: where it was read.
        place: column name to its position.
        rows: the cells; row 0 is the first below the header. Columns that were asked for together
            may be one cell at the end.
        together: of each row the cells of the columns asked for together, joined by commas.
    """

    path: Path
    place: dict[str, int]
    rows: list[list[str]]
    together: list[str]

    def column(self, name: str) -> list[str]:
        """The cells of a column; of one that is absent, as many empty ones."""
        position = self.place.get(name)
        if position is None:
            return [""] * len(self.rows)
        return [row[position] for row in self.rows]

    def mapped(self, column: str, known: Mapping[str, Value], what: str) -> list[Value]:
        """What each cell of a column stands for. Raises DataError for unknown cells: ``what``."""
        cells = self.column(column)
        odd = set(cells) - known.keys()
        self.refuse(what, [n for n, cell in enumerate(cells) if cell in odd] if odd else [], cells)
        return [known[cell] for cell in cells]

    def refuse(
        self,
        what: str,
        rows: Sequence[int],
        values: Sequence[str] | None = None,
        *,
        pick: bool = True,
    ) -> None:
        """Raise DataError when ``rows`` (counted from 0) is not empty; see `refuse_rows`."""
        refuse_rows(self.path, what, rows, values, "counted from 1 below the header", pick=pick)


def read_table(path: Path, needed: Sequence[str], together: Sequence[str] = ()) -> Table:
    """Read a comma-separated table with a header.

    Args:
        path: a CSV file, UTF-8 with or without a byte order mark.
        needed: columns that must be there; others are read too.
        together: columns whose cells are wanted as one text. Where they are the table's last, in
            this order, as published, they are never taken apart, which saves half of the time.

    Raises:
        DataError: the file is missing, unreadable or empty, uses another delimiter, lacks or
            doubles columns, has rows of another length, or no rows.
    """
    text = read_text(path)
    lines = text.splitlines()
    while not lines[-1].strip(", "):
        lines.pop()
    quoted = '"' in text
    header = [name.strip() for name in next(csv.reader(lines[:1]))]
    _check_header(path, header, (*needed, *together))
    if len(lines) == 1:
        raise DataError(f"{path} has no rows below its header. Copy it again from its source.")
    place = {name: position for position, name in enumerate(header) if name}
    width = 1 + max(place.values())
    tail = len(header) - len(together)
    if together and not quoted and header[tail:] == list(together):
        rows = [line.split(",", tail) for line in lines[1:]]
        _refuse_ragged(path, rows, tail + 1)
        joined = [row[tail] for row in rows]
        wrong = {cell for cell in set(joined) if cell.count(",") != len(together) - 1}
        if not wrong:
            return Table(path, place, rows, joined)
    # Splitting is twice as fast as the csv module, and right where nothing is quoted.
    rows = list(csv.reader(lines[1:])) if quoted else [line.split(",") for line in lines[1:]]
    _refuse_ragged(path, rows, width)
    places = [place[name] for name in together]
    joined = [",".join([row[position] for position in places]) for row in rows]
    return Table(path, place, rows, joined)


def _refuse_ragged(path: Path, rows: list[list[str]], width: int) -> None:
    """Refuse rows that are shorter than the header's names, or longer by more than empty cells:
    published tables have empty names at the end of the header, and rows without them."""
    ragged = [
        number
        for number, row in enumerate(rows)
        if len(row) != width and (len(row) < width or any(row[width:]))
    ]
    lengths = [f"{len(rows[number])} cells" for number in ragged]
    what = f"another number of cells than the {width} columns"
    refuse_rows(path, what, ragged, lengths, "counted from 1 below the header", pick=False)


def read_text(path: Path) -> str:
    """A text file, UTF-8 with or without a byte order mark, plain or gzipped. Raises DataError."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte {error.start:,} does not fit. Copy it again from its "
            "source, or save it as UTF-8."
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}. Check its "
            "permissions and links, or copy it again."
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty. Copy it again from its source.")
    return text


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped, without empty ones. Raises DataError naming it."""
    return [line for line in map(str.strip, read_text(path).splitlines()) if line]


def refuse_rows(
    path: Path,
    what: str,
    rows: Sequence[int],
    values: Sequence[str] | None = None,
    counted: str = "counted from 1",
    *,
    pick: bool = True,
) -> None:
    """Raise DataError naming the first of some wrong rows, and how many there are.

    Args:
        path: the table.
        what: completes "3 rows have ...".
        rows: their numbers, counted from 0; when there are none, nothing happens.
        values: what is wrong, one for each row of the table.
        counted: how the message counts rows.
        pick: ``values`` has one for each row of the table; False: one for each of ``rows``.
    """
    if not rows:
        return
    shown = [
        f"row {number + 1:,}" + (f" '{values[number if pick else k]}'" if values else "")
        for k, number in enumerate(rows[:_NAMED])
    ]
    more = f"; and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else ""
    count = "1 row has" if len(rows) == 1 else f"{len(rows):,} rows have"
    raise DataError(
        f"{path}: {count} {what}: {'; '.join(shown)}{more} (rows {counted}). Correct the table, "
        "or copy it again from its source."
    )


def repeated(values: Sequence[str]) -> list[int]:
    """Positions of all values that occur more than once."""
    if len(set(values)) == len(values):
        return []
    counts = Counter(values)
    return [position for position, value in enumerate(values) if counts[value] > 1]


def some(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def find_base(root: Path, dataset: str, layout: str, is_base: Callable[[set[str]], bool]) -> Path:
    """The folder that holds a dataset: ``root`` or the one folder inside it that does.

    Args:
        root: as the user gave it.
        dataset: name of the dataset, for messages.
        layout: what is expected, for messages.
        is_base: tells from the names in a folder whether it holds the dataset.

    Raises:
        DataError: the folder is missing, empty, not readable, not in the layout, or holds several.
    """
    try:
        return _find_base(root, dataset, layout, is_base)
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be looked at: {error.strerror}. Check permissions."
        ) from error


def _find_base(root: Path, dataset: str, layout: str, is_base: Callable[[set[str]], bool]) -> Path:
    if root.is_symlink() and not root.exists():
        raise DataError(f"{root} is a link that leads nowhere. {dataset} is expected as {layout}.")
    if not root.exists():
        raise DataError(f"{root} does not exist. Give the folder that holds {layout}.")
    if not root.is_dir():
        raise DataError(f"{root} is a file. Give the folder that holds {layout}.")
    names = names_in(str(root))
    if not names:
        raise DataError(f"{root} is empty. {dataset} is expected in it as {layout}.")
    if is_base(names):
        return root
    inside = [
        child
        for child in (root / name for name in sorted(names) if not name.startswith("."))
        if child.is_dir() and is_base(names_in(str(child)))
    ]
    if len(inside) > 1:
        raise DataError(
            f"{root} holds several copies of {dataset}: {some([c.name for c in inside])}. Give one "
            "of them."
        )
    if not inside:
        raise DataError(f"{root} is not {dataset}. Expected layout: {layout}.")
    return inside[0]


def in_columns(count: int, **columns: Iterable[object]) -> list[Sample]:
    """Samples from their fields, one iterable for each field; fields left out have their defaults.

    Two to three times as fast as a call for each sample, whose frozen fields Python sets one by
    one: with hundreds of thousands of samples that is half of the time of listing.
    """
    samples = list(map(object.__new__, repeat(Sample, count)))
    for field in fields(Sample):
        if field.name in columns:
            values = columns[field.name]
        else:
            empty = field.default_factory
            values = repeat(field.default if empty is MISSING else empty())
        deque(map(getattr(Sample, field.name).__set__, samples, values), 0)
    return samples


def paths_below(root: Path, names: Iterable[list[str]]) -> Iterator[Path]:
    """Paths below a folder, quickly.

    Args:
        root: the folder.
        names: of each path its folders and file, plain names without separators.
    """
    if sys.version_info >= (3, 12):
        base = str(root)
        return (Path(f"{base}/{'/'.join(parts)}") for parts in names)
    # Python 3.11 takes a path apart when it is made, which is half of the time of listing. Its
    # pathlib is closed to changes, so its own constructor from parts can be relied on.
    make, start = type(root)._from_parsed_parts, root._parts
    drive, anchor = root._drv, root._root
    return (make(drive, anchor, start + parts) for parts in names)


@contextmanager
def collector_off() -> Iterator[None]:
    """Hundreds of thousands of objects that all stay: Python's search for garbage among them
    finds none, and doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_header(path: Path, header: list[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        other = next((mark for mark in (";", "\t", "|") if mark in ",".join(header)), None)
        hint = ""
        if other is not None and len(header) < len(needed):
            hint = f" It seems to be separated by {other!r}: save it with commas."
        raise DataError(
            f"{path} has no column {' and no column '.join(map(repr, missing[:_NAMED]))}; its "
            f"columns are: {some([name for name in header if name]) or 'none'}.{hint} Needed: "
            f"{', '.join(needed)}."
        )
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        raise DataError(f"{path} has more than one column called {', '.join(doubled)}.")
