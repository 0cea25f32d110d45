"""Reports of generated images by a generator of the harness, where a task names one as its writer.

The writer is a model like any other, but not the one under test: it is trained on the training part
of the task's own data, always with the same seed, and its checkpoints stand in the store like those
of a run. It reads each generated image alone, as a study of one view, at its own image size.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medbench.evaluation.image_predictions import ImagePredictions
from medbench.run.job import Job
from medbench.run.judges import PixelRows, reports_of_prompts
from medbench.run.records import brought, weights_data
from medbench.run.request import RunSpec
from medbench.run.stores import code_sha256, code_there, write_atomically
from medbench.schemas.contamination import contamination

if TYPE_CHECKING:
    import torch

    from medbench.run.fit import Fitted

Bytes = npt.NDArray[np.uint8]


def with_written(job: Job, table: ImagePredictions) -> ImagePredictions:
    """The table with what the task's writer says of each generated image, beside the reports of the
    prompts. Of a model under test, which is fitted, the notes say what the writer was made of."""
    assert table.generated is not None
    assert job.cell.writer is not None
    with _apart(job):
        fitted = _fitted(job, job.cell.writer)
        texts = _written(job, job.cell.writer, fitted, table.generated)
    if job.fitted is not None:
        job.fitted.notes += _notes(job.cell.writer, fitted, texts)
    return replace(table, reports=texts, prompt_reports=reports_of_prompts(job))


def _fitted(job: Job, writer: RunSpec) -> Fitted:
    """The writer, trained on every report of the training part, whatever ``--fraction`` leaves to
    the model under test."""
    from medbench.run.fit import fit

    loaded = replace(job.loaded, labelled=np.ones(len(job.loaded.samples), bool))
    return fit(writer, loaded, job.store, job.reporter)


def _written(job: Job, writer: RunSpec, fitted: Fitted, generated: Bytes) -> list[str]:
    """A report of each image uint8 [G, S, S]; those of a set of images are written once and kept.

    Raises CellError or PluginError where the writer fails.
    """
    import json

    import torch

    from medbench.data.images import resize
    from medbench.run.reports import write_reports

    def build(payload: Path, _: Path) -> None:
        size = int(fitted.model.image_size)
        pictures = PixelRows(np.stack([resize(picture, size) for picture in generated]))

        def views(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
            images = pictures.batch(np.arange(part.start, part.stop))[:, None].to(writer.device)
            return images, torch.ones(len(images), 1, dtype=torch.bool, device=writer.device)

        title = f"reports of {len(generated):,} images by {writer.model_id}"
        texts = write_reports(writer, fitted.model, len(generated), views, title, job.reporter)
        write_atomically(payload / "reports.json", json.dumps(texts))

    folder, _ = job.store.get("written", _key(writer, fitted, generated), build)
    texts: list[str] = json.loads((folder / "reports.json").read_text(encoding="utf-8"))
    return texts


def _key(writer: RunSpec, fitted: Fitted, generated: Bytes) -> dict[str, Any]:
    package = writer.plugin_package
    return {
        "writer": writer.model_id,
        "config": dict(writer.config_values),
        "checkpoint": fitted.checkpoint,
        "images": [list(generated.shape), hashlib.sha256(generated.tobytes()).hexdigest()],
        "batch": writer.batch_size,
        "precision": writer.precision,
        "device": writer.device.partition(":")[0],
        "code": {package: code_there(writer.model, package) or code_sha256(package)}
        | {name: code_sha256(name) for name in ("medbench.data", "medbench.run")},
    }


@contextmanager
def _apart(job: Job) -> Iterator[None]:
    """What is done meanwhile is no work of the model under test: its cost stands as ``writer`` in
    the cell's timing, and among no training."""
    store, reporter = job.store, job.reporter
    used, timing, done = dict(store.used), dict(reporter.timing), len(store.ledger.done)
    started = time.perf_counter()
    try:
        yield
    finally:
        store.used.clear()
        store.used.update(used)
        del store.ledger.done[done:]
        seconds = timing.get("writer", 0.0) + time.perf_counter() - started
        reporter.timing = timing | {"writer": round(seconds, 3)}


def _notes(writer: RunSpec, fitted: Fitted, texts: Sequence[str]) -> list[str]:
    """What the writer was made of, what it said in training, and whether it tells images apart."""
    parts = dict.fromkeys(f"{part['dataset']} ({part['track']})" for part in fitted.pretraining)
    name = writer.model_id
    notes = [
        f"{name} read the images with checkpoint {fitted.checkpoint}, trained on "
        f"{', '.join(parts) or 'nothing here'}",
        *(f"{name}: {note}" for note in fitted.notes),
        f"{name} wrote {len(set(texts)):,} different reports of {len(texts):,} images",
    ]
    if len(set(texts)) == 1 < len(texts):
        notes[-1] += ": it does not tell them apart, so the values say nothing of the images"
    if brought(writer):
        declared = weights_data(writer)
        seen = contamination(declared or (), writer.task, writer.protocol)
        if declared is None:
            notes.append(f"it is not declared what the weights of {name} were trained on")
        elif seen:
            notes.append(f"the weights of {name} may have seen tested images: {', '.join(seen)}")
    return notes
