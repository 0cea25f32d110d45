"""To come."""

from __future__ import annotations

from collections.abc import Sequence

from medbench import ModelSpec, hookimpl


@hookimpl
def medbench_models() -> Sequence[ModelSpec]:
    return []
