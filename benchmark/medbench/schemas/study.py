"""Study files (TOML): claims as comparisons of two variants; and what a study came to."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medbench.errors import UsageError
from medbench.schemas.task import Name, line_of

Verdict = Literal["supported", "not supported", "inconclusive"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Side(_Strict):
    """One of the two things that a hypothesis compares: a model on a task, as ``medbench run`` has
    it."""

    model: Annotated[str, Field(pattern=r"^[a-z0-9-]+(@[a-z0-9-]+)?$")] = Field(
        description="NAME or NAME@VARIANT; baseline@NAME for a trivial predictor"
    )
    task: Name
    adaptation: Literal["zero-shot", "linear-probe", "fine-tune"] | None = Field(
        None, description="of classification, where it must be said; none for other task types"
    )
    protocol: Literal["clean", "paper-compat"] = "clean"
    fraction: float = Field(1.0, gt=0, le=1, description="share of the labels")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="settings of the model by dotted key, as --set has them"
    )

    @property
    def title(self) -> str:
        """All that tells it from another side.

        >>> Side(model="radclip", task="rsna", fraction=0.01, settings={"heads": 4}).title
        'radclip, 1 % of labels, heads=4 on rsna'
        """
        parts = [self.model]
        if self.adaptation:
            parts.append(self.adaptation)
        if self.protocol != "clean":
            parts.append(self.protocol)
        if self.fraction != 1:
            parts.append(f"{100 * self.fraction:g} % of labels")
        parts += [f"{key}={value}" for key, value in self.settings.items()]
        return f"{', '.join(parts)} on {self.task}"


class Published(_Strict):
    """What was published, in words: measured on other data, never set against a figure here."""

    effect: str
    source: str


class Hypothesis(_Strict):
    """A is better than B by more than a margin."""

    name: Name
    claim: str = Field(description="one sentence that the comparison can refute")
    a: Side
    b: Side
    metric: str
    margin: float = Field(
        0.0,
        description="A must be better than B by more than this, in the metric's unit; below 0: A "
        "may be worse by less than this",
    )
    trained_share: float | None = Field(
        None, gt=0, description="A trains at most this share of the parameters that B trains"
    )
    published: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _unlike(self) -> Hypothesis:
        if self.a == self.b:
            raise ValueError("a and b are the same")
        return self


class StudySpec(_Strict):
    """One study: hypotheses that are tested, and corrected for being several, together."""

    format: Literal["medbench.study/1"] = Field(alias="schema")
    name: Name
    title: str
    description: str
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    hypotheses: tuple[Hypothesis, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _once(self) -> StudySpec:
        names = [hypothesis.name for hypothesis in self.hypotheses]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two hypotheses are called {', '.join(twice)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed stands twice among seeds")
        return self


class Arm(_Strict):
    """What one side came to: by seed, in the order of `Tested.seeds`."""

    title: str
    values: tuple[float, ...] = Field(description="the metric, by seed")
    trained: int | None = Field(description="parameters that its training changes")
    runs: tuple[str, ...] = Field(description="run ids, by seed")


class Tested(_Strict):
    """One hypothesis on one track."""

    name: str
    claim: str
    metric: str
    margin: float
    a: Arm
    b: Arm
    seeds: tuple[int, ...]
    effects: tuple[float, ...] = Field(description="by seed; above 0: in A's favour")
    effect: float | None = Field(description="mean of effects; null where nothing was tested")
    ci95: tuple[float, float] | None = Field(description="of effect, over patients and seeds")
    p_value: float | None = Field(description="two-sided, of effect against margin")
    p_holm: float | None = Field(description="the same, corrected over the study's hypotheses")
    patients: int
    samples: int
    verdict: Verdict
    reasons: tuple[str, ...] = Field(description="why it is inconclusive, or what to know")
    published: tuple[Published, ...]


class Setting(_Strict):
    """What all runs behind one set of verdicts share."""

    track: Literal["real", "phantom"]
    preset: str
    precision: str
    limited: bool = Field(description="runs of --limit, which support nothing")

    @property
    def title(self) -> str:
        """
        >>> Setting(track="phantom", preset="tiny", precision="fp32", limited=False).title
        'PHANTOM, preset tiny, fp32'
        """
        track = "PHANTOM" if self.track == "phantom" else "real data"
        limited = ", limited" if self.limited else ""
        return f"{track}, preset {self.preset}, {self.precision}{limited}"


class Settled(_Strict):
    """All hypotheses of a study in one setting."""

    setting: Setting
    hypotheses: tuple[Tested, ...]


class StudyResult(_Strict):
    """What a study came to, one part for each setting: ``medbench study run --json``."""

    format: Literal["medbench.study-result/1"] = Field("medbench.study-result/1", alias="schema")
    study: str
    title: str
    resamples: int
    results: tuple[Settled, ...]
    failed: tuple[str, ...] = Field((), description="cells that ended in an error")


def load_study(path: Path) -> StudySpec:
    """Read and validate a study file. Raises UsageError naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Study file {path} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"Study file {path} is not valid TOML: {error}.") from error
    try:
        return StudySpec.model_validate(content)
    except ValidationError as error:
        parts = []
        for problem in error.errors():
            line = line_of(text, list(problem["loc"]))
            key = ".".join(str(part) for part in problem["loc"]) or "file"
            where = f"{path}, line {line}" if line else f"{path}"
            parts.append(f"{where}: '{key}': {problem['msg']}.")
        raise UsageError("Study file is not valid: " + " ".join(parts)) from error
