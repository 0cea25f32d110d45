"""Writes a phantom dataset into a folder, its marker last."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from medbench.phantom.version import RENDERER_VERSION
from medbench.schemas.specs import DatasetSpec

#: The file that makes a folder a phantom.
MARKER = "medbench-phantom.json"
_SCHEMA = "medbench.phantom/1"


def write_phantom(
    spec: DatasetSpec,
    root: Path,
    *,
    preset: str,
    limit: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the phantom of a dataset into the existing empty folder ``root``.

    The marker is written last: a folder without one was interrupted and must be written again.

    Args:
        spec: names the writer.
        root: an existing, empty folder.
        preset: tiny, small or paper.
        limit: at most this many units (subjects or pairs), stratified; None for all.
        advance: called with (done, total) as the work proceeds.
    """
    if not spec.phantom:
        raise ValueError(f"dataset {spec.name!r} has no phantom")
    module, function = spec.phantom.split(":")
    write = getattr(import_module(module), function)
    facts = write(root, preset=preset, limit=limit, advance=advance)
    marker = {
        "schema": _SCHEMA,
        "dataset": spec.name,
        "preset": preset,
        "limit": limit,
        "renderer": RENDERER_VERSION,
        "facts": facts,
    }
    text = json.dumps(marker, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    partial = root / (MARKER + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(root / MARKER)


def read_marker(root: Path) -> dict[str, Any] | None:
    """The marker of a finished phantom folder, or None when there is none or it is damaged."""
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(marker, dict) or marker.get("schema") != _SCHEMA:
        return None
    return marker
