"""Prompts by their length: is a generator as good on long prompts as on short ones?

The tested prompts are cut into thirds by their number of words: short, medium and long. Prompts of
equal length stay together, so that a third holds as many prompts as lengths allow, and none where
most prompts are equally long. The values of a third stand beside those of the findings, under the
names of `NAMES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from medbench.metrics.image_clusters import Integers
from medbench.metrics.image_table import JudgedTable
from medbench.metrics.values import FloatArray

NAMES = ("prompts-short", "prompts-medium", "prompts-long")
#: Generated images that the value of a third needs at least.
LEAST = 20


@dataclass(frozen=True)
class Third:
    """Rows of the generated images of some prompts, int [g], and of the real ones, int [n], which
    are none where the table does not know whose they are."""

    name: str
    generated: Integers
    real: Integers


@dataclass(frozen=True)
class Thirds:
    """Name to rows, for each third with `LEAST` generated images; and what a reader must know."""

    parts: Mapping[str, Third]
    note: str | None

    def values(self, of: Callable[[Third], FloatArray | None]) -> dict[str, FloatArray]:
        """A metric of each third, float [B]; those without one left out."""
        found = {name: of(third) for name, third in self.parts.items()}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def counts(self) -> dict[str, int]:
        """Number of generated images behind each third."""
        return {name: len(third.generated) for name, third in self.parts.items()}


def thirds(table: JudgedTable) -> Thirds:
    """The generated and real images of short, medium and long prompts; none without prompts."""
    if table.prompt_texts is None or table.prompts is None:
        return Thirds({}, None)
    words = np.array([len(text.split()) for text in table.prompt_texts], np.int64)
    asked = np.unique(table.prompts)
    lengths = np.sort(words[asked])
    # the least lengths up to which a third, and two thirds, of the prompts go
    short, medium = (int(lengths[-(-len(lengths) * k // 3) - 1]) for k in (1, 2))
    level = (words > short).astype(np.int64) + (words > medium)
    real = np.full(0, -1) if table.real_prompts is None else table.real_prompts
    parts, said = {}, []
    for k, name in enumerate(NAMES):
        mine = words[asked[level[asked] == k]]
        if not len(mine):
            said.append(f"{name}: none")
            continue
        generated = np.flatnonzero(level[table.prompts] == k)
        told = f"{name}: {len(mine):,} of {mine.min()} to {mine.max()} words"
        if len(generated) < LEAST:
            told += f", {len(generated)} images, too few for a value"
        else:
            own = np.flatnonzero((real >= 0) & (level[real] == k))
            parts[name] = Third(name, generated, own)
        said.append(told)
    return Thirds(parts, "; ".join(said))
