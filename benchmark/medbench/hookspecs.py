"""The whole plugin contract on one page.

A plugin is a module registered under the entry-point group ``medbench``. It implements any of the
hooks below with ``@medbench.hookimpl``. Hooks return *specs*: plain metadata that imports nothing
heavy. A spec names its class or function by the string ``package.module:Name``, which medbench
imports when it is used, never when it is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from medbench.schemas.specs import DatasetSpec, MetricSpec, ModelSpec

hookspec = pluggy.HookspecMarker("medbench")
hookimpl = pluggy.HookimplMarker("medbench")


@hookspec
def medbench_models() -> Sequence[ModelSpec]:  # type: ignore[empty-body]
    """Models this plugin contributes."""


@hookspec
def medbench_tasks() -> Sequence[Path]:  # type: ignore[empty-body]
    """Task files (TOML, see docs/tasks.md) this plugin contributes, as absolute paths."""


@hookspec
def medbench_datasets() -> Sequence[DatasetSpec]:  # type: ignore[empty-body]
    """Datasets this plugin contributes: a reader of a real layout, and its phantom writer."""


@hookspec
def medbench_metrics() -> Sequence[MetricSpec]:  # type: ignore[empty-body]
    """Metrics this plugin contributes, each with its identity card."""


@hookspec
def medbench_run_started(run: Any) -> None:
    """Observe a cell before its first stage. ``run`` is the frozen RunSpec."""


@hookspec
def medbench_run_finished(run: Any, record: Any) -> None:
    """Observe a finished cell. ``record`` is the Record; changing it has no effect."""
