"""Task files: TOML, validated; a mistake is named with its file and line."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medbench.errors import UsageError

#: Keys that task files gained after results had been published, and their defaults.
_LATER: dict[str, Any] = {
    "match": "", "per_prompt": 1, "max_length": None, "min_frequency": 1,
    "of": "", "uncertain": "ignore", "missing": "ignore",
    "val": 0, "test": 0, "tested": "test", "views": [], "without": "", "synthetic": None,
    "input": "image", "writer": "",
}  # fmt: skip

_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
Name = Annotated[str, Field(pattern=rf"^{_NAME}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Label(_Strict):
    """A class or finding: ``name`` in files and tables, ``text`` as a radiologist would say it."""

    name: Name
    text: str
    of: str = Field("", description="the dataset's label, where it is called otherwise")
    uncertain: Literal["positive", "negative", "ignore"] = Field(
        "ignore", description="what an uncertain label counts as; ignored ones are not scored"
    )
    missing: Literal["negative", "ignore"] = Field(
        "ignore", description="what a label that is not mentioned counts as"
    )

    @property
    def source(self) -> str:
        """The label's name in the dataset."""
        return self.of or self.name


class Split(_Strict):
    """How samples are divided, derived by code from a named rule."""

    rule: Literal["patient-kfold", "official", "patient-holdout", "row-holdout"] = Field(
        description="patient-kfold: stratified folds by patient; every sample is scored once, "
        "by a predictor that saw none of its patient's samples. official: the dataset's own "
        "split; validation is cut from train by patient where there is none. patient-holdout: "
        "train, val and test by patient, stratified. row-holdout: shuffled rows, as papers' code "
        "has it, patients or not: paper-compat only"
    )
    folds: int = Field(0, ge=0, le=20, description="of patient-kfold")
    val: float = Field(0, ge=0, lt=1, description="share of validation: of train, if test is given")
    test: float = Field(0, ge=0, lt=1, description="share of test; 0: the dataset's own test")
    tested: Literal["test", "val"] = Field(
        "test",
        description="which of the dataset's own parts is tested on; val: its test is left out, and "
        "validation is cut from train",
    )
    views: tuple[Literal["PA", "AP", "frontal", "lateral"], ...] = Field(
        (), description="views that are used; all if empty"
    )
    without: Literal["", "5x200"] = Field(
        "", description="5x200: patients with an image that the rule of the 5x200 tasks picks"
    )
    seed: int = Field(ge=0, description="of the division itself, the same for every model seed")
    source: str = Field(description="where the rule comes from")

    @model_validator(mode="after")
    def _complete(self) -> Split:
        if (self.rule == "patient-kfold") != (self.folds >= 2):
            raise ValueError("patient-kfold needs folds, at least 2; the other rules have none")
        if self.rule == "patient-holdout" and not (self.val and self.test):
            raise ValueError("patient-holdout needs val and test")
        if self.rule == "row-holdout" and not self.val:
            raise ValueError("row-holdout needs val")
        if self.val + self.test >= 1:
            raise ValueError("val and test leave nothing to train on")
        return self


class Synthetic(_Strict):
    """Of classification: what the harness's own classifier is trained on, beside or instead of the
    real training images."""

    real: bool = Field(True, description="whether it is trained on the real images too")
    share: float = Field(
        gt=0,
        le=4,
        description="generated images for each labelled real training image; at most 4, the real "
        "one counted where it is trained on",
    )

    @model_validator(mode="after")
    def _seen_in_an_epoch(self) -> Synthetic:
        if self.share + self.real > 4:
            raise ValueError("share is at most 3 beside the real images: an epoch has no more")
        return self


class Reference(_Strict):
    """A published value on the real data. Never set beside a phantom value."""

    model: str
    metric: str
    value: float | None = Field(None, description="left out where it is not known")
    unit: Literal["fraction", "percent"] = "fraction"
    source: str
    source_checked: bool = False
    note: str = ""


class TaskSpec(_Strict):
    """One task: what is asked of which data, how it is divided and scored."""

    format: Literal["medbench.task/1"] = Field(alias="schema")
    name: Name
    title: str
    version: int = Field(ge=1, description="raised when a result under it changes")
    type: Literal[
        "report-generation", "classification", "segmentation", "retrieval", "image-generation"
    ]
    dataset: Name
    unit: Literal["image", "volume", "pair", "study"]
    description: str
    modality: str = Field("", description="as prompts say it, such as CT")
    region: str = Field("", description="as prompts say it, such as Lung")
    labels: tuple[Label, ...] = ()
    multiclass: bool = False
    match: Literal["", "text", "class", "label"] = Field(
        "",
        description="of retrieval: text: an image matches its report and equal ones; class: "
        "reports of its class; label: the text of its class",
    )
    per_prompt: int = Field(
        1, ge=1, le=16, description="of image-generation: images generated for each prompt"
    )
    writer: str = Field(
        "",
        pattern=rf"^({_NAME}(@{_NAME})?)?$",
        description="of image-generation: the model, or MODEL@VARIANT, that writes the reports of "
        "generated images, trained on the training part of the task; empty: on phantoms reports "
        "are looked up",
    )
    max_length: int | None = Field(
        None, ge=1, description="of report-generation: words that the R2Gen convention keeps"
    )
    min_frequency: int = Field(
        1, ge=1, description="of report-generation: rarer training words are unknown to R2Gen's"
    )
    input: Literal["image", "text"] = Field(
        "image",
        description="of classification, what is classified: text: the impression of an image's "
        "report, as the model encodes it",
    )
    synthetic: Synthetic | None = Field(
        None,
        description="of classification: the model generates training images for a classifier of "
        "the harness, and is not adapted itself",
    )
    adaptations: tuple[Literal["zero-shot", "linear-probe", "fine-tune"], ...] = ()
    metrics: tuple[str, ...] = Field(min_length=1)
    primary: str = Field(description="the metric that ranks the leaderboard")
    baselines: tuple[str, ...] = Field(min_length=1)
    protocols: dict[Literal["clean", "paper-compat"], Split]
    overlaps: tuple[Name, ...] = Field(
        (),
        description="other datasets and collections that hold images of this one: weights that "
        "were trained on them may have seen what is tested",
    )
    reference: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpec:
        if self.primary not in self.metrics:
            raise ValueError(f"primary metric '{self.primary}' is not among metrics")
        if self.type == "classification":
            if len(self.labels) < (2 if self.multiclass else 1):
                raise ValueError("a classification task needs labels")
            if bool(self.adaptations) == (self.synthetic is not None):
                raise ValueError("a classification task needs adaptations, or [synthetic]")
        elif self.synthetic is not None:
            raise ValueError("[synthetic] is for classification")
        if self.synthetic is not None and (self.unit != "image" or self.multiclass):
            raise ValueError("[synthetic] is for findings of an image, several at once")
        if self.input == "text" and (self.adaptations != ("linear-probe",) or self.unit != "image"):
            raise ValueError("input 'text' is for the linear probe of a classification by image")
        if self.writer and self.type != "image-generation":
            raise ValueError("writer is for image-generation")
        if self.type == "retrieval" and not self.match:
            raise ValueError("a retrieval task needs match")
        if self.match in ("class", "label") and len(self.labels) < 2:
            raise ValueError(f"match '{self.match}' needs labels")
        if "clean" not in self.protocols:
            raise ValueError("protocols must define 'clean'")
        if self.protocols["clean"].rule == "row-holdout":
            raise ValueError("row-holdout may share patients between splits: not a clean protocol")
        return self

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def sha256(self) -> str:
        """Hash of the validated content: comments and layout of the file do not matter.

        Keys of `_LATER` are left out at their default, so that older tasks keep the hash under
        which their results were published. Overlaps are left out always: to learn of one changes
        what is known of a result, not the result.
        """
        content = self.model_dump(mode="json", by_alias=True, exclude={"overlaps"})
        for part in (content, *content["labels"], *content["protocols"].values()):
            for key, default in _LATER.items():
                if part.get(key, default) == default:
                    part.pop(key, None)
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_task(path: Path) -> TaskSpec:
    """Read and validate a task file. Raises UsageError naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Task file {path} cannot be read: {error}.") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"Task file {path} is not valid TOML: {error}.") from error
    try:
        return TaskSpec.model_validate(content)
    except ValidationError as error:
        raise UsageError(_explain(path, text, error)) from error


def _explain(path: Path, text: str, error: ValidationError) -> str:
    """One sentence per mistake: file, line, key, what is wrong."""
    parts = []
    for problem in error.errors():
        location = list(problem["loc"])
        line = line_of(text, location)
        where = f"{path}, line {line}" if line else f"{path}"
        key = ".".join(str(p) for p in location) or "file"
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(str(location[-1]), _known_keys(location), n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            parts.append(f"{where}: unknown key '{key}'.{hint}")
        else:
            parts.append(f"{where}: '{key}': {problem['msg']}.")
    return "Task file is not valid: " + " ".join(parts)


def _known_keys(location: list[Any]) -> list[str]:
    owners: dict[str, type[BaseModel]] = {
        "labels": Label,
        "synthetic": Synthetic,
        "protocols": Split,
        "reference": Reference,
    }
    owner = owners.get(str(location[0]), TaskSpec) if len(location) > 1 else TaskSpec
    return [field.alias or name for name, field in owner.model_fields.items()]


def line_of(text: str, location: list[Any]) -> int | None:
    """The 1-based line of a key in TOML text, or of the nearest enclosing table.

    tomllib keeps no positions, so this walks the lines: headers ``[a.b]`` and ``[[a]]`` open a
    table, and a key belongs to the table it stands in.
    """
    table: list[Any] = []
    counts: dict[str, int] = {}
    best: tuple[int, int] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$", line)
        if header:
            names = _dotted(header[2])
            if header[1] == "[[":
                key = ".".join(names)
                counts[key] = counts.get(key, -1) + 1
                table = [*names, counts[key]]
            else:
                table = list(names)
            found = table
        else:
            pair = re.match(r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*[\w\"'-]+)*)\s*=", line)
            if not pair:
                continue
            found = [*table, *_dotted(pair[1])]
        depth = 0
        while depth < min(len(found), len(location)) and found[depth] == location[depth]:
            depth += 1
        if depth == len(found) and depth > (best[0] if best else 0):
            best = (depth, number)
    return best[1] if best else None


def _dotted(key: str) -> list[str]:
    return [part.strip().strip("\"'") for part in key.split(".")]
