"""Publish the JSON Schemas: ``python -m medbench.schemas.publish docs/schemas``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def schemas() -> dict[str, dict[str, Any]]:
    """File name to JSON Schema, for every document that others read or write."""
    from pydantic import TypeAdapter

    from medbench.schemas.record import Record
    from medbench.schemas.specs import DatasetSpec, MetricSpec, ModelSpec
    from medbench.schemas.study import StudyResult, StudySpec
    from medbench.schemas.task import TaskSpec

    found = {
        "record-1.json": Record.model_json_schema(by_alias=True),
        "study-1.json": StudySpec.model_json_schema(by_alias=True),
        "study-result-1.json": StudyResult.model_json_schema(by_alias=True),
        "task-1.json": TaskSpec.model_json_schema(by_alias=True),
    }
    for cls in (ModelSpec, DatasetSpec, MetricSpec):
        name = f"{cls.__name__.removesuffix('Spec').lower()}-spec-1.json"
        found[name] = TypeAdapter(cls).json_schema()
    return {
        name: {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        for name, schema in found.items()
    }


def text_of(schema: dict[str, Any]) -> str:
    """A schema as its file holds it."""
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(text_of(schema), encoding="utf-8")


if __name__ == "__main__":
    main()
