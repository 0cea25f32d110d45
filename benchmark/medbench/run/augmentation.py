"""Generated images as training data: does a classifier gain by them?

The model under test draws images from the impressions of labelled training images; a classifier of
the harness is then trained on real and generated images, or on generated ones alone, and predicts
the real test images. Every arm, the baseline ``real-only`` among them, starts from the same
weights and makes the same number of updates on batches of the same size: what differs is what it
sees. The epoch of lowest loss on the real validation part is kept.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medbench.data.splits import TRAIN, VAL
from medbench.errors import DataError
from medbench.evaluation.predictions import ClassPredictions
from medbench.run import classification
from medbench.run.generation import generate, pixels, with_reports
from medbench.run.job import Job
from medbench.run.judges import PixelRows
from medbench.run.load import Loaded
from medbench.run.stores import code_sha256, code_there

if TYPE_CHECKING:
    from torch import nn

    from medbench.evaluation.fine_tune import Schedule

Rows = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

#: Side of the classifier's pictures (assumed).
SIZE = {"tiny": 64, "small": 128, "paper": 224}
#: Pictures in an epoch, for each labelled real training image: what the largest share of generated
#: images comes to, the real ones counted where they are seen, so that each picture is seen in every
#: epoch of every arm (assumed).
PASS = 4


def predict(job: Job) -> ClassPredictions:
    """Scores of the classifier that was trained with the model's images."""
    wanted = job.cell.task.synthetic
    assert wanted is not None
    real = _real(job)
    owners = prompt_rows(job, round(wanted.share * len(real)))
    made = _generated(job, owners)
    job.model.notes.append(
        f"classifier of the harness trained on {len(real) if wanted.real else 0:,} real and "
        f"{len(made):,} generated images"
    )
    key = {"generated": _generated_key(job, owners, 0), "real": wanted.real}
    return _classified(job, real if wanted.real else real[:0], owners, made, key, job.cell.seed)


def baseline(job: Job, name: str) -> ClassPredictions:
    """A trivial predictor, or the same classifier without a generated image."""
    if name != "real-only":
        return classification.baseline(job, name)
    none, side = np.zeros(0, np.int64), SIZE[job.cell.preset]
    made = np.zeros((0, side, side), np.uint8)
    return _classified(job, _real(job), none, made, {}, job.cell.seed)


def prompt_rows(job: Job, count: int) -> Rows:
    """Whose prompts are drawn from, int [count]: labelled training images with a report, each in
    turn, in an order of the run's seed.

    Raises DataError: there are none, or one is of a patient who is validated or tested on.
    """
    told = with_reports(job, _real(job))
    if not len(told):
        raise DataError(
            f"No labelled training image of {job.loaded.dataset.root} has a report to draw from."
        )
    refuse_evaluated(job.loaded, told)
    return np.resize(np.random.default_rng(job.cell.seed).permutation(told), count)


def refuse_evaluated(loaded: Loaded, rows: Rows) -> None:
    """Raises DataError when a row is not of the training part, or of a patient outside it."""
    outside = {loaded.patients[row] for row in np.flatnonzero(loaded.folds != TRAIN).tolist()}
    shared = [row for row in rows.tolist() if loaded.patients[row] in outside]
    if shared:
        sample = loaded.samples[shared[0]]
        raise DataError(
            f"{len(shared):,} reports to draw training images from are of patients who are "
            f"validated or tested on, such as '{sample.id}' of {loaded.dataset.root}."
        )


def schedule_of(preset: str) -> Schedule:
    """How the classifier is trained: from nothing, never stopped early. All of it is assumed."""
    from medbench.evaluation.fine_tune import Schedule

    epochs = {"tiny": 5, "small": 8, "paper": 8}[preset]
    return Schedule(backbone_rate=1e-3, head_rate=1e-3, decay=0.01, epochs=epochs, patience=epochs)


def classifier_of(preset: str) -> nn.Module:
    """The classifier's network, untrained: four convolutions at tiny, five at small; at paper
    DenseNet-121 without weights. All assumed: the paper's is not known to us."""
    from medbench.evaluation.phantom_backbone import WIDTHS, PhantomBackbone

    if preset == "tiny":
        return PhantomBackbone(WIDTHS)
    if preset == "small":
        return PhantomBackbone((32, 64, 128, 256, 256))
    from torchvision.models import densenet121

    network: Any = densenet121(weights=None)
    from torch import nn

    network.classifier = nn.Identity()
    return network  # type: ignore[no-any-return]


def _real(job: Job) -> Rows:
    """Training images whose labels may be used."""
    return np.flatnonzero((job.loaded.folds == TRAIN) & job.loaded.labelled)


def _generated_key(job: Job, owners: Rows, first: int) -> dict[str, Any]:
    from medbench.run.stores import digest

    cell = job.cell
    return {
        "model": cell.model_id,
        "config": dict(cell.config_values),
        "plugin": [
            cell.plugin_package,
            code_there(cell.model, cell.plugin_package) or code_sha256(cell.plugin_package),
        ],
        "checkpoint": job.model.checkpoint,
        "prompts": digest([job.loaded.samples[row].id for row in owners.tolist()]),
        "first": first,
        "data": [job.loaded.manifest.sha256, job.loaded.dataset.fingerprint],
        "size": SIZE[cell.preset],
        "seed": cell.seed,
        "batch": cell.batch_size,
        "precision": cell.precision,
        "device": cell.device.partition(":")[0],
        "code": {name: code_sha256(name) for name in ("medbench.run", "medbench.data")},
    }


def _generated(job: Job, owners: Rows) -> Bytes:
    """The model's images, uint8 [G, S, S]: drawn once, and kept, in portions of half as many as
    there are labelled training images, so that tasks of several shares have them in common."""
    portion = max(1, len(_real(job)) // 2)
    parts = [
        _portion(job, owners[first : first + portion], first)
        for first in range(0, len(owners), portion)
    ]
    return np.concatenate(parts)


def _portion(job: Job, owners: Rows, first: int) -> Bytes:
    from safetensors.numpy import load_file, save_file

    def build(payload: Path, _: Path) -> None:
        images = generate(job, owners, SIZE[job.cell.preset], first)
        save_file({"images": images}, payload / "images.safetensors")

    folder, _ = job.store.get("generated", _generated_key(job, owners, first), build)
    return np.asarray(load_file(folder / "images.safetensors")["images"])


def _classified(
    job: Job, real: Rows, owners: Rows, made: Bytes, more: dict[str, Any], seed: int
) -> ClassPredictions:
    """Predictions of a classifier trained on real rows and on images with their owners' labels;
    its scores are kept, since training is what takes time."""
    from safetensors.numpy import load_file, save_file

    cell, loaded = job.cell, job.loaded

    def build(payload: Path, scratch: Path) -> None:
        scores, thresholds = _train(job, real, owners, made, seed, scratch)
        save_file({"scores": scores, "thresholds": thresholds}, payload / "scores.safetensors")

    key = more | {
        "what": "augmentation",
        "schedule": asdict(schedule_of(cell.preset)),
        "pass": PASS,
        "preset": cell.preset,
        "division": loaded.manifest.sha256,
        "files": loaded.dataset.fingerprint,
        "labels": [label.model_dump() for label in cell.task.labels],
        "fraction": cell.fraction,
        "classifier": seed,
        "device": cell.device.partition(":")[0],
        "precision": cell.precision,
        "loop": {name: code_sha256(name) for name in ("medbench.evaluation", "medbench.run")},
    }
    folder, _ = job.store.get("fine-tuned", key, build)
    kept = load_file(folder / "scores.safetensors")
    scores = np.full(loaded.y.shape, np.nan)
    scores[loaded.tested] = kept["scores"]
    return loaded.predictions(cell.task, scores, kept["thresholds"])


def _train(
    job: Job, real: Rows, owners: Rows, made: Bytes, seed: int, scratch: Path
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scores [T, L] of the tested rows, and thresholds [L]."""
    from functools import partial

    import torch

    from medbench.evaluation.fine_tune import fine_tune
    from medbench.run.fitting import StageRun, seed_everything

    cell, loaded = job.cell, job.loaded
    held = np.concatenate([real, np.flatnonzero(loaded.folds == VAL), loaded.tested])
    pictures = np.concatenate([pixels(job, held, SIZE[cell.preset]), made])
    y = np.concatenate([loaded.y[held], loaded.y[owners]])
    train, val, test, drawn = np.split(
        np.arange(len(y)), np.cumsum([len(real), len(held) - len(real) - len(loaded.tested),
                                      len(loaded.tested)])
    )  # fmt: skip
    seen = epoch_rows(np.concatenate([train, drawn]), PASS * len(_real(job)), seed)
    seed_everything(seed)
    device = torch.device(cell.device)
    network = classifier_of(cell.preset).to(device)
    with job.reporter.stage("classifier on real and generated images", "classifier") as advance:
        run = StageRun(
            device=device, precision=cell.precision, seed=seed, folder=scratch,
            advance=advance, say=job.reporter.say, notes=[],
        )  # fmt: skip
        found = fine_tune(
            network, [network], PixelRows(pictures), y, seen, val, test, False, seed, device,
            schedule=schedule_of(cell.preset), autocast=run.autocast,
            epochs=partial(run.epochs, title="classifier"), advance=run.advance,
        )  # fmt: skip
    assert found.thresholds is not None
    return found.scores, found.thresholds


def epoch_rows(rows: Rows, count: int, seed: int) -> Rows:
    """The pictures of an epoch, int [count]: every row equally often, to within one, so that an
    epoch has as many whatever there is to see."""
    return np.resize(np.random.default_rng(seed).permutation(rows), count)
