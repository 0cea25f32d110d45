"""Which pairs the Adaptor is trained on, and which patients stop it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adaptor_toys import toy_corpus, toy_sample
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.errors import DataError
from medbench_adaptor.pairs import divide_pairs, report_pairs, report_words
from toy_run import ToyRun


def test_words_are_impression_then_findings() -> None:
    sample = toy_sample(1)
    assert report_words(sample) == "edema seen. There is edema, 1."
    assert report_words(replace(sample, sections={"findings": "Clear."})) == "Clear."
    assert report_words(replace(sample, sections={"technique": "PA"})) == "whole report"
    assert report_words(replace(sample, sections={}, text="  ")) == ""


def test_frontal_images_with_reports_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    samples = [
        toy_sample(0, "PA"),
        toy_sample(1, "lateral"),
        toy_sample(2, "AP"),
        toy_sample(3, "PA", report=False),
        toy_sample(4, "frontal"),
        toy_sample(5, None),
        replace(toy_sample(6, "AP"), sections={}, text=""),
    ]
    run = ToyRun(tmp_path)
    kept, words = report_pairs(toy_corpus(samples), run)
    assert [s.id for s in kept] == ["image-0", "image-2", "image-4"]
    assert words[0] == report_words(samples[0])
    assert run.warnings == [
        "2 of 5 frontal images of 'mimic-cxr' have no report and are not trained on."
    ]


def test_a_corpus_that_tells_no_views_is_taken_whole_and_said_so(tmp_path: Path) -> None:
    run = ToyRun(tmp_path)
    kept, _ = report_pairs(toy_corpus([toy_sample(i, None) for i in range(4)]), run)
    assert len(kept) == 4
    assert "tells no views" in run.warnings[0]


@pytest.mark.parametrize(
    ("view", "report", "frontal"), [("lateral", True, 0), ("PA", False, 3)]
)  # fmt: skip
def test_a_corpus_without_a_pair_is_refused(
    tmp_path: Path, view: str, report: bool, frontal: int
) -> None:
    corpus = toy_corpus([toy_sample(i, view, report) for i in range(3)])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"no frontal image with a report \(3 samples, {frontal} "):
        report_pairs(corpus, ToyRun(tmp_path))


def patients(rows: torch.Tensor) -> set[str | None]:
    return {toy_sample(row).patient for row in rows.tolist()}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.15, 0.9), st.floats(0.15, 0.9))
def test_shares_of_patients_are_nested_and_never_meet_validation(
    seed: int, one: float, other: float
) -> None:
    samples = [toy_sample(i) for i in range(200)]
    small, large = sorted((one, other))
    train, val = divide_pairs(samples, 0.1, small, seed)
    more, same_val = divide_pairs(samples, 0.1, large, seed)
    whole, _ = divide_pairs(samples, 0.1, 1.0, seed)
    assert val.tolist() == same_val.tolist()
    assert set(train.tolist()) <= set(more.tolist()) <= set(whole.tolist())
    assert not patients(whole) & patients(val)
    assert patients(whole) | patients(val) == patients(torch.arange(200))
    assert len(patients(val)) == 10
    assert len(patients(train)) == round(small * 90)
    assert len(train) == 2 * len(patients(train)), "whole patients"


def test_the_seed_chooses() -> None:
    samples = [toy_sample(i) for i in range(200)]
    first, again, other = (divide_pairs(samples, 0.1, 0.2, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


def test_too_few_patients_are_refused() -> None:
    with pytest.raises(DataError, match="leaves 1 of 10 training patients"):
        divide_pairs([toy_sample(i) for i in range(20)], 0.1, 1.0, 0)
    with pytest.raises(DataError, match="leaves 1 of 90 training patients"):
        divide_pairs([toy_sample(i) for i in range(200)], 0.1, 0.01, 0)
