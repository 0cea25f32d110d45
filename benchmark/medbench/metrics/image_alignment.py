"""Text-image alignment: is an image's own prompt among those most like it, to an independent judge?

The judge is a space of images and texts that the generator under test never saw. Each generated
image is a query and the tested prompts are the candidates; equal prompts are one candidate, and
equal cosines share their ranks (`medbench.metrics.retrieval`). Chance is k over the number of
different prompts and stands in a note; the baseline ``real`` shows what the judge can see at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from medbench.metrics import retrieval
from medbench.metrics.image_clusters import Integers, hold
from medbench.metrics.image_table import JudgedTable
from medbench.metrics.values import FloatArray, Values


@dataclass(frozen=True, eq=False)
class Matching:
    """Generated images [G, D] and different prompts [T, D]: a `RetrievalTable`."""

    image: FloatArray
    text: FloatArray
    image_group: Integers
    text_group: Integers


def alignment_recall_1(table: JudgedTable, weights: FloatArray) -> Values:
    """Share of generated images to which no prompt is nearer than their own. In [0, 1]."""
    return _recall(table, weights, 1)


def alignment_recall_5(table: JudgedTable, weights: FloatArray) -> Values:
    """Share of generated images with their own prompt among the five nearest. In [0, 1]."""
    return _recall(table, weights, 5)


def alignment_recall_10(table: JudgedTable, weights: FloatArray) -> Values:
    """Share of generated images with their own prompt among the ten nearest. In [0, 1]."""
    return _recall(table, weights, 10)


_RECALL = {
    1: retrieval.i2t_recall_1,
    5: retrieval.i2t_recall_5,
    10: retrieval.i2t_recall_10,
}
_matchings: WeakKeyDictionary[JudgedTable, Matching] = WeakKeyDictionary()


def _recall(table: JudgedTable, weights: FloatArray, k: int) -> Values:
    nothing = np.full(len(weights), np.nan)
    if table.judge_images is None or table.judge_texts is None or table.prompts is None:
        return Values(nothing, None, "there are no images and prompts in an independent space")
    if table not in _matchings:
        # texts in the order of their values, so that the order of rows does not matter
        texts, group = np.unique(table.judge_texts, axis=0, return_inverse=True)
        _matchings[table] = Matching(
            table.judge_images, texts, group.ravel()[table.prompts], np.arange(len(texts))
        )
    matching = _matchings[table]
    count, texts_count = len(matching.image), len(matching.text)
    if texts_count <= k:
        reason = f"recall at {k} needs more than {k} different prompts; there are {texts_count}"
        return Values(nothing, None, reason)
    mine = weights[:, -count:]
    hold(mine, count)
    found = _RECALL[k](matching, mine)
    return Values(
        found.value, None, f"{texts_count:,} different prompts, chance is {k / texts_count:.4f}"
    )
