"""The networks that judge generated images on phantoms, trained on the training part alone.

A classifier of the task's labels gives the features of the ``phantom`` backbone and the scores of
label fidelity; on its features stands a small space of images and prompts for alignment. Both are
trained once for a dataset and size and kept in the store; neither ever sees a tested image, nor
the model under test. How the training images look to both is kept, too: for the distance of an
image to the nearest of them, and for a report that is looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medbench.data.splits import TRAIN, VAL
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.metrics.values import FloatArray
from medbench.run.job import Job
from medbench.run.stores import code_sha256

if TYPE_CHECKING:
    import torch

    from medbench.evaluation.phantom_backbone import PhantomJudge


@dataclass(frozen=True)
class PixelRows:
    """Pixels uint8 [N, S, S] as batches."""

    pixels: npt.NDArray[np.uint8]

    def batch(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """float32 [B, 3, S, S] in [0, 1]."""
        from medbench.data.images import to_tensor

        return to_tensor(self.pixels[rows])


def with_features(job: Job, table: ImagePredictions) -> ImagePredictions:
    """The table with features of the phantom's own classifier; as it is on real data."""
    if job.loaded.dataset.track == "real" or table.real is None or table.generated is None:
        return table
    judge = _classifier(job)
    features = judge.features(table.real), judge.features(table.generated)
    return replace(table, given={"phantom": features})


def with_judgement(job: Job, table: ImagePredictions, prompts: Sequence[str]) -> ImagePredictions:
    """A table that has the classifier's features, with its scores and the space of alignment.

    ``prompts`` are those that ``table.prompts`` counts.
    """
    judge, space = _classifier(job), _space(job)
    features = table.given["phantom"][1]
    # the head's labels stand in the task's order, the table's in the alphabet's
    order = np.argsort(job.cell.task.label_names)
    return replace(
        table,
        scores=judge.scores(features)[:, order],
        judge_images=space.embed_images(features),
        judge_texts=space.embed_texts(prompts),
        judge_real=space.embed_images(table.given["phantom"][0]),
    )


def with_training(job: Job, table: ImagePredictions) -> ImagePredictions:
    """A judged table with the distances of real and generated images to the nearest training image
    in the classifier's features, and with a report of each generated image: that of the training
    image nearest in the space of alignment."""
    from medbench.evaluation.nearest_image import nearest_images

    rows = np.flatnonzero(job.loaded.folds == TRAIN)
    seen = _training_images(job, rows)
    real, generated = (nearest_images(some, seen["features"])[1] for some in table.given["phantom"])
    texts = [job.loaded.samples[row].text or "" for row in rows.tolist()]
    told = np.array([k for k, text in enumerate(texts) if text.strip()], np.int64)
    assert table.judge_images is not None
    # of length one, so that the nearest is that of the largest cosine
    found = told[nearest_images(table.judge_images, seen["space"][told])[0]]
    return replace(
        table,
        train_distances=generated,
        real_train_distances=real,
        reports=[texts[k] for k in found.tolist()],
        prompt_reports=reports_of_prompts(job),
    )


def reports_of_prompts(job: Job) -> list[str]:
    """The whole report of each tested sample, whose impression is a prompt."""
    return [job.loaded.samples[row].text or "" for row in job.loaded.tested.tolist()]


def _key(job: Job, what: str) -> dict[str, Any]:
    from medbench.run.generation import SIZE

    return {
        "judge": what,
        "data": job.loaded.manifest.sha256,
        "files": job.loaded.dataset.fingerprint,
        "labels": job.cell.task.sha256,
        "size": SIZE[job.cell.preset],
        "code": {name: code_sha256(name) for name in ("medbench.evaluation", "medbench.run")},
    }


def _classifier(job: Job) -> PhantomJudge:
    from safetensors.torch import load_file, save_file

    from medbench.evaluation.phantom_backbone import PhantomJudge

    def build(payload: Path, _: Path) -> None:
        save_file(_train_classifier(job), payload / "classifier.safetensors")

    folder, _ = job.store.get("judges", _key(job, "classifier"), build)
    return PhantomJudge(load_file(folder / "classifier.safetensors"))


def _train_classifier(job: Job) -> dict[str, torch.Tensor]:
    import torch

    from medbench.evaluation.fine_tune import Schedule, fine_tune
    from medbench.evaluation.phantom_backbone import PhantomBackbone
    from medbench.run.generation import SIZE, pixels

    loaded = job.loaded
    everyone = np.arange(len(loaded.samples))
    torch.manual_seed(0)
    network = PhantomBackbone()
    with job.reporter.stage("classifier that judges generated images", "judge"):
        found = fine_tune(
            network,
            [network],
            PixelRows(pixels(job, everyone, SIZE[job.cell.preset])),
            loaded.y,
            np.flatnonzero(loaded.folds == TRAIN),
            np.flatnonzero(loaded.folds == VAL),
            loaded.tested[:1],  # its scores are not used
            False,
            0,
            torch.device("cpu"),
            schedule=Schedule(backbone_rate=2e-3, head_rate=2e-3, epochs=40, patience=10),
        )
    return {name: value.contiguous() for name, value in found.weights.items()}


def _training_images(job: Job, rows: npt.NDArray[np.int64]) -> dict[str, FloatArray]:
    """``features`` float64 [M, 128] and ``space`` float64 [M, 64] of the training images."""
    from safetensors.numpy import load_file, save_file

    from medbench.run.generation import SIZE, pixels

    def build(payload: Path, _: Path) -> None:
        features = _classifier(job).features(pixels(job, rows, SIZE[job.cell.preset]))
        found = {"features": features, "space": _space(job).embed_images(features)}
        save_file(found, payload / "training.safetensors")

    folder, _ = job.store.get("judges", _key(job, "training"), build)
    return dict(load_file(folder / "training.safetensors"))


def _space(job: Job) -> Any:
    """The `medbench.evaluation.alignment_judge.AlignmentJudge` of the training part."""
    from safetensors.torch import load_file, save_file

    from medbench.evaluation.alignment_judge import AlignmentJudge, train_judge
    from medbench.run.generation import SIZE, pixels, prompt_of, with_reports

    def build(payload: Path, _: Path) -> None:
        judge, size = _classifier(job), SIZE[job.cell.preset]
        pairs: list[Any] = []
        for fold in (TRAIN, VAL):
            rows = with_reports(job, np.flatnonzero(job.loaded.folds == fold))
            pairs.append(judge.features(pixels(job, rows, size)))
            pairs.append([prompt_of(job, row) for row in rows.tolist()])
        with job.reporter.stage("space of images and prompts", "judge"):
            save_file(train_judge(*pairs), payload / "space.safetensors")

    folder, _ = job.store.get("judges", _key(job, "space"), build)
    return AlignmentJudge.of(load_file(folder / "space.safetensors"))
