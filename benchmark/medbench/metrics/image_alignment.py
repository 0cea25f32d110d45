"""Alignment: is what was asked for among what an image is most like, to an independent judge?

The judge is a space of images and texts that the generator under test never saw. Each generated
image is a query. In ``alignment-recall`` the tested prompts are the candidates, equal prompts being
one; in ``image-recall`` the tested real images are, and those of its prompt, or of an equal one,
match. Equal cosines share their ranks (`medbench.metrics.retrieval`). Chance stands in a note; the
baseline ``real`` shows what the judge can see at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from medbench.metrics import retrieval
from medbench.metrics.image_clusters import Integers, hold
from medbench.metrics.image_strata import thirds
from medbench.metrics.image_table import JudgedTable
from medbench.metrics.values import FloatArray, Values


@dataclass(frozen=True, eq=False)
class Matching:
    """Generated images [G, D] and candidates [T, D]: a `RetrievalTable`."""

    image: FloatArray
    text: FloatArray
    image_group: Integers
    text_group: Integers


def alignment_recall_1(table: JudgedTable, weights: FloatArray) -> Values:
    """Share of generated images to which no prompt is nearer than their own. In [0, 1]."""
    return _to_prompts(table, weights, 1)


def alignment_recall_5(table: JudgedTable, weights: FloatArray) -> Values:
    """Share of generated images with their own prompt among the five nearest. In [0, 1]."""
    return _to_prompts(table, weights, 5)


def alignment_recall_10(table: JudgedTable, weights: FloatArray) -> Values:
    """Share of generated images with their own prompt among the ten nearest. In [0, 1]."""
    return _to_prompts(table, weights, 10)


def image_recall_1(table: JudgedTable, weights: FloatArray) -> Values:
    """Share of generated images whose nearest real image is of their prompt. In [0, 1]."""
    return _to_images(table, weights, 1)


def image_recall_5(table: JudgedTable, weights: FloatArray) -> Values:
    """Share of generated images with a real one of their prompt among the five nearest."""
    return _to_images(table, weights, 5)


def image_recall_10(table: JudgedTable, weights: FloatArray) -> Values:
    """Share of generated images with a real one of their prompt among the ten nearest."""
    return _to_images(table, weights, 10)


_RECALL = {
    1: retrieval.i2t_recall_1,
    5: retrieval.i2t_recall_5,
    10: retrieval.i2t_recall_10,
}
_prompts: WeakKeyDictionary[JudgedTable, Matching] = WeakKeyDictionary()
_images: WeakKeyDictionary[JudgedTable, Matching] = WeakKeyDictionary()


def _to_prompts(table: JudgedTable, weights: FloatArray, k: int) -> Values:
    if table.judge_images is None or table.judge_texts is None or table.prompts is None:
        return _nothing(weights, "there are no images and prompts in an independent space")
    if table not in _prompts:
        # texts in the order of their values, so that the order of rows does not matter
        texts, group = np.unique(table.judge_texts, axis=0, return_inverse=True)
        _prompts[table] = Matching(
            table.judge_images, texts, group.ravel()[table.prompts], np.arange(len(texts))
        )
    matching = _prompts[table]
    count = len(matching.text)
    if count <= k:
        return _nothing(
            weights, f"recall at {k} needs more than {k} different prompts; there are {count}"
        )
    return _recall(
        table, matching, weights, k, f"{count:,} different prompts, chance is {k / count:.4f}"
    )


def _to_images(table: JudgedTable, weights: FloatArray, k: int) -> Values:
    if (
        table.judge_images is None
        or table.judge_real is None
        or table.judge_texts is None
        or table.prompts is None
        or table.real_prompts is None
    ):
        return _nothing(
            weights, "there are no generated and real images of known prompts in one space"
        )
    if table not in _images:
        _, group = np.unique(table.judge_texts, axis=0, return_inverse=True)
        group = group.ravel()
        own = np.where(table.real_prompts < 0, -1, group[table.real_prompts])
        # real images in the order of their values and prompts, as above
        order = np.lexsort((own, *table.judge_real.T[::-1]))
        _images[table] = Matching(
            table.judge_images, table.judge_real[order], group[table.prompts], own[order]
        )
    matching = _images[table]
    count = len(matching.text)
    if count <= k:
        return _nothing(
            weights, f"recall at {k} needs more than {k} real images; there are {count}"
        )
    alone = int((~np.isin(matching.image_group, matching.text_group)).sum())
    if alone == len(matching.image):
        return _nothing(weights, "none of the real images is of a prompt that was drawn from")
    note = f"{count:,} real images, chance is {chance(matching, k):.4f}"
    if alone:
        note += f"; images of prompts without a real image, left out: {alone:,}"
    return _recall(table, matching, weights, k, note)


def chance(matching: Matching, k: int) -> float:
    """Recall at k of images that have nothing to do with their prompts: the mean, over the queries
    with m matches among T candidates, m at least 1, of 1 - C(T - m, k) / C(T, k). In [0, 1]."""
    total = len(matching.text)
    matches = (matching.image_group[:, None] == np.unique(matching.text_group)[None]) @ (
        np.unique(matching.text_group, return_counts=True)[1]
    )
    matches = matches[matches > 0]
    missed = np.ones(len(matches))
    for j in range(k):
        missed *= np.maximum(total - matches - j, 0) / (total - j)
    return float(1 - missed.mean())


def _recall(
    table: JudgedTable, matching: Matching, weights: FloatArray, k: int, note: str
) -> Values:
    count = len(matching.image)
    mine = weights[:, -count:]
    hold(mine, count)
    found = _RECALL[k](matching, mine)
    cut = thirds(table)

    def of(rows: Integers) -> FloatArray:
        only = np.zeros_like(mine)
        only[:, rows] = mine[:, rows]
        return _RECALL[k](matching, only).value

    parts = cut.values(lambda third: of(third.generated))
    # how the prompts are cut is said by the other metrics of thirds
    return Values(found.value, parts or None, note, label_counts=cut.counts)


def _nothing(weights: FloatArray, reason: str) -> Values:
    return Values(np.full(len(weights), np.nan), None, reason)
