"""What verifying a bundle came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from medbench.evaluation.files import AnyPredictions
from medbench.schemas.record import Record
from medbench.submission.problems import Problem

Verdict = Literal["recomputed", "self-reported", "failed"]
SCHEMA = "medbench.verification/1"


@dataclass
class RunVerdict:
    """What became of one run.

    Attributes:
        reasons: why it is self-reported.
        problems: why it failed.
        table: its predictions beside the verifier's references, where it was recomputed.
    """

    run_id: str
    record: Record | None = None
    record_sha256: str = ""
    reasons: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    table: AnyPredictions | None = None
    primary: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.problems:
            return "failed"
        return "self-reported" if self.reasons else "recomputed"

    def document(self) -> dict[str, Any]:
        """As JSON types. Of a failed run nothing is repeated but what is wrong."""
        record = None if self.problems else self.record
        metric = record.metrics.get(self.primary) if record else None
        return {
            "run_id": self.run_id,
            "model": record.model_id if record else None,
            "task": record.task.name if record else None,
            "track": record.data.track if record else None,
            "metric": self.primary if metric else None,
            "value": metric.value if metric else None,
            "ci95": list(metric.ci95) if metric else None,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "problems": [vars(problem) for problem in self.problems],
            "record_sha256": self.record_sha256,
        }


@dataclass
class Verification:
    """What verifying a bundle came to; ``problems`` are those of the bundle as a whole."""

    sha256: str
    problems: list[Problem] = field(default_factory=list)
    runs: list[RunVerdict] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of its runs."""
        found = {run.verdict for run in self.runs}
        if self.problems or "failed" in found or not found:
            return "failed"
        return "self-reported" if "self-reported" in found else "recomputed"

    @property
    def kinds(self) -> set[str]:
        """Kinds of all problems."""
        return {p.kind for p in (*self.problems, *(p for run in self.runs for p in run.problems))}

    def document(self) -> dict[str, Any]:
        """As JSON types, schema ``medbench.verification/1``."""
        return {
            "schema": SCHEMA,
            "sha256": self.sha256,
            "verdict": self.verdict,
            "problems": [vars(problem) for problem in self.problems],
            "runs": [run.document() for run in self.runs],
        }
