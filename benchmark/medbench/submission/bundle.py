"""What is in a bundle.

    submission.json              its version, and the hash of every other file
    <run-id>/record.json         as the run wrote it
    <run-id>/sample_key.npy      bytes [N], a key for each tested sample
    <run-id>/score.npy           classification: float64 [N, L]
    <run-id>/threshold.npy       of decisions, float64 [N, L], NaN for a label without one
    <run-id>/prediction.npy      segmentation: uint8 [N, ceil(S * S / 8)], masks with packed bits
    <run-id>/image.npy           retrieval: float32 [N, D], in the task's own order
    <run-id>/text.npy            float32 [M, D]

No references: labels, masks and reports are the verifier's own. No patients: they follow from the
samples.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medbench.schemas.record import Record
from medbench.submission.keys import DIGITS
from medbench.submission.problems import RefusedError

INDEX = "submission.json"
SCHEMA = "medbench.submission/1"
RECORD = "record.json"
KEYS = "sample_key"

#: Array to numpy's name of its type, by task type. `threshold` may be absent.
ARRAYS: dict[str, dict[str, str]] = {
    "classification": {KEYS: f"|S{DIGITS}", "score": "<f8", "threshold": "<f8"},
    "segmentation": {KEYS: f"|S{DIGITS}", "prediction": "|u1"},
    "retrieval": {KEYS: f"|S{DIGITS}", "image": "<f4", "text": "<f4"},
}
OPTIONAL = ("threshold",)

#: Runs of one bundle; bytes of a JSON document, and how deep it may be nested.
MOST_RUNS, MOST_JSON, MOST_DEPTH = 100, 2 * 2**20, 30


def left_out(record: Record) -> str:
    """Why a run's predictions are not in a bundle; empty where they are."""
    if record.task.type == "report-generation":
        return (
            "generated reports may repeat reports word for word, whose licences do not let them be "
            "handed on"
        )
    if record.task.type == "image-generation":
        return "generated images follow images whose licences do not let them be handed on"
    if record.task.type == "retrieval" and record.data.track == "real":
        return "embeddings of patients' images and reports give much of these away"
    return ""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class IndexedRun(_Part):
    """One run of a bundle."""

    run_id: str
    key_id: str | None = Field(description="of the secret behind its keys; null without keys")


class Index(_Part):
    """``submission.json``."""

    format: Literal["medbench.submission/1"] = Field(alias="schema")
    runs: list[IndexedRun] = Field(min_length=1, max_length=MOST_RUNS)
    files: dict[str, str] = Field(description="SHA-256 of every other file, by name")


def index_bytes(runs: dict[str, str | None], files: dict[str, bytes]) -> bytes:
    """``submission.json`` of run ids with the ids of their keys, and of files."""
    document = {
        "schema": SCHEMA,
        "runs": [{"run_id": name, "key_id": runs[name]} for name in sorted(runs)],
        "files": {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)},
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def read_index(data: bytes) -> Index:
    """Raises RefusedError (schema, nan, too-large)."""
    document = plain_json(INDEX, data, "schema")
    stated = document.get("schema") if isinstance(document, dict) else None
    if stated != SCHEMA:
        raise RefusedError("schema", f"{INDEX} is of schema {stated!r}; {SCHEMA} is read.")
    try:
        return Index.model_validate(document)
    except ValidationError as error:
        raise RefusedError("schema", f"{INDEX} is not valid: {_first(error)}.") from error


def read_record(where: str, data: bytes) -> Record:
    """Raises RefusedError (record, nan, too-large)."""
    plain_json(where, data, "record")
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        raise RefusedError("record", f"{where} is not a valid record: {_first(error)}.") from error


def plain_json(where: str, data: bytes, kind: str) -> Any:
    """A JSON document with finite numbers and each key once. Raises RefusedError (``kind``, nan,
    too-large)."""
    if len(data) > MOST_JSON:
        raise RefusedError("too-large", f"{where} has {len(data):,} bytes; {MOST_JSON:,} are read.")

    def refuse(constant: str) -> Any:
        raise RefusedError("nan", f"{where} holds {constant}, which is no number.")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else refuse(text)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise RefusedError(kind, f"{where} has the key '{twice}' twice.")
        return found

    try:
        document = json.loads(
            data.decode("utf-8"),
            parse_constant=refuse,
            parse_float=finite,
            object_pairs_hook=once,
        )
    except (ValueError, RecursionError) as error:
        raise RefusedError(kind, f"{where} is not JSON that can be read: {error}.") from error
    level, depth = [document], 0
    while level:
        level = [inner for value in level for inner in _inside(value)]
        depth += 1
        if depth > MOST_DEPTH:
            raise RefusedError(kind, f"{where} is nested more than {MOST_DEPTH} times.")
    return document


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"]) or "document"
    return f"'{where}': {found['msg']} ({error.error_count()} such problems)"
