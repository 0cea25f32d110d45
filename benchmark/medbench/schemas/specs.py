"""Specs: what a plugin says about its models, datasets and metrics.

Plain frozen dataclasses, validated on construction, because listing them must not cost an import
of anything heavy. Their JSON Schema is published under ``docs/schemas/``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
COLLECTION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(/train)?\Z")
REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")

TASK_TYPES = (
    "report-generation",
    "classification",
    "segmentation",
    "retrieval",
    "image-generation",
)
ADAPTATIONS = ("zero-shot", "linear-probe", "fine-tune")
PRESETS = ("tiny", "small", "paper")
PROTOCOLS = ("clean", "paper-compat")
CAPABILITIES = (
    "encode_images",
    "encode_texts",
    "encode_volumes",
    "encode_patches",
    "generate_reports",
    "generate_images",
    "fit",
)

Adaptation = Literal["zero-shot", "linear-probe", "fine-tune"]


def _require_name(owner: str, name: object) -> None:
    if not isinstance(name, str) or not NAME.match(name):
        raise ValueError(f"{owner}: name {name!r} is not lower-case words joined by hyphens")


def _require_reference(owner: str, key: str, value: object) -> None:
    if not isinstance(value, str) or not REFERENCE.match(value):
        raise ValueError(f"{owner}: {key} {value!r} is not of the form 'package.module:Name'")


def _require_among(owner: str, key: str, values: object, known: tuple[str, ...]) -> None:
    if isinstance(values, str) or not isinstance(values, tuple | list):
        raise ValueError(f"{owner}: {key} is {values!r}, not a tuple of names")
    for value in values:
        if value not in known:
            raise ValueError(f"{owner}: {key} has {value!r}; known: {', '.join(known)}")


def _require_api(owner: str, api: object) -> None:
    if not isinstance(api, tuple | list) or not api or not all(type(v) is int for v in api):
        raise ValueError(f"{owner}: api is {api!r}, not plugin-API versions such as (1,)")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """An ablation or configuration that the paper compares, or a control: ``radclip@mean-pooling``.

    Attributes:
        name: the part behind the ``@``.
        description: one line.
        config: values laid over the preset's configuration, by dotted key.
        adaptation: default adaptation, where it differs from the model's.
        own_weights: True when weights given for the plain model must not be used for this
            variant (it stands for another network, such as the unadapted base model); it then
            takes ``--weights MODEL@VARIANT=PATH`` only.
        from_scratch: True when the variant runs without weights at every preset.
        presets: those at which it exists; all of the model's if empty.
        protocols: those under which it may be run; all if empty. A variant that keeps what a
            paper's code leaks is for ``paper-compat`` alone.
        lacks: capabilities of the model that this variant does not have.
    """

    name: str
    description: str
    config: Mapping[str, Any] = field(default_factory=dict)
    adaptation: Adaptation | None = None
    own_weights: bool = False
    from_scratch: bool = False
    presets: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_name("variant", self.name)
        _require_among(f"variant {self.name}", "presets", self.presets, PRESETS)
        _require_among(f"variant {self.name}", "protocols", self.protocols, PROTOCOLS)
        _require_among(f"variant {self.name}", "lacks", self.lacks, CAPABILITIES)
        if self.adaptation is not None:
            _require_among(f"variant {self.name}", "adaptation", (self.adaptation,), ADAPTATIONS)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a plugin says about one model.

    Attributes:
        name: as on the command line.
        title: as in tables.
        description: one or two sentences.
        cls: ``package.module:Class``; imported on use.
        config: ``package.module:Config``, a pydantic model of the model's configuration; empty
            when it has none. Fields that the paper leaves open carry
            ``json_schema_extra={"assumed": True}``.
        presets: preset name to configuration values (dotted keys) laid over the defaults.
        needs_weights: presets that cannot run without ``--weights`` (the published ones).
        variants: see `Variant`.
        parts: parts of the network that are published apart (a frozen encoder, say) and take
            weights of their own, ``--weights MODEL@PART=PATH``; see `medbench.Stage.weights`.
        weight_files: names of small files beside the weights in a folder (``tokenizer.json``, say)
            that ``load`` needs, too: they come as uint8 tensors under their names.
        capabilities: methods that ``cls`` implements, of ``CAPABILITIES``.
        adaptation: default way to meet a classification task.
        pretraining: names of datasets that the model trains on.
        weights_data: what the published weights were trained on: names of datasets as the harness
            has them, else of collections; ``NAME/train`` where it was the dataset's own training
            part alone. None: the spec does not say, and results of such weights are flagged
            ``undeclared``. See `medbench.schemas.contamination`.
        overlaps: names of datasets that the published weights may have seen in training, where that
            is not certain; they count as if it were.
        paper: citation or URL.
        licence: SPDX name or words.
        api: plugin-API versions this plugin supports.
    """

    name: str
    title: str
    description: str
    cls: str
    config: str = ""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    needs_weights: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    parts: tuple[str, ...] = ()
    weight_files: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    adaptation: Adaptation | None = None
    pretraining: tuple[str, ...] = ()
    weights_data: tuple[str, ...] | None = None
    overlaps: tuple[str, ...] = ()
    paper: str = ""
    licence: str = ""
    api: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        owner = f"model {self.name!r}"
        _require_name("model", self.name)
        _require_reference(owner, "cls", self.cls)
        if self.config:
            _require_reference(owner, "config", self.config)
        _require_among(owner, "presets", tuple(self.presets), PRESETS)
        _require_among(owner, "needs_weights", self.needs_weights, PRESETS)
        _require_among(owner, "capabilities", self.capabilities, CAPABILITIES)
        if self.adaptation is not None:
            _require_among(owner, "adaptation", (self.adaptation,), ADAPTATIONS)
        for name in (*(self.weights_data or ()), *self.overlaps):
            if not isinstance(name, str) or not COLLECTION.match(name):
                raise ValueError(
                    f"{owner}: weights_data or overlaps has {name!r}, not a name such as "
                    "'mimic-cxr' or 'mimic-cxr/train'"
                )
        names = [*(v.name for v in self.variants), *self.parts]
        for part in self.parts:
            _require_name(f"{owner}: part", part)
        if len(set(names)) != len(names):
            raise ValueError(f"{owner}: two variants or parts share a name")
        _require_api(owner, self.api)

    def capabilities_of(self, variant: Variant | None) -> tuple[str, ...]:
        """What the model, or one of its variants, can do."""
        lacks = variant.lacks if variant is not None else ()
        return tuple(name for name in self.capabilities if name not in lacks)

    def variant(self, name: str) -> Variant | None:
        """The variant of that name, or None."""
        return next((v for v in self.variants if v.name == name), None)


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What a plugin says about one dataset.

    Attributes:
        name: as on the command line.
        title: as in tables.
        description: one or two sentences on content and layout.
        reader: ``package.module:Class`` of a `medbench.data.samples.Reader`.
        phantom: ``package.module:function`` that writes the phantom in the real layout; empty when
            there is none.
        unit: what one sample is.
        published: version of the dataset to its published counts, such as
            ``{"v1.0": {"images": 223414}}``; names as `medbench.data.audit` counts them.
        phantom_of: what the phantom is made of: which annotations are real rows, which are drawn.
        access: how to get the real data, and by whose leave.
        licence: of the real data.
        homepage: where it lives.
        api: plugin-API versions this plugin supports.
    """

    name: str
    title: str
    description: str
    reader: str
    phantom: str = ""
    unit: Literal["image", "volume", "pair"] = "image"
    published: Mapping[str, Mapping[str, int]] = field(default_factory=dict, hash=False)
    phantom_of: str = ""
    access: str = ""
    licence: str = ""
    homepage: str = ""
    api: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        owner = f"dataset {self.name!r}"
        _require_name("dataset", self.name)
        _require_reference(owner, "reader", self.reader)
        if self.phantom:
            _require_reference(owner, "phantom", self.phantom)
        _require_among(owner, "unit", (self.unit,), ("image", "volume", "pair"))
        _require_api(owner, self.api)


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """A metric and its identity card. Metrics with unlike cards are never compared.

    Attributes:
        name: as in records and tables.
        function: ``package.module:function``; see docs/metrics.md for its signature.
        task_types: task types it scores.
        definition: what it is, in words or a formula.
        higher_is_better: direction.
        aggregation: over samples, labels, folds.
        unit: "fraction" for values in [0, 1], else words.
        normalisation: what is done to inputs first.
        backbone: feature network, where one is used.
        reference: paper or reference implementation it is checked against.
        version: raised when the value it gives changes.
        api: plugin-API versions this plugin supports.
    """

    name: str
    function: str
    task_types: tuple[str, ...]
    definition: str
    higher_is_better: bool
    aggregation: str
    unit: str = "fraction"
    normalisation: str = "none"
    backbone: str = ""
    reference: str = ""
    version: int = 1
    api: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        owner = f"metric {self.name!r}"
        if not re.match(r"[a-z0-9]+([-@][a-z0-9]+)*\Z", self.name):
            raise ValueError(f"{owner}: not lower-case words joined by hyphens")
        _require_reference(owner, "function", self.function)
        _require_among(owner, "task_types", self.task_types, TASK_TYPES)
        _require_api(owner, self.api)

    def card(self) -> dict[str, Any]:
        """The identity card: what two values must share to be comparable."""
        return {
            key: getattr(self, key)
            for key in (
                "name", "definition", "higher_is_better", "aggregation", "unit",
                "normalisation", "backbone", "reference", "version",
            )
        }  # fmt: skip
