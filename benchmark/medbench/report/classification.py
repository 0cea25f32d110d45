"""Classification: ROC curves and reliability, a panel per label with the runs over each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medbench.evaluation.files import trivial
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.score import score
from medbench.metrics.classification import BINS
from medbench.metrics.values import FloatArray
from medbench.plugins import Registry
from medbench.report.drawing import (
    FAINT,
    MUTED,
    Block,
    Figure,
    below,
    canvas,
    finish,
    series,
    short,
)
from medbench.report.runs import Run, Section
from medbench.report.tables import number
from medbench.run.reporter import Reporter
from medbench.schemas.record import Estimate, MetricValue

MOST = 8  #: curves in a panel
OPEN = 4  #: with more labels than this, calibration is shown on demand


@dataclass(frozen=True)
class _Curve:
    """A run whose predictions are at hand."""

    run: Run
    table: ClassPredictions


def blocks(section: Section, name: str, registry: Registry, _: Reporter) -> list[Block]:
    """ROC curves, and reliability where scores are probabilities; ``name`` begins their ids."""
    curves = [
        _Curve(run, run.predictions)
        for run in section.models
        if isinstance(run.predictions, ClassPredictions)
    ]
    notes = []
    if len(curves) > MOST:
        left = ", ".join(curve.run.label for curve in curves[MOST:])
        notes.append(f"The first {MOST} runs are drawn; not drawn: {left}.")
        curves = curves[:MOST]
    if not curves:
        return []
    labels = list(curves[0].table.labels)
    found = [_roc(curves, labels, name, notes)]
    likely = [c for c in curves if c.table.scores.min() >= 0 and c.table.scores.max() <= 1]
    if likely:
        found.append(_reliability(likely, labels, name, registry))
    return [block for block in found if block.figures]


def _roc(curves: list[_Curve], labels: list[str], name: str, notes: list[str]) -> Block:
    figures = []
    for k, label in enumerate(labels):
        drawn = []
        with canvas(340, 380 + 18 * len(curves)) as (figure, axes):
            for index, curve in enumerate(curves):
                points = roc(curve.table.y[:, k], curve.table.scores[:, k])
                if points is None:
                    continue
                value = _auroc(curve.run, label, len(labels))
                colour, line, _ = series(index)
                text = f"{short(curve.run.label, 30)}: {_interval(value)}"
                axes.plot(*points, line, color=colour, linewidth=2, label=text)
                drawn.append(f"{curve.run.label}: AUROC {_interval(value)}")
            if not drawn:
                continue
            axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, zorder=0)
            axes.annotate(
                "diagonal: chance, 0.5", (0.99, 0.02), ha="right", color=MUTED, fontsize=10
            )
            axes.set_title(short(label, 40), loc="left")
            axes.set_xlabel("1 − specificity")
            axes.set_ylabel("sensitivity")
            axes.set_box_aspect(1)
            axes.set_xlim(-0.01, 1.01)
            axes.set_ylim(-0.01, 1.01)
            below(axes)
            positives = int((curves[0].table.y[:, k] == 1).sum())
            figures.append(
                finish(
                    figure,
                    f"{name}-roc-{k}",
                    f"ROC curves for {label}",
                    "; ".join(drawn) + ". The diagonal is chance.",
                    f"{label}: {positives:,} positives, "
                    f"{int((curves[0].table.y[:, k] == 0).sum()):,} negatives",
                )
            )
    return Block(
        "ROC curves",
        "Legend: area under the curve [95 % interval over patients], as the records have it.",
        figures,
        notes,
    )


def roc(truth: FloatArray, scores: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """1 - specificity and sensitivity, both from 0 to 1; None where one class is missing.

    Args:
        truth: float [N], 1, 0, or NaN where not scored.
        scores: float [N].
    """
    from sklearn.metrics import roc_curve

    known = ~np.isnan(truth)
    if len(np.unique(truth[known])) < 2:
        return None
    across, up, _ = roc_curve(truth[known], scores[known])
    return across, up


def _auroc(run: Run, label: str, labels: int) -> Estimate | None:
    metric = run.record.metrics.get("auroc")
    if metric is None:
        return None
    return (metric.per_label or {}).get(label) or (metric if labels == 1 else None)


def _interval(value: Estimate | None) -> str:
    if value is None:
        return "not scored"
    return f"{number(value.value)} [{number(value.ci95[0])}, {number(value.ci95[1])}]"


def _reliability(curves: list[_Curve], labels: list[str], name: str, registry: Registry) -> Block:
    """A panel per label; of a multiclass task one panel, for the class that was chosen."""
    spec = registry.metric("ece")
    measured = [score(curve.table, [spec]).metrics.get("ece") for curve in curves]
    prior = score(trivial(curves[0].table)["prior"], [spec]).metrics.get("ece")
    if curves[0].table.multiclass:
        figures = [_chosen(curves, measured, name)]
    else:
        figures = [
            drawn
            for k, label in enumerate(labels)
            if (drawn := _panel(
                [(c.run, c.table.scores[:, k], c.table.y[:, k]) for c in curves],
                [_of_label(m, label, len(labels)) for m in measured],
                f"{name}-reliability-{k}", label, f"stated probability of {label}",
            )) is not None
        ]  # fmt: skip
    return Block(
        "Calibration",
        f"On the diagonal, what was stated with 70 % happened in 70 %. {BINS} equal bins; larger "
        "points hold more samples. Legend: expected calibration error (ece ↓) [95 % interval over "
        "patients]. For comparison, the frequency of each label among the tested, stated for "
        f"every sample, has {_interval(prior)}, since it knows what it is scored on.",
        [figure for figure in figures if figure is not None],
        folded=len(figures) > OPEN,
    )


def _of_label(metric: MetricValue | None, label: str, labels: int) -> Estimate | None:
    if metric is None:
        return None
    return (metric.per_label or {}).get(label) or (metric if labels == 1 else None)


def _chosen(curves: list[_Curve], measured: list[MetricValue | None], name: str) -> Figure | None:
    shown = []
    for curve in curves:
        rows, best = np.arange(len(curve.table.y)), curve.table.scores.argmax(axis=1)
        shown.append((curve.run, curve.table.scores[rows, best], curve.table.y[rows, best]))
    return _panel(
        shown, list(measured), f"{name}-reliability", "the chosen class",
        "stated probability of the chosen class",
    )  # fmt: skip


def _panel(
    shown: list[tuple[Run, FloatArray, FloatArray]],
    values: list[MetricValue | None] | list[Estimate | None],
    name: str,
    label: str,
    across: str,
) -> Figure | None:
    drawn = []
    with canvas(340, 380 + 18 * len(shown)) as (figure, axes):
        for index, ((run, stated, truth), value) in enumerate(zip(shown, values, strict=True)):
            if np.isnan(truth).all():
                continue
            centres, happened, counts = reliability(stated, truth)
            colour, line, marker = series(index)
            text = f"{run.label}: {_interval(value)}"
            axes.plot(
                centres, happened, line, color=colour, linewidth=1.2,
                label=f"{short(run.label, 30)}: {_interval(value)}",
            )  # fmt: skip
            axes.scatter(
                centres, happened, 8 + 90 * counts / counts.sum(), color=colour, marker=marker
            )
            drawn.append(text)
        if not drawn:
            return None
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, zorder=0)
        axes.set_title(short(label, 40), loc="left")
        axes.set_xlabel(short(across, 46))
        axes.set_ylabel("how often it was so")
        axes.set_box_aspect(1)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        below(axes)
        return finish(
            figure, name, f"Reliability diagram for {label}",
            "Expected calibration error of " + "; ".join(drawn) + ". The diagonal is perfect.",
            label,
        )  # fmt: skip


def reliability(stated: FloatArray, truth: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean stated probability, share that was so, and number of samples of each bin in use.

    The bins are those of the metric ``ece``: equal, closed below, the last one on both sides.

    Args:
        stated: float [N] in [0, 1].
        truth: float [N], 1, 0, or NaN where not scored.
    """
    known = ~np.isnan(truth)
    stated, truth = stated[known], truth[known]
    edges = np.linspace(0.0, 1.0, BINS + 1)
    bins = np.clip(np.searchsorted(edges, stated, side="right") - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS).astype(np.float64)
    used = counts > 0
    centres = np.bincount(bins, stated, BINS)[used] / counts[used]
    happened = np.bincount(bins, truth, BINS)[used] / counts[used]
    return centres, happened, counts[used]
