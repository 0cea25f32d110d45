"""The features that a task's protocol will ask for: told before they are made, and made alone.

A sweep makes what several cells share once and first. Cells that differ in labels, fraction or
pooling share the embeddings of the same images.
"""

from __future__ import annotations

from typing import Any, Literal

from medbench.run.job import Job
from medbench.run.request import RunSpec

#: ``slices``: of every slice of all samples; ``samples``: of whole volumes; ``tested``: of the
#: tested samples alone; ``texts``; ``patches``: feature maps. Empty: none that are kept.
Kind = Literal["slices", "samples", "tested", "texts", "patches", ""]


def kind_of(cell: RunSpec, model: Any) -> Kind:
    """Which features the cell's protocol keeps; see `medbench.run.job.protocol_of`."""
    task = cell.task
    if cell.baseline or task.synthetic is not None or cell.adaptation == "fine-tune":
        return ""
    if task.type == "segmentation":
        return "patches"
    if task.type == "retrieval" or cell.adaptation == "zero-shot":
        return "tested"
    if task.type != "classification":
        return ""
    if task.input == "text":
        return "texts"
    pooled = task.unit == "image" or hasattr(model, "pool_slices")
    return "slices" if pooled else "samples"


def deciding_stages(cell: RunSpec, model: Any, kind: Kind) -> tuple[str, ...] | None:
    """The training stages that decide those features; None: all. Slice embeddings depend on those
    that the model names in ``image_stages``."""
    alone = kind == "slices" or (kind == "tested" and cell.task.unit == "image")
    return tuple(model.image_stages) if alone and hasattr(model, "image_stages") else None


def keep_features(job: Job) -> None:
    """Make the features of a cell, and what they need, and keep them in the store."""
    from medbench.run import classification, segmentation
    from medbench.run.fit import construct, fit

    cell = job.cell
    model = construct(cell)
    kind = kind_of(cell, model)
    only = deciding_stages(cell, model, kind)
    job.fitted = fit(cell, job.loaded, job.store, job.reporter, only)
    if kind == "slices":
        job.embedder().embeddings()
    elif kind == "samples":
        job.embedder().features()
    elif kind == "tested":
        classification.tested_features(job)
    elif kind == "texts":
        classification.impression_features(job)
    elif kind == "patches":
        segmentation.feature_maps(job)
