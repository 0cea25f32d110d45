"""How long generated reports are, how varied, and how many are copies of training reports.

Caption metrics do not tell a model that writes one safe report for everybody from one that looks at
the image; these do. Each is a weighted function, as in `medbench.metrics.reports`. Words are those
of the R2Gen convention (lower case, no punctuation but hyphens, no list numbers) without the full
stops it writes as words, so that "Heart size is normal." and "heart size is normal ." are equal.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from medbench.metrics.captioning import r2gen_words
from medbench.metrics.values import FloatArray, ReportTable, Values

NO_TRAINING = "it needs the training reports, which a run knows and a file of predictions does not"


class CopyTable(ReportTable, Protocol):
    """A table that may know what its model was trained on."""

    @property
    def training(self) -> frozenset[bytes] | None:
        """`fingerprint` of each training report, or None where they are not known."""
        ...


def words(text: str) -> list[str]:
    """Words of a report, without punctuation.

    >>> words("1. Heart size is normal. No  left-sided effusion .")
    ['heart', 'size', 'is', 'normal', 'no', 'left-sided', 'effusion']
    """
    return [word for word in r2gen_words(text) if word != "."]


def fingerprint(text: str) -> bytes:
    """16 bytes that stand for the words of a report: equal for reports of equal words alone."""
    return hashlib.blake2b(" ".join(words(text)).encode(), digest_size=16).digest()


def fingerprints(reports: Iterable[str]) -> frozenset[bytes]:
    """Of the reports that have a word: an empty report is nobody's copy."""
    return frozenset(fingerprint(text) for text in reports if words(text))


def report_length(table: ReportTable, weights: FloatArray) -> Values:
    """Mean words of a prediction. 0 or above."""
    return Values(_mean(_lengths(table.predictions), weights))


def length_ratio(table: ReportTable, weights: FloatArray) -> Values:
    """Words of all predictions by words of all references. 0 or above; 1: as long as these."""
    predicted = weights @ _lengths(table.predictions)
    stated = weights @ _lengths(table.references)
    empty = np.full(len(weights), np.nan)
    found = np.divide(predicted, stated, out=empty, where=stated > 0)
    return Values(found, None, None if stated.any() else "no reference has a word")


def distinct_reports(table: ReportTable, weights: FloatArray) -> Values:
    """Different predictions by the number of predictions, in [0, 1].

    Each of m equal predictions counts 1 / m, m being that of the whole table in every resample: a
    patient drawn twice is no repetition of the model's.
    """
    prints = [fingerprint(text) for text in table.predictions]
    counts = Counter(prints)
    return Values(_mean(np.array([1 / counts[p] for p in prints]), weights))


def copied_reports(table: CopyTable, weights: FloatArray) -> Values:
    """Share of the predictions whose words are those of a training report, in [0, 1]."""
    training = table.training
    if training is None:
        return Values(np.full(len(weights), np.nan), None, NO_TRAINING)
    copied = [fingerprint(text) in training for text in table.predictions]
    return Values(_mean(np.array(copied, np.float64), weights))


def _lengths(texts: Iterable[str]) -> FloatArray:
    return np.array([len(words(text)) for text in texts], np.float64)


def _mean(each: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted mean of [N] under [B, N]: [B], NaN where a row has no weight."""
    total = weights.sum(axis=1)
    empty = np.full(len(weights), np.nan)
    found: FloatArray = np.divide(weights @ each, total, out=empty, where=total > 0)
    return found
