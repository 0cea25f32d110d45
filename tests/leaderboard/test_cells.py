"""What a plugin or a submission writes cannot break out of a Markdown table."""

from __future__ import annotations

import pytest

from medbench.leaderboard.cells import escaped, line


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("a <!-- b", "a &lt;!-- b"),
        ("p < .05", "p < .05"),
        ("a | b\nc", r"a \| b c"),
    ],
)
def test_text_stays_in_its_cell(given: str, written: str) -> None:
    assert escaped(given) == written
    assert line([given, "x"]) == f"| {written} | x |"
