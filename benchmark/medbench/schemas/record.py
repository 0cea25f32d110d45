"""The record of a run: one JSON document that chains data, checkpoint, predictions, metrics."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

#: Fields left out when two records are compared for sameness.
VOLATILE = ("timing", "environment")

Attribute = Literal["sex", "age", "view"]
Group = Literal["F", "M", "under 40", "40-64", "65 and over", "PA", "AP", "frontal", "lateral"]
#: The groups of each attribute, in the order in which they are shown; "frontal": not said which.
GROUPS: dict[Attribute, tuple[Group, ...]] = {
    "sex": ("F", "M"),
    "age": ("under 40", "40-64", "65 and over"),
    "view": ("PA", "AP", "frontal", "lateral"),
}

#: How a metric of features says whose they are; see `medbench.metrics.backbones`.
_JUDGE = re.compile(r"features by \S+ weights ([0-9a-f]{12})")


def predictions_name(kind: str) -> str:
    """The file of a run's predictions, by task type: a table, or arrays."""
    tables = ("classification", "report-generation")
    return f"predictions.{'parquet' if kind in tables else 'npz'}"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Bounded(_Part):
    """A value with its 95 % patient-clustered bootstrap interval."""

    value: float
    ci95: tuple[float, float]

    @field_validator("value", "ci95")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        for number in value if isinstance(value, tuple) else (value,):
            if not math.isfinite(number):
                raise ValueError("not a finite number: an undefined metric is left out")
        return value


class Estimate(Bounded):
    """A value with its 95 % patient-clustered bootstrap interval and the patients behind it."""

    n: int = Field(ge=0, description="samples scored")


class MetricValue(Estimate):
    """A metric of the model, with what identifies it."""

    higher_is_better: bool
    version: int
    card_sha256: str = Field(description="hash of the metric's identity card")
    per_label: dict[str, Estimate] | None = None


class Gap(Bounded):
    """How much better the metric is in the better of two groups; its interval may hold 0."""

    between: tuple[Group, Group] = Field(description="the groups of best and of worst value")


class Subgroups(_Part):
    """A metric in groups of the tested samples; all on the same resamples of patients."""

    metric: str
    groups: dict[Group, Estimate]
    gap: Gap

    @model_validator(mode="after")
    def _between_two_of_them(self) -> Subgroups:
        best, worst = self.gap.between
        if best == worst or not {best, worst} <= set(self.groups):
            raise ValueError("the gap is not between two of the groups")
        return self


class Plugin(_Part):
    distribution: str
    version: str


class Parameters(_Part):
    total: int
    trainable: int


class ModelPart(_Part):
    name: str
    variant: str | None
    preset: str
    config: dict[str, Any]
    assumed: dict[str, Any] = Field(
        default_factory=dict, description="values that the paper leaves open and we chose"
    )
    plugin: Plugin
    parameters: Parameters
    weights_sha256: str | None
    weights_data: list[str] | None = Field(
        None,
        description="what the given weights were trained on or may have seen, as the model's spec "
        "declares; absent without such weights, or where it does not declare it",
    )
    pretraining_data: list[dict[str, Any]]

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without ``weights_data`` where it says nothing: older records keep their form."""
        content: dict[str, Any] = dump(self)
        if content.get("weights_data") is None:
            content.pop("weights_data", None)
        return content


class TaskPart(_Part):
    name: str
    version: int
    type: str
    sha256: str


class DataPart(_Part):
    dataset: str
    track: Literal["real", "phantom"]
    manifest_sha256: str
    renderer: str | None = Field(None, description="renderer version of a phantom")
    samples: dict[str, int]
    patients: dict[str, int]


class Counts(_Part):
    expected: int
    scored: int
    failed: int


class Record(BaseModel):
    """``record.json``, schema ``medbench.record/1``."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    format: Literal["medbench.record/1"] = Field("medbench.record/1", alias="schema")
    status: Literal["complete", "partial", "failed"]
    run_id: str
    model: ModelPart
    task: TaskPart
    data: DataPart
    protocol: Literal["clean", "paper-compat"]
    adaptation: Literal["zero-shot", "linear-probe", "fine-tune"] | None
    fraction: float
    seed: int
    precision: Literal["fp32", "bf16"]
    metrics: dict[str, MetricValue]
    baselines: dict[str, dict[str, Estimate]]
    subgroups: dict[Attribute, Subgroups] | None = Field(
        None,
        description="the task's primary metric by sex, age band and view of the tested samples; "
        "absent where they do not say, where no two groups are large enough, and in older records",
    )
    counts: Counts
    timing: dict[str, Any] = Field(
        description="seconds of each stage of this run; train_seconds, images_per_second (of "
        "embedding) and cached (the stages whose result was at hand: their figures are those of "
        "the run that did the work); peak_memory_mb of the process, or of the GPU"
    )
    environment: dict[str, Any]
    hashes: dict[str, str | None] = Field(
        description="checkpoint, predictions; published: of the predictions under keys, where they "
        "may be published and 'predictions' does not hold for them"
    )
    flags: list[str]
    notes: list[str]

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without ``subgroups`` where there are none: older records keep their form."""
        content: dict[str, Any] = dump(self)
        if content.get("subgroups") is None:
            content.pop("subgroups", None)
        return content

    def same(self) -> dict[str, Any]:
        """The content that decides whether two records are the same."""
        return self.model_dump(mode="json", by_alias=True, exclude=set(VOLATILE))

    @property
    def model_id(self) -> str:
        """``name`` or ``name@variant``."""
        return f"{self.model.name}@{self.model.variant}" if self.model.variant else self.model.name

    def judge(self, metric: str) -> str | None:
        """First 12 digits of the digest of the network in whose features a metric is a distance,
        as its note says; None where none is stated."""
        for note in self.notes:
            if note.startswith(f"{metric}: ") and (found := _JUDGE.search(note)):
                return found[1]
        return None
