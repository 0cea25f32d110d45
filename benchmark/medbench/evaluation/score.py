"""Scoring: a pure function from predictions to metrics with patient-clustered intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np

from medbench.errors import MedbenchError, PluginError
from medbench.evaluation.predictions import ClassPredictions
from medbench.metrics.cards import card_sha256
from medbench.metrics.values import FloatArray, Values
from medbench.schemas.record import Estimate, MetricValue
from medbench.schemas.specs import MetricSpec
from medbench.statistics.bootstrap import (
    RESAMPLES,
    SEED,
    content_clusters,
    interval,
    patient_weights,
    undefined,
)

MetricFunction = Callable[[Any, FloatArray], Values]


class Table(Protocol):
    """Predictions beside their references, of any task type, as scoring needs them."""

    @property
    def patients(self) -> Sequence[str]:
        """[n] cluster of each thing that is weighted."""
        ...

    @property
    def content(self) -> FloatArray:
        """float [n, C]: stands for everything that a metric reads of it."""
        ...

    def support(self, metric: str | None = None) -> int:
        """How many samples a metric is taken over."""
        ...


@dataclass(frozen=True)
class Scored:
    """Metrics by name, and why others are absent."""

    metrics: dict[str, MetricValue]
    notes: list[str]


def metric_function(spec: MetricSpec) -> MetricFunction:
    """Import the function a spec names. Raises PluginError naming the metric."""
    module, _, name = spec.function.partition(":")
    try:
        return cast(MetricFunction, getattr(import_module(module), name))
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"Metric '{spec.name}' names the function {spec.function}, which cannot be imported: "
            f"{error}."
        ) from error


def evaluate(spec: MetricSpec, table: Any, weights: FloatArray) -> Values:
    """Call a metric and hold it to its contract: float [B], and [B] per label.

    Raises PluginError naming the metric when it raises or gives something else.
    """
    function = metric_function(spec)
    try:
        values = function(table, weights)
    except MedbenchError:
        raise
    except Exception as error:
        raise PluginError(
            f"Metric '{spec.name}' ({spec.function}) raised {type(error).__name__}: {error}."
        ) from error
    if not isinstance(values, Values):
        raise PluginError(f"Metric '{spec.name}' gave {type(values).__name__}, not Values.")
    if values.interval is not None:
        if np.shape(values.value) == () or not np.isfinite(values.value[:1]).all():
            raise PluginError(f"Metric '{spec.name}' gave an interval and no value.")
        return values
    for array in (values.value, *(values.per_label or {}).values()):
        if np.shape(array) != (len(weights),) or np.isinf(array).any():
            raise PluginError(
                f"Metric '{spec.name}' gave an array of shape {np.shape(array)}, not one finite "
                f"value or NaN for each of the {len(weights)} rows of weights."
            )
    return values


def with_ones(weights: FloatArray) -> FloatArray:
    """[B, N] -> [1 + B, N]: the whole table first, then its resamples; stored by sample."""
    joined = np.empty((weights.shape[1], weights.shape[0] + 1))
    joined[:, 0] = 1.0
    joined[:, 1:] = weights.T
    return joined.T


def score(
    predictions: Table,
    specs: Sequence[MetricSpec],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Scored:
    """Every metric with its 95 % interval; an undefined one is absent, with a note.

    All metrics share one matrix of resamples. The result depends on the content of the table
    only: not on the order of rows, nor on whether it carries ids or keys.

    Raises PluginError when a metric cannot be imported or breaks its contract.
    """
    clusters = content_clusters(predictions.patients, predictions.content)
    weights = with_ones(patient_weights(clusters, resamples, seed))
    counts: dict[str, int] = {}
    if isinstance(predictions, ClassPredictions):
        scored = (~np.isnan(predictions.y)).sum(axis=0).tolist()
        counts = dict(zip(predictions.labels, scored, strict=True))
    metrics: dict[str, MetricValue] = {}
    notes: list[str] = []
    if len(set(predictions.patients)) == 1:
        notes.append("all samples are of one patient: intervals say nothing")
    for spec in specs:
        values = evaluate(spec, predictions, weights)
        total = predictions.support(spec.name)
        if values.interval is None:
            whole = estimated(values.value, total)
        else:
            whole = Estimate(value=float(values.value[0]), ci95=values.interval, n=total)
        if whole is None:
            notes.append(f"{spec.name} is absent: {values.reason or 'it is undefined here'}")
            continue
        if values.reason:
            notes.append(f"{spec.name}: {values.reason}")
        lost = 0 if values.interval else undefined(values.value[1:])
        if lost:
            notes.append(f"{spec.name}: undefined in {lost} of {resamples} resamples")
        per_label: dict[str, Estimate] | None = None
        if values.per_label is not None:
            behind = counts if values.label_counts is None else values.label_counts
            found = {n: estimated(v, behind.get(n, total)) for n, v in values.per_label.items()}
            per_label = {name: part for name, part in found.items() if part is not None}
        metrics[spec.name] = MetricValue(
            value=whole.value,
            ci95=whole.ci95,
            n=whole.n,
            higher_is_better=spec.higher_is_better,
            version=spec.version,
            card_sha256=card_sha256(spec),
            per_label=per_label,
        )
    return Scored(metrics, notes)


def baseline_estimates(
    predictions: Table,
    specs: Sequence[MetricSpec],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Estimate]:
    """The metrics of one baseline's predictions, as a record keeps them; undefined ones absent."""
    scored = score(predictions, specs, resamples=resamples, seed=seed)
    return {
        name: Estimate(value=metric.value, ci95=metric.ci95, n=metric.n)
        for name, metric in scored.metrics.items()
    }


def estimated(values: FloatArray, count: int) -> Estimate | None:
    """The first entry with the interval of the others; None when either is undefined."""
    low, high = interval(values[1:])
    if not np.isfinite([values[0], low, high]).all():
        return None
    return Estimate(value=float(values[0]), ci95=(low, high), n=count)
