"""Label fidelity: does an independent classifier find in a generated image what was asked for?

The classifier's scores of the generated images are ranked against the labels of the samples whose
prompts were used. A generator that ignores its prompts has .5; the real images themselves (the
baseline ``real``) show how much the classifier can see at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np

from medbench.metrics import backbones, classification
from medbench.metrics.image_clusters import hold
from medbench.metrics.image_strata import Third, thirds
from medbench.metrics.image_table import JudgedTable
from medbench.metrics.values import FloatArray, Values

#: What else a finding of torchxrayvision is called here.
_ALSO = {"effusion": "pleural-effusion"}


@dataclass(frozen=True)
class Scored:
    """Scores of an independent classifier beside labels: what `classification.auroc` reads.

    ``y`` and ``scores`` are float [G, L]; ``note`` says whose scores.
    """

    labels: Sequence[str]
    y: FloatArray
    scores: FloatArray
    note: str | None
    multiclass: bool = False
    thresholds: FloatArray | None = None


def label_auroc(table: JudgedTable, weights: FloatArray) -> Values:
    """AUROC of each label, and their mean over those with both classes; the same mean over images
    of short, medium and long prompts beside. In [0, 1].

    Weights are [B, N + G]; only those of the G generated images are read.
    """
    nothing = np.full(len(weights), np.nan)
    found = table_scores(table)
    if isinstance(found, str):
        return Values(nothing, None, found)
    count = len(found.y)
    hold(weights[:, -count:], count)
    values = classification.auroc(found, weights[:, -count:])
    if np.isnan(values.value[0]):
        return Values(nothing, None, f"no finding has both classes among {count:,} images")
    unknown = [name for name in table.label_names if name not in found.labels]
    cut = thirds(table)

    def of(third: Third) -> FloatArray | None:
        some = third.generated
        part = replace(found, y=found.y[some], scores=found.scores[some])
        value = classification.auroc(part, weights[:, -count:][:, some]).value
        return None if np.isnan(value[0]) else value

    notes = [values.reason, found.note]
    if unknown:
        notes.append(f"the classifier does not know {', '.join(unknown)}")
    scored = (~np.isnan(found.y)).sum(axis=0).tolist()
    notes.append(cut.note)
    return replace(
        values,
        per_label={**(values.per_label or {}), **cut.values(of)},
        reason="; ".join(note for note in notes if note) or None,
        label_counts=dict(zip(found.labels, scored, strict=True)) | cut.counts,
    )


def table_scores(table: JudgedTable) -> Scored | str:
    """Scores that the table gives, or else of the user's torchxrayvision network on its pixels;
    or why there are none. Labels that the classifier does not know are left out.

    Raises WeightsError: the user named weights that cannot be read or are of another network.
    """
    if table.labels is None:
        return "there are no labels of the prompts"
    if table.scores is not None:
        return _known(table, table.scores, None)
    path = backbones.weights_path("xrv")
    if path is None:
        return (
            "there are no scores of an independent classifier: give them, or set "
            f"{backbones.VARIABLE}='xrv=PATH'"
        )
    if table.generated is None:
        return "there are neither scores nor generated pixels"
    return _by_xrv(table, path)


def _known(table: JudgedTable, scores: FloatArray, note: str | None) -> Scored | str:
    assert table.labels is not None
    columns = np.flatnonzero(~np.isnan(scores).any(axis=0))
    if not len(columns):
        return f"the classifier knows none of {', '.join(table.label_names)}"
    names = [table.label_names[k] for k in columns.tolist()]
    return Scored(names, table.labels[:, columns], scores[:, columns], note)


_xrv_scores: WeakKeyDictionary[JudgedTable, dict[Path, Scored | str]] = WeakKeyDictionary()


def _by_xrv(table: JudgedTable, path: Path) -> Scored | str:
    """Scores by torchxrayvision's classifier of 18 findings, once per table."""
    memo = _xrv_scores.setdefault(table, {})
    if path not in memo:
        memo[path] = _ask_xrv(table, path)
    return memo[path]


def _ask_xrv(table: JudgedTable, path: Path) -> Scored | str:
    import torch
    from torchxrayvision.datasets import default_pathologies

    network = backbones.load("xrv", path)
    head = network.module.inner.classifier  # type: ignore[union-attr]
    if head.out_features != len(default_pathologies):  # type: ignore[union-attr]
        return (
            f"the xrv weights give {head.out_features} findings without names; those of "  # type: ignore[union-attr]
            f"densenet121-res224-all give {len(default_pathologies)}"
        )
    assert table.generated is not None
    features = torch.from_numpy(backbones.extract(network, table.generated)).float()
    with torch.inference_mode():
        given = head(features).double().numpy()  # type: ignore[operator]
    names = [name.lower().replace(" ", "-").replace("_", "-") for name in default_pathologies]
    column = {name: k for k, name in enumerate(names)}
    column |= {also: column[name] for name, also in _ALSO.items()}
    scores = np.full((len(given), len(table.label_names)), np.nan)
    for k, name in enumerate(table.label_names):
        if name in column:
            scores[:, k] = given[:, column[name]]
    return _known(table, scores, f"scores by xrv weights {network.digest[:12]}")
