"""Reports: what is dropped, how they are cut, and how they are reworded each epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
from cls_toys import toy_corpus
from hypothesis import given
from hypothesis import strategies as st

from medbench.data.reports import one_line, sections
from medbench.errors import DataError
from medbench_cls_clip.reports import Wording, clean, sentences, told_pairs
from toy_run import ToyRun

REPORT = """
                                 FINAL REPORT
 EXAMINATION:  CHEST (PORTABLE AP)

 INDICATION:  ___ year old woman with cough.

 TECHNIQUE:  Portable AP view.

 COMPARISON:  Radiograph of ___.

 DATE:  ___.

 FINDINGS:

 The lungs are clear. ___ effusion.

 IMPRESSION: Normal.
"""


def test_a_report_of_mimic() -> None:
    parts = {name: one_line(text) for name, text in sections(REPORT).items()}
    assert set(parts) >= {"examination", "technique", "comparison", "date"}
    assert clean(parts, "unused") == (
        "INDICATION: woman with cough. FINDINGS: The lungs are clear. effusion. IMPRESSION: Normal."
    )


@pytest.mark.parametrize(
    ("parts", "text", "expected"),
    [
        ({}, "Clear  lungs.\nNo change.", "Clear lungs. No change."),
        ({}, None, ""),
        ({"technique": "PA and lateral."}, "PA and lateral.", ""),
        ({"body": "No heading.", "impression": "Fine."}, None, "No heading. IMPRESSION: Fine."),
        ({"final-report": "Short."}, None, "Short."),
        ({"date-of-exam": "1.1.2020"}, None, ""),
        ({"wet-read": "Clear."}, None, "WET READ: Clear."),
        ({"findings": "A ___-year-old heart __."}, None, "FINDINGS: A heart ."),
    ],
)
def test_cleaning(parts: dict[str, str], text: str | None, expected: str) -> None:
    assert clean(parts, text) == expected


def test_short_pieces_are_no_sentences() -> None:
    assert sentences("One. 1. Four. Five5.. .  A longer one", 5) == ("Five5", "A longer one")
    assert sentences("", 5) == ()


def test_images_without_a_report_are_counted_and_left_out(tmp_path: Path) -> None:
    run = ToyRun(tmp_path)
    samples, told = told_pairs(toy_corpus(10, silent=3), 5, run)
    assert [s.id for s in samples] == [f"image-{i}" for i in range(7)]
    assert told[0] == ("FINDINGS: There is a disc on the upper side", "Case 0 of some",
                       "IMPRESSION: Disc, upper")  # fmt: skip
    assert len(run.warnings) == 1
    assert "3 of 10" in run.warnings[0]
    with pytest.raises(DataError, match="1 training images with a report among 10"):
        told_pairs(toy_corpus(10, silent=9), 5, run)


TOLD = st.lists(st.lists(st.text("ab", min_size=5, max_size=8), min_size=1, max_size=6), min_size=1)


@given(TOLD, st.integers(0, 2**40), st.integers(0, 50), st.sampled_from([0.1, 0.5, 0.8, 1.0]))
def test_wording_tells_a_share_of_the_sentences(
    told: list[list[str]], seed: int, epoch: int, fraction: float
) -> None:
    wording = Wording(told, seed, fraction=fraction, shuffle=True)
    wording.begin(epoch)
    rows = list(range(len(told)))
    texts = wording.texts(rows)
    for text, pieces in zip(texts, told, strict=True):
        found = text.split(". ")
        assert len(found) == max(1, round(fraction * len(pieces)))
        left = list(pieces)
        for piece in found:
            left.remove(piece)  # raises for one told twice
    wording.begin(epoch + 1)
    wording.begin(epoch)
    assert wording.texts(rows[::-1]) == texts[::-1], "a draw depends on seed, epoch and image"


def test_order_changes_from_epoch_to_epoch_only_where_it_is_shuffled() -> None:
    told = [[f"sentence {i}" for i in range(8)]]
    for shuffle in (True, False):
        wording = Wording(told, 0, fraction=1.0, shuffle=shuffle)
        seen = set()
        for epoch in range(5):
            wording.begin(epoch)
            seen.add(wording.texts([0])[0])
        assert len(seen) == (5 if shuffle else 1)
    assert seen == {". ".join(told[0])}
