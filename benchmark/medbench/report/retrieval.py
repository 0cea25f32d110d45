"""Retrieval: where the first match stands, beside where chance would put it."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np

from medbench.evaluation.retrieval_predictions import RetrievalPredictions
from medbench.metrics.retrieval import Standing, standings
from medbench.metrics.values import FloatArray
from medbench.plugins import Registry
from medbench.report.drawing import MUTED, Block, Figure, below, canvas, finish, series, short
from medbench.report.runs import Run, Section
from medbench.report.tables import estimate
from medbench.run.reporter import Reporter

WAYS: dict[Literal["i2t", "t2i"], str] = {"i2t": "image to text", "t2i": "text to image"}


def blocks(section: Section, name: str, _: Registry, __: Reporter) -> list[Block]:
    """A histogram for each run and direction; ``name`` begins their ids."""
    figures = [
        _histogram(run, run.predictions, way, f"{name}-ranks-{run.number}-{way}")
        for run in section.models
        if isinstance(run.predictions, RetrievalPredictions)
        for way in WAYS
    ]
    if not figures:
        return []
    return [
        Block(
            "Rank of the first match",
            "Bars further left are better: the match was found sooner. The outline is chance, "
            "where every candidate ties. Bins grow with the rank.",
            figures,
        )
    ]


def _histogram(
    run: Run, table: RetrievalPredictions, way: Literal["i2t", "t2i"], name: str
) -> Figure:
    candidates = len(table.text) if way == "i2t" else len(table.image)
    edges = bins(candidates)
    shares, chance = ranks(standings(table, way), matching(table, way), candidates, edges)
    with canvas(360, 340) as (figure, axes):
        colour = series(0)[0]
        places = np.arange(len(shares))
        axes.bar(places, shares * 100, 0.8, color=colour, label="this run")
        axes.stairs(
            chance * 100, np.arange(len(chance) + 1) - 0.5, color=MUTED, linewidth=1.6,
            label="chance",
        )  # fmt: skip
        axes.set_xticks(places, [_bin(a, b) for a, b in pairwise(edges)])
        axes.tick_params(axis="x", labelrotation=60, labelsize=9)
        axes.set_xlabel(f"rank of the first match among {candidates:,}")
        axes.set_ylabel("% of queries")
        axes.set_title(f"{short(run.label, 30)}, {WAYS[way]}", loc="left")
        below(axes)
        stated = [
            f"{metric} {estimate(value).shown}"
            for metric, value in run.record.metrics.items()
            if metric.startswith(way)
        ]
        return finish(
            figure,
            name,
            f"Ranks of the first match, {run.label}, {WAYS[way]}",
            f"{shares[0]:.0%} of queries have a match first; by chance {chance[0]:.0%}.",
            f"{run.label}, {WAYS[way]}: {'; '.join(stated)}",
        )


def bins(candidates: int) -> list[int]:
    """Edges of half-open bins of ranks from 1 to the number of candidates: 1, 2, 3-5, 6-10, ..."""
    edges = [1]
    for decade in range(len(str(candidates))):
        edges += [step * 10**decade + 1 for step in (1, 2, 5)]
    return [edge for edge in edges if edge <= candidates] + [candidates + 1]


def matching(table: RetrievalPredictions, way: Literal["i2t", "t2i"]) -> FloatArray:
    """float [Q]: candidates that match each query."""
    queries, others = table.image_group, table.text_group
    if way == "t2i":
        queries, others = others, queries
    groups, counts = np.unique(others, return_counts=True)
    place = np.searchsorted(groups, queries).clip(0, len(groups) - 1)
    return np.where(groups[place] == queries, counts[place], 0).astype(np.float64)


def ranks(
    standing: Standing, matches: FloatArray, candidates: int, edges: list[int]
) -> tuple[FloatArray, FloatArray]:
    """Share of queries with their first match in each bin, and the share that chance gives.

    Args:
        standing: of each query; those without a match are left out.
        matches: float [Q], candidates that match each query.
        candidates: their number.
        edges: of half-open bins, from 1 to ``candidates`` + 1.

    Returns:
        float [bins] each, adding up to 1.
    """
    from scipy.special import gammaln

    found = standing.rank()[standing.known]
    # an expected rank among ties lies between whole ranks: it is of the bin it has reached
    shares = np.histogram(np.floor(found), edges)[0] / len(found)
    m = matches[standing.known]
    reached = []
    for edge in edges:
        seen = edge - 1
        left = candidates - m - seen
        # no match among the first k of t: C(t - m, k) / C(t, k)
        miss = np.exp(
            gammaln(candidates - m + 1) - gammaln(np.maximum(left, 0) + 1)
            + gammaln(candidates - seen + 1) - gammaln(candidates + 1)
        )  # fmt: skip
        reached.append(1 - np.where(left >= 0, miss, 0.0).mean())
    return shares, np.diff(reached)


def _bin(low: int, high: int) -> str:
    return str(low) if high == low + 1 else f"{low:,}–{high - 1:,}"
