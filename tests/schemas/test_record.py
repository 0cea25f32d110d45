"""Records: validated, versioned, and never with a NaN."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from medbench.schemas.record import Estimate, Record

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "record-1.json"
RECORDS = sorted((Path(__file__).parents[2] / "leaderboards" / "records").rglob("record.json"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Estimate(value=value, ci95=(0, 1), n=3)
    with pytest.raises(ValidationError, match="finite"):
        Estimate(value=0.5, ci95=(value, 1), n=3)


def test_there_are_committed_records() -> None:
    assert len(RECORDS) >= 18


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.parent.name)
def test_committed_records_fit_the_published_schema(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    record = Record.model_validate(document)
    assert record.status == "complete"
    assert record.model_dump(mode="json", by_alias=True) == document
    assert not {"dirty", "limited"} & set(record.flags)
    with pytest.raises(ValidationError):
        Record.model_validate(document | {"unknown": 1})
