"""What a model raised in a worker, as an exception of the harness."""

from __future__ import annotations


class RaisedError(Exception):
    """``kind`` and ``place`` are the class of that exception and the line of code that raised it.

    A note holds its traceback there.
    """

    def __init__(self, kind: str, message: str, place: str, trace: str) -> None:
        super().__init__(message)
        self.kind, self.place = kind, place
        self.add_note(f"In its worker:\n{trace}")
