"""Segmentation: frozen patch features, one decoder for every model, a mask per tested image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medbench.data.samples import Annotates
from medbench.data.splits import TRAIN, VAL
from medbench.errors import DataError, PluginError, unknown_name
from medbench.evaluation.baseline_cards import names
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.run.back_off import BackOff
from medbench.run.job import Job
from medbench.run.stores import code_sha256

if TYPE_CHECKING:
    import torch

    from medbench.evaluation.segmentation import MapsOf, Schedule

Masks = npt.NDArray[np.bool_]
#: Side of the masks that are compared, whatever size a model sees.
SIZE = {"tiny": 64, "small": 128, "paper": 224}
#: Feature maps of all images are kept on disk up to this size in bytes.
LARGEST = 32 * 2**30


def predict(job: Job) -> MaskPredictions:
    """Masks of the tested images; they are kept, since training the decoder is what takes time."""
    from safetensors.numpy import load_file

    loaded, cell = job.loaded, job.cell
    truth = reference_masks(job)
    if not (loaded.folds == VAL).any():
        raise DataError(f"Task '{cell.task.name}' has no validation part to stop training by.")
    schedule = schedule_of(cell.preset)
    key = job.embedder().key("patches") | {
        "what": "masks",
        "schedule": asdict(schedule),
        "masks": hashlib.sha256(np.packbits(truth).tobytes()).hexdigest(),
        "side": truth.shape[-1],
        "division": loaded.manifest.sha256,
        "task": [cell.task.sha256, cell.protocol],
        "fraction": cell.fraction,
        "decoder": code_sha256("medbench.evaluation"),
    }

    def build(payload: Path, _: Path) -> None:
        _train(job, truth, schedule, payload / "masks.safetensors")

    folder, _ = job.store.get("segmented", key, build)
    kept = load_file(folder / "masks.safetensors")
    job.model.notes.append(f"decoder: {int(kept['parameters'][0]):,} parameters")
    shape = (len(loaded.tested), *truth.shape[1:])
    found = np.unpackbits(kept["masks"], count=int(np.prod(shape))).reshape(shape).astype(bool)
    return _table(job, truth, found)


def schedule_of(preset: str) -> Schedule:
    """How the decoder is trained at a preset: as published at ``paper``.

    At ``tiny`` and ``small`` maps are small and images few, so a narrower decoder learns from
    larger batches for fewer epochs (assumed).
    """
    from medbench.evaluation.segmentation import Schedule

    if preset == "paper":
        return Schedule()
    if preset == "small":
        return Schedule(width=128, epochs=30, patience=5, batch=32)
    return Schedule(width=64, epochs=15, patience=3, batch=32, coarser=2)


def _train(job: Job, truth: Masks, schedule: Schedule, path: Path) -> None:
    """Train the decoder, and write the masks of the tested images and its parameters' number."""
    import torch
    from safetensors.numpy import save_file

    from medbench.evaluation.segmentation import predict_masks, train_decoder

    loaded, cell, maps = job.loaded, job.cell, feature_maps(job)
    device = torch.device(cell.device)
    autocast = partial(torch.autocast, device.type, torch.bfloat16, cell.precision == "bf16")
    with job.reporter.stage("segmentation decoder", "decoder") as advance:
        decoder, _ = train_decoder(
            maps,
            torch.from_numpy(truth),
            torch.from_numpy(np.flatnonzero((loaded.folds == TRAIN) & loaded.labelled)),
            torch.from_numpy(np.flatnonzero(loaded.folds == VAL)),
            cell.seed,
            device,
            schedule,
            image=job.images.size,
            autocast=autocast,
            advance=lambda done, total, **_: advance(done, total),
        )
    tested = torch.from_numpy(loaded.tested)
    found = predict_masks(decoder, maps, tested, device, autocast=autocast)
    save_file(
        {
            "masks": np.packbits(found.numpy()),
            "parameters": np.array([sum(p.numel() for p in decoder.parameters())]),
        },
        path,
    )


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


def feature_maps(job: Job) -> MapsOf:
    """Rows to their feature maps, finest first, float16 at ``paper``, else float32.

    They are written once and mapped from disk, so that memory holds a batch; where those of all
    images would take more than `LARGEST` bytes, they are encoded anew for each batch.
    """
    import torch

    cell, total = job.cell, len(job.images)
    back_off = BackOff(f"{cell.title}: encode_patches", job.reporter.say)
    kind = np.float16 if cell.preset == "paper" else np.float32

    def encoded(rows: torch.Tensor) -> list[torch.Tensor]:
        return _encode(job, rows.tolist(), back_off)

    def build(payload: Path, _: Path) -> None:
        files: list[npt.NDArray[Any]] = []
        title = f"embed patches of {job.loaded.dataset.spec.name}"
        with job.reporter.stage(title, "embed") as advance:
            for start in range(0, total, cell.batch_size):
                part = range(start, min(start + cell.batch_size, total))
                for k, found in enumerate(_encode(job, part, back_off)):
                    if not start:
                        shape, name = (total, *found.shape[1:]), payload / f"map-{k}.npy"
                        files.append(np.lib.format.open_memmap(name, "w+", kind, shape))
                    # a feature beyond half precision stays the largest there is
                    bound = float(np.finfo(kind).max)
                    files[k][start : part.stop] = found.clamp(-bound, bound).cpu().numpy()
                advance(part.stop, total)
        for file in files:
            file.flush()  # type: ignore[attr-defined]

    one = sum(found.numel() for found in _encode(job, range(1), back_off))
    if one * total * np.dtype(kind).itemsize > LARGEST:
        job.reporter.say("  feature maps are too many to be kept: encoded for each batch")
        return encoded
    key = job.embedder().key("patches") | {"kept": np.dtype(kind).name}
    folder, _ = job.store.get("features", key, build)
    mapped = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("map-*.npy"))]
    return lambda rows: [torch.from_numpy(found[rows.numpy()]) for found in mapped]


def _encode(job: Job, rows: Sequence[int], back_off: BackOff) -> list[torch.Tensor]:
    """``encode_patches`` of some rows, held against its contract: float32 maps on the device."""
    import torch

    from medbench.data.images import joined, to_unit
    from medbench.run.fit import guarded

    cell = job.cell
    pixels = joined([job.images[i] for i in rows])
    autocast = torch.autocast(
        cell.device.partition(":")[0], torch.bfloat16, cell.precision == "bf16"
    )

    def encoded(part: slice) -> list[torch.Tensor]:
        answer = job.model.model.encode_patches(to_unit(pixels[part].to(cell.device)))
        maps = [answer] if isinstance(answer, torch.Tensor) else list(answer)
        for found in maps:
            _check(job, found, part.stop - part.start)
        return [found.float() for found in maps]

    # no inference mode: the decoder trains on these, and it cannot on inference tensors
    with guarded(cell, "encode_patches"), torch.no_grad(), autocast:
        parts = back_off(encoded, len(rows))
    return parts[0] if len(parts) == 1 else [torch.cat(maps) for maps in zip(*parts, strict=True)]


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
