"""Image generation: images for the tested prompts, beside the tested real images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from medbench.data.splits import TRAIN, VAL
from medbench.errors import DataError, PluginError, unknown_name
from medbench.evaluation.baseline_cards import names
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.run.job import Job
from medbench.run.stores import code_sha256

if TYPE_CHECKING:
    import torch

Bytes = npt.NDArray[np.uint8]
#: Side of the images that are compared, whatever size a model draws at.
SIZE = {"tiny": 64, "small": 128, "paper": 512}


def predict(job: Job) -> ImagePredictions:
    """``generate_images`` for the prompt of every tested image, with a seed for each image."""
    import torch

    from medbench.data.images import resize
    from medbench.run.fit import guarded

    cell, loaded = job.cell, job.loaded
    rows = loaded.tested.tolist()
    prompts = [prompt_of(job, i) for i in rows for _ in range(cell.task.per_prompt)]
    seeds = [cell.seed * 1_000_003 + k for k in range(len(prompts))]
    made: list[Bytes] = []
    with job.reporter.stage(f"generate images for {loaded.dataset.spec.name}", "generate") as done:
        for start in range(0, len(prompts), cell.batch_size):
            part = slice(start, start + cell.batch_size)
            with guarded(cell, "generate_images"), torch.inference_mode():
                found = job.model.model.generate_images(prompts[part], seeds[part])
            _check(job, found, len(prompts[part]))
            grey = (found.float().mean(1).clamp(0, 1) * 255).round().byte().cpu().numpy()
            made += [resize(picture, SIZE[cell.preset]) for picture in grey]
            done(len(made), len(prompts))
    group = np.repeat(np.arange(len(rows)), cell.task.per_prompt)
    return _with_features(job, _table(job, np.stack(made), group))


def baseline(job: Job, name: str) -> ImagePredictions:
    """Images of a trivial generator."""
    table = _table(job, None, None)
    if name == "real-versus-real":
        from medbench.metrics.image_generation import real_versus_real

        owners = np.unique(np.asarray(table.real_patients), return_inverse=True)[1]
        halves = real_versus_real(table, owners.astype(np.int64))
        assert halves.real is not None
        assert halves.generated is not None
        return _with_features(job, ImagePredictions(halves.real, halves.generated))
    if name == "noise":
        train = [job.images[i][0] for i in np.flatnonzero(job.loaded.folds == TRAIN)[:500]]
        level, spread = float(np.mean(train)), float(np.std(train))
        assert table.real is not None
        drawn = np.random.default_rng(0).normal(level, spread, table.real.shape)
        noise = drawn.clip(0, 255).round().astype(np.uint8)
        return _with_features(job, replace(table, generated=noise))
    raise unknown_name("baseline", name, names("image-generation"))


def prompt_of(job: Job, row: int) -> str:
    """The impression of a sample's report, or the report where it has none."""
    sample = job.loaded.samples[row]
    text = sample.sections.get("impression") or sample.text or ""
    if not text.strip():
        raise DataError(f"Sample '{sample.id}' of {job.loaded.dataset.root} has no report to draw.")
    return " ".join(text.split())


def _table(job: Job, made: Bytes | None, group: npt.NDArray[np.int64] | None) -> ImagePredictions:
    from medbench.data.images import resize

    loaded = job.loaded
    rows = loaded.tested.tolist()
    real = np.stack([resize(job.images[i][0], SIZE[job.cell.preset]) for i in rows])
    owners = [loaded.patients[i] for i in rows]
    return ImagePredictions(real, real if made is None else made, group, {}, owners)


def _with_features(job: Job, table: ImagePredictions) -> ImagePredictions:
    """The table with features of the phantom's own classifier, on phantoms."""
    if job.loaded.dataset.track == "real" or table.real is None or table.generated is None:
        return table
    from safetensors.torch import load_file, save_file

    from medbench.evaluation.phantom_backbone import PhantomBackbone

    def build(payload: Path, _: Path) -> None:
        save_file(_train_backbone(job), payload / "backbone.safetensors")

    key = {
        "backbone": "phantom",
        "data": job.loaded.manifest.sha256,
        "files": job.loaded.dataset.fingerprint,
        "size": job.images.size,
        "code": {name: code_sha256(name) for name in ("medbench.evaluation", "medbench.run")},
    }
    folder, _ = job.store.get("backbones", key, build)
    network = PhantomBackbone.of(load_file(folder / "backbone.safetensors"))
    features = network.features(table.real), network.features(table.generated)
    return replace(table, given={"phantom": features})


def _train_backbone(job: Job) -> dict[str, torch.Tensor]:
    import torch

    from medbench.evaluation.fine_tune import Schedule, fine_tune
    from medbench.evaluation.phantom_backbone import PhantomBackbone
    from medbench.run.classification import Pictures

    loaded = job.loaded
    torch.manual_seed(0)
    network = PhantomBackbone()
    with job.reporter.stage("classifier for feature distances", "backbone"):
        found = fine_tune(
            network,
            [network],
            Pictures(job.images),
            loaded.y,
            np.flatnonzero(loaded.folds == TRAIN),
            np.flatnonzero(loaded.folds == VAL),
            loaded.tested[:1],  # its scores are not used
            False,
            0,
            torch.device("cpu"),
            schedule=Schedule(backbone_rate=1e-3, head_rate=1e-3, epochs=12, patience=3),
        )
    return {name: value.contiguous() for name, value in found.weights.items()}


def _check(job: Job, found: object, expected: int) -> None:
    import torch

    good = (
        isinstance(found, torch.Tensor)
        and found.ndim == 4
        and found.shape[:2] == (expected, 3)
        and bool(torch.isfinite(found).all())
    )
    if not good:
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise PluginError(
            f"{job.cell.title}: generate_images of model '{job.cell.model.name}' breaks its "
            f"contract: finite [B, 3, H, W] in [0, 1] of {expected} images, not {shape}."
        )
