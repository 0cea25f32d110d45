"""The capability reference follows from the protocols."""

from __future__ import annotations

from pathlib import Path

from medbench.schemas.specs import CAPABILITIES
from medbench.testing.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "capabilities.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "write it anew: python -m medbench.testing.reference docs/capabilities.md"
    )


def test_every_capability_has_its_signature() -> None:
    text = reference()
    for name in CAPABILITIES:
        assert f"\n{name}(" in text, name
