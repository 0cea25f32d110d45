"""COVIDx CXR: chest radiographs of normal, pneumonia and COVID-19 patients, from many sources.

Layout, as published (COVID-Net, Wang et al. 2020, doi 10.1038/s41598-020-76550-z)::

    <root>/train/*.png, *.jpg        <root>/test/*
    <root>/train_COVIDx9A.txt        <root>/test_COVIDx9A.txt      or train.txt, test.txt

Each line of a list has a patient, a file, a class and a source, separated by spaces. Lists of the
versions A have the classes normal, pneumonia and COVID-19; those of the versions B negative and
positive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medbench.data.folders import names_in
from medbench.data.pictures import SUFFIXES, read_picture
from medbench.data.samples import Pixels, Sample
from medbench.data.tables import find_base, read_lines, refuse_rows, repeated, some
from medbench.errors import DataError

#: Classes of the versions A, by their words in the lists.
THREE = {"normal": "normal", "pneumonia": "pneumonia", "covid-19": "covid-19"}
#: Classes of the versions B: the value of the label "covid-19".
TWO = {"negative": 0, "positive": 1}
LAYOUT = (
    "'train/', 'test/' beside 'train_COVIDx9A.txt' and 'test_COVIDx9A.txt', or 'train.txt' and "
    "'test.txt'"
)

Split = Literal["train", "val", "test"]
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_LIST = re.compile(r"(train|val|test)(?:_(.+))?\.txt")


@dataclass(frozen=True, slots=True)
class _Line:
    patient: str
    file: str
    kind: str


class CovidX:
    """Reader of COVIDx CXR.

    ``root`` holds the lists and the folders ``train`` and ``test``, or is the folder around it. Of
    a version's lists (``train_COVIDx9A.txt``) and plain ones (``train.txt``) the former are read;
    of several versions none, since nobody can tell which is meant.
    """

    def __init__(self, root: Path) -> None:
        self.root = find_base(Path(root), "COVIDx", LAYOUT, lambda names: bool(_versions(names)))
        self._samples: tuple[Sample, ...] | None = None

    def samples(self) -> Sequence[Sample]:
        """One sample per line, in the order of the lists: train, val (where there is one), test.

        Id is the path below the root (``train/name.png``). Labels of a list with three classes are
        "normal", "pneumonia" and "covid-19", one of them 1; of one with two, "covid-19" alone, 1
        or 0.

        Raises:
            DataError: lines that cannot be understood, lists that mix versions, files twice or
                missing.
        """
        if self._samples is None:
            self._samples = tuple(self._list())
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """float32 [H, W] in [0, 1]. Raises DataError for a missing or damaged file."""
        return read_picture(sample.files[0])

    def _list(self) -> list[Sample]:
        lists = _lists(self.root)
        read: dict[Split, list[_Line]] = {
            split: _read_list(path, self.root / split) for split, path in lists.items()
        }
        kinds = {line.kind for lines in read.values() for line in lines}
        if not (kinds <= THREE.keys() or kinds <= TWO.keys()):
            raise DataError(
                f"{' and '.join(map(str, lists.values()))} mix classes of the versions A "
                f"({', '.join(THREE)}) and B ({', '.join(TWO)}): {', '.join(sorted(kinds))}. Take "
                "lists of one version."
            )
        return [
            Sample(
                id=f"{split}/{line.file}",
                patient=line.patient,
                files=(self.root / split / line.file,),
                labels=_labels(line.kind),
                split=split,
                view="frontal",
            )
            for split, lines in read.items()
            for line in lines
        ]


def _labels(kind: str) -> Mapping[str, int | None]:
    if kind in TWO:
        return {"covid-19": TWO[kind]}
    return {label: int(word == kind) for word, label in THREE.items()}


def _versions(names: set[str]) -> set[str | None]:
    """Versions of which a train or test list is there; None stands for plain ones."""
    return {match[2] for match in map(_LIST.fullmatch, names) if match and match[1] != "val"}


def _lists(root: Path) -> dict[Split, Path]:
    names = names_in(str(root))
    versions = sorted(name for name in _versions(names) if name is not None)
    if len(versions) > 1:
        raise DataError(
            f"{root} holds label lists of several versions: {', '.join(versions)}. Keep those of "
            "one, for example train_COVIDx9A.txt and test_COVIDx9A.txt."
        )
    ending = f"_{versions[0]}.txt" if versions else ".txt"
    missing = [f"{split}{ending}" for split in ("train", "test") if f"{split}{ending}" not in names]
    if missing:
        raise DataError(
            f"{root} has no {' and no '.join(missing)}. Copy the lists of one version, for train "
            "and for test."
        )
    return {split: root / f"{split}{ending}" for split in _SPLITS if f"{split}{ending}" in names}


def _read_list(path: Path, folder: Path) -> list[_Line]:
    """The lines of a list, held against the files in its folder."""
    text, there = read_lines(path), names_in(str(folder))
    lines = [_parse(line, there) for line in text]
    refuse_rows(
        path,
        "no patient, file and class (normal, pneumonia, COVID-19, negative or positive)",
        [number for number, line in enumerate(lines) if line is None],
        text,
    )
    found = [line for line in lines if line is not None]
    files = [line.file for line in found]
    refuse_rows(path, "a file that another row has too", repeated(files), files)
    missing = [file for file in files if file not in there]
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing):,} of the {len(files):,} image files that {path.name} "
            f"names: {some(missing)}. Copy them, or give a list of those that are there."
        )
    return found


def _parse(line: str, there: set[str]) -> _Line | None:
    """A line from its right end: patients and, in old lists, files have names with spaces."""
    words = line.split()
    for end in (len(words) - 2, len(words) - 1):  # with a source behind the class, or without
        if end < 2 or words[end].lower() not in THREE.keys() | TWO.keys():
            continue
        for start in range(end - 1, 0, -1):
            file = " ".join(words[start:end])
            # "a 1.png" is a file of its own only if it is there; else the last word is the file.
            if file in there:
                return _Line(" ".join(words[:start]), file, words[end].lower())
        if words[end - 1].lower().endswith(SUFFIXES):
            return _Line(" ".join(words[: end - 1]), words[end - 1], words[end].lower())
    return None
