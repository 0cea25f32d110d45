"""MIMIC 5x200: an evaluation set of 1,000 images out of MIMIC-CXR.

The root is a MIMIC-CXR-JPG folder (`medbench.data.mimic_cxr`). It may hold a list,
``mimic_5x200.csv`` with a column ``dicom_id``, or ``ids.txt``. No list was ever published; without
one the rule of `medbench.data.five_by_200` applies, to the images of all splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medbench.data import five_by_200
from medbench.data.mimic_cxr import MimicCxr
from medbench.data.samples import Pixels, Sample

LIST = "mimic_5x200.csv"


class Mimic5x200:
    """Reader of MIMIC 5x200; ``root`` as `medbench.data.mimic_cxr.MimicCxr` takes it."""

    def __init__(self, root: Path) -> None:
        self._whole = MimicCxr(root)
        self.root = self._whole.root
        self._samples: tuple[Sample, ...] | None = None

    def samples(self) -> Sequence[Sample]:
        """The chosen images, with the labels `five_by_200.CLASSES`, one of them 1; split "test".

        Ids are those of MIMIC-CXR. In the order of the list, or by class and hash.

        Raises:
            DataError: see `MimicCxr.samples`, `five_by_200.by_list` and `five_by_200.by_rule`.
        """
        if self._samples is None:
            everything = self._whole.samples()
            listed = five_by_200.read_ids(self.root, LIST, "dicom_id")
            if listed is None:
                chosen = five_by_200.by_rule(everything, self.root)
            else:
                source, ids = listed
                chosen = five_by_200.by_list(everything, ids, source)
            self._samples = tuple(chosen)
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """float32 [H, W] in [0, 1]. Raises DataError for a missing or damaged file."""
        return self._whole.pixels(sample)
