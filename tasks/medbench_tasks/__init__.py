"""The task definitions of medbench, contributed through the hook that anybody may use."""

from __future__ import annotations

from pathlib import Path

from medbench import hookimpl


@hookimpl
def medbench_tasks() -> list[Path]:
    return sorted(Path(__file__).parent.glob("*.toml"))
