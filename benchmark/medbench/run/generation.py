"""Image generation: images for the tested prompts, beside the tested real images.

Real and generated images are compared at one size, `SIZE`, whatever a model draws at. On phantoms
they are judged by networks trained here on the training part (`medbench.run.judges`); on real data
by those whose weights the user has, when the metrics ask for them. Where the task names a writer,
a generator of reports reads the images instead (`medbench.run.writer`), on phantoms and real data.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from medbench.data.splits import TRAIN
from medbench.errors import DataError, PluginError, unknown_name
from medbench.evaluation.baseline_cards import names
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.run.back_off import BackOff
from medbench.run.job import Job

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
#: Side of the images that are compared, whatever size a model draws at.
SIZE = {"tiny": 64, "small": 128, "paper": 512}


def predict(job: Job) -> ImagePredictions:
    """``generate_images`` for the prompt of every tested image, with a seed for each image."""
    cell, loaded = job.cell, job.loaded
    owners = np.repeat(loaded.tested, cell.task.per_prompt)
    made = generate(job, owners, SIZE[cell.preset])
    asked = np.repeat(np.arange(len(loaded.tested)), cell.task.per_prompt)
    return _judged(job, made, asked)


def baseline(job: Job, name: str) -> ImagePredictions:
    """Images of a trivial generator."""
    loaded, size = job.loaded, SIZE[job.cell.preset]
    everyone = np.arange(len(loaded.tested))
    real = pixels(job, loaded.tested, size)
    if name == "real":
        return _judged(job, real, everyone)
    if name == "real-versus-real":
        return _judged(job, real, everyone).halves()
    if name == "noise":
        train = pixels(job, np.flatnonzero(loaded.folds == TRAIN)[:500], size)
        level, spread = float(train.mean()), float(train.std())
        drawn = np.random.default_rng(0).normal(level, spread, real.shape)
        return _judged(job, drawn.clip(0, 255).round().astype(np.uint8), everyone)
    if name == "nearest-prompt":
        from medbench.evaluation.nearest_prompt import nearest_texts

        told = with_reports(job, np.flatnonzero(loaded.folds == TRAIN))
        prompts = [prompt_of(job, row) for row in loaded.tested.tolist()]
        found = told[nearest_texts(prompts, [prompt_of(job, row) for row in told.tolist()])]
        return _judged(job, pixels(job, found, size), everyone)
    raise unknown_name("baseline", name, names("image-generation"))


def prompt_of(job: Job, row: int) -> str:
    """The impression of a sample's report, or the report where it has none."""
    sample = job.loaded.samples[row]
    text = sample.sections.get("impression") or sample.text or ""
    if not text.strip():
        raise DataError(f"Sample '{sample.id}' of {job.loaded.dataset.root} has no report to draw.")
    return " ".join(text.split())


def with_reports(job: Job, rows: Rows) -> Rows:
    """Those of some rows that have a text to draw from."""
    samples = job.loaded.samples
    told = [
        row
        for row in rows.tolist()
        if (samples[row].sections.get("impression") or samples[row].text or "").strip()
    ]
    return np.array(told, np.int64)


def seed_of(job: Job, number: int) -> int:
    """The seed with which the run's image of this number is drawn."""
    return job.cell.seed * 1_000_003 + number


def generate(job: Job, owners: Rows, size: int, first: int = 0) -> Bytes:
    """uint8 [G, size, size], grey: image k from the prompt of sample ``owners[k]``, with a seed of
    its own, that of image ``first + k`` of the run. Raises PluginError where the model breaks its
    contract."""
    import torch

    from medbench.data.images import resize
    from medbench.run.fit import guarded

    cell = job.cell
    prompts = [prompt_of(job, row) for row in owners.tolist()]
    seeds = [seed_of(job, first + k) for k in range(len(prompts))]

    def drawn(texts: list[str], numbers: list[int], part: slice) -> Bytes:
        found = job.model.model.generate_images(texts[part], numbers[part])
        _check(job, found, len(texts[part]))
        grey: Bytes = (found.float().mean(1).clamp(0, 1) * 255).round().byte().cpu().numpy()
        return grey

    made: list[Bytes] = []
    back_off = BackOff(f"{cell.title}: generate_images", job.reporter.say)
    title = f"generate images for {job.loaded.dataset.spec.name}"
    with job.reporter.stage(title, "generate") as done:
        for start in range(0, len(prompts), cell.batch_size):
            part = slice(start, start + cell.batch_size)
            with guarded(cell, "generate_images"), torch.inference_mode():
                found = back_off(partial(drawn, prompts[part], seeds[part]), len(prompts[part]))
            made += [resize(picture, size) for grey in found for picture in grey]
            done(len(made), len(prompts))
    return np.stack(made)


def pixels(job: Job, rows: Rows, size: int) -> Bytes:
    """Real images of some rows, uint8 [R, size, size]."""
    from medbench.run.load import prepared_images

    images = job.images
    if images.size == size:
        return np.stack([images[row][0] for row in rows.tolist()])
    # of a phantom all, since its judges are trained on them; of real data what is asked for
    known = np.unique(rows)
    samples = [job.loaded.samples[row] for row in known.tolist()]
    wanted = job.loaded.samples if job.loaded.dataset.track == "phantom" else samples
    found = prepared_images(job.loaded.dataset, size, job.store, job.reporter, wanted)
    found = found.take(samples)
    return np.stack([found[at][0] for at in np.searchsorted(known, rows).tolist()])


def _judged(job: Job, made: Bytes, asked: Rows) -> ImagePredictions:
    """Images beside the tested real ones, with labels and whatever can judge them.

    ``asked`` int [G]: whose prompt an image was generated from, counted among the tested samples.
    """
    from medbench.run.judges import with_features, with_judgement, with_training

    loaded = job.loaded
    order = np.argsort(job.cell.task.label_names)
    y = loaded.y[loaded.tested][:, order]
    prompts = [prompt_of(job, row) for row in loaded.tested.tolist()]
    table = ImagePredictions(
        real=pixels(job, loaded.tested, SIZE[job.cell.preset]),
        generated=made,
        prompts=asked,
        real_patients=[loaded.patients[i] for i in loaded.tested.tolist()],
        label_names=tuple(np.array(job.cell.task.label_names)[order].tolist()),
        labels=y[asked],
        real_labels=y,
        real_prompts=np.arange(len(loaded.tested)),
        prompt_texts=prompts,
    )
    if not table.label_names:
        table = replace(table, labels=None, real_labels=None)
    if job.cell.writer is not None:
        from medbench.run.writer import with_written

        return with_written(job, table)
    if loaded.dataset.track == "real":
        return table
    return with_training(job, with_judgement(job, with_features(job, table), prompts))


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
