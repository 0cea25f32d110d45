"""A metric by sex, age band and view of the tested samples, and the gap between best and worst.

Patients are resampled once and every group is scored on the same resamples, so that the interval
of a gap is right for groups that share patients, as views do. Source of the resamples: see
`medbench.statistics.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medbench.data.audit import OLDEST
from medbench.data.samples import Sample
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.score import estimated, evaluate, with_ones
from medbench.metrics.values import FloatArray, Values
from medbench.schemas.record import GROUPS, Attribute, Gap, Group, Subgroups
from medbench.schemas.specs import MetricSpec
from medbench.statistics.bootstrap import (
    RESAMPLES,
    SEED,
    content_clusters,
    interval,
    patient_weights,
    undefined,
)

#: A group of fewer patients is left out: with so few, percentile intervals are too narrow.
FEWEST = 20

#: What a page says above such tables.
ABOUT = (
    "The primary metric in groups of the tested samples, as each run states it, with 95 % "
    f"intervals over patients; groups of fewer than {FEWEST} patients are left out. A gap is that "
    "of the groups which are best and worst: it is never below 0, also where all groups are alike, "
    "and only an interval clear of 0 hints at more; of many such intervals some are clear of 0 by "
    "chance. Groups differ in their cases, too: a gap need not be the model's doing. On phantoms "
    "it says nothing of patients. Sex, age and view of samples are not published, so these figures "
    "are not derived again from published predictions."
)

#: Task types that are taken apart; embeddings and generated images have no one sample to a row.
Divisible = ClassPredictions | MaskPredictions | ReportPredictions

#: Group of each sample by attribute; None where the data do not say.
Membership = Mapping[Attribute, Sequence[Group | None]]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Found:
    """Attributes with two groups or more, and why others, or some of their groups, are absent."""

    subgroups: dict[Attribute, Subgroups]
    notes: list[str]


class _AbsentError(Exception):
    """Why an attribute has no gap."""


def membership(samples: Sequence[Sample], attributes: Sequence[Attribute]) -> Membership:
    """The groups of samples, as the dataset has their sex, age and view.

    Ages below 0 or above `medbench.data.audit.OLDEST` say nothing.
    """
    of: dict[Attribute, Callable[[Sample], Group | None]] = {
        "sex": lambda sample: sample.sex,
        "age": _band,
        "view": lambda sample: sample.view,
    }
    return {name: [of[name](sample) for sample in samples] for name in attributes}


def _band(sample: Sample) -> Group | None:
    if sample.age is None or not 0 <= sample.age <= OLDEST:
        return None
    return "under 40" if sample.age < 40 else "40-64" if sample.age < 65 else "65 and over"


def subgroups(
    table: Divisible,
    spec: MetricSpec,
    members: Membership,
    *,
    fewest: int = FEWEST,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Found:
    """The metric in each group that is large enough, and the gap of each attribute.

    Groups of an attribute are scored on the same labels: of a multi-label task those for which the
    metric is defined in every group; of a multiclass task a group without all classes is left out.
    The gap is that of the two groups that are best and worst on the whole table, in every resample:
    the largest minus the smallest of a resample would be biased upwards.

    Args:
        table: predictions of N samples.
        spec: the metric.
        members: per attribute the group of each of the N samples.
        fewest: patients that a group must have.
        resamples: of patients.
        seed: of the draws, which depend on the content of table and groups, not on order or names.

    Raises PluginError when the metric cannot be imported or breaks its contract.
    """
    scored = _scored(table, spec.name)
    codes = {
        name: np.array([-1 if group is None else GROUPS[name].index(group) for group in groups])
        for name, groups in members.items()
    }
    silent = [name for name, code in codes.items() if not (scored & (code >= 0)).any()]
    notes = [f"subgroups by {', '.join(silent)}: no tested sample says"] if silent else []
    told = [name for name in codes if name not in silent]
    if not told:
        return Found({}, notes)
    content = np.column_stack([table.content, *(codes[name] for name in told)])
    clusters = content_clusters(table.patients, content)
    weights = with_ones(patient_weights(clusters, resamples, seed))
    found: dict[Attribute, Subgroups] = {}
    for name in told:
        rows = {
            group: np.flatnonzero(scored & (codes[name] == code))
            for code, group in enumerate(GROUPS[name])
        }
        rows = {group: those for group, those in rows.items() if len(those)}
        remarks: list[str] = []
        if outside := int((scored & (codes[name] < 0)).sum()):
            remarks.append(f"{outside:,} samples do not say, and are in no group")
        try:
            _leave_out_small(table, rows, fewest, remarks)
            found[name] = _compare(table, spec, rows, weights, remarks)
        except _AbsentError as reason:
            remarks.append(f"absent: {reason}")
        notes += [f"subgroups by {name}: {'; '.join(remarks)}"] if remarks else []
    return Found(found, notes)


def _scored(table: Divisible, metric: str) -> npt.NDArray[np.bool_]:
    """bool [N]: the samples that ``table.support(metric)`` counts."""
    if isinstance(table, ClassPredictions):
        return np.asarray((~np.isnan(table.y)).any(axis=1))
    if isinstance(table, MaskPredictions) and metric == "dice-positive":
        return np.asarray(table.reference.any(axis=(1, 2)))
    return np.ones(len(table.patients), bool)


def _leave_out_small(
    table: Divisible, rows: dict[Group, Rows], fewest: int, remarks: list[str]
) -> None:
    for group, those in [*rows.items()]:
        patients = len({table.patients[i] for i in those})
        if patients < fewest:
            del rows[group]
            remarks.append(f"{group} left out, {patients} patients are fewer than {fewest}")


def _compare(
    table: Divisible,
    spec: MetricSpec,
    rows: dict[Group, Rows],
    weights: FloatArray,
    remarks: list[str],
) -> Subgroups:
    """Raises _AbsentError where no two groups can be compared."""
    labels = _comparable_labels(table, spec, rows, remarks)
    drawn: dict[Group, FloatArray] = {}
    estimates = {}
    for group, those in rows.items():
        part = table.take(those.tolist())
        if isinstance(part, ClassPredictions) and len(labels) < len(part.labels):
            part = _with_labels(part, labels)
        values = _evaluate(table, part, spec, those, weights)
        estimate = estimated(values.value, part.support(spec.name))
        if estimate is None:
            remarks.append(f"{group} left out, {values.reason or f'{spec.name} is undefined'}")
            continue
        drawn[group], estimates[group] = values.value, estimate
        if lost := undefined(values.value[1:]):
            remarks.append(f"{group} undefined in {lost} of {len(weights) - 1} resamples")
    if len(drawn) < 2:
        raise _AbsentError(f"{next(iter(drawn), 'no group')} alone is left")
    sign = 1 if spec.higher_is_better else -1
    ordered = sorted(drawn, key=lambda group: -sign * drawn[group][0])
    best, worst = ordered[0], ordered[-1]
    difference = sign * (drawn[best] - drawn[worst])
    ci95 = interval(difference[1:])
    if not np.isfinite(ci95).all():
        raise _AbsentError(f"no resample defines both {best} and {worst}")
    gap = Gap(value=float(difference[0]), ci95=ci95, between=(best, worst))
    return Subgroups(metric=spec.name, groups=estimates, gap=gap)


def _evaluate(
    table: Divisible, part: Divisible, spec: MetricSpec, rows: Rows, weights: FloatArray
) -> Values:
    """The metric of some rows of a table, ``part``, under their weights.

    What reports add to a metric takes a tokenizer and is kept per table: there the others of the
    whole table get no weight, which is the same.
    """
    if isinstance(table, ReportPredictions):
        inside = np.zeros(len(table.patients))
        inside[rows] = 1.0
        values = evaluate(spec, table, weights * inside)
    else:
        values = evaluate(spec, part, weights.T[rows].T)
    if values.interval is not None:
        raise _AbsentError(f"{spec.name} has an interval of its own, and cannot be resampled")
    return values


def _comparable_labels(
    table: Divisible, spec: MetricSpec, rows: dict[Group, Rows], remarks: list[str]
) -> list[str]:
    """Labels that are defined in all groups; leaves groups out that cannot be compared."""
    if not isinstance(table, ClassPredictions):
        return []
    lacking: dict[Group, set[str]] = {}
    for group, those in [*rows.items()]:
        values = evaluate(spec, table.take(those.tolist()), np.ones((1, len(those))))
        per_label = values.per_label or {}
        lacks = {name for name, value in per_label.items() if np.isnan(value[0])}
        if lacks and (table.multiclass or lacks == set(per_label)):
            del rows[group]
            remarks.append(f"{group} left out, {values.reason or f'{spec.name} is undefined'}")
        else:
            lacking[group] = lacks
    if len(rows) < 2:
        return list(table.labels)
    gone = set().union(*lacking.values())
    if gone:
        named = ", ".join(name for name in table.labels if name in gone)
        remarks.append(f"labels undefined in some group, left out of all: {named}")
    if len(gone) == len(table.labels):
        raise _AbsentError("no label is defined in every group")
    return [name for name in table.labels if name not in gone]


def _with_labels(table: ClassPredictions, labels: Sequence[str]) -> ClassPredictions:
    at = [table.labels.index(name) for name in labels]
    return replace(
        table,
        labels=labels,
        y=table.y[:, at],
        scores=table.scores[:, at],
        thresholds=None if table.thresholds is None else table.thresholds[:, at],
    )
