"""Report generation: a report per tested study, from its image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medbench.data.samples import Sample
from medbench.data.splits import TRAIN
from medbench.errors import DataError, PluginError, unknown_name
from medbench.evaluation.baseline_cards import names
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.run.job import Job

#: Views of a study in the order in which a model is given them.
_ORDER = ("PA", "AP", "frontal", None, "lateral")


def predict(job: Job) -> ReportPredictions:
    """What ``generate_reports`` gives for every tested study."""
    import torch

    from medbench.data.images import to_tensor
    from medbench.run.fit import guarded

    cell, loaded = job.cell, job.loaded
    todo = studies(loaded.samples, loaded.tested.tolist())
    texts: list[str] = []
    with job.reporter.stage(f"generate reports of {loaded.dataset.spec.name}", "generate") as done:
        for start in range(0, len(todo), cell.batch_size):
            some = todo[start : start + cell.batch_size]
            views = max(map(len, some))
            size = job.images.size
            images = torch.zeros(len(some), views, 3, size, size)
            mask = torch.zeros(len(some), views, dtype=torch.bool)
            for row, study in enumerate(some):
                pixels = np.concatenate([job.images[i][:1] for i in study])
                images[row, : len(study)] = to_tensor(pixels)
                mask[row, : len(study)] = True
            with guarded(cell, "generate_reports"), torch.inference_mode():
                found = job.model.model.generate_reports(
                    images.to(cell.device), mask.to(cell.device)
                )
            if len(found) != len(some) or not all(isinstance(text, str) for text in found):
                raise PluginError(
                    f"{cell.title}: generate_reports of model '{cell.model.name}' breaks its "
                    f"contract: {len(found)} answers for {len(some)} studies, or not texts."
                )
            texts += found
            done(len(texts), len(todo))
    return _table(job, todo, texts)


def baseline(job: Job, name: str) -> ReportPredictions:
    """Reports of a trivial predictor, which has read the training part alone."""
    loaded = job.loaded
    rows = np.flatnonzero((loaded.folds == TRAIN) & loaded.labelled).tolist()
    train = [study[0] for study in studies(loaded.samples, rows)]
    if not train:
        raise DataError(f"Task '{job.cell.task.name}' has no training reports.")
    reports = [loaded.samples[i].text or "" for i in train]
    tested = studies(loaded.samples, loaded.tested.tolist())
    if name == "most-frequent-report":
        return _table(job, tested, [_most_frequent(reports)] * len(tested))
    if name == "normal-report":
        from medbench.data.report_findings import read_report

        normal = [text for text in reports if read_report(text).labels["no-finding"] == 1]
        return _table(job, tested, [_most_frequent(normal or reports)] * len(tested))
    if name == "nearest-32-report":
        from medbench.evaluation.baselines import nearest_neighbours

        views = [study[0] for study in tested]
        nearest = nearest_neighbours(job.images.thumbnails, train, views)
        return _table(job, tested, [reports[i] for i in nearest])
    raise unknown_name("baseline", name, names("report-generation"))


def studies(samples: Sequence[Sample], rows: Sequence[int]) -> list[list[int]]:
    """Rows grouped by study, in order of first sight; frontal views first within one."""
    groups: dict[str, list[int]] = {}
    for i in rows:
        groups.setdefault(samples[i].study or samples[i].id, []).append(i)
    return [sorted(group, key=lambda i: _ORDER.index(samples[i].view)) for group in groups.values()]


def with_vocabulary(job: Job, table: ReportPredictions) -> ReportPredictions:
    """The table with what the R2Gen convention needs: the words of the training reports that occur
    often enough, and the length at which reports are cut, as the task says."""
    from medbench.metrics.captioning import r2gen_vocabulary

    samples, folds = job.loaded.samples, job.loaded.folds
    train = studies(samples, np.flatnonzero(folds == TRAIN).tolist())
    words = r2gen_vocabulary(
        [samples[study[0]].text or "" for study in train], job.cell.task.min_frequency
    )
    return replace(table, vocabulary=frozenset(words), max_length=job.cell.task.max_length)


def _table(job: Job, todo: Sequence[Sequence[int]], texts: Sequence[str]) -> ReportPredictions:
    samples, patients = job.loaded.samples, job.loaded.patients
    table = ReportPredictions(
        [samples[study[0]].study or samples[study[0]].id for study in todo],
        [patients[study[0]] for study in todo],
        [samples[study[0]].text or "" for study in todo],
        texts,
    )
    return with_vocabulary(job, table)


def _most_frequent(reports: Sequence[str]) -> str:
    counts = Counter(reports)
    # the first in the alphabet of equally frequent ones, so that order does not matter
    return min(counts, key=lambda text: (-counts[text], text))
