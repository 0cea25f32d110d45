"""Which generated reports are shown: the best, the worst, and some drawn blindly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medbench.data.report_findings import FINDINGS, read_report
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.metrics.captioning import bleu, bleu_statistics, count_grams
from medbench.metrics.report_wording import words

EACH = 8  #: cases of each kind
ATTENDED = 2  #: of each kind, those whose cross-attention is kept
SEED = 0
_NORMAL = "no-finding"


@dataclass(frozen=True)
class Agreement:
    """What two reports state as present, names of FINDINGS in their order.

    Attributes:
        right: both; missed: the reference alone; invented: the prediction alone.
    """

    right: tuple[str, ...]
    missed: tuple[str, ...]
    invented: tuple[str, ...]

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN) in [0, 1]; 1 where neither states anything."""
        wrong = len(self.missed) + len(self.invented)
        return 2 * len(self.right) / (2 * len(self.right) + wrong) if self.right or wrong else 1.0


def agreement(reference: str, prediction: str) -> Agreement:
    """Findings of a generated report held against its reference; uncertain ones do not count."""
    stated, called = (
        {name for name, state in read_report(text).labels.items() if state == 1}
        for text in (reference, prediction)
    )
    return Agreement(
        tuple(name for name in FINDINGS if name in stated & called),
        tuple(name for name in FINDINGS if name in stated - called),
        tuple(name for name in FINDINGS if name in called - stated),
    )


def bleu_4(references: Sequence[str], predictions: Sequence[str]) -> list[float]:
    """BLEU-4 of each report alone, on its words without punctuation, in [0, 1]. Needs no Java."""
    texts = [[" ".join(words(text)) for text in some] for some in (predictions, references)]
    return [float(v) for v in bleu(bleu_statistics(count_grams(texts[0], texts[1])), 4)]


def choose(table: ReportPredictions, each: int = EACH) -> dict[str, list[int]]:
    """Rows of the ``each`` best, random and worst cases; none is both best and worst.

    Ranked by F1 of the findings of that report; equal ones by how many findings other than
    "no-finding" are right, then by BLEU-4, then by id. Random ones do not depend on predictions:
    they are the same for every model on the same samples.
    """
    rows = sorted(range(len(table.sample_ids)), key=lambda row: table.sample_ids[row])
    told = bleu_4(table.references, table.predictions)

    def goodness(row: int) -> tuple[float, int, float]:
        found = agreement(table.references[row], table.predictions[row])
        return found.f1, len(set(found.right) - {_NORMAL}), told[row]

    worth = {row: goodness(row) for row in rows}
    ranked = sorted(rows, key=lambda row: worth[row], reverse=True)
    drawn = np.random.default_rng(SEED).permutation(len(rows))[:each]
    return {
        "best": ranked[:each],
        "random": [rows[i] for i in drawn],
        "worst": ranked[each:][::-1][:each],
    }


def attended(table: ReportPredictions) -> list[int]:
    """Rows of the few cases whose attention is kept, each once."""
    chosen = choose(table).values()
    return list(dict.fromkeys(row for rows in chosen for row in rows[:ATTENDED]))
