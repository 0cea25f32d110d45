"""Sections of a report: every way headings are written, and no word lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medbench.data.reports import HEADINGS, narrative, sections, split_report

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  Cough at 14:30, history of: nothing.

 COMPARISON:  None.

 FINDINGS:

 Lungs are
 clear.  Heart is normal.

 IMPRESSION:

 1. No acute process.
 2. Done.
"""


def test_headings_at_the_start_of_lines_and_texts_over_several_lines() -> None:
    found = sections(REPORT)

    assert " ".join(found["findings"].split()) == "Lungs are clear. Heart is normal."
    assert found["impression"].endswith("2. Done.")
    assert found["indication"] == "Cough at 14:30, history of: nothing."
    assert found["examination"] == "CHEST (PA AND LAT)"
    assert set(found) == {"examination", "indication", "comparison", "findings", "impression"}


def test_headings_inside_a_line() -> None:
    found = sections("FINDINGS: Clear lungs. IMPRESSION: Normal chest. RECOMMENDATION(S): None.")

    assert found == {
        "findings": "Clear lungs.", "impression": "Normal chest.", "recommendation": "None."
    }  # fmt: skip


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("Findings:", "findings"), ("impression :", "impression"), ("CONCLUSION:", "impression"),
        ("REASON FOR EXAM:", "indication"), ("CLINICAL HISTORY:", "indication"),
        ("COMPARISONS:", "comparison"), ("IMPRESSION\n", "impression"), ("WET READ:", "wet-read"),
        ("PA AND LATERAL CHEST:", "findings"), ("AP CHEST, 1 VIEW:", "findings"),
        ("CARDIAC CATHETERS:", "cardiac-catheters"),
    ],
)  # fmt: skip
def test_a_section_is_known_by_its_other_names(heading: str, name: str) -> None:
    assert sections(f"TECHNIQUE: film\n{heading} all is well") == {
        "technique": "film", name: "all is well"
    }  # fmt: skip


def test_a_report_without_headings_is_one_body() -> None:
    assert sections("The lungs are clear.\nNo effusion.") == {
        "body": "The lungs are clear.\nNo effusion."
    }
    assert sections(" \n ") == {}


def test_text_before_the_first_heading_is_kept() -> None:
    assert sections("Portable film.\nFINDINGS: clear")["body"] == "Portable film."


def test_a_section_that_occurs_twice_is_joined() -> None:
    assert sections("IMPRESSION: One.\nADDENDUM: x\nIMPRESSION: Two.")["impression"] == "One.\nTwo."


def test_neither_a_time_nor_a_word_in_small_letters_is_a_heading() -> None:
    assert list(sections("FINDINGS: Film at\nNOON 12:30. Note the heart: it is large.")) == [
        "findings"
    ]


def test_narrative_is_findings_then_impression() -> None:
    assert narrative(sections(REPORT), REPORT) == (
        "Lungs are clear. Heart is normal. 1. No acute process. 2. Done."
    )
    assert narrative({"impression": "Normal."}, "unused") == "Normal."


def test_without_either_section_the_last_paragraph_describes_the_image() -> None:
    text = "COMPARISON: None.\n\nChest, two views.\n\nThe lungs\nare clear.\n"

    assert narrative(sections(text), text) == "The lungs are clear."


_PIECES = st.one_of(
    st.sampled_from([spelling for some in HEADINGS.values() for spelling in some]).map(
        lambda heading: f"\n{heading}:"
    ),
    st.sampled_from(
        ["\n", "\n\n", ". ", "FINAL REPORT\n", " IMPRESSION: ", "PORTABLE CHEST:", ":"]
    ),
    st.text("aAbBzZ019 .,:/()\n_'-", max_size=12),
)


@given(st.lists(_PIECES, max_size=15).map("".join))
def test_no_word_is_lost_or_moved(text: str) -> None:
    kept = " ".join(f"{heading} {body}" for heading, body in split_report(text))

    assert re.findall(r"\w+", kept) == re.findall(r"\w+", text)
