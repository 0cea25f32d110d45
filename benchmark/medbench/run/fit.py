"""Fit: train what is missing, one checkpoint per stage, and give the model with all of them."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medbench.data.samples import Corpus
from medbench.errors import CellError, MedbenchError, PluginError, WeightsError
from medbench.isolated import IsolatedSpec
from medbench.isolation.raised import RaisedError
from medbench.models.capabilities import FitRun, Stage, State
from medbench.models.modules import modules_of
from medbench.models.ranks import Ranks
from medbench.plugins import diverted, load_reference
from medbench.run.load import TASK_CORPUS, Loaded, corpus_state, open_corpus
from medbench.run.records import weights_sha256
from medbench.run.reporter import Reporter
from medbench.run.request import RunSpec
from medbench.run.stores import Store, code_sha256, code_there, digest, explain_os_error

WEIGHTS = "model.safetensors"


@dataclass
class Fitted:
    """A model ready to predict, and where it comes from.

    Attributes:
        model: the plugin's object, on its device.
        keys: stage name (or "weights") to the hash of everything that determines it.
        states: stage name (or "weights") to its tensors.
        weights_sha256: of the file given with ``--weights``; None without.
        pretraining: one entry per corpus that was trained on.
        notes: what the user was told.
        trained: parameters that training on the task's labels changed besides; 0 without.
    """

    model: Any
    keys: dict[str, str]
    states: dict[str, State]
    weights_sha256: str | None
    pretraining: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    trained: int = 0

    @property
    def checkpoint(self) -> str:
        """One hash for all stages: the model's identity."""
        return digest(self.keys)


def fit(
    cell: RunSpec,
    loaded: Loaded,
    store: Store,
    reporter: Reporter,
    only: Collection[str] | None = None,
) -> Fitted:
    """Train the missing stages of a model and load them all, or those named in ``only`` and what
    they need."""
    import torch

    device = torch.device(cell.device)
    model = construct(cell)
    weights, weights_sha256 = given_weights(cell)
    fitted = Fitted(model, {}, {}, weights_sha256, [])
    if weights is not None:
        with guarded(cell, "loading the given weights"):
            model.load("weights", weights)
        fitted.keys["weights"], fitted.states["weights"] = str(weights_sha256), weights
    stages = stages_of(cell, model, weights)
    for stage in stages:
        _refuse_unknown(cell, stage, stages)
        _refuse_untrainable(cell, stage)
    if only is not None:
        stages = with_needs(stages, only)
    # opened, rendered and held against the task before anything is trained
    corpora = {
        name: open_corpus(cell, name, loaded, store, reporter)
        for name in dict.fromkeys(s.corpus for s in stages if s.weights not in cell.stage_weights)
    }
    for stage in stages:
        if stage.weights in cell.stage_weights:
            _take_given(cell, stage, fitted)
            continue
        corpus = corpora[stage.corpus]
        key = stage_key(cell, stage, fitted.keys, loaded)
        state, notes = _checkpoint(cell, stage, key, corpus, fitted, store, reporter)
        with guarded(cell, f"loading stage '{stage.name}'"):
            model.load(stage.name, state)
        fitted.keys[stage.name], fitted.states[stage.name] = digest(key), state
        fitted.notes += notes
        fitted.pretraining.append(
            {
                "stage": stage.name,
                "dataset": corpus.name,
                "track": corpus.track,
                "manifest_sha256": corpus.manifest_sha256,
            }
        )
    with guarded(cell, "moving to its device"):
        for module in modules_of(model):
            # where only some stages are loaded, what the others give may have no values yet
            if only is None or not any(p.is_meta for p in module.parameters()):
                module.to(device)
                module.eval()
    return fitted


def with_needs(stages: Sequence[Stage], names: Collection[str]) -> list[Stage]:
    """The stages of those names and all that they need, in order."""
    wanted = set(names)
    for stage in reversed(stages):  # what a stage needs comes before it
        if stage.name in wanted:
            wanted.update(stage.needs)
    return [stage for stage in stages if stage.name in wanted]


def _take_given(cell: RunSpec, stage: Stage, fitted: Fitted) -> None:
    """Load the user's weights in place of a stage."""
    from medbench.models import weights

    path = cell.stage_weights[stage.weights]
    state = weights.read_weights(path, cell.model.weight_files)
    with guarded(cell, f"loading {path} as stage '{stage.name}'"):
        fitted.model.load(stage.name, state)
    fitted.keys[stage.name] = str(weights_sha256(path, cell.model.weight_files))
    fitted.states[stage.name] = state
    sha256 = fitted.keys[stage.name]
    fitted.notes.append(f"stage '{stage.name}' is given, not trained: sha256 {sha256}")


def construct(cell: RunSpec, stage: Stage | None = None) -> Any:
    """A new object of the model's class, or of the class that owns a stage, freshly seeded."""
    from medbench.run.fitting import seed_everything

    owned = stage is not None and stage.cls
    if isinstance(cell.model, IsolatedSpec):
        from medbench.isolation.model import construct as elsewhere
        from medbench.isolation.model import holds

        reference = stage.cls if stage is not None and owned else cell.model.cls
        values = dict(stage.config) if stage is not None and owned else cell.config_values
        if holds(cell.model, reference):
            with guarded(cell, "construction"):
                return elsewhere(cell.model, reference, values, cell.seed, cell.device, cell.title)
    cls = load_reference(stage.cls if stage is not None and owned else cell.model.cls)
    if not owned:
        missing = [c for c in cell.model.capabilities if not callable(getattr(cls, c, None))]
        if missing:
            raise PluginError(
                f"Model '{cell.model.name}' declares {', '.join(missing)}, which its class "
                f"{cell.model.cls} does not have."
            )
    seed_everything(cell.seed)
    with guarded(cell, "construction"):
        if stage is not None and owned:
            return cls(dict(stage.config))
        return cls(cell.config) if cell.model.config else cls()


def stages_of(cell: RunSpec, model: Any, weights: State | None) -> Sequence[Stage]:
    """The stages the model still needs; none when it does not train."""
    if not hasattr(model, "stages"):
        return ()
    with guarded(cell, "planning its stages"):
        stages = model.stages(weights)
    if not all(isinstance(stage, Stage) for stage in stages):
        raise PluginError(f"stages() of model '{cell.model.name}' did not return medbench.Stage's.")
    return list(stages)


def stage_key(
    cell: RunSpec, stage: Stage, keys: Mapping[str, str], loaded: Loaded | None = None
) -> dict[str, Any]:
    """Everything that determines a stage's checkpoint; ``loaded`` where it trains on the task."""
    if stage.corpus == TASK_CORPUS:
        assert loaded is not None
        corpus = digest([loaded.manifest.sha256, loaded.dataset.fingerprint, cell.fraction])
    else:
        corpus = corpus_state(cell, stage.corpus)
    owner = stage.cls or cell.model.cls
    package = owner.partition(":")[0].partition(".")[0]
    packages = {"medbench.models", "medbench.data", "medbench.run", package} - {"medbench"}
    code = {name: code_there(cell.model, name) or code_sha256(name) for name in packages}
    plugin = (
        {} if stage.cls else {"distribution": cell.distribution, "version": cell.plugin_version}
    )
    needs = {name: keys[name] for name in ("weights", *stage.needs) if name in keys}
    # equal to one device and whole batches but for rounding and random draws, so not the same
    found = {"devices": cell.devices, "accumulate": cell.accumulate}
    parts = {k: v for k, v in found.items() if v > 1} if _shares(cell, stage) else {}
    return {
        "class": owner,
        "stage": stage.name,
        "config": dict(stage.config),
        "needs": needs if not stage.cls else {n: keys[n] for n in stage.needs},
        "corpus": [stage.corpus, corpus],
        "seed": cell.seed,
        "precision": cell.precision,
        "device": cell.device.partition(":")[0],
        **parts,
        "plugin": plugin,
        "code": code,
    }


def _shares(cell: RunSpec, stage: Stage) -> bool:
    """Whether a stage's training shares its batches (`Stage.together`); a worker's never does."""
    return stage.together and not isinstance(cell.model, IsolatedSpec)


def _checkpoint(
    cell: RunSpec,
    stage: Stage,
    key: dict[str, Any],
    corpus: Corpus,
    fitted: Fitted,
    store: Store,
    reporter: Reporter,
) -> tuple[State, list[str]]:
    import json

    import torch
    from safetensors.torch import load_file, save_file

    from medbench.run.fitting import StageRun

    def build(payload: Path, scratch: Path) -> None:
        notes: list[str] = []
        title = stage.title or f"train {stage.name}"
        with reporter.stage(title, f"fit-{stage.name}") as advance:
            if cell.devices > 1 and _shares(cell, stage):
                from medbench.run.together import train_together

                state = train_together(
                    cell,
                    stage,
                    corpus,
                    fitted.states,
                    scratch,
                    advance=advance,
                    say=reporter.say,
                    notes=notes,
                )
            else:
                if max(cell.devices, cell.accumulate) > 1 and not _shares(cell, stage):
                    reporter.say(
                        f"  {title} runs on one device, with the batches of its own settings: its "
                        "training cannot be shared out."
                    )
                run = StageRun(
                    device=torch.device(cell.device),
                    precision=cell.precision,
                    seed=cell.seed,
                    folder=scratch,
                    advance=advance,
                    say=reporter.say,
                    notes=notes,
                    ranks=Ranks(parts=cell.accumulate if _shares(cell, stage) else 1),
                )
                model = construct(cell, stage)
                state = train(cell, model, stage, corpus, fitted.states, run)
        save_file(dict(state), payload / WEIGHTS)
        (payload / "notes.json").write_text(json.dumps(notes), encoding="utf-8")

    folder, _ = store.get("checkpoints", key, build)
    notes = json.loads((folder / "notes.json").read_text(encoding="utf-8"))
    return load_file(folder / WEIGHTS), notes


def train(
    cell: RunSpec,
    model: Any,
    stage: Stage,
    corpus: Corpus,
    states: Mapping[str, State],
    run: FitRun,
) -> State:
    """Train one stage of a fresh model in place, on top of the stages it needs.

    Raises:
        CellError: the model raised, or its weights are no longer finite.
        PluginError: ``state`` gave something else than tensors.
    """
    import torch

    with guarded(cell, f"training stage '{stage.name}'"):
        if "weights" in states and not stage.cls:
            model.load("weights", states["weights"])
        for need in stage.needs:
            model.load(need, states[need])
        for module in modules_of(model):
            module.to(run.device)
        model.fit(stage, corpus, run)
        given = dict(model.state(stage.name))
    strange = [name for name, value in given.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise PluginError(
            f"{cell.title}: state('{stage.name}') of model '{cell.model.name}' breaks its "
            f"contract: {strange[0]!r} is of type {type(given[strange[0]]).__name__}, and a "
            "checkpoint holds tensors only. Keep settings in the configuration."
        )
    state = {name: tensor.detach().to("cpu").contiguous() for name, tensor in given.items()}
    bad = [n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise CellError(
            f"{cell.title}: stage '{stage.name}' ended with NaN or infinite weights in "
            f"{', '.join(bad[:3])}. A smaller learning rate may help (--set)."
        )
    return state


def given_weights(cell: RunSpec) -> tuple[State | None, str | None]:
    """The user's checkpoint and its hash, or two None."""
    if cell.weights is None:
        return None, None
    from medbench.models import weights

    files = cell.model.weight_files
    return weights.read_weights(cell.weights, files), weights_sha256(cell.weights, files)


def _refuse_unknown(cell: RunSpec, stage: Stage, stages: Sequence[Stage]) -> None:
    if stage.corpus not in (TASK_CORPUS, *cell.corpora):
        raise PluginError(
            f"Stage '{stage.name}' of model '{cell.model.name}' trains on '{stage.corpus}', which "
            "the model's spec does not name under pretraining."
        )
    earlier = [other.name for other in stages[: stages.index(stage)]]
    missing = [name for name in stage.needs if name not in earlier]
    if missing:
        raise PluginError(
            f"Stage '{stage.name}' of model '{cell.model.name}' needs {', '.join(missing)}, which "
            "is not an earlier stage."
        )


def _refuse_untrainable(cell: RunSpec, stage: Stage) -> None:
    """A published part is not trained here at the published size."""
    scratch = cell.variant is not None and cell.variant.from_scratch
    if (
        stage.weights
        and stage.weights not in cell.stage_weights
        and cell.preset in cell.model.needs_weights
        and not scratch
    ):
        raise WeightsError(
            f"{cell.model_id} at preset '{cell.preset}' needs the published weights of its "
            f"'{stage.weights}' ({stage.title or stage.name}). Name a local file or folder with "
            f"--weights {cell.model.name}@{stage.weights}=PATH."
        )


@contextmanager
def guarded(cell: RunSpec, doing: str) -> Iterator[None]:
    """Turn whatever a plugin raises, an exit too, into a CellError (exit 1) that names the cell and
    the place; what it prints goes to stderr."""
    try:
        with diverted(f"model '{cell.model.name}'"):
            yield
    except (MedbenchError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        explained = explain_os_error(error)
        if explained is not None:
            raise explained from error
        kind, place = where_raised(error)
        raise CellError(
            f"{cell.title}: the model raised {kind} in {doing} ({place}): {error}. Finished stages "
            "are kept; --debug shows the traceback."
        ) from error


def where_raised(error: BaseException) -> tuple[str, str]:
    """Name of an exception and the place in the code that raised it, in a worker's process too."""
    if isinstance(error, RaisedError):
        return error.kind, error.place
    last = traceback.extract_tb(error.__traceback__)[-1]
    return type(error).__name__, f"{Path(last.filename).name}, line {last.lineno}"
