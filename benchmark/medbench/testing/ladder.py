"""The checks in their order, and which stands on which."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from medbench.errors import MedbenchError
from medbench.testing.results import NotApplicable, Refused, Result


@dataclass(frozen=True)
class Check:
    """One rung.

    Attributes:
        name: as in tables and test ids.
        asks: what it holds the plugin to, in a line.
        function: ``package.module:name`` of what does it, imported on use: it is called with a
            `medbench.testing.candidate.Candidate`, or for a check of a model with a
            `medbench.testing.subject.Subject`; it returns what it measured, or None, and raises
            `Refused` or `NotApplicable`.
        needs: checks that must not have failed.
        model: whether it is done for each model.
    """

    name: str
    asks: str
    function: str
    needs: tuple[str, ...] = ()
    model: bool = True

    def __call__(self, subject: Any) -> str | None:
        module, _, name = self.function.partition(":")
        function: Callable[[Any], str | None] = getattr(import_module(module), name)
        return function(subject)


CHECKS = (
    Check(
        "spec",
        "the plugin is imported, its specs and API version are valid, its names are free",
        "medbench.testing.candidate:spec",
        model=False,
    ),
    Check(
        "light-import",
        "listing it imports neither torch nor another heavy library",
        "medbench.testing.candidate:light_import",
        ("spec",),
        model=False,
    ),
    Check(
        "construct",
        "every preset and variant is a valid configuration, the class has what the spec declares, "
        "and a seed gives one network",
        "medbench.testing.construction:construct",
        ("spec",),
    ),
    Check(
        "pretraining",
        "the spec declares every dataset that a stage trains on, and all of them exist",
        "medbench.testing.construction:pretraining",
        ("construct",),
    ),
    Check("fit", "every stage trains to an end", "medbench.testing.training:fit", ("construct",)),
    Check("loss", "training lowers the loss", "medbench.testing.training:loss", ("fit",)),
    Check(
        "state",
        "checkpoints hold finite tensors and no pickle, and survive safetensors",
        "medbench.testing.training:state",
        ("fit",),
    ),
    Check(
        "outputs",
        "every declared capability answers with the right count, shape, type and range",
        "medbench.testing.outputs:outputs",
        ("fit",),
    ),
    Check(
        "determinism",
        "the same input gives the same answer, and the same seed the same training",
        "medbench.testing.outputs:determinism",
        ("outputs",),
    ),
    Check(
        "batches",
        "an answer depends neither on the batch it is in, nor on its order, nor on padding",
        "medbench.testing.outputs:batches",
        ("outputs",),
    ),
    Check(
        "side-effects",
        "answering changes no weight, buffer, mode, input or random generator",
        "medbench.testing.outputs:side_effects",
        ("outputs",),
    ),
    Check(
        "save-load",
        "what was trained answers the same after saving and loading",
        "medbench.testing.training:save_load",
        ("state", "outputs"),
    ),
    Check(
        "memory",
        "memory does not grow from batch to batch",
        "medbench.testing.memory:memory",
        ("outputs",),
    ),
    Check(
        "devices",
        "CPU and GPU agree, where there is a GPU",
        "medbench.testing.outputs:devices",
        ("outputs",),
    ),
)


def rungs(models: Iterable[str]) -> Iterator[tuple[Check, str]]:
    """Every check with the model it is done for: those of the plugin, then model by model."""
    yield from ((check, "") for check in CHECKS if not check.model)
    for model in models:
        yield from ((check, model) for check in CHECKS if check.model)


def footing(check: Check, model: str, done: Iterable[Result]) -> str:
    """Name of a failed check that this one stands on, directly or not; empty without."""
    failed = {r.check for r in done if r.status == "failed" and r.model in ("", model)}
    names = {c.name: c for c in CHECKS}
    waiting = list(check.needs)
    while waiting:
        name = waiting.pop(0)
        if name in failed:
            return name
        waiting += names[name].needs
    return ""


def do(check: Check, model: str, subject: Any) -> Result:
    """Do a check. Whatever the plugin raises is a failure; only Ctrl-C is not caught."""
    start = time.perf_counter()
    status, reason, trace = "passed", "", ""
    try:
        reason = check(subject) or ""
    except NotApplicable as why:
        status, reason = "skipped", str(why)
    except (Refused, MedbenchError) as error:
        status, reason = "failed", str(error)
        if error.__cause__ is not None:
            trace = "".join(traceback.format_exception(error.__cause__))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        status, reason = "failed", f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()
    seconds = round(time.perf_counter() - start, 2)
    return Result(check.name, model, status, reason, seconds, trace)  # type: ignore[arg-type]
