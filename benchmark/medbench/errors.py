"""The errors a user meets, each with the exit code of the command-line contract.

The message of an error is one paragraph: what happened, where, what to do. A traceback is shown
only with ``--debug``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MedbenchError(Exception):
    """Base of every expected failure. ``exit_code`` is what the process ends with."""

    exit_code = 1


class CellError(MedbenchError):
    """A model raised while it was trained or run (exit 1)."""

    exit_code = 1


class StorageError(MedbenchError):
    """A file could not be written: full disk, quota, file size limit (exit 1)."""

    exit_code = 1


class UsageError(MedbenchError):
    """Unknown names, contradictory options, unwritable output (exit 2)."""

    exit_code = 2


class DataError(MedbenchError):
    """Data or weights missing or invalid (exit 3)."""

    exit_code = 3


class WeightsError(DataError):
    """Weights missing, unreadable or not fitting the model (exit 3)."""


class PluginError(MedbenchError):
    """A plugin is broken, incompatible, or breaks its contract (exit 4)."""

    exit_code = 4


class VerificationError(MedbenchError):
    """A table, a record or a hash does not agree (exit 5)."""

    exit_code = 5


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that nothing carries, with the nearest known name.

    >>> str(unknown_name("model", "radclp", ["radclip", "baseline"]))
    "There is no model called 'radclp'. Did you mean 'radclip'? Known: baseline, radclip."
    """
    names = sorted(set(known))
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listed = ", ".join(names) if names else "none"
    return UsageError(f"There is no {kind} called '{name}'.{hint} Known: {listed}.")
