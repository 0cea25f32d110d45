"""Records: validated, versioned, and never with a NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from medbench.schemas.record import Estimate, Gap, Record, Subgroups

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


PARTS: dict[str, Any] = {
    "metric": "auroc",
    "groups": {
        "F": {"value": 0.8, "ci95": [0.7, 0.9], "n": 30},
        "M": {"value": 0.75, "ci95": [0.6, 0.85], "n": 30},
    },
    "gap": {"value": 0.05, "ci95": [-0.05, 0.15], "between": ["F", "M"]},
}


def test_a_record_without_subgroups_is_read_and_written_as_before() -> None:
    texts = (path.read_text(encoding="utf-8") for path in RECORDS)
    before = [text for text in texts if "subgroups" not in json.loads(text)][:3]
    assert before
    for text in before:
        record = Record.model_validate_json(text)
        assert record.subgroups is None
        assert record.model_dump_json(by_alias=True, indent=2) + "\n" == text
        assert "subgroups" not in record.same()


def test_a_record_with_subgroups_comes_back_as_it_was_and_fits_the_schema() -> None:
    document = json.loads(RECORDS[0].read_text(encoding="utf-8")) | {"subgroups": {"sex": PARTS}}
    jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    record = Record.model_validate(document)
    assert json.loads(record.model_dump_json(by_alias=True)) == document
    assert record.same()["subgroups"] == document["subgroups"]
    for name in ("<b>race</b>", "race"):
        with pytest.raises(ValidationError):
            Record.model_validate(document | {"subgroups": {name: PARTS}})


@pytest.mark.parametrize("between", [["F", "F"], ["F", "PA"], ["F", "<b>"], ["F"]])
def test_a_gap_is_between_two_of_the_groups(between: list[str]) -> None:
    with pytest.raises(ValidationError):
        Subgroups.model_validate(PARTS | {"gap": {**PARTS["gap"], "between": between}})


def test_a_gap_is_a_finite_number() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Gap(value=float("nan"), ci95=(0, 1), between=("F", "M"))
