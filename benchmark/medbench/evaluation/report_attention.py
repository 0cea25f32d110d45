"""Where a model looked as it wrote each word of some reports: kept beside its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medbench.errors import DataError
from medbench.evaluation.arrays import names, no_doubles, read_npz, write_npz

NAME = "attention.npz"


@dataclass(frozen=True, eq=False)
class Attention:
    """Of K studies.

    Attributes:
        sample_ids: [K], unique.
        words: unicode [K, L], padded with "".
        weights: float16 [K, L, V, h, w], finite and not negative: how much of a word's attention
            each place of each view got; 0 where there is no word or no view.

    Raises:
        DataError: shapes that do not fit, other values, an id twice.
    """

    sample_ids: Sequence[str]
    words: npt.NDArray[np.str_]
    weights: npt.NDArray[np.float16]

    def __post_init__(self) -> None:
        count = len(self.sample_ids)
        if (
            self.words.ndim != 2
            or self.words.dtype.kind != "U"
            or self.weights.ndim != 5
            or self.weights.dtype.kind != "f"
            or self.words.shape != self.weights.shape[:2]
            or len(self.words) != count
        ):
            raise DataError(
                f"Attention holds {count} samples, words {self.words.dtype} of shape "
                f"{self.words.shape} and attention {self.weights.dtype} of shape "
                f"{self.weights.shape}; words [K, L] and floats [K, L, V, h, w] are expected."
            )
        if not (np.isfinite(self.weights).all() and (self.weights >= 0).all()):
            raise DataError("Attention holds values that are negative, NaN or infinite.")
        no_doubles("Attention", self.sample_ids)

    @classmethod
    def of(
        cls, sample_ids: Sequence[str], told: Sequence[tuple[Sequence[str], npt.NDArray[Any]]]
    ) -> Attention:
        """From what a model told of each study: L words and floats [L, V, h, w], L its own.

        Raises DataError for shapes that do not fit each other.
        """
        longest = max(len(words) for words, _ in told)
        views = max(weights.shape[1] if weights.ndim == 4 else 0 for _, weights in told)
        place = next(weights.shape[2:] for _, weights in told)
        words = np.full((len(told), longest), "", dtype=f"U{_widest(told)}")
        weights = np.zeros((len(told), longest, views, *place), np.float16)
        for row, (some, found) in enumerate(told):
            if found.ndim != 4 or len(found) != len(some) or found.shape[2:] != place:
                raise DataError(
                    f"The attention of {len(some)} words has shape {found.shape}; "
                    f"[{len(some)}, V, {', '.join(map(str, place))}] is expected."
                )
            words[row, : len(some)] = list(some)
            weights[row, : len(some), : found.shape[1]] = found
        return cls(sample_ids, words, weights)

    def find(self, sample: str) -> tuple[list[str], npt.NDArray[np.float16]] | None:
        """Words and float16 [L, V, h, w] of a study; None where it is not among them."""
        if sample not in self.sample_ids:
            return None
        row = list(self.sample_ids).index(sample)
        words = [str(word) for word in self.words[row]]
        while words and not words[-1]:
            words.pop()
        return words, self.weights[row, : len(words)]

    def write(self, path: Path) -> None:
        """Write ``.npz``. Equal content gives equal bytes."""
        ids = np.array(self.sample_ids, str)
        write_npz(path, {"sample_id": ids, "words": self.words, "attention": self.weights})

    @classmethod
    def read(cls, path: Path) -> Attention:
        """Raises DataError naming the file and what is wrong in it."""
        found = read_npz(path, ("sample_id", "words", "attention"))
        ids = names(path, "sample_id", found["sample_id"], len(found["words"]))
        try:
            return cls(ids, found["words"], found["attention"])
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def _widest(told: Sequence[tuple[Sequence[str], npt.NDArray[Any]]]) -> int:
    return max((len(word) for words, _ in told for word in words), default=1) or 1
