"""What becomes of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Result:
    """One check of one model, or of the plugin as a whole.

    Attributes:
        check: its name.
        model: ``name`` or ``name@variant``; empty for the plugin as a whole.
        status: what became of it.
        reason: why it failed or was skipped; of a passed one, what was measured, if anything.
        seconds: how long it took, wall time.
        traceback: of an exception that the plugin raised; empty without.
    """

    check: str
    model: str
    status: Literal["passed", "failed", "skipped"]
    reason: str = ""
    seconds: float = 0.0
    traceback: str = ""


class Refused(Exception):
    """A check found that the plugin breaks its contract; the message says how."""


class NotApplicable(Exception):
    """There is nothing to check; the message says why."""
