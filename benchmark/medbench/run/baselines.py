"""The trivial predictors scored beside every model, each computed once per data and division."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medbench.evaluation.predictions import ClassPredictions
from medbench.run.load import Loaded, images_key
from medbench.run.request import RunSpec
from medbench.run.stores import Store, code_sha256
from medbench.schemas.record import Estimate
from medbench.schemas.specs import MetricSpec

if TYPE_CHECKING:
    from medbench.data.decoded import Decoded

TABLE = "predictions.parquet"


def baselines(
    cell: RunSpec, loaded: Loaded, images: Decoded, specs: Sequence[MetricSpec], store: Store
) -> dict[str, dict[str, Estimate]]:
    """Baseline name to metric name to value with interval."""
    from medbench.evaluation.baselines import baseline_scores
    from medbench.evaluation.score import baseline_estimates

    found = {}
    for name in cell.task.baselines:

        def build(payload: Path, _: Path, name: str = name) -> None:
            scores = baseline_scores(
                name,
                y=loaded.y,
                folds=loaded.folds,
                patients=loaded.patients,
                multiclass=cell.task.multiclass,
                thumbnails=images.thumbnails,
            )
            ClassPredictions(
                sample_ids=[sample.id for sample in loaded.samples],
                patients=loaded.patients,
                labels=cell.task.label_names,
                y=loaded.y,
                scores=scores,
                multiclass=cell.task.multiclass,
            ).write(payload / TABLE)

        folder, _ = store.get("baselines", baseline_key(cell, loaded, images, name), build)
        predictions = ClassPredictions.read(folder / TABLE, cell.task.multiclass)
        found[name] = baseline_estimates(predictions, specs)
    return found


def baseline_key(cell: RunSpec, loaded: Loaded, images: Decoded, name: str) -> dict[str, Any]:
    """Everything that determines a baseline's predictions."""
    return {
        "baseline": name,
        "task": cell.task.sha256,
        "protocol": cell.protocol,
        "images": images_key(loaded, images.size),
        "code": code_sha256("medbench.evaluation"),
    }
