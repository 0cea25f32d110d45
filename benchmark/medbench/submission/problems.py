"""What can be wrong with a bundle, each kind under one name."""

from __future__ import annotations

from dataclasses import dataclass

from medbench.errors import VerificationError

#: Kind of problem to what it means; docs/submissions.md lists them all.
KINDS = {
    "not-a-zip": "the file is not a zip archive",
    "truncated": "the archive is cut short, or something stands before or behind it",
    "too-large": "the archive, an entry, or everything unpacked is larger than is read",
    "too-many-entries": "more entries than are read",
    "bomb": "an entry unpacks to far more than it is packed in",
    "encrypted": "an entry is encrypted",
    "compression": "an entry is packed in a way that is not read",
    "damaged": "an entry does not unpack to what its checksum says",
    "path": "an entry's name leads out of its folder, or is absolute or not plain",
    "link": "an entry is a symbolic link or another special file",
    "duplicate-entry": "two entries share a name",
    "schema": "submission.json is missing, not valid, or of another version",
    "hash": "a file does not have the hash in submission.json",
    "missing-file": "a file that is named or needed is not there",
    "extra-file": "a file that nothing names or needs",
    "image": "an image file",
    "pickle": "a file that only Python's pickle could load",
    "weights": "a file of weights",
    "reference": "references (labels, masks, reports), which the verifier holds",
    "record": "a record is not valid",
    "nan": "NaN or an infinite number",
    "text": "a name or setting in a record holds characters that could change a page",
    "task": "no such task, or another task file of the same version",
    "incomplete": "the run is not whole",
    "array": "an array has another type or shape than its kind of task needs",
    "clear-ids": "sample or patient ids in clear",
    "duplicate-sample": "a sample occurs twice",
    "data": "the manifest or the counts are not those of the data",
    "keys": "keys are not those that the data give",
    "missing-samples": "samples of the data have no prediction",
    "unknown-samples": "predictions for samples that the data do not hold",
    "predictions": "predictions do not have the hash in the record",
    "metric": "a value, bound, count or baseline does not follow from the predictions",
    "time": "verification took longer than it may",
}  # fmt: skip


LONGEST = 500  # characters of a message


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: of `KINDS`.
        message: what and where, one sentence. What it quotes is a stranger's: characters that a
            terminal would not print are replaced, and it is cut at `LONGEST`.
    """

    kind: str
    message: str

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind
        plain = "".join(c if c.isprintable() else "?" for c in self.message)
        object.__setattr__(self, "message", plain[:LONGEST])


class RefusedError(VerificationError):
    """A bundle, or a run in it, cannot be read any further. ``problem`` says why."""

    def __init__(self, kind: str, message: str) -> None:
        self.problem = Problem(kind, message)
        super().__init__(self.problem.message)
