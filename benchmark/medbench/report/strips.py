"""Denoising strips: a few images from noise to the last step, as runs have kept them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medbench.errors import DataError
from medbench.evaluation.arrays import read_npz
from medbench.evaluation.image_cases import own_prompts
from medbench.evaluation.image_predictions import Bytes, ImagePredictions
from medbench.report.drawing import Block
from medbench.report.generation import Row, figure, generated, picture
from medbench.report.runs import Section
from medbench.run.records import RECORD
from medbench.run.strips import NAME

#: Mean difference in grey levels from which a strip is said to end in another image.
APART = 4.0

_READING = (
    "What the model takes the finished image to be at evenly spaced steps of its sampling. The "
    "last is the first image that was scored for that prompt."
)


@dataclass(frozen=True, eq=False)
class Strips:
    """Of K generated images.

    Attributes:
        images: int64 [K], rows of the run's generated images.
        steps: uint8 [K, count, S, S], the last step is the image.

    Raises:
        DataError: other shapes or types, or an image twice.
    """

    images: npt.NDArray[np.int64]
    steps: Bytes

    def __post_init__(self) -> None:
        if (
            self.images.ndim != 1
            or self.images.dtype.kind not in "iu"
            or self.steps.ndim != 4
            or self.steps.dtype != np.uint8
            or len(self.steps) != len(self.images)
            or not self.steps.size
            or len(set(self.images.tolist())) != len(self.images)
        ):
            raise DataError(
                f"'image' is {self.images.dtype} of shape {self.images.shape} and 'steps' "
                f"{self.steps.dtype} of shape {self.steps.shape}; whole numbers [K], each once, "
                "and uint8 [K, count, S, S] are expected."
            )


def read(folders: Sequence[Path]) -> dict[str, Strips]:
    """Run id to strips, of those folders of runs that hold some.

    Raises DataError naming a file that is damaged.
    """
    found = {}
    for folder in folders:
        path = folder / NAME
        if not path.is_file():
            continue
        arrays = read_npz(path, ("image", "steps"))
        try:
            strips = Strips(arrays["image"], arrays["steps"])
        except DataError as error:
            raise DataError(
                f"{path}: {error} Run the cell again with --fresh, or delete the file."
            ) from error
        run_id = json.loads((folder / RECORD).read_text(encoding="utf-8"))["run_id"]
        found[str(run_id)] = strips
    return found


def blocks(section: Section, strips: Mapping[str, Strips]) -> list[Block]:
    """A figure for each prompt, a row for each run that has its strip."""
    rows, notes = dict[int, list[Row]](), list[str]()
    table = None
    for run, made in generated(section):
        kept = strips.get(run.record.run_id)
        if kept is None:
            continue
        table = table or made
        apart = _apart(made, kept)
        if apart is None or apart > APART:
            notes.append(
                f"The strips of {run.label} do not end in the images that were scored, so they are "
                "left out."
            )
            continue
        for image, steps in zip(kept.images.tolist(), kept.steps, strict=True):
            count = len(steps)
            line = [
                picture(step, "finished" if k == count else f"step {k} of {count}")
                for k, step in enumerate(steps, 1)
            ]
            rows.setdefault(_real_of(made, image), []).append(Row(run.label, line))
    if table is None:
        return []
    figures = [
        figure(f"Prompt {k} of {len(rows)}", table, row, lines)
        for k, (row, lines) in enumerate(rows.items(), 1)
    ]
    return [Block("From noise to image", _READING, figures, notes)]


def _real_of(table: ImagePredictions, image: int) -> int:
    """Row of the real image that a generated one was drawn after."""
    assert table.prompts is not None
    return int(np.flatnonzero(own_prompts(table) == table.prompts[image])[0])


def _apart(table: ImagePredictions, kept: Strips) -> float | None:
    """Largest mean difference of a strip's end from its image, in grey levels; None where there is
    no such image."""
    assert table.generated is not None
    images, ends = kept.images, kept.steps[:, -1]
    if images.min() < 0 or images.max() >= table.count:
        return None
    if ends.shape[1:] != table.generated.shape[1:]:
        return None
    away = np.abs(ends.astype(float) - table.generated[images])
    return float(away.mean(axis=(1, 2)).max())
