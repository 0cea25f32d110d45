"""Classification: zero-shot, linear probe or fine-tune, to a table of class scores."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from medbench.data.splits import TRAIN, VAL
from medbench.errors import PluginError
from medbench.evaluation.predictions import ClassPredictions
from medbench.metrics.values import FloatArray
from medbench.run.embed import Features, prompt_features, text_features
from medbench.run.job import Job
from medbench.run.stores import code_sha256

if TYPE_CHECKING:
    import torch

    from medbench.data.decoded import Decoded
    from medbench.evaluation.fine_tune import Schedule


def predict(job: Job) -> ClassPredictions:
    """Class scores of every tested sample."""
    if job.cell.adaptation == "zero-shot":
        return job.loaded.predictions(job.cell.task, _zero_shot(job))
    if job.cell.adaptation == "fine-tune":
        return _fine_tune(job)
    return _linear_probe(job)


def baseline(job: Job, name: str) -> ClassPredictions:
    """Class scores of a trivial predictor."""
    from medbench.evaluation.baselines import baseline_scores

    loaded, task = job.loaded, job.cell.task
    scores, thresholds = baseline_scores(
        name,
        y=loaded.y,
        folds=loaded.folds,
        patients=loaded.groups,
        multiclass=task.multiclass,
        thumbnails=job.images.thumbnails,
        labelled=loaded.labelled,
    )
    return loaded.predictions(task, scores, thresholds)


def _zero_shot(job: Job) -> FloatArray:
    from medbench.evaluation.zero_shot import zero_shot

    cell, loaded, model = job.cell, job.loaded, job.model.model
    for name in ("class_prompts", "temperature"):
        if not hasattr(model, name):
            raise PluginError(
                f"{cell.title}: zero-shot needs '{name}', which the class of model "
                f"'{cell.model.name}' does not have."
            )
    scores = np.full(loaded.y.shape, np.nan)
    scores[loaded.tested] = zero_shot(
        tested_features(job),
        prompt_features(cell, job.model),
        cell.task.multiclass,
        float(model.temperature),
        _neutral_features(job),
    )
    return scores


def _neutral_features(job: Job) -> Features | None:
    """Text features of the model's prompts without a label, float32 [P, D]; None without such."""
    from medbench.run.fit import guarded

    cell, fitted = job.cell, job.model
    if not hasattr(fitted.model, "neutral_prompts"):
        return None
    with guarded(cell, "neutral_prompts"):
        texts = list(fitted.model.neutral_prompts(cell.task))
    if not texts:
        raise PluginError(
            f"{cell.title}: neutral_prompts of model '{cell.model.name}' breaks its contract: it "
            "gave no text."
        )
    return text_features(cell, fitted, texts)


def tested_features(job: Job) -> Features:
    """Features of the tested samples alone, or out of those of all where these are kept."""
    rows = job.loaded.tested
    everyone = job.embedder()
    if len(rows) < len(job.loaded.samples) and not everyone.kept():
        found = job.embedder(rows.tolist()).features()
    else:
        found = everyone.features()[rows]
    job.features = found
    return found


def _linear_probe(job: Job) -> ClassPredictions:
    from medbench.evaluation.linear_probe import linear_probe

    loaded = job.loaded
    features = (
        impression_features(job) if job.cell.task.input == "text" else job.embedder().features()
    )
    job.features = features[loaded.tested]
    with job.reporter.stage("linear probe", "probe"):
        probe = linear_probe(
            features,
            loaded.y,
            loaded.folds,
            loaded.groups,
            job.cell.task.multiclass,
            job.cell.seed,
            loaded.labelled,
            job.cell.device,
        )
    return loaded.predictions(job.cell.task, probe.scores, probe.thresholds)


def impression_features(job: Job) -> Features:
    """Features of the impressions of all samples, float32 [N, D]."""
    from medbench.run.generation import prompt_of

    everyone = range(len(job.loaded.samples))
    return job.embedder().text_embeddings([prompt_of(job, row) for row in everyone])


def schedule_of(preset: str, frozen: bool = False) -> Schedule:
    """How a model is fine-tuned at a preset: the published conventions at ``paper``.

    At ``tiny`` and ``small`` networks are small and their training short, so the backbone learns
    faster and for fewer updates (assumed). Of a frozen model the head alone is trained, which costs
    next to nothing: it has the same time at every preset.
    """
    from medbench.evaluation.fine_tune import Schedule

    if preset == "paper" or frozen:
        return Schedule()
    return Schedule(backbone_rate=1e-4, epochs=10, patience=3, least_steps=10)


@dataclass(frozen=True)
class Pictures:
    """Prepared images as batches."""

    images: Decoded

    def batch(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """uint8 [B, S, S], or [B, S, S, 3] where one is in colour."""
        return self.images.stack(rows.tolist())


def _fine_tune(job: Job) -> ClassPredictions:
    """Scores of the fine-tuned model; they are kept, since training is what takes time."""
    import torch
    from safetensors.numpy import load_file, save_file

    from medbench.evaluation.fine_tune import fine_tune, is_frozen
    from medbench.models.modules import modules_of
    from medbench.run.fit import guarded
    from medbench.run.fitting import StageRun

    cell, loaded = job.cell, job.loaded
    frozen = is_frozen(modules_of(job.model.model))
    schedule = schedule_of(cell.preset, frozen)
    rows = {
        "train": np.flatnonzero((loaded.folds == TRAIN) & loaded.labelled),
        "val": np.flatnonzero(loaded.folds == VAL),
        "test": loaded.tested,
    }

    def build(payload: Path, scratch: Path) -> None:
        with job.reporter.stage("fine-tune", "fine-tune") as advance:
            device = torch.device(cell.device)
            run = StageRun(
                device=device, precision=cell.precision, seed=cell.seed, folder=scratch,
                advance=advance, say=job.reporter.say, notes=job.model.notes,
            )  # fmt: skip
            with guarded(cell, "fine-tuning"):
                found = fine_tune(
                    job.model.model.encode_images,
                    modules_of(job.model.model),
                    Pictures(job.images),
                    loaded.y,
                    rows["train"],
                    rows["val"],
                    rows["test"],
                    cell.task.multiclass,
                    cell.seed,
                    device,
                    schedule=schedule,
                    make_head=getattr(job.model.model, "classification_head", None),
                    autocast=run.autocast,
                    epochs=partial(run.epochs, title="fine-tune"),
                    advance=run.advance,
                )
        none = np.zeros(0)
        save_file(
            {
                "scores": found.scores,
                "thresholds": none if found.thresholds is None else found.thresholds,
                "trained": np.array([found.trained]),
            },
            payload / "scores.safetensors",
        )

    key = job.embedder().key("slices") | {
        "what": "fine-tune",
        "schedule": asdict(schedule),
        "division": loaded.manifest.sha256,
        "labels": cell.task.sha256,
        "fraction": cell.fraction,
        "loop": code_sha256("medbench.evaluation"),
    }
    folder, _ = job.store.get("fine-tuned", key, build)
    kept = load_file(folder / "scores.safetensors")
    scores = np.full(loaded.y.shape, np.nan)
    scores[rows["test"]] = kept["scores"]
    thresholds = kept["thresholds"] if len(kept["thresholds"]) else None
    job.model.trained = int(kept["trained"][0])
    backbone = "all else frozen" if frozen else f"rate {schedule.backbone_rate:g} (the rest)"
    job.model.notes.append(
        f"fine-tuned: {job.model.trained:,} parameters, {schedule.epochs} epochs at most, "
        f"the best on val kept; rate {schedule.head_rate:g} (head), {backbone}"
    )
    return loaded.predictions(cell.task, scores, thresholds)
