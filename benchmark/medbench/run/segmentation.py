"""Segmentation: frozen patch features, one decoder for every model, a mask per tested image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medbench.data.samples import Annotates
from medbench.data.splits import TRAIN, VAL
from medbench.errors import DataError, PluginError, unknown_name
from medbench.evaluation.baseline_cards import names
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.run.job import Job

if TYPE_CHECKING:
    import torch

Masks = npt.NDArray[np.bool_]
#: Side of the masks that are compared, whatever size a model sees.
SIZE = {"tiny": 64, "small": 128, "paper": 224}


def predict(job: Job) -> MaskPredictions:
    """Masks of the tested images."""
    import torch

    from medbench.evaluation.segmentation import Schedule, predict_masks, train_decoder

    loaded, cell = job.loaded, job.cell
    truth = reference_masks(job)
    features = _patches(job)
    device = torch.device(cell.device)
    rows = {
        name: torch.from_numpy(np.flatnonzero(which))
        for name, which in (
            ("train", (loaded.folds == TRAIN) & loaded.labelled),
            ("val", loaded.folds == VAL),
            ("test", loaded.folds >= 0),
        )
    }
    if not len(rows["val"]):
        raise DataError(f"Task '{cell.task.name}' has no validation part to stop training by.")
    with job.reporter.stage("segmentation decoder", "decoder") as advance:
        decoder, _ = train_decoder(
            lambda some: [m[some] for m in features],
            torch.from_numpy(truth),
            rows["train"],
            rows["val"],
            truth.shape[-1],
            cell.seed,
            device,
            # small maps of small models: a narrower decoder says as much (assumed)
            Schedule(width=64, epochs=15, patience=3) if cell.preset == "tiny" else Schedule(),
            advance=lambda done, total, **_: advance(done, total),
        )
    found = predict_masks(decoder, lambda some: [m[some] for m in features], rows["test"], device)
    return _table(job, truth, found.numpy())


def baseline(job: Job, name: str) -> MaskPredictions:
    """Masks of a trivial predictor."""
    loaded, truth = job.loaded, reference_masks(job)
    tested = loaded.tested
    if name == "all-empty":
        return _table(job, truth, np.zeros_like(truth[tested]))
    if name == "nearest-32-mask":
        from medbench.evaluation.baselines import nearest_neighbours

        train = np.flatnonzero((loaded.folds == TRAIN) & loaded.labelled)
        nearest = nearest_neighbours(job.images.thumbnails, train.tolist(), tested.tolist())
        return _table(job, truth, truth[train[nearest]])
    raise unknown_name("baseline", name, names("segmentation"))


def reference_masks(job: Job) -> Masks:
    """bool [N, S, S] of all samples, fitted into a square as the images are; read once."""
    from medbench.data.images import resize

    if job.masks is not None:
        return job.masks
    reader, size = job.loaded.dataset.reader, SIZE[job.cell.preset]
    if not isinstance(reader, Annotates):
        raise PluginError(
            f"The reader of dataset '{job.loaded.dataset.spec.name}' gives no masks, which task "
            f"'{job.cell.task.name}' needs."
        )
    masks = np.zeros((len(job.loaded.samples), size, size), bool)
    for row, sample in enumerate(job.loaded.samples):
        full = reader.mask(sample)
        if full.any():
            masks[row] = resize(full.astype(np.uint8) * 255, size) >= 128
    job.masks = masks
    return masks


def _patches(job: Job) -> list[torch.Tensor]:
    """Feature maps of all samples, finest first, each [N, D, h, h]: kept, and mapped from disk."""
    from safetensors.torch import load_file, save_file

    def build(payload: Path, _: Path) -> None:
        save_file(_encode(job), payload / "maps.safetensors")

    folder, _ = job.store.get("features", job.embedder().key("patches"), build)
    found = load_file(folder / "maps.safetensors")
    return [found[name] for name in sorted(found)]


def _encode(job: Job) -> dict[str, Any]:
    import torch

    from medbench.data.images import to_tensor
    from medbench.run.fit import guarded

    cell, total = job.cell, len(job.images)
    parts: list[list[torch.Tensor]] = []
    title = f"embed patches of {job.loaded.dataset.spec.name}"
    with job.reporter.stage(title, "embed") as advance:
        for start in range(0, total, cell.batch_size):
            rows = range(start, min(start + cell.batch_size, total))
            images = to_tensor(np.concatenate([job.images[i] for i in rows])).to(cell.device)
            with guarded(cell, "encode_patches"), torch.inference_mode():
                answer = job.model.model.encode_patches(images)
            maps = [answer] if isinstance(answer, torch.Tensor) else list(answer)
            for found in maps:
                _check(job, found, len(rows))
            parts.append([found.float().cpu() for found in maps])
            advance(rows.stop, total)
    return {
        f"map-{k}": torch.cat([part[k] for part in parts]).contiguous()
        for k in range(len(parts[0]))
    }


def _check(job: Job, answer: Any, expected: int) -> None:
    import torch

    good = (
        isinstance(answer, torch.Tensor)
        and answer.ndim == 4
        and len(answer) == expected
        and answer.shape[-1] == answer.shape[-2]
        and bool(torch.isfinite(answer).all())
    )
    if not good:
        raise PluginError(
            f"{job.cell.title}: encode_patches of model '{job.cell.model.name}' breaks its "
            f"contract: finite maps [B, D, h, h] of {expected} images are expected, not "
            f"{tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer)}."
        )


def _table(job: Job, truth: Masks, found: Masks) -> MaskPredictions:
    rows = job.loaded.tested
    return MaskPredictions(
        [job.loaded.samples[i].id for i in rows],
        [job.loaded.patients[i] for i in rows],
        truth[rows],
        found,
    )
