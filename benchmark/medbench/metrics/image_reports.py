"""What a generator of reports says of generated images, against the reports behind their prompts.

A radiologist who reads a generated image should come to the report whose impression it was drawn
from. Reports of generated images come with the table; each is compared with the whole report of its
prompt by the findings that both state and by their words. Words are those of the R2Gen convention
(`medbench.metrics.captioning.r2gen_words`), none replaced and nothing cut, so Java is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np

from medbench.metrics import captioning
from medbench.metrics.image_clusters import hold
from medbench.metrics.image_table import JudgedTable
from medbench.metrics.reports import finding_f1
from medbench.metrics.values import FloatArray, Values


@dataclass(frozen=True, eq=False)
class Told:
    """Reports of G generated images and of their prompts: a `ReportTable`."""

    predictions: Sequence[str]
    references: Sequence[str]
    vocabulary: None = None
    max_length: None = None

    @cached_property
    def words(self) -> tuple[list[str], list[str]]:
        """Both as words between blanks."""
        kept = {
            text: " ".join(captioning.r2gen_words(text))
            for text in {*self.predictions, *self.references}
        }
        return [kept[text] for text in self.predictions], [kept[text] for text in self.references]

    @cached_property
    def bleu(self) -> FloatArray:
        """float [G, 10], see `captioning.bleu_statistics`."""
        return captioning.bleu_statistics(captioning.count_grams(*self.words))

    @cached_property
    def rouge_l(self) -> FloatArray:
        """float [G]."""
        return captioning.rouge_l(*self.words)


def report_finding_f1(table: JudgedTable, weights: FloatArray) -> Values:
    """F1 of the findings that reports of generated images state, pooled and per finding."""
    told = _told(table)
    if told is None:
        return _absent(weights)
    return finding_f1(told, _mine(told, weights))


def report_bleu_4(table: JudgedTable, weights: FloatArray) -> Values:
    """Corpus BLEU-4 of the reports of generated images. In [0, 1]."""
    told = _told(table)
    if told is None:
        return _absent(weights)
    mine = _mine(told, weights)
    found = captioning.bleu(mine @ told.bleu, 4)
    return Values(np.where(mine.sum(axis=1) > 0, found, np.nan))


def report_rouge_l(table: JudgedTable, weights: FloatArray) -> Values:
    """Mean ROUGE-L of the reports of generated images. In [0, 1]."""
    told = _told(table)
    if told is None:
        return _absent(weights)
    mine = _mine(told, weights)
    total = mine.sum(axis=1)
    empty = np.full(len(weights), np.nan)
    return Values(np.divide(mine @ told.rouge_l, total, out=empty, where=total > 0))


_kept: WeakKeyDictionary[JudgedTable, Told] = WeakKeyDictionary()


def _told(table: JudgedTable) -> Told | None:
    if table.reports is None or table.prompt_reports is None or table.prompts is None:
        return None
    if table not in _kept:
        own = [table.prompt_reports[prompt] for prompt in table.prompts.tolist()]
        _kept[table] = Told(list(table.reports), own)
    return _kept[table]


def _mine(told: Told, weights: FloatArray) -> FloatArray:
    mine = weights[:, -len(told.predictions) :]
    hold(mine, len(told.predictions))
    return mine


def _absent(weights: FloatArray) -> Values:
    reason = "there are no reports of the generated images"
    return Values(np.full(len(weights), np.nan), None, reason)
