"""Retrieval metrics: images by text and text by image, ranked by cosine.

What a resample needs of a query is three counts: how many candidates stand above its best match,
how many stand level with that, and how many of those match. They are counted once per table, in
tiles, so that the similarities of all images with all texts are never held together; a metric is
then a mean, or a median, over queries. The gallery is held fixed under resampling: drawing a
candidate twice would tie it with itself, and leaving one out makes the others easier to find.

Candidates whose cosines are equal (within `TIE`) have no order. A metric is its expectation over
all orders that they could have, each as likely.
"""

from __future__ import annotations

from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from medbench.metrics.values import FloatArray, RetrievalTable, Values

#: Cosines this close are equal: more than the rounding of a product in float64, and far less than
#: that of the float32 in which models embed.
TIE = 1e-12
#: Numbers in one tile of similarities, and in one of cumulated weights: 8 MiB of float64.
TILE = 1 << 20

Flags = npt.NDArray[np.bool_]
Groups = npt.NDArray[np.int64]
Direction = Literal["i2t", "t2i"]


class Standing(NamedTuple):
    """Where the best match of each query stands: float [Q] each, whole numbers.

    Attributes:
        above: candidates more similar than the best match.
        level: candidates as similar as the best match, itself among them.
        matching: how many of these match.
        known: bool [Q], whether the query has a match at all; the rest is 0 where it has none.
    """

    above: FloatArray
    level: FloatArray
    matching: FloatArray
    known: Flags

    def hit(self, k: int) -> FloatArray:
        """float [Q]: chance that a match is among the first k; 0 for a query without a match.

        Of t level candidates, m of them matching, the first r = k - above are seen. None of those
        matches with chance C(t - m, r) / C(t, r), the product of (t - m - j) / (t - j) over
        j < r.
        """
        seen = np.clip(k - self.above, 0, self.level)
        miss = np.ones_like(self.above)
        for j in range(k):
            left = np.maximum(self.level - self.matching - j, 0)
            step = np.divide(left, self.level - j, out=np.ones_like(left), where=j < seen)
            miss *= step
        return np.where(self.known, 1 - miss, 0.0)

    def rank(self) -> FloatArray:
        """float [Q]: expected rank of the first match, from 1; NaN without a match.

        The first of m matches among t stands at (t + 1) / (m + 1) on average.
        """
        ranks = self.above + (self.level + 1) / (self.matching + 1)
        return np.where(self.known, ranks, np.nan)


_STANDINGS: WeakKeyDictionary[RetrievalTable, dict[Direction, Standing]] = WeakKeyDictionary()


def i2t_recall_1(table: RetrievalTable, weights: FloatArray) -> Values:
    """Share of images with a matching text first. In [0, 1]; weights float [B, N + M]."""
    return _recall(table, weights, "i2t", 1)


def i2t_recall_5(table: RetrievalTable, weights: FloatArray) -> Values:
    """Share of images with a matching text among the first five. In [0, 1]."""
    return _recall(table, weights, "i2t", 5)


def i2t_recall_10(table: RetrievalTable, weights: FloatArray) -> Values:
    """Share of images with a matching text among the first ten. In [0, 1]."""
    return _recall(table, weights, "i2t", 10)


def t2i_recall_1(table: RetrievalTable, weights: FloatArray) -> Values:
    """Share of texts with a matching image first. In [0, 1]."""
    return _recall(table, weights, "t2i", 1)


def t2i_recall_5(table: RetrievalTable, weights: FloatArray) -> Values:
    """Share of texts with a matching image among the first five. In [0, 1]."""
    return _recall(table, weights, "t2i", 5)


def t2i_recall_10(table: RetrievalTable, weights: FloatArray) -> Values:
    """Share of texts with a matching image among the first ten. In [0, 1]."""
    return _recall(table, weights, "t2i", 10)


def i2t_precision_1(table: RetrievalTable, weights: FloatArray) -> Values:
    """Share of retrieved texts that match, one retrieved for each image. In [0, 1]."""
    return _precision(table, weights, "i2t")


def t2i_precision_1(table: RetrievalTable, weights: FloatArray) -> Values:
    """Share of retrieved images that match, one retrieved for each text. In [0, 1]."""
    return _precision(table, weights, "t2i")


def i2t_median_rank(table: RetrievalTable, weights: FloatArray) -> Values:
    """Median over images of the rank of the first matching text, from 1. Lower is better."""
    return _median_rank(table, weights, "i2t")


def t2i_median_rank(table: RetrievalTable, weights: FloatArray) -> Values:
    """Median over texts of the rank of the first matching image, from 1. Lower is better."""
    return _median_rank(table, weights, "t2i")


def standings(table: RetrievalTable, direction: Direction) -> Standing:
    """Where the best match of each query stands, computed once per table for both directions.

    Args:
        table: image float [N, D], text float [M, D], finite, and their groups. A row of zeros has
            cosine 0 with everything.
        direction: "i2t", N image queries, or "t2i", M text queries.
    """
    if table not in _STANDINGS:
        _STANDINGS[table] = _compute(table)
    return _STANDINGS[table][direction]


def _recall(table: RetrievalTable, weights: FloatArray, direction: Direction, k: int) -> Values:
    standing = standings(table, direction)
    value = _mean(standing.hit(k), _queries(table, weights, direction), standing.known)
    return Values(value, reason=_unmatched(standing, direction, "left out"))


def _precision(table: RetrievalTable, weights: FloatArray, direction: Direction) -> Values:
    """As recall@1, but a query without a match is wrong whatever it retrieves."""
    standing = standings(table, direction)
    everything = np.ones_like(standing.known)
    value = _mean(standing.hit(1), _queries(table, weights, direction), everything)
    return Values(value, reason=_unmatched(standing, direction, "counted as wrong"))


def _median_rank(table: RetrievalTable, weights: FloatArray, direction: Direction) -> Values:
    standing = standings(table, direction)
    value = weighted_median(standing.rank(), _queries(table, weights, direction))
    return Values(value, reason=_unmatched(standing, direction, "left out"))


def weighted_median(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Median of values [n], NaN left out, under each row of weights [B, n]: float [B].

    With whole weights it is the median of the values repeated so often: the mean of the two
    in the middle where their number is even. NaN where nothing has weight.
    """
    found = np.full(len(weights), np.nan)
    order = np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]
    if not len(order):
        return found
    ordered = values[order]
    step = max(1, TILE // len(order))
    for start in range(0, len(weights), step):
        rows = slice(start, start + step)
        below = np.cumsum(weights[rows].T[order], axis=0)
        half = below[-1] / 2
        lower = (below < half).sum(axis=0)
        upper = np.minimum((below <= half).sum(axis=0), len(order) - 1)
        found[rows] = np.where(half > 0, (ordered[lower] + ordered[upper]) / 2, np.nan)
    return found


def _queries(table: RetrievalTable, weights: FloatArray, direction: Direction) -> FloatArray:
    """The columns of weights [B, N + M] that belong to the queries."""
    count = len(table.image_group)
    return weights[:, :count] if direction == "i2t" else weights[:, count:]


def _unmatched(standing: Standing, direction: Direction, fate: str) -> str | None:
    query, candidate = ("image", "text") if direction == "i2t" else ("text", "image")
    missing = int((~standing.known).sum())
    if not missing:
        return None
    return f"{missing} of {len(standing.known)} {query} queries match no {candidate}, {fate}"


def _mean(each: FloatArray, weights: FloatArray, counted: Flags) -> FloatArray:
    """Weighted mean of float [Q] over the counted queries: float [B], NaN without weight."""
    of = counted.astype(np.float64)
    total, size = weights @ (each * of), weights @ of
    found: FloatArray = np.divide(total, size, out=np.full(len(weights), np.nan), where=size > 0)
    return found


def _compute(table: RetrievalTable) -> dict[Direction, Standing]:
    image, text = _unit(table.image), _unit(table.text)
    best_text, texts = _best_match(image, text, table.image_group, table.text_group)
    best_image, images = _best_match(text, image, table.text_group, table.image_group)
    # Candidates strictly above the best match, and those at least level with it.
    above = [np.zeros(len(image), dtype=np.intp), np.zeros(len(text), dtype=np.intp)]
    reached = [np.zeros_like(above[0]), np.zeros_like(above[1])]
    width = max(1, min(len(text), 2048))
    height = max(1, TILE // width)
    for top in range(0, len(image), height):
        rows = slice(top, top + height)
        for left in range(0, len(text), width):
            columns = slice(left, left + width)
            tile = image[rows] @ text[columns].T
            of_rows, of_columns = best_text[rows, None], best_image[None, columns]
            above[0][rows] += (tile > of_rows + TIE).sum(axis=1)
            reached[0][rows] += (tile >= of_rows - TIE).sum(axis=1)
            above[1][columns] += (tile > of_columns + TIE).sum(axis=0)
            reached[1][columns] += (tile >= of_columns - TIE).sum(axis=0)
    return {
        "i2t": _standing(above[0], reached[0], texts),
        "t2i": _standing(above[1], reached[1], images),
    }


def _standing(
    above: npt.NDArray[np.intp], reached: npt.NDArray[np.intp], matching: npt.NDArray[np.intp]
) -> Standing:
    known = matching > 0
    level = np.maximum(reached - above, matching)
    return Standing(
        np.where(known, above, 0).astype(np.float64),
        np.where(known, level, 0).astype(np.float64),
        matching.astype(np.float64),
        known,
    )


def _unit(rows: FloatArray) -> FloatArray:
    """Rows of length one; a row of zeros stays. Scaled first, so that no square overflows."""
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    scaled = rows / np.where(largest > 0, largest, 1.0)
    length = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))[:, None]
    unit: FloatArray = scaled / np.where(length > 0, length, 1.0)
    return unit


def _best_match(
    queries: FloatArray, gallery: FloatArray, query_group: Groups, gallery_group: Groups
) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Cosine of the best match of each query, and how many matches have it.

    Only pairs of equal group are multiplied. Without a match: -inf and 0.
    """
    best = np.full(len(queries), -np.inf)
    count = np.zeros(len(queries), dtype=np.intp)
    of_query, of_gallery = _members(query_group), _members(gallery_group)
    for group in of_query.keys() & of_gallery.keys():
        candidates = gallery[of_gallery[group]].T
        members = of_query[group]
        step = max(1, TILE // candidates.shape[1])
        for start in range(0, len(members), step):
            rows = members[start : start + step]
            cosines = queries[rows] @ candidates
            best[rows] = cosines.max(axis=1)
            count[rows] = (cosines >= best[rows, None] - TIE).sum(axis=1)
    return best, count


def _members(groups: Groups) -> dict[int, npt.NDArray[np.intp]]:
    """Group to the rows that belong to it."""
    order = np.argsort(groups, kind="stable")
    names, starts = np.unique(groups[order], return_index=True)
    parts = np.split(order, starts[1:])
    return dict(zip(names.tolist(), parts, strict=False)) if len(names) else {}
