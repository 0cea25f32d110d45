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
    """A table on stdout; the last column wraps on a terminal.

    Written out here because importing rich for it would double the time of `medbench models list`.
    """
    from shutil import get_terminal_size
    from textwrap import wrap

    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns) - 1)]
    left = sum(widths) + 2 * len(widths)
    room = max(30, get_terminal_size((160, 24)).columns - left)
    for row in (columns, *rows):
        lines = wrap(row[-1], room, break_on_hyphens=False) or [""]
        start = "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        print((start + lines[0]).rstrip())
        for line in lines[1:]:
            print(" " * left + line)


def print_fields(fields: Sequence[tuple[str, Any]]) -> None:
    """Aligned ``name  value`` lines; lists go below each other."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        lines = value if isinstance(value, list | tuple) else [value]
        for index, line in enumerate(lines or [""]):
            label = name if index == 0 else ""
            print(f"{label:<{width}}  {line}".rstrip())
