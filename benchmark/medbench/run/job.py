"""A cell at work: its data, its pixels, its fitted model, and where results are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from medbench.errors import UsageError
from medbench.run.load import Loaded, images_key
from medbench.run.reporter import Reporter
from medbench.run.request import RunSpec
from medbench.run.stores import Store, code_sha256
from medbench.schemas.record import Estimate
from medbench.schemas.specs import MetricSpec
from medbench.schemas.task import TaskSpec

if TYPE_CHECKING:
    from medbench.data.decoded import Decoded
    from medbench.evaluation.files import AnyPredictions
    from medbench.run.embed import Embedder
    from medbench.run.fit import Fitted


@dataclass
class Job:
    """What a task type's protocol works on. ``fitted`` is None until the model is trained;
    ``masks`` are the reference masks bool [N, S, S], once segmentation has read them;
    ``features`` float32 [T, D] of the tested samples, where the predictions come from such."""

    cell: RunSpec
    loaded: Loaded
    images: Decoded
    store: Store
    reporter: Reporter
    fitted: Fitted | None = None
    masks: npt.NDArray[np.bool_] | None = None
    features: npt.NDArray[np.float32] | None = None

    @property
    def model(self) -> Fitted:
        """The fitted model."""
        assert self.fitted is not None
        return self.fitted

    def embedder(self, rows: Sequence[int] | None = None) -> Embedder:
        """Embeds all samples, or those of some rows."""
        from medbench.run.embed import Embedder

        samples, images = self.loaded.samples, self.images
        if rows is not None:
            samples = [samples[i] for i in rows]
            images = images.take(samples)
        return Embedder(
            self.cell, self.loaded.dataset, samples, self.model, images, self.store, self.reporter
        )


class TaskProtocol(Protocol):
    """What a task type's module in this package has."""

    def predict(self, job: Job) -> AnyPredictions:
        """Predictions of the fitted model for every tested sample."""
        ...

    def baseline(self, job: Job, name: str) -> AnyPredictions:
        """Predictions of a trivial predictor for every tested sample."""
        ...


_MODULES = {
    "classification": "medbench.run.classification",
    "retrieval": "medbench.run.retrieval",
    "segmentation": "medbench.run.segmentation",
    "report-generation": "medbench.run.reports",
    "image-generation": "medbench.run.generation",
}


def protocol_of(task: TaskSpec) -> TaskProtocol:
    """How a task is run. Raises UsageError for a type that cannot be."""
    if task.type not in _MODULES:
        raise UsageError(f"Tasks of type {task.type} cannot be run by this version.")
    # a classifier trained on the model's images, or the model itself
    module = "medbench.run.augmentation" if task.synthetic else _MODULES[task.type]
    return cast("TaskProtocol", import_module(module))


def baselines(job: Job, specs: Sequence[MetricSpec]) -> dict[str, dict[str, Estimate]]:
    """The trivial predictors scored beside every model: baseline to metric to value."""
    from medbench.evaluation.score import baseline_estimates

    return {
        name: baseline_estimates(baseline_predictions(job, name), specs)
        for name in job.cell.task.baselines
    }


def baseline_predictions(job: Job, name: str) -> AnyPredictions:
    """Predictions of a baseline, computed once per data and division."""
    from medbench.evaluation.files import read_predictions
    from medbench.evaluation.report_predictions import ReportPredictions

    task = job.cell.task
    suffix = "parquet" if task.type in ("classification", "report-generation") else "npz"

    def build(payload: Path, _: Path) -> None:
        table = protocol_of(task).baseline(job, name)
        table.write(payload / f"predictions.{suffix}")

    key = baseline_key(job.cell, job.loaded, job.images, name)
    folder, _ = job.store.get("baselines", key, build)
    table = read_predictions(folder / f"predictions.{suffix}", task.type, task.multiclass)
    if isinstance(table, ReportPredictions):
        from medbench.run.reports import with_vocabulary

        return with_vocabulary(job, table)
    return table


def baseline_key(cell: RunSpec, loaded: Loaded, images: Decoded, name: str) -> dict[str, Any]:
    """Everything that determines a baseline's predictions."""
    from medbench.run.records import written_by

    return {
        "baseline": name,
        "task": cell.task.sha256,
        "protocol": cell.protocol,
        "fraction": [cell.fraction, cell.seed if cell.fraction < 1 else 0],
        "seed": cell.seed if cell.task.synthetic else 0,  # its baseline is trained
        "samples": loaded.manifest.sha256,
        "images": images_key(loaded.dataset, images.size, loaded.samples),
        **written_by(cell, loaded),
        "code": {name: code_sha256(name) for name in ("medbench.evaluation", "medbench.run")},
    }
