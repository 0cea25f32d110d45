"""Caption metrics as sums over reports: what each report contributes, and what sums give.

BLEU, METEOR, ROUGE-L and CIDEr with one reference per report, as pycocoevalcap 1.2 computes them.
Texts come in as strings of words; `medbench.metrics.reports` says which. A report without a word
scores zero in all of them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from medbench.metrics.values import FloatArray

Integers = npt.NDArray[np.int64]

#: Longest n-grams that BLEU and CIDEr count.
ORDERS = 4
#: What R2Gen writes for a word that its vocabulary does not hold.
UNKNOWN = "<unk>"

#: pycocoevalcap's guards against division by zero, which show in a BLEU without matches.
_TINY, _SMALL = 1e-15, 1e-9
#: Weight of recall over precision in pycocoevalcap's ROUGE-L.
_BETA = 1.2
#: Width, in words, of CIDEr's penalty on unlike lengths.
_SIGMA = 6.0
#: METEOR 1.5 for English ("rank" task): alpha, beta, gamma, delta; weights of its four matchers.
_ALPHA, _METEOR_BETA, _GAMMA, _DELTA = 0.85, 0.20, 0.60, 0.75
_MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])

_DOTS = re.compile(r"\.{2,}")
_PUNCTUATION = re.compile(r"""[.,?;:*!%^&_+()<=>@\[\]{}"'/\\]""")


def r2gen_words(text: str) -> list[str]:
    """Words of a report as R2Gen reads it: lower case, "." after each sentence, no other marks.

    Runs of white space are one blank and runs of dots one dot; the numbers 1 to 5 of a list are
    dropped; sentences end at a dot and a blank; then all punctuation but hyphens goes. These are
    the rules of its MIMIC-CXR reader, applied to text without white space around it; its IU X-ray
    reader differs on line breaks, runs of blanks and runs of more than eight dots only. A text
    without a word has none here, where R2Gen has one ".".

    >>> r2gen_words("1. Heart size is normal. 2. No acute disease.")
    ['heart', 'size', 'is', 'normal', '.', 'no', 'acute', 'disease', '.']
    """
    text = _DOTS.sub(".", " ".join(text.split())).replace("1. ", "")
    for number in "2345":
        text = text.replace(f". {number}. ", ". ")
    for number in "2345":
        text = text.replace(f" {number}. ", ". ")
    words: list[str] = []
    for sentence in text.strip().lower().split(". "):
        words += [*_PUNCTUATION.sub("", sentence).split(), "."]
    return words if any(word != "." for word in words) else []


def r2gen_text(text: str, vocabulary: Collection[str], max_length: int) -> str:
    """A report in the R2Gen convention, for references and predictions alike.

    Args:
        text: any report.
        vocabulary: words that are kept; others become `UNKNOWN`.
        max_length: number of words after which it is cut. R2Gen's option ``--max_seq_length 60``
            also counts its start token, and so keeps 59 words.

    >>> r2gen_text("The heart is big.", {"the", "heart", "is", "."}, 4)
    'the heart is <unk>'
    """
    words = r2gen_words(text)[:max_length]
    return " ".join(word if word in vocabulary else UNKNOWN for word in words)


def r2gen_vocabulary(reports: Iterable[str], threshold: int) -> frozenset[str]:
    """Words, "." among them, that occur at least ``threshold`` times in the training reports.

    R2Gen takes 3 on IU X-ray and 10 on MIMIC-CXR.
    """
    counts = Counter(chain.from_iterable(r2gen_words(report) for report in reports))
    return frozenset(word for word, count in counts.items() if count >= threshold)


@dataclass(frozen=True, eq=False)
class GramCounts:
    """n-grams of one order in N predictions and N references.

    Attributes:
        report: int [K], the report of each distinct n-gram of a prediction.
        gram: int [K], its number, shared with the references.
        count: int [K], how often it occurs there.
        reference_report, reference_gram, reference_count: int [R], of the references.
        matched: int [M], positions among the K that the report's reference has too.
        reference_matched: int [M], their positions among the R.
    """

    report: Integers
    gram: Integers
    count: Integers
    reference_report: Integers
    reference_gram: Integers
    reference_count: Integers
    matched: Integers
    reference_matched: Integers


@dataclass(frozen=True, eq=False)
class Grams:
    """n-grams of all orders, and words per text."""

    orders: tuple[GramCounts, ...]
    words: Integers
    reference_words: Integers


def count_grams(predictions: Sequence[str], references: Sequence[str]) -> Grams:
    """Count the n-grams of N pairs of texts, words being what white space separates."""
    number: dict[str, int] = {}
    tokens = [text.split() for text in chain(predictions, references)]
    lengths = np.array([len(words) for words in tokens], dtype=np.int64)
    ids = np.fromiter(
        (number.setdefault(word, len(number)) for word in chain.from_iterable(tokens)),
        dtype=np.int64,
        count=int(lengths.sum()),
    )
    text = np.repeat(np.arange(len(tokens)), lengths)
    orders: list[GramCounts] = []
    gram = ids
    for order in range(1, ORDERS + 1):
        if order > 1:
            # A longer n-gram is the number of the shorter one and a word, numbered anew.
            pairs = gram[:-1] * len(number) + ids[order - 1 :]
            gram = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        inside = text[: len(gram)] == text[order - 1 :]
        orders.append(_gram_counts(text[: len(gram)][inside], gram[inside], len(predictions)))
    return Grams(tuple(orders), lengths[: len(predictions)], lengths[len(predictions) :])


def _gram_counts(text: Integers, gram: Integers, count: int) -> GramCounts:
    width = int(gram.max(initial=0)) + 1
    keys, counts = np.unique(text * width + gram, return_counts=True)
    split = int(np.searchsorted(keys, count * width))
    ours, theirs = keys[:split], keys[split:] - count * width
    _, matched, reference_matched = np.intersect1d(
        ours, theirs, assume_unique=True, return_indices=True
    )
    return GramCounts(
        ours // width, ours % width, counts[:split],
        theirs // width, theirs % width, counts[split:],
        matched, reference_matched,
    )  # fmt: skip


def bleu_statistics(grams: Grams) -> FloatArray:
    """What each report adds to BLEU: float [N, 10].

    Columns: words of the prediction; words of the reference; n-grams of the prediction for n = 1
    to 4; those of them that the reference has, each at most as often as there.
    """
    columns: list[npt.NDArray[np.generic]] = [grams.words, grams.reference_words]
    columns += [np.maximum(grams.words - order, 0) for order in range(ORDERS)]
    for found in grams.orders:
        clipped = np.minimum(
            found.count[found.matched], found.reference_count[found.reference_matched]
        )
        columns.append(_sum_by_report(found.report[found.matched], clipped, len(grams.words)))
    return np.stack(columns, axis=1).astype(np.float64)


def bleu(sums: FloatArray, order: int) -> FloatArray:
    """Corpus BLEU of order 1 to 4 from sums of `bleu_statistics`: [B, 10] -> [B], in [0, 1]."""
    words, reference_words = sums[:, 0], sums[:, 1]
    product = np.ones(len(sums))
    for n in range(order):
        product = product * ((sums[:, 2 + ORDERS + n] + _TINY) / (sums[:, 2 + n] + _SMALL))
    ratio = (words + _TINY) / (reference_words + _SMALL)
    # Powers of plain numbers: numpy's own differ from these in the last bit on some machines.
    roots = [value ** (1.0 / order) for value in product.tolist()]
    brevity = [math.exp(1 - 1 / value) if value < 1 else 1.0 for value in ratio.tolist()]
    return np.array(roots, dtype=np.float64) * np.array(brevity, dtype=np.float64)


def rouge_l(predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
    """ROUGE-L of each report, recall weighted 1.2 times precision: float [N], in [0, 1].

    Words are what single blanks separate.
    """
    scores = np.zeros(len(predictions))
    for i, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        if not prediction or not reference:
            continue
        ours, theirs = prediction.split(" "), reference.split(" ")
        common = _common_subsequence(ours, theirs)
        precision, recall = common / len(ours), common / len(theirs)
        if common:
            scores[i] = (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
    return scores


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, with a row of the usual table in one integer.

    Source: Hyyro 2004, "Bit-parallel LCS-length computation revisited".
    """
    places: dict[str, int] = {}
    for i, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        hits = row & places.get(word, 0)
        row = ((row + hits) | (row - hits)) & full
    return len(first) - row.bit_count()


def cider(grams: Grams) -> FloatArray:
    """CIDEr of each report: float [N], in [0, 10].

    Ten times the mean over n = 1 to 4 of the cosine between the n-gram counts of prediction and
    reference, weighted by the log of the references per reference that has the n-gram, counts
    clipped to the reference's, times a Gaussian of the difference in length. Known as CIDEr-D.
    """
    total = len(grams.words)
    scores = np.zeros(total)
    for found in grams.orders:
        width = int(max(found.gram.max(initial=0), found.reference_gram.max(initial=0))) + 1
        frequency = np.bincount(found.reference_gram, minlength=width)
        rarity = np.log(float(total)) - np.log(np.maximum(1.0, frequency))
        ours = found.count * rarity[found.gram]
        theirs = found.reference_count * rarity[found.reference_gram]
        norm = np.sqrt(
            _sum_by_report(found.report, ours**2, total)
            * _sum_by_report(found.reference_report, theirs**2, total)
        )
        shared = theirs[found.reference_matched]
        product = np.minimum(ours[found.matched], shared) * shared
        dot = _sum_by_report(found.report[found.matched], product, total)
        scores += np.divide(dot, norm, out=np.zeros(total), where=norm > 0)
    # The reference implementation measures length in bigrams.
    gap = np.maximum(grams.words - 1, 0) - np.maximum(grams.reference_words - 1, 0)
    scores *= 10 / ORDERS * np.exp(-(gap.astype(np.float64) ** 2) / (2 * _SIGMA**2))
    return scores


def meteor(sums: FloatArray) -> FloatArray:
    """METEOR from sums of `medbench.metrics.java.meteor_statistics`: [B, 23] -> [B], in [0, 1].

    Source: Denkowski and Lavie 2014, with the constants of version 1.5 for English.
    """
    length, function = sums[:, 0:2], sums[:, 2:4]
    # [B, matcher, content or function, prediction or reference]
    matches = sums[:, 4:20].reshape(-1, 4, 2, 2)
    kind = np.array([_DELTA, 1 - _DELTA])
    weighted = np.einsum("bmks,m,k->bs", matches, _MATCHERS, kind)
    total = _DELTA * (length - function) + (1 - _DELTA) * function
    chunks, words = sums[:, 20], (sums[:, 21] + sums[:, 22]) / 2
    whole = (matches.sum(axis=(1, 2)) == length).all(axis=1) & (chunks == 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = (weighted / total).T
        mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        broken = np.where(whole, 0.0, chunks / words)
        score = mean * (1 - _GAMMA * broken**_METEOR_BETA)
    found: FloatArray = np.maximum(np.nan_to_num(score, nan=0.0), 0.0)
    return found


def _sum_by_report(report: Integers, values: npt.NDArray[np.generic], total: int) -> FloatArray:
    weights = np.asarray(values, dtype=np.float64)
    return np.asarray(np.bincount(report, weights=weights, minlength=total), dtype=np.float64)
