"""A corpus that is drawn on demand: pictures whose captions say what is in them, so that there is
something to learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from medbench.data.samples import Corpus, Pixels, Sample
from medbench.run.load import TASK_CORPUS

STUDIES = 64  #: each of a frontal and a lateral picture, of a patient of its own
VOLUMES = 12
SLICES = 5
SIDE = 48  #: pixels
#: What a report says, by the quarter of the picture that is bright.
FINDINGS = ("pleural effusion", "pulmonary edema", "pneumonia in the left lobe", "no finding")
_VIEWS: tuple[Literal["PA", "lateral"], ...] = ("PA", "lateral")


class Drawn:
    """`medbench.data.samples.Reader` of pictures with one bright quarter and noise."""

    def __init__(self, root: Path = Path()) -> None:
        self.root = root

    def samples(self) -> Sequence[Sample]:
        return samples()

    def pixels(self, sample: Sample) -> Pixels:
        """float32 [48, 48] in [0, 1], or [5, 48, 48] of a volume."""
        kind, number, view = sample.id.split("-")
        generator = np.random.default_rng([kind == "volume", int(number), int(view)])
        slices = SLICES if kind == "volume" else 1
        picture = 0.3 + 0.05 * generator.standard_normal((slices, SIDE, SIDE))
        top, left = np.array(divmod(int(number) % 4, 2)) * (SIDE // 2)
        picture[:, top : top + SIDE // 2, left : left + SIDE // 2] += 0.4
        drawn = np.clip(picture, 0, 1).astype(np.float32)
        return drawn if kind == "volume" else np.asarray(drawn[0])


def samples() -> list[Sample]:
    """Pictures, two a study, every sixth study of the validation part; then volumes."""
    made = [_sample("image", n, v) for n in range(STUDIES) for v in range(2)]
    return made + [_sample("volume", n, 0) for n in range(VOLUMES)]


def corpus(name: str, unit: Literal["image", "volume", "pair"]) -> Corpus:
    """What a stage that trains on dataset ``name`` is given: the training part, of the task's own
    corpus the validation part besides; pictures, volumes, or of pairs both."""
    chosen = [sample for sample in samples() if unit in ("pair", sample.kind)]
    if name != TASK_CORPUS:
        chosen = [sample for sample in chosen if sample.split == "train"]
    return Corpus(name, chosen, Drawn(), "0" * 64, "phantom")


def _sample(kind: Literal["image", "volume"], number: int, view: int) -> Sample:
    finding = FINDINGS[number % 4]
    sections = {
        "findings": f"There is {finding}. The heart is of size {number % 3}.",
        "impression": f"{finding.capitalize()}.",
    }
    return Sample(
        id=f"{kind}-{number}-{view}",
        patient=f"patient-{kind}-{number}",
        files=(),
        labels={"effusion": int(number % 4 == 0), "edema": int(number % 4 == 1)},
        text=f"{sections['findings']} {sections['impression']}",
        split="val" if number % 6 == 5 else "train",
        kind=kind,
        study=f"study-{kind}-{number}",
        view=_VIEWS[view] if kind == "image" else None,
        age=40.0 + number,
        sex="F" if number % 2 else "M",
        sections=sections,
    )
