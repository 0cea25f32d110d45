"""What a user asked for, and what it resolves to: frozen, hashed, one RunSpec per cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medbench.errors import MedbenchError
from medbench.schemas.specs import DatasetSpec, ModelSpec, Variant
from medbench.schemas.task import TaskSpec

#: The model that stands for the trivial predictors.
BASELINE = "baseline"


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of ``medbench run``, as given."""

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    data: tuple[str, ...] = ("auto",)
    weights: tuple[str, ...] = ()
    preset: str = "auto"
    adaptation: str | None = None
    protocol: str = "clean"
    fractions: tuple[float, ...] = (1.0,)
    seeds: tuple[int, ...] = (0,)
    device: str = "auto"
    devices: int = 1
    accumulate: int = 1
    precision: str = "auto"
    batch_size: str = "auto"
    limit: int | None = None
    settings: tuple[str, ...] = ()
    output: Path | None = None
    fresh: bool = False


@dataclass(frozen=True)
class DataSource:
    """Where a dataset comes from: a folder, or (``root`` None) its phantom."""

    dataset: DatasetSpec
    root: Path | None
    track: Literal["real", "phantom"]
    why: str = field(compare=False, default="")  # said in the first line


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One cell: model x task x data x seed, with everything resolved. Nothing in it changes."""

    model: ModelSpec
    variant: Variant | None
    preset: str
    config: Any = field(compare=False)  # the plugin's validated configuration, or None
    config_values: Mapping[str, Any]
    assumed: Mapping[str, Any]
    distribution: str
    plugin_version: str
    plugin_package: str
    weights: Path | None
    stage_weights: Mapping[str, Path]  # variant name to weights that may stand for a stage
    task: TaskSpec
    source: DataSource
    corpora: Mapping[str, DataSource]
    protocol: Literal["clean", "paper-compat"]
    adaptation: Literal["zero-shot", "linear-probe", "fine-tune"] | None
    fraction: float
    seed: int
    device: str
    devices: int = 1  #: processes that train together, each on a device of its own
    accumulate: int = 1  #: parts in which a training batch is worked through
    precision: Literal["fp32", "bf16"]
    batch_size: int
    limit: int | None
    writer: RunSpec | None = None  #: the task's writer of reports, on the same data

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What the model, in this variant, can do."""
        return self.model.capabilities_of(self.variant)

    @property
    def model_id(self) -> str:
        """``name`` or ``name@variant``."""
        return f"{self.model.name}@{self.variant.name}" if self.variant else self.model.name

    @property
    def baseline(self) -> str:
        """Name of the baseline that this cell runs alone; empty for a model."""
        return self.variant.name if self.model.name == BASELINE and self.variant else ""

    @property
    def title(self) -> str:
        part = "" if self.fraction == 1 else f", {self.fraction:.3g} of the labels"
        return f"{self.model_id} x {self.task.name}, seed {self.seed}{part}"


@dataclass(frozen=True)
class Skip:
    """A cell of the matrix that cannot be, and why."""

    model: str
    task: str
    reason: str


@dataclass(frozen=True)
class Refusal:
    """A cell whose model cannot be configured: it fails, and the others are run."""

    cell: str
    error: MedbenchError


@dataclass(frozen=True)
class Plan:
    """What a request resolves to."""

    cells: tuple[RunSpec, ...]
    skipped: tuple[Skip, ...]
    output: Path
    refused: tuple[Refusal, ...] = ()
