"""A model of an isolated plugin, as the harness sees it: an object whose methods run elsewhere."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbench.errors import CellError, PluginError
from medbench.isolated import IsolatedSpec, read
from medbench.isolation.process import Process, worker
from medbench.isolation.training import Host, autocast_mode

if TYPE_CHECKING:
    from medbench.data.samples import Corpus
    from medbench.models.capabilities import FitRun, Stage
    from medbench.schemas.specs import Variant

#: Methods whose answers cannot be sent: a model's own head is a module that the harness trains.
HIDDEN = ("classification_head",)
_NUMBERS = count()


class IsolatedModel:
    """Behaves as the plugin's own object does: it has the attributes and methods which that has,
    asked for when they are used, since loading weights may change them.

    Args:
        process: the worker that holds the object.
        number: of the object there.
        title: of the cell, for messages.
        device: where it predicts.
    """

    def __init__(self, process: Process, number: int, title: str, device: str) -> None:
        self._process, self._number, self._title = process, number, title
        self._device = device
        self._methods: dict[str, Callable[..., Any]] = {}
        weakref.finalize(self, process.unwanted.append, number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in HIDDEN:
            raise AttributeError(name)
        if name in self._methods:
            return self._methods[name]
        kind, value = self._ask("get", name=name)
        if kind == "none":
            raise AttributeError(name)
        if kind == "value":
            return value

        def method(*arguments: Any) -> Any:
            return self._ask("call", name=name, arguments=list(arguments), mode=_mode(self._device))

        self._methods[name] = method
        return method

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """As `medbench.models.capabilities.Trains.fit`, in the worker."""
        host = Host(corpus, run, self._process.call)

        def serve(name: str, arguments: Any) -> Any:
            if name not in _QUESTIONS:
                raise PluginError(f"The worker asks for '{name}', which medbench does not know.")
            return getattr(host, name)(*arguments)

        self._ask("fit", serve=serve, stage=stage, **host.description())

    def parameter_counts(self) -> dict[str, int]:
        """Total and trainable parameters, counted in the worker."""
        counted: dict[str, int] = self._ask("parameters")
        return counted

    def peak_memory_mb(self) -> float:
        """Most memory that the worker has had in use at once since it was started, in MiB."""
        peak: float = self._ask("memory")
        return peak

    def _ask(self, request: str, /, **arguments: Any) -> Any:
        try:
            return self._process.ask(request, number=self._number, **arguments)
        except (CellError, PluginError) as error:
            if not self._process.ended:
                raise
            raise type(error)(f"{self._title}: {error}") from error


_QUESTIONS = ("samples", "pixels", "boxes", "mask", "epochs", "next", "advance", "warn")


def construct(
    spec: IsolatedSpec, reference: str, config: Any, seed: int, device: str, title: str
) -> IsolatedModel:
    """A new object in the worker of a plugin, freshly seeded.

    Args:
        spec: of the model.
        reference: of the class: the model's own, or one that owns a stage.
        config: values of the model's configuration, or of the stage's.
        seed: of its initial weights.
        device: where it predicts.
        title: of the cell.

    Raises PluginError where its class lacks a declared capability, RaisedError where it raises.
    """
    import torch

    own = reference == spec.cls
    number = next(_NUMBERS)
    process = worker(Path(spec.environment))
    missing = process.ask(
        "construct",
        number=number,
        cls=reference,
        config=spec.config if own else "",
        values=config if spec.config or not own else None,
        capabilities=list(spec.capabilities) if own else [],
        seed=seed,
        device=device,
        threads=torch.get_num_threads(),
    )
    if missing:
        raise PluginError(
            f"Model '{spec.name}' declares {', '.join(missing)}, which its class {spec.cls} does "
            "not have."
        )
    return IsolatedModel(process, number, title, device)


def holds(spec: IsolatedSpec, reference: str) -> bool:
    """Whether a class lives in the environment of the model, rather than in medbench."""
    return reference.partition(":")[0].partition(".")[0] in read(Path(spec.environment)).packages


def _mode(device: str) -> dict[str, Any]:
    """Gradients and autocast as they are here and now."""
    import torch

    return {
        "inference": torch.is_inference_mode_enabled(),
        "grad": torch.is_grad_enabled(),
        "autocast": autocast_mode(device.partition(":")[0]),
    }


def configure(
    spec: IsolatedSpec, preset: str, variant: Variant | None, settings: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`medbench.run.settings.configure` in the worker, where the class of the configuration is.

    Returns:
        Its values as JSON, and the values of the fields that the paper leaves open.
    """
    values, assumed = worker(Path(spec.environment)).ask(
        "configure",
        model=asdict(spec),
        preset=preset,
        variant=variant.name if variant else None,
        settings=settings,
    )
    return values, assumed
