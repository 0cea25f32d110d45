"""Is a model what its spec says, before it is trained."""

from __future__ import annotations

from typing import Any

from medbench.errors import MedbenchError
from medbench.isolated import IsolatedSpec
from medbench.models.modules import modules_of
from medbench.run.fit import construct as constructed
from medbench.run.load import TASK_CORPUS
from medbench.run.settings import configure
from medbench.testing.results import Refused
from medbench.testing.subject import Subject


def construct(subject: Subject) -> str:
    """Configurations are valid; the class has every capability; equal seeds give equal weights."""
    import torch

    spec = subject.spec
    for preset in subject.presets:
        for variant in (None, *spec.variants):
            if variant is not None and variant.presets and preset not in variant.presets:
                continue
            try:
                configure(spec, subject.plugin, preset, variant, {})
            except MedbenchError as error:
                name = f"{spec.name}@{variant.name}" if variant else spec.name
                raise Refused(f"{name} at preset '{preset}': {error}") from error
    one, other = constructed(subject.cell), constructed(subject.cell)
    size = subject.image_size
    if "fit" in spec.capabilities:
        missing = [m for m in ("stages", "state", "load") if not callable(getattr(one, m, None))]
        if missing:
            raise Refused(f"it declares fit, and its class has no {', '.join(missing)}")
    if isinstance(spec, IsolatedSpec):
        # check `determinism` compares what the two answer
        return f"preset {subject.preset}, in a process of its own, images of {size} pixels"
    first, second = _weights(one), _weights(other)
    unlike = [n for n in first if not torch.equal(first[n], second[n])]
    if unlike:
        raise Refused(
            f"two objects of one seed differ in {unlike[0]} and {len(unlike) - 1} more: draw "
            "initial weights from torch's global generator, which the harness seeds"
        )
    count = sum(tensor.numel() for tensor in first.values())
    return f"preset {subject.preset}, {count:,} values, images of {size} pixels"


def pretraining(subject: Subject) -> str:
    """Datasets that stages train on are declared, and everything declared is a dataset."""
    known = subject.registry.names("datasets")
    for key in ("pretraining", "overlaps"):
        unknown = [name for name in getattr(subject.spec, key) if name not in known]
        if unknown:
            raise Refused(
                f"{key} names {', '.join(unknown)}, which no plugin contributes as a dataset; "
                f"known are {', '.join(known)}"
            )
    earlier: list[str] = []
    for stage in subject.stages:
        if stage.corpus not in (TASK_CORPUS, *subject.spec.pretraining):
            raise Refused(
                f"stage '{stage.name}' trains on '{stage.corpus}', which the spec does not name "
                "under pretraining"
            )
        missing = [name for name in stage.needs if name not in earlier]
        if missing:
            raise Refused(f"stage '{stage.name}' needs {', '.join(missing)}: not an earlier stage")
        if stage.name in earlier:
            raise Refused(f"two stages are called '{stage.name}'")
        earlier.append(stage.name)
    corpora = dict.fromkeys(stage.corpus for stage in subject.stages)
    return f"trains on {', '.join(corpora)}" if corpora else "trains on nothing"


def _weights(model: Any) -> dict[str, Any]:
    """Weights and buffers that are there: those on the meta device have no values yet."""
    return {
        f"{number}.{name}": tensor
        for number, module in enumerate(modules_of(model))
        for name, tensor in module.state_dict().items()
        if not tensor.is_meta
    }
