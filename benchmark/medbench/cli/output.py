"""Printing: JSON documents for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def print_json(document: Any) -> None:
    """Exactly one JSON document on stdout."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; the last column wraps."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        table.add_column(column, no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no width of its own
    console.print(table)


def print_fields(fields: Sequence[tuple[str, Any]]) -> None:
    """Aligned ``name  value`` lines; lists go below each other."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        lines = value if isinstance(value, list | tuple) else [value]
        for index, line in enumerate(lines or [""]):
            label = name if index == 0 else ""
            print(f"{label:<{width}}  {line}".rstrip())
