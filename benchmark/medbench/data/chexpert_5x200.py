"""CheXpert 5x200: an evaluation set of 1,000 images out of the train part of CheXpert.

The root is a CheXpert folder (`medbench.data.chexpert`). It may hold the published list,
``chexpert_5x200.csv`` with a column ``Path``, or ``ids.txt``; without one the rule of
`medbench.data.five_by_200` applies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medbench.data import five_by_200
from medbench.data.chexpert import CheXpert, below_root
from medbench.data.samples import Pixels, Sample

LIST = "chexpert_5x200.csv"


class CheXpert5x200:
    """Reader of CheXpert 5x200; ``root`` as `medbench.data.chexpert.CheXpert` takes it."""

    def __init__(self, root: Path) -> None:
        self._whole = CheXpert(root)
        self.root = self._whole.root
        self._samples: tuple[Sample, ...] | None = None

    def samples(self) -> Sequence[Sample]:
        """The chosen images, with the labels `five_by_200.CLASSES`, one of them 1; split "test".

        Ids are those of CheXpert. In the order of the list, or by class and hash.

        Raises:
            DataError: see `CheXpert.samples`, `five_by_200.by_list` and `five_by_200.by_rule`.
        """
        if self._samples is None:
            train = [s for s in self._whole.samples() if s.split == "train"]
            listed = five_by_200.read_ids(self.root, LIST, "Path")
            if listed is None:
                chosen = five_by_200.by_rule(train, self.root)
            else:
                source, paths = listed
                # The published list has its authors' own folder before "train/".
                chosen = five_by_200.by_list(train, [below_root(p) for p in paths], source)
            self._samples = tuple(chosen)
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """float32 [H, W] in [0, 1]. Raises DataError for a missing or damaged file."""
        return self._whole.pixels(sample)
