"""Retrieval: every tested image against every text, and the reverse."""

from __future__ import annotations

import numpy as np

from medbench.errors import DataError, unknown_name
from medbench.evaluation.baseline_cards import names
from medbench.evaluation.retrieval_predictions import Groups, RetrievalPredictions
from medbench.run.classification import tested_features
from medbench.run.embed import text_features
from medbench.run.job import Job


def predict(job: Job) -> RetrievalPredictions:
    """Embeddings of the tested images and of the texts they are matched with."""
    texts, image_group, text_group, owners = _gallery(job)
    return RetrievalPredictions(
        tested_features(job).astype(np.float64),
        text_features(job.cell, job.model, texts).astype(np.float64),
        image_group,
        text_group,
        owners,
    )


def baseline(job: Job, name: str) -> RetrievalPredictions:
    """``chance``: every candidate ties."""
    if name != "chance":
        raise unknown_name("baseline", name, names("retrieval"))
    texts, image_group, text_group, owners = _gallery(job)
    return RetrievalPredictions(
        np.ones((len(image_group), 1)), np.ones((len(texts), 1)), image_group, text_group, owners
    )


def _gallery(job: Job) -> tuple[list[str], Groups, Groups, list[str]]:
    """Texts [M], the group of each image [N] and text [M], and the patient of each image [N].

    By the task's ``match``: ``text``: each different report is one text, and reports of equal words
    are one group, since a hit on an equal text is a hit. ``class``: each image's report, of the
    group of its class. ``label``: one text per class.
    """
    loaded, task = job.loaded, job.cell.task
    rows = loaded.tested.tolist()
    owners = [loaded.patients[i] for i in rows]
    if task.match == "label":
        groups = loaded.y[rows].argmax(axis=1)
        names = [f"{task.region} {task.modality}, {label.text}" for label in task.labels]
        return names, groups, np.arange(len(names)), owners
    reports = [loaded.samples[i].text or "" for i in rows]
    empty = [
        loaded.samples[i].id for i, text in zip(rows, reports, strict=True) if not text.strip()
    ]
    if empty:
        raise DataError(
            f"{len(empty):,} samples of {loaded.dataset.root}, such as '{empty[0]}', have no text, "
            f"which task '{task.name}' matches images with."
        )
    if task.match == "class":
        groups = loaded.y[rows].argmax(axis=1)
        return reports, groups, groups, owners
    texts = list(dict.fromkeys(" ".join(text.split()) for text in reports))
    number = {text: i for i, text in enumerate(texts)}
    image_group = np.array([number[" ".join(text.split())] for text in reports])
    return texts, image_group, np.arange(len(texts)), owners
