"""Report generation: a report per tested study, from its images.

A model that writes reports writes them. One that only encodes images looks them up: each tested
study gets the report of the training study whose image features are nearest to its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medbench.data.samples import Sample
from medbench.data.splits import TRAIN
from medbench.errors import DataError, PluginError, unknown_name
from medbench.evaluation.baseline_cards import names
from medbench.evaluation.report_attention import Attention
from medbench.evaluation.report_cases import attended
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.run.back_off import BackOff
from medbench.run.embed import Features
from medbench.run.job import Job
from medbench.run.reporter import Reporter
from medbench.run.request import RunSpec

if TYPE_CHECKING:
    import torch

#: Views of a study in the order in which a model is given them.
_ORDER = ("PA", "AP", "frontal", None, "lateral")

LOOKED_UP = "reports are those of the nearest training study in the model's image features"


def predict(job: Job) -> ReportPredictions:
    """A report of every tested study: written by the model, or looked up in its features."""
    todo = studies(job.loaded.samples, job.loaded.tested.tolist())
    if "generate_reports" not in job.cell.capabilities:
        return _table(job, todo, _looked_up(job, todo))
    title = f"generate reports of {job.loaded.dataset.spec.name}"
    texts = write_reports(
        job.cell,
        job.model.model,
        len(todo),
        lambda part: _views(job, todo[part]),
        title,
        job.reporter,
    )
    table = _table(job, todo, texts)
    if not hasattr(job.model.model, "explain_reports"):
        return table
    rows = attended(table)
    told = _explained(job, [todo[row] for row in rows])
    return replace(table, attention=Attention.of([table.sample_ids[row] for row in rows], told))


def write_reports(
    cell: RunSpec,
    model: Any,
    count: int,
    views: Callable[[slice], tuple[torch.Tensor, torch.Tensor]],
    title: str,
    reporter: Reporter,
) -> list[str]:
    """What ``generate_reports`` gives for some studies, batch by batch.

    Args:
        cell: whose model it is, with its batch size.
        model: fitted, on the cell's device.
        count: number of studies.
        views: gives of some of them images float32 [B, V, 3, H, W] in [0, 1] and the mask
            bool [B, V] of those that exist, on the cell's device.
        title: of the work, for people.
        reporter: is told how it goes.

    Raises:
        CellError: the model raised.
        PluginError: it gave something else than a text for each study.
    """
    import torch

    from medbench.run.fit import guarded

    def written(start: int, part: slice) -> list[str]:
        found = list(model.generate_reports(*views(slice(start + part.start, start + part.stop))))
        expected = part.stop - part.start
        if len(found) != expected or not all(isinstance(text, str) for text in found):
            raise PluginError(
                f"{cell.title}: generate_reports of model '{cell.model.name}' breaks its "
                f"contract: {len(found)} answers for {expected} studies, or not texts."
            )
        return found

    texts: list[str] = []
    back_off = BackOff(f"{cell.title}: generate_reports", reporter.say)
    with reporter.stage(title, "generate") as done:
        for start in range(0, count, cell.batch_size):
            with guarded(cell, "generate_reports"), torch.inference_mode():
                found = back_off(partial(written, start), min(cell.batch_size, count - start))
            texts += [text for some in found for text in some]
            done(len(texts), count)
    return texts


def _explained(
    job: Job, todo: Sequence[Sequence[int]]
) -> list[tuple[list[str], npt.NDArray[np.float16]]]:
    """What ``explain_reports`` gives: of each study L words and float16 [L, V, h, w]."""
    import torch

    from medbench.run.fit import guarded

    cell = job.cell
    told: list[tuple[list[str], npt.NDArray[np.float16]]] = []
    for study in todo:  # one at a time: attention is large, and these are few
        with guarded(cell, "explain_reports"), torch.inference_mode():
            ((words, weights),) = job.model.model.explain_reports(*_views(job, [study]))
            kept = torch.as_tensor(weights).half().cpu().numpy()
        if kept.ndim != 4 or kept.shape[:2] != (len(words), len(study)):
            raise PluginError(
                f"{cell.title}: explain_reports of model '{cell.model.name}' breaks its contract: "
                f"attention of shape {kept.shape} for {len(words)} words and {len(study)} views; "
                "[L, V, h, w] is expected."
            )
        told.append(([str(word) for word in words], kept))
    return told


def _views(job: Job, some: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 [B, V, 3, H, W] and mask bool [B, V] of some studies, on the cell's device."""
    import torch

    from medbench.data.images import to_tensor

    views, size = max(map(len, some)), job.images.size
    images = torch.zeros(len(some), views, 3, size, size)
    mask = torch.zeros(len(some), views, dtype=torch.bool)
    for row, study in enumerate(some):
        images[row, : len(study)] = to_tensor(np.concatenate([job.images[i][:1] for i in study]))
        mask[row, : len(study)] = True
    return images.to(job.cell.device), mask.to(job.cell.device)


def _looked_up(job: Job, todo: Sequence[Sequence[int]]) -> list[str]:
    """The report of the training study nearest to each, in the model's image features."""
    train = _training(job)
    rows = sorted(i for study in (*train, *todo) for i in study)
    place = {row: k for k, row in enumerate(rows)}
    features = job.embedder(rows).embeddings()
    nearest = nearest_studies(
        features,
        [[place[i] for i in study] for study in train],
        [[place[i] for i in study] for study in todo],
    )
    job.model.notes.append(LOOKED_UP)
    return [job.loaded.samples[train[k][0]].text or "" for k in nearest]


def nearest_studies(
    features: Features, train: Sequence[Sequence[int]], tested: Sequence[Sequence[int]]
) -> list[int]:
    """For each tested study the *position in* ``train`` of the nearest study, by cosine.

    Args:
        features: float [N, D], a row per view; a row of zeros is nobody's neighbour.
        train: the rows of each study to choose from; the first of equally near ones is taken.
        tested: the rows of each study to find a neighbour for.

    A study is the mean of its views' features, each of length 1.
    """
    candidates, found = _mean_views(features, train).T, list[int]()
    for start in range(0, len(tested), 256):  # memory: 256 rows of cosines at a time
        some = _mean_views(features, tested[start : start + 256])
        # rounded, so that equal studies tie whatever the order of the sums
        found += (some @ candidates).round(9).argmax(axis=1).tolist()
    return found


def _mean_views(features: Features, groups: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """float64 [S, D], each row of length 1, or 0."""
    unit = _unit(features.astype(np.float64))
    return _unit(np.stack([unit[list(rows)].mean(axis=0) for rows in groups]))


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    found: npt.NDArray[np.float64] = np.divide(
        rows, length, out=np.zeros_like(rows), where=length > 0
    )
    return found


def baseline(job: Job, name: str) -> ReportPredictions:
    """Reports of a trivial predictor, which has read the training part alone."""
    loaded = job.loaded
    train = [study[0] for study in _training(job)]
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


def _training(job: Job) -> list[list[int]]:
    """Rows of each training study whose report may be used. Raises DataError without any."""
    loaded = job.loaded
    rows = np.flatnonzero((loaded.folds == TRAIN) & loaded.labelled).tolist()
    if not rows:
        raise DataError(f"Task '{job.cell.task.name}' has no training reports.")
    return studies(loaded.samples, rows)


def studies(samples: Sequence[Sample], rows: Sequence[int]) -> list[list[int]]:
    """Rows grouped by study, in order of first sight; frontal views first within one."""
    groups: dict[str, list[int]] = {}
    for i in rows:
        groups.setdefault(samples[i].study or samples[i].id, []).append(i)
    return [sorted(group, key=lambda i: _ORDER.index(samples[i].view)) for group in groups.values()]


def with_vocabulary(job: Job, table: ReportPredictions) -> ReportPredictions:
    """The table with what the training reports are needed for: the words that the R2Gen convention
    keeps, since they occur often enough, and the length at which it cuts, as the task says; and
    by what copies are known."""
    from medbench.metrics.captioning import r2gen_vocabulary
    from medbench.metrics.report_wording import fingerprints

    samples, folds = job.loaded.samples, job.loaded.folds
    train = studies(samples, np.flatnonzero(folds == TRAIN).tolist())
    reports = [samples[study[0]].text or "" for study in train]
    return replace(
        table,
        vocabulary=frozenset(r2gen_vocabulary(reports, job.cell.task.min_frequency)),
        max_length=job.cell.task.max_length,
        training=fingerprints(reports),
    )


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
