"""What the Adaptor is pre-trained on: frontal radiographs with the words of their reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from medbench.data.samples import Corpus, Sample
from medbench.data.splits import fraction, patients_of
from medbench.errors import DataError
from medbench.models.capabilities import FitRun

#: Views that are trained on; "frontal" is one of the other two, not said which.
VIEWS = ("PA", "AP", "frontal")

#: What a share of the patients is drawn from, as `medbench.data.splits.fraction` names it.
_CLASS = "frontal images with reports"


def report_words(sample: Sample) -> str:
    """Impression and findings, in that order; the text as it stands where a report has neither.

    Empty when there is no report.
    """
    parts = [sample.sections.get(name, "").strip() for name in ("impression", "findings")]
    return " ".join(part for part in parts if part) or (sample.text or "").strip()


def report_pairs(corpus: Corpus, run: FitRun) -> tuple[list[Sample], list[str]]:
    """The corpus' frontal images that have a report, and its words, in the corpus' order.

    In a corpus that tells no view at all (R2Gen's annotation) every image is taken, and the user
    is told. Images without a report are counted in a warning. Raises DataError when nothing is
    left.
    """
    frontal = [s for s in corpus.samples if s.kind == "image"]
    if any(sample.view for sample in frontal):
        frontal = [s for s in frontal if s.view in VIEWS]
    else:
        run.warn(f"'{corpus.name}' tells no views: lateral images are trained on as well.")
    kept = [(sample, words) for sample in frontal if (words := report_words(sample))]
    silent = len(frontal) - len(kept)
    if silent:
        run.warn(
            f"{silent:,} of {len(frontal):,} frontal images of '{corpus.name}' have no report and "
            "are not trained on."
        )
    if not kept:
        raise DataError(
            f"Corpus '{corpus.name}' has no frontal image with a report ({len(corpus.samples):,} "
            f"samples, {len(frontal):,} of them frontal images); the Adaptor is pre-trained on "
            "such pairs. Give a folder that holds the reports."
        )
    return [sample for sample, _ in kept], [words for _, words in kept]


def divide_pairs(
    samples: Sequence[Sample], validation: float, share: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to train on and rows to stop by: no patient is in both.

    Args:
        samples: the pairs, [N].
        validation: share of the patients kept for validation, whatever ``share`` is.
        share: of the other patients, how many are trained on. Smaller shares are part of larger.
        seed: of both choices.

    Returns:
        int64 rows, ascending. Raises DataError when a share leaves fewer than 5 patients.
    """
    patients = patients_of(samples)
    kept_back = fraction(patients, [_CLASS] * len(patients), validation, seed)
    others = np.setdiff1d(np.arange(len(patients)), kept_back)
    if not len(others):
        raise DataError("Every patient of the corpus is needed for validation. Use more data.")
    names = [patients[row] for row in others]
    # two patients are what a contrast needs: no label is at stake
    chosen = others[fraction(names, [_CLASS] * len(names), share, seed, fewest=2)]
    return torch.from_numpy(chosen), torch.from_numpy(kept_back)
