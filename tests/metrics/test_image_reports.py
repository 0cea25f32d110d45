"""Reports of generated images against those of their prompts, by counting and by other packages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from image_tables import features

from medbench.evaluation.image_predictions import ImagePredictions
from medbench.metrics.captioning import r2gen_words
from medbench.metrics.image_reports import report_bleu_4, report_finding_f1, report_rouge_l

REPORTS = (
    "The heart is enlarged. There is a left pleural effusion.",
    "The lungs are clear. No pneumothorax or pleural effusion is seen.",
    "Right pneumothorax. The heart is normal in size.",
)
METRICS = (report_finding_f1, report_bleu_4, report_rouge_l)


def table(said: Sequence[str], prompts: Sequence[int]) -> ImagePredictions:
    given = {"phantom": features(0, 3, len(said), 2)}
    return ImagePredictions(
        None, None, np.array(prompts, np.int64), given, reports=list(said),
        prompt_reports=list(REPORTS),
    )  # fmt: skip


def test_the_right_report_scores_one_in_all_of_them_and_an_empty_one_nothing() -> None:
    prompts = [0, 0, 1, 2]
    right = table([REPORTS[k] for k in prompts], prompts)
    silent = table([""] * 4, prompts)
    for metric in METRICS:
        assert metric(right, np.ones((1, 7))).value[0] == pytest.approx(1)
        assert metric(silent, np.ones((1, 7))).value[0] == pytest.approx(0, abs=1e-6)


def test_findings_are_pooled_over_images_and_stand_alone() -> None:
    # image 0: cardiomegaly and effusion, as asked; 1: the same, where pneumothorax was asked
    found = report_finding_f1(table([REPORTS[0], REPORTS[0]], [0, 2]), np.ones((1, 5)))
    assert found.value[0] == pytest.approx(2 * 2 / (4 + 3))
    assert found.per_label is not None
    assert found.per_label["cardiomegaly"][0] == pytest.approx(2 / 3)
    assert found.per_label["pneumothorax"][0] == 0
    # the second image thrice
    weighted = report_finding_f1(
        table([REPORTS[0], REPORTS[0]], [0, 2]), np.array([[1.0, 1, 1, 1, 3]])
    )
    assert weighted.value[0] == pytest.approx(2 * 2 / (8 + 5))


def test_words_are_scored_as_pycocoevalcap_scores_them() -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.rouge.rouge import Rouge

    said = [REPORTS[1], REPORTS[0], REPORTS[2], "The heart is normal. No effusion."]
    prompts = [1, 2, 0, 1]
    words = [" ".join(r2gen_words(text)) for text in (*said, *(REPORTS[k] for k in prompts))]
    results = {k: [words[k]] for k in range(4)}
    references = {k: [words[4 + k]] for k in range(4)}
    bleu, _ = Bleu(4).compute_score(references, results, verbose=0)
    rouge, _ = Rouge().compute_score(references, results)
    some, weights = table(said, prompts), np.ones((1, 7))
    assert report_bleu_4(some, weights).value[0] == pytest.approx(bleu[3], rel=1e-12)
    assert report_rouge_l(some, weights).value[0] == pytest.approx(rouge, rel=1e-12)


def test_without_reports_they_are_absent_with_their_reason() -> None:
    plain = ImagePredictions(None, None, np.zeros(4, np.int64), {"phantom": features(0, 3, 4, 2)})
    for metric in METRICS:
        found = metric(plain, np.ones((2, 7)))
        assert np.isnan(found.value).all()
        assert found.reason == "there are no reports of the generated images"
