"""Report-generation metrics, each as one weighted function.

Every function takes a table of N pairs of reports and ``weights`` float [B, N], not negative, and
returns B values: a row of ones gives the metric itself, a row of patient counts gives it on a
bootstrap resample. What a report contributes is computed once per table and kept as long as the
table lives, so that a resample costs a row of a matrix product. Where the tokenizer or METEOR
cannot run, and where the vocabulary or the length of the R2Gen convention is not known, a metric
is undefined and says why.

Sources: pycocoevalcap 1.2 for the caption metrics, which `medbench.metrics.captioning` describes;
Chen et al. 2020 (R2Gen) for the convention of the names that end in "-r2gen"; and
`medbench.data.report_findings` for what a report states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from medbench.data.report_findings import FINDINGS, read_report
from medbench.metrics import captioning
from medbench.metrics.java import JavaError, meteor_statistics, ptb_tokenize
from medbench.metrics.values import FloatArray, ReportTable, Values

Convention = Literal["raw", "r2gen"]
Measure = Literal["precision", "recall", "f1"]
ReportMetric = Callable[[ReportTable, FloatArray], Values]

NO_VOCABULARY = (
    "the R2Gen convention needs the vocabulary of the training reports, which a run knows and a "
    "file of predictions does not"
)
NO_LENGTH = "the R2Gen convention needs the number of words after which the task cuts a report"


class _Missing(Exception):
    """What a metric needs is not there; the text is the reason."""


class _Texts:
    """One table in one convention: its words, and what each report adds to each metric."""

    def __init__(self, table: ReportTable, convention: Convention) -> None:
        if convention == "raw":
            tokens = ptb_tokenize([*table.predictions, *table.references])
        else:
            vocabulary, length = table.vocabulary, table.max_length
            if vocabulary is None:
                raise _Missing(NO_VOCABULARY)
            if length is None:
                raise _Missing(NO_LENGTH)
            tokens = [
                captioning.r2gen_text(text, vocabulary, length)
                for text in (*table.predictions, *table.references)
            ]
        count = len(table.predictions)
        self.predictions, self.references = tokens[:count], tokens[count:]

    @cached_property
    def grams(self) -> captioning.Grams:
        return captioning.count_grams(self.predictions, self.references)

    @cached_property
    def bleu(self) -> FloatArray:
        return captioning.bleu_statistics(self.grams)

    @cached_property
    def rouge_l(self) -> FloatArray:
        return captioning.rouge_l(self.predictions, self.references)

    @cached_property
    def cider(self) -> FloatArray:
        return captioning.cider(self.grams)

    @cached_property
    def meteor(self) -> FloatArray:
        # Each pair once: many reports of one set are the same sentence.
        pairs = list(zip(self.predictions, self.references, strict=True))
        once = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        found = meteor_statistics([pair[0] for pair in once], [pair[1] for pair in once])
        return found[[once[pair] for pair in pairs]]


_TEXTS: WeakKeyDictionary[ReportTable, dict[Convention, _Texts]] = WeakKeyDictionary()
_STATED: WeakKeyDictionary[ReportTable, tuple[FloatArray, FloatArray]] = WeakKeyDictionary()


def _texts(table: ReportTable, convention: Convention) -> _Texts:
    kept = _TEXTS.setdefault(table, {})
    if convention not in kept:
        kept[convention] = _Texts(table, convention)
    return kept[convention]


def _caption_metric(
    convention: Convention, value: Callable[[_Texts, FloatArray], FloatArray], doc: str
) -> ReportMetric:
    """A metric of the texts: ``value`` takes them and weights [B, N] and gives [B]."""

    def metric(table: ReportTable, weights: FloatArray) -> Values:
        try:
            found = value(_texts(table, convention), weights)
        except (JavaError, _Missing) as error:
            return Values(np.full(len(weights), np.nan), None, str(error))
        return Values(np.where(weights.sum(axis=1) > 0, found, np.nan))

    metric.__doc__ = doc
    return metric


def _bleu(convention: Convention, order: int) -> ReportMetric:
    return _caption_metric(
        convention,
        lambda texts, weights: captioning.bleu(weights @ texts.bleu, order),
        f"Corpus BLEU-{order}, {_NAMED[convention]}. In [0, 1].",
    )


def _meteor(convention: Convention) -> ReportMetric:
    return _caption_metric(
        convention,
        lambda texts, weights: captioning.meteor(weights @ texts.meteor),
        f"Corpus METEOR 1.5, {_NAMED[convention]}. In [0, 1]. Needs Java.",
    )


def _rouge_l(convention: Convention) -> ReportMetric:
    return _caption_metric(
        convention,
        lambda texts, weights: _mean(texts.rouge_l, weights),
        f"Mean ROUGE-L of the reports, {_NAMED[convention]}. In [0, 1].",
    )


def _cider(convention: Convention) -> ReportMetric:
    return _caption_metric(
        convention,
        lambda texts, weights: _mean(texts.cider, weights),
        f"Mean CIDEr of the reports, {_NAMED[convention]}; document frequencies are those of the "
        "whole table in every resample. In [0, 10].",
    )


def _mean(scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted mean of [N] under [B, N]: [B], 0 where a row has no weight."""
    total = weights.sum(axis=1)
    found: FloatArray = np.divide(
        weights @ scores, total, out=np.zeros(len(weights)), where=total > 0
    )
    return found


_NAMED: dict[Convention, str] = {
    "raw": "on raw text (Penn Treebank tokens; needs Java)",
    "r2gen": "in the R2Gen convention (needs the table's vocabulary and length)",
}

bleu_1, bleu_2, bleu_3, bleu_4 = (_bleu("raw", order) for order in (1, 2, 3, 4))
meteor = _meteor("raw")
rouge_l = _rouge_l("raw")
cider = _cider("raw")
bleu_1_r2gen, bleu_2_r2gen, bleu_3_r2gen, bleu_4_r2gen = (
    _bleu("r2gen", order) for order in (1, 2, 3, 4)
)
meteor_r2gen = _meteor("r2gen")
rouge_l_r2gen = _rouge_l("r2gen")
cider_r2gen = _cider("r2gen")


def finding_precision(table: ReportTable, weights: FloatArray) -> Values:
    """Share of the findings stated in the predictions that the references state. In [0, 1]."""
    return agreement("precision", FINDINGS, *_stated(table), weights)


def finding_recall(table: ReportTable, weights: FloatArray) -> Values:
    """Share of the findings stated in the references that the predictions state. In [0, 1]."""
    return agreement("recall", FINDINGS, *_stated(table), weights)


def finding_f1(table: ReportTable, weights: FloatArray) -> Values:
    """Harmonic mean of finding precision and recall. In [0, 1]."""
    return agreement("f1", FINDINGS, *_stated(table), weights)


def agreement(
    measure: Measure,
    labels: Sequence[str],
    predicted: FloatArray,
    reference: FloatArray,
    weights: FloatArray,
) -> Values:
    """Precision, recall or F1 of labels read from reports, pooled over labels and per label.

    Args:
        measure: which; F1 is 2 TP / (predicted + stated), 0 where one side states nothing.
        labels: L names.
        predicted, reference: float [N, L], 1 where the report states the label, else 0.
        weights: float [B, N].

    Returns:
        The pooled (micro-averaged) value, and that of each label beside it; NaN where nothing
        stands below the line, with a reason.
    """
    hits = weights @ (predicted * reference)
    called, stated = weights @ predicted, weights @ reference
    above, below, nothing = {
        "precision": (hits, called, "no prediction states"),
        "recall": (hits, stated, "no reference states"),
        "f1": (2 * hits, called + stated, "neither prediction nor reference states"),
    }[measure]
    columns = _ratio(above, below)
    never = [name for k, name in enumerate(labels) if not below[:, k].any()]
    reason = None
    if len(never) == len(labels):
        reason = f"{nothing} any finding"
    elif never:
        reason = f"{nothing} these, which have no value of their own: {', '.join(never)}"
    per_label = {name: columns[:, k] for k, name in enumerate(labels)}
    return Values(_ratio(above.sum(axis=1), below.sum(axis=1)), per_label, reason)


def _stated(table: ReportTable) -> tuple[FloatArray, FloatArray]:
    """Findings of predictions and of references, each float [N, 14] of 0 and 1."""
    found = _STATED.get(table)
    if found is None:
        found = (_positive(table.predictions), _positive(table.references))
        _STATED[table] = found
    return found


def _positive(texts: Sequence[str]) -> FloatArray:
    rows = [_read(text) for text in texts]
    return np.array(rows, dtype=np.float64).reshape(len(texts), len(FINDINGS))


@lru_cache(maxsize=50_000)
def _read(text: str) -> tuple[bool, ...]:
    """Whether each of FINDINGS is stated as present; uncertain is not."""
    labels = read_report(text).labels
    return tuple(labels[name] == 1 for name in FINDINGS)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient, NaN where the denominator is zero."""
    empty = np.full(np.shape(numerator), np.nan)
    found: FloatArray = np.divide(numerator, denominator, out=empty, where=denominator > 0)
    return found
