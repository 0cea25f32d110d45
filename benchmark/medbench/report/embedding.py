"""t-SNE of what models make of the tested samples, a panel per run: before and after adaptation.

After the Adaptor paper's Fig. 3. t-SNE shows which samples are neighbours; distances between
clusters, their sizes and the axes mean nothing, and the page says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medbench.evaluation.predictions import ClassPredictions
from medbench.metrics.values import FloatArray
from medbench.report.drawing import MUTED, Block, below, canvas, finish, series, short
from medbench.report.runs import Features, Run, Section
from medbench.run.reporter import Reporter

MOST = 1000  #: samples in a panel
FEWEST = 10  #: of fewer, neighbourhoods say nothing
COLOURS = 6  #: labels told apart; more share a colour
SEED = 0


def blocks(section: Section, name: str, reporter: Reporter) -> list[Block]:
    """A panel for each run with features, all of the same samples; ``name`` begins their ids."""
    notes, drawn = [], []
    usable: list[Run] = []
    for run in section.models:
        if run.features is None:
            continue  # the page names them
        reason = _unusable(run)
        if reason:
            notes.append(f"Run {run.label} is not shown: {reason}.")
            continue
        twin = next((r for r in usable if _same(r, run)), None)
        if twin is None:
            usable.append(run)
        else:
            notes.append(f"Run {run.label} has the features of run {twin.number}.")
    if not usable:
        return []
    common = set.intersection(*(set(_features(run).ids) for run in usable))
    if len(common) < FEWEST:
        return []
    chosen = sorted(common)
    if len(chosen) > MOST:
        picked = np.random.default_rng(SEED).permutation(len(chosen))[:MOST]
        chosen = [chosen[i] for i in sorted(picked.tolist())]
        notes.append(f"{MOST:,} of {len(common):,} tested samples, drawn with a fixed seed.")
    for run in usable:
        features = _features(run)
        place = {sample: row for row, sample in enumerate(features.ids)}
        rows = [place[sample] for sample in chosen]
        codes, groups = _groups(features.y[rows], _labels(run, features.y.shape[1]))
        with reporter.stage(f"t-SNE of {run.label}", "tsne"):
            points = tsne(features.vectors[rows])
        with canvas(360, 370 + 18 * len(groups)) as (figure, axes):
            _scatter(axes, points, codes, groups)
            axes.set_title(short(run.label, 40), loc="left")
            below(axes)
            described = ", ".join(
                f"{group}: {int((codes == code).sum())}" for code, group in enumerate(groups)
            )
            drawn.append(
                finish(
                    figure,
                    f"{name}-tsne-{run.number}",
                    f"t-SNE of the features of {run.label}",
                    f"{len(chosen):,} tested samples as points, by label: {described}.",
                    f"{run.label}: {features.vectors.shape[1]:,} dimensions, "
                    f"{len(chosen):,} tested samples",
                )
            )
    return [
        Block(
            "Features of the tested samples (t-SNE)",
            "Points that lie together were alike to the model. Only neighbourhoods have a meaning: "
            "not the axes, the sizes of clusters, nor the distances between them.",
            drawn,
            notes,
        )
    ]


def _same(one: Run, other: Run) -> bool:
    """Whether both have the same features, as runs with fewer labels do."""
    a, b = _features(one), _features(other)
    return a.ids == b.ids and np.array_equal(a.vectors, b.vectors)


def tsne(vectors: FloatArray) -> FloatArray:
    """float [N, D] -> [N, 2]; from the principal components, with a fixed seed, in one thread, so
    that equal features give equal pictures."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    scaled = (vectors - vectors.mean(axis=0)) / max(float(vectors.std()), 1e-12)
    with threadpool_limits(1):
        found: FloatArray = TSNE(
            init="pca", perplexity=perplexity, random_state=SEED, method="barnes_hut"
        ).fit_transform(scaled.astype(np.float32))
    return found


def _unusable(run: Run) -> str:
    features = _features(run)
    if isinstance(run.predictions, ClassPredictions) and not run.predictions.keyed:
        strangers = set(features.ids) - set(run.predictions.sample_ids)
        if strangers:
            return "its features are of other samples than its predictions"
    if len(set(features.ids)) < FEWEST:
        return f"{len(features.ids)} samples are too few"
    if features.vectors.shape[1] < 2 or len(np.unique(features.vectors, axis=0)) < FEWEST:
        return "its features hardly differ from sample to sample"
    return ""


def _features(run: Run) -> Features:
    assert run.features is not None
    return run.features


def _labels(run: Run, count: int) -> list[str]:
    if isinstance(run.predictions, ClassPredictions):
        return list(run.predictions.labels)
    if run.task is not None and len(run.task.labels) == count:
        return list(run.task.label_names)
    return [f"label {k}" for k in range(1, count + 1)]


def _groups(y: FloatArray, labels: list[str]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """A group for each sample, int [N], and the groups' names.

    Samples with exactly one label are of its group, the most frequent labels having one of their
    own; those with none or several are groups themselves.
    """
    count = np.nansum(y, axis=1) if y.shape[1] else np.zeros(len(y))
    if y.shape[1] == 0:
        return np.zeros(len(y), np.int64), ["tested sample"]
    if y.shape[1] == 1:
        return (count > 0).astype(np.int64), [f"no {labels[0]}", labels[0]]
    single = np.where(count == 1, np.nan_to_num(y).argmax(axis=1), -1)
    sizes = np.bincount(single[single >= 0], minlength=len(labels))
    own = sorted(np.argsort(-sizes, kind="stable")[:COLOURS].tolist())
    own = [label for label in own if sizes[label]]
    names = [labels[label] for label in own]
    codes = np.full(len(y), -1, np.int64)
    for code, label in enumerate(own):
        codes[single == label] = code
    rest = {
        "another label": (single >= 0) & (codes < 0),
        "several labels": count > 1,
        "no label": count == 0,
    }
    for title, members in rest.items():
        if members.any():
            codes[members] = len(names)
            names.append(title)
    return codes, names


def _scatter(
    axes: Any, points: FloatArray, codes: npt.NDArray[np.int64], groups: list[str]
) -> None:
    for code, group in enumerate(groups):
        colour, _, marker = series(code)
        if group in ("another label", "several labels", "no label"):
            colour = MUTED
            marker = {"another label": "1", "several labels": "+", "no label": "."}[group]
        mine = points[codes == code]
        axes.plot(
            mine[:, 0], mine[:, 1], marker, color=colour, markersize=4.5, alpha=0.75,
            label=f"{short(group)} ({len(mine):,})",
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.04)
    axes.set_box_aspect(1)
    for side in axes.spines.values():
        side.set_visible(True)
