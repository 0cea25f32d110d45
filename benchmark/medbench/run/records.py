"""The record of a cell: found when it is already there, written whole when it is not."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import medbench
from medbench.data.splits import TRAIN, VAL
from medbench.isolated import environment_part
from medbench.models.modules import count_parameters
from medbench.phantom.version import RENDERER_VERSION
from medbench.run.load import Loaded, corpus_state, images_key, opened
from medbench.run.request import RunSpec
from medbench.run.stores import (
    canonical,
    code_sha256,
    code_there,
    digest,
    file_sha256,
    write_atomically,
    writing,
)
from medbench.schemas.contamination import contamination
from medbench.schemas.record import (
    Counts,
    DataPart,
    Estimate,
    ModelPart,
    Parameters,
    Plugin,
    Record,
    TaskPart,
    predictions_name,
)

if TYPE_CHECKING:
    from medbench.evaluation.files import AnyPredictions
    from medbench.evaluation.score import Scored
    from medbench.evaluation.subgroups import Found
    from medbench.run.fit import Fitted

RECORD = "record.json"
FEATURES = "features.npz"  # sample_id [T], features float32 [T, D], y float64 [T, L]
INPUTS = "inputs.json"  # what the record was made from on this machine; not part of it


def identity(cell: RunSpec, loaded: Loaded) -> dict[str, Any]:
    """What makes a cell the same cell on any machine."""
    files = cell.model.weight_files
    return {
        "model": cell.model_id,
        "preset": cell.preset,
        "config": dict(cell.config_values),
        "plugin": [cell.distribution, cell.plugin_version],
        "weights": weights_sha256(cell.weights, files),
        "stage_weights": {n: weights_sha256(p, files) for n, p in cell.stage_weights.items()},
        "task": cell.task.sha256,
        "track": loaded.dataset.track,
        "manifest": loaded.manifest.sha256,
        "corpora": {name: _corpus_identity(cell, name) for name in cell.corpora},
        "protocol": cell.protocol,
        "adaptation": cell.adaptation,
        "fraction": cell.fraction,
        "seed": cell.seed,
        "precision": cell.precision,
        "limit": cell.limit,
        **({"writer": identity(cell.writer, loaded)} if cell.writer else {}),
    }


def _corpus_identity(cell: RunSpec, name: str) -> str:
    """A corpus as it is called on any machine: by manifest, or by what renders it."""
    source = cell.corpora[name]
    if source.root is None:
        return f"phantom/{RENDERER_VERSION}/{cell.preset}"
    return opened(source.dataset, source.root).manifest.sha256


def run_id(cell: RunSpec, loaded: Loaded) -> str:
    """A readable name with the hash of the cell's identity."""
    name = cell.model_id.replace("@", ".")
    tail = digest(identity(cell, loaded))[:10]
    return f"{name}_{cell.task.name}_{cell.preset}_s{cell.seed}_{tail}"


@cache
def weights_sha256(path: Path | None, files: tuple[str, ...] = ()) -> str | None:
    """Hash of a user's checkpoint, and of ``files`` beside it; None when none was given."""
    if path is None:
        return None
    from medbench.models import weights

    return weights.sha256(path, files)


def inputs(cell: RunSpec, loaded: Loaded, corpora: Iterable[str]) -> dict[str, Any]:
    """What a record on this machine was made from: it stands only while none of it changes.

    ``corpora`` are those that were trained on.
    """
    packages = {"medbench", cell.plugin_package}
    return {
        "identity": identity(cell, loaded),
        "images": images_key(loaded.dataset, 0, loaded.samples),
        "corpora": {name: corpus_state(cell, name) for name in sorted(corpora)},
        "batch": cell.batch_size,
        "device": cell.device.partition(":")[0],
        "training": [cell.devices, cell.accumulate],
        "backbones": _judges(cell),
        "code": {p: code_there(cell.model, p) or code_sha256(p) for p in sorted(packages)},
        **written_by(cell, loaded),
    }


def written_by(cell: RunSpec, loaded: Loaded) -> dict[str, Any]:
    """What decides the reports that a task's writer writes, as ``writer``; empty without one."""
    writer = cell.writer
    return {"writer": inputs(writer, loaded, writer.corpora)} if writer else {}


def _judges(cell: RunSpec) -> dict[str, str | None]:
    """Feature networks of the user's that a metric of generated images may use."""
    if cell.task.type != "image-generation":
        return {}
    from medbench.metrics import backbones

    return {name: weights_sha256(path) for name, path in backbones.given().items()}


def find(folder: Path, cell: RunSpec, loaded: Loaded) -> Record | None:
    """A complete record of just this cell, whose predictions are what was hashed; else None."""
    try:
        made_from = json.loads((folder / INPUTS).read_text(encoding="utf-8"))
        record = Record.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    corpora = made_from["inputs"]["corpora"]
    if not set(corpora) <= set(cell.corpora):
        return None
    if canonical(made_from["inputs"]) != canonical(inputs(cell, loaded, corpora)):
        return None
    table = folder / predictions_name(cell.task.type)
    if not table.is_file() or file_sha256(table) != made_from["predictions_file"]:
        return None
    return record if record.status == "complete" else None


@dataclass(frozen=True)
class Results:
    """What a cell came to."""

    fitted: Fitted
    predictions: AnyPredictions
    scored: Scored
    baselines: dict[str, dict[str, Estimate]]
    apart: Found  # in subgroups
    timing: dict[str, Any]
    features: npt.NDArray[np.float32] | None = None  # [T, D] of the tested samples


def write(folder: Path, cell: RunSpec, loaded: Loaded, results: Results) -> Record:
    """Write predictions, then the record. A kill between them leaves no record."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        table = folder / predictions_name(cell.task.type)
        temporary = folder / f".{os.getpid()}.{table.name}"
        try:
            results.predictions.write(temporary)
            os.replace(temporary, table)
        finally:
            temporary.unlink(missing_ok=True)
        _write_features(folder, loaded, results)
    record = assemble(folder.name, cell, loaded, results)
    trained_on = {corpus["dataset"] for corpus in results.fitted.pretraining} & set(cell.corpora)
    made_from = {"inputs": inputs(cell, loaded, trained_on), "predictions_file": file_sha256(table)}
    write_atomically(folder / INPUTS, canonical(made_from))
    write_atomically(folder / RECORD, record.model_dump_json(by_alias=True, indent=2) + "\n")
    return record


def _write_features(folder: Path, loaded: Loaded, results: Results) -> None:
    """Features of the tested samples, for pictures of them: ``features.npz``, or none."""
    (folder / FEATURES).unlink(missing_ok=True)
    if results.features is None:
        return
    ids = np.array([loaded.samples[i].id for i in loaded.tested], str)
    np.savez(folder / FEATURES, sample_id=ids, features=results.features, y=loaded.y[loaded.tested])


def assemble(name: str, cell: RunSpec, loaded: Loaded, results: Results) -> Record:
    """The record of a finished cell."""
    from medbench.evaluation.keyed import hashes

    dataset, task, fitted = loaded.dataset, cell.task, results.fitted
    parts = _parts(cell, loaded)
    return Record(
        status="complete",
        run_id=name,
        model=ModelPart(
            name=cell.model.name,
            variant=cell.variant.name if cell.variant else None,
            preset=cell.preset,
            config=dict(cell.config_values),
            assumed=dict(cell.assumed),
            plugin=Plugin(distribution=cell.distribution, version=cell.plugin_version),
            parameters=_parameters(fitted),
            weights_sha256=fitted.weights_sha256,
            weights_data=weights_data(cell),
            pretraining_data=fitted.pretraining,
        ),
        task=TaskPart(name=task.name, version=task.version, type=task.type, sha256=task.sha256),
        data=DataPart(
            dataset=dataset.spec.name,
            track=dataset.track,
            manifest_sha256=loaded.manifest.sha256,
            renderer=dataset.renderer,
            samples={part: len(rows) for part, rows in parts.items()},
            patients={
                part: len({loaded.patients[i] for i in rows}) for part, rows in parts.items()
            },
        ),
        protocol=cell.protocol,
        adaptation=cell.adaptation,
        fraction=cell.fraction,
        seed=cell.seed,
        precision=cell.precision,
        metrics=results.scored.metrics,
        baselines=results.baselines,
        subgroups=results.apart.subgroups or None,
        counts=Counts(
            expected=_expected(cell, loaded, parts["test"]),
            scored=results.predictions.support(),
            failed=0,
        ),
        timing=dict(results.timing),
        environment=environment(cell),
        hashes={
            "checkpoint": None if cell.baseline else fitted.checkpoint,
            **hashes(results.predictions, loaded.manifest.sha256),
        },
        flags=flags(cell, loaded, fitted),
        notes=[
            _division_note(cell, parts),
            *_phantom_note(loaded),
            *_writer_note(cell),
            *fitted.notes,
            *results.scored.notes,
            *results.apart.notes,
            *_verdict(cell, results),
        ],
    )


def _parts(cell: RunSpec, loaded: Loaded) -> dict[str, npt.NDArray[np.int64]]:
    """Indices of the samples that were trained on, chosen on and tested on."""
    folds, tested = loaded.folds, loaded.tested
    none = np.arange(0)
    if cell.adaptation == "zero-shot" or cell.task.type == "retrieval":
        return {"train": none, "val": none, "test": tested}
    if cell.task.protocols[cell.protocol].folds:
        largest = int(np.bincount(folds).argmax())
        return {
            "train": np.flatnonzero((folds != largest) & loaded.labelled),
            "val": none,
            "test": tested,
        }
    return {
        "train": np.flatnonzero((folds == TRAIN) & loaded.labelled),
        "val": np.flatnonzero(folds == VAL),
        "test": tested,
    }


def _expected(cell: RunSpec, loaded: Loaded, test: npt.NDArray[np.int64]) -> int:
    """How many samples, or studies of report generation, must be scored."""
    if cell.task.type == "classification":
        return int((~np.isnan(loaded.y[test])).any(axis=1).sum())
    if cell.task.unit == "study":
        return len({loaded.samples[i].study or loaded.samples[i].id for i in test})
    return len(test)


def _verdict(cell: RunSpec, results: Results) -> list[str]:
    """Whether a generator of reports does better than looking one up."""
    from medbench.evaluation.verdict import verdict

    if cell.baseline:
        return []
    task = cell.task
    return verdict(task.type, task.primary, results.scored.metrics, results.baselines)


def _division_note(cell: RunSpec, parts: dict[str, npt.NDArray[np.int64]]) -> str:
    split = cell.task.protocols[cell.protocol]
    if cell.adaptation == "zero-shot" or cell.task.type == "retrieval":
        return "zero-shot: no label was used"
    if cell.baseline:
        return "a trivial predictor, run alone"
    if cell.task.synthetic:
        return f"{split.rule}: the classifier's epoch is chosen on val; test is scored once"
    if split.folds:
        return (
            f"{split.folds}-fold cross-validation by patient: each sample is scored once, out of "
            "fold; 'train' counts the smallest training part, whose own inner folds choose the "
            "probe's regularisation, so 'val' is 0"
        )
    if cell.adaptation == "fine-tune" or cell.task.type != "classification":
        return f"{split.rule}: what is chosen is chosen on val; test is scored once"
    chosen = "on val" if len(parts["val"]) else "on inner folds of train"
    return f"{split.rule}: the probe's regularisation is chosen {chosen}; test is scored once"


def _phantom_note(loaded: Loaded) -> list[str]:
    spec = loaded.dataset.spec
    if loaded.dataset.track == "real" or not spec.phantom_of:
        return []
    return [f"phantom of {spec.name}: {spec.phantom_of}"]


def _writer_note(cell: RunSpec) -> list[str]:
    writer = cell.writer
    if writer is None:
        return []
    return [
        f"reports of the images are written by {writer.model_id} ({writer.distribution} "
        f"{writer.plugin_version}, preset {writer.preset}, seed {writer.seed})"
    ]


def _parameters(fitted: Fitted) -> Parameters:
    """Of the model; fine-tuning's are trainable, too, and its head is counted with them.

    What fine-tuning trains holds what earlier stages trained, or, of a frozen model, none of it.
    """
    counted = count_parameters(fitted.model)
    total, trainable = counted["total"], counted["trainable"]
    frozen = 0 < fitted.trained < trainable
    trained = trainable + fitted.trained if frozen else max(trainable, fitted.trained)
    return Parameters(total=max(total, trained), trainable=trained)


def brought(cell: RunSpec) -> bool:
    """Whether the model brings weights that were not trained here: given ones, or, of a model
    without ``fit``, its own."""
    given = cell.weights is not None or bool(cell.stage_weights)
    return given or not (cell.baseline or "fit" in cell.model.capabilities)


def weights_data(cell: RunSpec) -> list[str] | None:
    """What these weights were trained on or may have seen, sorted; None where there are none, or
    the spec does not declare it."""
    spec = cell.model
    if not brought(cell) or (spec.weights_data is None and not spec.overlaps):
        return None
    return sorted({*(spec.weights_data or ()), *spec.overlaps})


def flags(cell: RunSpec, loaded: Loaded, fitted: Fitted) -> list[str]:
    """What a reader must know before believing the number."""
    found = []
    if cell.limit is not None or loaded.dataset.limited:
        found.append("limited")
    declared = weights_data(cell)
    if contamination(declared or (), cell.task, cell.protocol):
        found.append("contaminated")
    if declared is None and brought(cell):
        found.append("undeclared")
    if cell.assumed:
        found.append("assumed-hyperparameters")
    if cell.protocol == "paper-compat":
        found.append("paper-compat")
    if loaded.dataset.track == "real" and any(
        corpus["track"] == "phantom" for corpus in fitted.pretraining
    ):
        found.append("phantom-pretrained")
    if source_state()["dirty"]:
        found.append("dirty")
    return found


@cache
def source_state() -> dict[str, Any]:
    """The git commit that medbench runs from, and whether its sources differ from it.

    Only for a source checkout: an installed wheel has neither.
    """
    root = Path(medbench.__file__).parents[2]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": False}

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        changed = git("status", "--porcelain", "--", "benchmark", "plugins", "tasks")
        return {"commit": git("rev-parse", "HEAD") or None, "dirty": bool(changed)}
    except OSError:  # no git on this machine
        return {"commit": None, "dirty": False}


def environment(cell: RunSpec) -> dict[str, Any]:
    """What is needed to repeat a run on another machine; never part of a record's sameness."""
    import torch

    packages = ("torch", "open_clip_torch", "numpy", "scikit-learn", "pydicom", "pillow")
    gpu = torch.cuda.get_device_name(cell.device) if cell.device.startswith("cuda") else None
    return {
        "medbench": medbench.__version__,
        "commit": source_state()["commit"],
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": cell.device,
        "devices": cell.devices,
        "accumulate": cell.accumulate,
        "gpu": gpu,
        "packages": {name: metadata.version(name) for name in packages},
        "executable": Path(sys.executable).name,
        **environment_part(cell.model),
    }
