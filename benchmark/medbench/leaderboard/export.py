"""Records for other tools: tidy tables, and Hugging Face's model-index blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from medbench.leaderboard.collect import Entry
from medbench.schemas.record import Estimate, MetricValue

if TYPE_CHECKING:
    import pandas as pd

#: Task type to what the Hub calls it.
HUB_TASKS = {
    "classification": "image-classification",
    "report-generation": "image-to-text",
    "segmentation": "image-segmentation",
    "retrieval": "image-text-retrieval",
    "image-generation": "text-to-image",
}


def tidy(entries: Iterable[Entry]) -> pd.DataFrame:
    """One row per record, predictor, metric and label.

    ``predictor`` is "model" or the name of a baseline; ``label`` is empty for the metric itself and
    else one of the labels it is the mean of. ``unranked`` has the reasons why a leaderboard gives
    no rank, separated by spaces. What a record does not have is missing (NaN).
    """
    import pandas as pd

    return pd.DataFrame([row for entry in entries for row in _rows(entry)])


def _rows(entry: Entry) -> Iterable[dict[str, Any]]:
    record = entry.record
    of_record = {
        "model": record.model_id,
        "preset": record.model.preset,
        "plugin": record.model.plugin.distribution,
        "plugin_version": record.model.plugin.version,
        "parameters_total": record.model.parameters.total,
        "parameters_trainable": record.model.parameters.trainable,
        "task": record.task.name,
        "task_version": record.task.version,
        "task_type": record.task.type,
        "dataset": record.data.dataset,
        "track": record.data.track,
        "renderer": record.data.renderer,
        "protocol": record.protocol,
        "adaptation": record.adaptation,
        "fraction": record.fraction,
        "seed": record.seed,
        "precision": record.precision,
        "badge": entry.badge,
        "unranked": " ".join(entry.reasons),
        "flags": " ".join(record.flags),
        "train_seconds": record.timing.get("train_seconds"),
        "images_per_second": record.timing.get("images_per_second"),
        "peak_memory_mb": record.timing.get("peak_memory_mb"),
        "run_id": record.run_id,
        "manifest_sha256": record.data.manifest_sha256,
        "commit": record.environment.get("commit"),
    }

    def row(predictor: str, metric: str, label: str, found: Estimate) -> dict[str, Any]:
        known = record.metrics.get(metric)
        return of_record | {
            "predictor": predictor,
            "metric": metric,
            "metric_version": known.version if known else None,
            "higher_is_better": known.higher_is_better if known else None,
            "label": label,
            "value": found.value,
            "ci95_low": found.ci95[0],
            "ci95_high": found.ci95[1],
            "n": found.n,
        }

    for name, metric in record.metrics.items():
        yield row("model", name, "", metric)
        for label, found in (metric.per_label or {}).items():
            yield row("model", name, label, found)
    for baseline, metrics in record.baselines.items():
        for name, found in metrics.items():
            yield row(baseline, name, "", found)


def model_index(entries: Sequence[Entry]) -> str:
    """YAML for the head of a model card: a document per model, each with a ``model-index``.

    Every metric has its interval, its number of samples and the baselines beside it in its
    ``args``; the data's name says PHANTOM where it is one. Flagged runs say so.
    """
    from huggingface_hub import EvalResult, ModelCardData

    documents = []
    for model in sorted({entry.record.model_id for entry in entries}):
        results = [
            EvalResult(
                task_type=HUB_TASKS.get(entry.record.task.type, entry.record.task.type),
                task_name=entry.record.task.name,
                dataset_type=entry.record.data.dataset,
                dataset_name=_dataset_name(entry),
                # the Hub joins results of one dataset and takes the first's settings for all
                dataset_config=entry.record.run_id,
                dataset_split="test",
                dataset_revision=entry.record.data.manifest_sha256[:12],
                dataset_args=_settings(entry),
                metric_type=name,
                metric_name=name,
                metric_value=metric.value,
                metric_args=_metric_args(entry, name, metric),
                verified=False,
            )
            for entry in entries
            if entry.record.model_id == model
            for name, metric in entry.record.metrics.items()
        ]
        documents.append(ModelCardData(model_name=model, eval_results=results).to_yaml())
    return "\n---\n".join(documents) + "\n"


def _dataset_name(entry: Entry) -> str:
    data = entry.record.data
    return f"{data.dataset} (PHANTOM)" if data.track == "phantom" else data.dataset


def _settings(entry: Entry) -> dict[str, Any]:
    record = entry.record
    found: dict[str, Any] = {
        "preset": record.model.preset,
        "protocol": record.protocol,
        "adaptation": record.adaptation,
        "fraction": record.fraction,
        "seed": record.seed,
        "badge": entry.badge,
        "flags": list(record.flags),
    }
    return found


def _metric_args(entry: Entry, name: str, metric: MetricValue) -> dict[str, Any]:
    baselines = {
        baseline: {"value": values[name].value, "ci95": list(values[name].ci95)}
        for baseline, values in entry.record.baselines.items()
        if name in values
    }
    return {
        "ci95": list(metric.ci95),
        "n": metric.n,
        "higher_is_better": metric.higher_is_better,
        "baselines": baselines,
    }
