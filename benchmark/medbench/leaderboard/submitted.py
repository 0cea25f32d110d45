"""Submitted runs among the records: who sent them, and what verifying them came to.

They stand in ``submissions/<name>/<task>/<run-id>/`` beside ``records/``, with what
`medbench submission verify` found in ``submissions/<name>/verdict.json``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from medbench.errors import DataError

FOLDER = "submissions"
VERDICT = "verdict.json"

#: What stands behind a row; docs/submissions.md says what each does and does not prove.
RERUN, RECOMPUTED, SELF_REPORTED = "re-run", "recomputed", "self-reported"


@dataclass(frozen=True)
class Submitted:
    """Where a record came from: the name of its submission, and its badge."""

    name: str
    badge: str


def submitted(path: Path, content: bytes) -> Submitted | None:
    """What is known of the record file at ``path``; None for one that nobody submitted.

    Raises DataError where it is not what was verified.
    """
    if len(path.parts) < 5 or path.parents[3].name != FOLDER:
        return None
    folder = path.parents[2]
    try:
        runs = json.loads((folder / VERDICT).read_text(encoding="utf-8"))["runs"]
        found = {run["run_id"]: (run["verdict"], run["record_sha256"]) for run in runs}
        badge, sha256 = found[path.parent.name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is of a submission that {folder / VERDICT} does not vouch for ({error!r}). "
            "Verify its bundle with `medbench submission verify --accept`."
        ) from error
    if badge not in (RECOMPUTED, SELF_REPORTED) or hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} is not the record that was verified: see {folder / VERDICT}.")
    return Submitted(folder.name, badge)
