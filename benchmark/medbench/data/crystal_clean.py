"""Crystal Clean: brain MR slices, normal or with one of three kinds of tumour.

Layout, as Kaggle publishes it::

    <root>/Data/Normal/N_1.jpg ...
    <root>/Data/Tumor/glioma_tumor/G_1.jpg ...
    <root>/Data/Tumor/meningioma_tumor/M_1.jpg ...
    <root>/Data/Tumor/pituitary_tumor/P_1.jpg ...

Names with a suffix (``G_1_VF_.jpg``) look like altered copies of the image without it: flipped
upside down (VF) or left to right (HF), rotated (RO), with noise (SP) or of other brightness (BR).
A copy must never test what its original has trained, so all images of one name are one group.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from medbench.data import pictures
from medbench.data.folders import names_in
from medbench.data.samples import Pixels, Sample
from medbench.errors import DataError

#: Class to its folder under Data.
FOLDERS = {
    "normal": "Normal",
    "glioma": "Tumor/glioma_tumor",
    "meningioma": "Tumor/meningioma_tumor",
    "pituitary": "Tumor/pituitary_tumor",
}
CLASSES = tuple(FOLDERS)
LAYOUT = "'Data/Normal/*.jpg' and 'Data/Tumor/{glioma,meningioma,pituitary}_tumor/*.jpg'"

#: Suffixes of altered copies.
SUFFIXES = ("VF", "HF", "RO", "SP", "BR")
_SUFFIX = re.compile(rf"(_({'|'.join(SUFFIXES)}))+_?$", re.IGNORECASE)


class CrystalClean:
    """Reader of Crystal Clean: a sample is a slice with exactly one of ``CLASSES``.

    ``root`` holds the folder Data, or is that folder, or is the one around the one that holds it.
    """

    def __init__(self, root: Path) -> None:
        self.root = _base(Path(root))
        self._samples: tuple[Sample, ...] | None = None

    def samples(self) -> Sequence[Sample]:
        """One sample per picture, by class and name. The id is its path below Data.

        The dataset does not name patients. ``patient`` is the class with the file's name before
        the suffixes, so that altered copies stay on one side of every split.

        Raises:
            DataError: a class without a folder or pictures, files that are not pictures, folders
                that cannot be read.
        """
        if self._samples is None:
            self._samples = tuple(self._list())
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """float32 [H, W] in [0, 1]; see `medbench.data.pictures.read_picture`, and its errors."""
        return pictures.read_picture(sample.files[0])

    def _list(self) -> list[Sample]:
        samples: list[Sample] = []
        for name, below in FOLDERS.items():
            folder = self.root / below
            files = sorted(file for file in names_in(str(folder)) if not file.startswith("."))
            strange = [file for file in files if not file.lower().endswith(pictures.SUFFIXES)]
            if strange:
                raise DataError(
                    f"{folder} holds {len(strange):,} entries that are not pictures (jpg or png), "
                    f"such as '{strange[0]}'. Move them elsewhere."
                )
            if not files:
                raise DataError(f"{folder} holds no pictures. Expected layout: {LAYOUT}.")
            labels = {other: int(other == name) for other in CLASSES}
            samples += [
                Sample(
                    id=f"{below}/{file}",
                    patient=f"{name}/{group(file)}",
                    files=(folder / file,),
                    labels=labels,
                )
                for file in files
            ]
        return samples


def group(file: str) -> str:
    """What altered copies of one image share: ``G_1`` of ``G_1.jpg`` and ``G_1_VF_.jpg``."""
    stem = os.path.splitext(file)[0]
    return _SUFFIX.sub("", stem) or stem


def _base(root: Path) -> Path:
    """The folder Data: ``root`` itself, in it, or in one folder in it."""
    if not os.path.exists(root):
        raise DataError(f"{root} does not exist. Give the folder that holds {LAYOUT}.")
    if not os.path.isdir(root):
        raise DataError(f"{root} is a file. Give the folder that holds {LAYOUT}.")
    inside = sorted(names_in(str(root)))
    candidates = [root, root / "Data", *(root / name / "Data" for name in inside)]
    found = [path for path in candidates if all(os.path.isdir(path / f) for f in FOLDERS.values())]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{root} holds several copies of the dataset: {', '.join(map(str, found))}. Give one "
            "of them."
        )
    data = root / "Data" if "Data" in inside else root
    missing = [folder for folder in FOLDERS.values() if not os.path.isdir(data / folder)]
    raise DataError(
        f"{data} is not Crystal Clean: no folder {', '.join(missing)}. Expected layout: {LAYOUT}."
    )
