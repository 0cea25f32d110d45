"""CheXpert: chest radiographs with 14 labels, each present, absent, uncertain or not mentioned.

Layout, as published (Irvin et al., AAAI 2019, arXiv 1901.07031), full or small::

    <root>/train.csv                                Path,Sex,Age,Frontal/Lateral,AP/PA, 14 labels
    <root>/valid.csv                                the same columns
    <root>/train/patient00001/study1/view1_frontal.jpg
    <root>/valid/patient64541/study1/view1_frontal.jpg
    <root>/test.csv or test_labels.csv, test/       optional

Paths in the tables begin with ``CheXpert-v1.0-small/`` or ``CheXpert-v1.0/``, whatever the folder
itself is called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import Literal

from medbench.data.folders import names_in
from medbench.data.pictures import read_picture
from medbench.data.samples import Pixels, Sample
from medbench.data.tables import (
    Table,
    collector_off,
    find_base,
    in_columns,
    paths_below,
    read_table,
    repeated,
    some,
)
from medbench.errors import DataError

#: The 14 label columns in the tables' order.
COLUMNS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
#: Their names as labels of a sample.
LABELS = tuple(column.lower().replace(" ", "-") for column in COLUMNS)
LAYOUT = "'train.csv', 'valid.csv', 'train/patientNNNNN/studyN/*.jpg', 'valid/patientNNNNN/...'"

Split = Literal["train", "val", "test"]

#: Tables that a folder may hold, in the order in which they are listed; the first of a split.
_TABLES: tuple[tuple[str, Split], ...] = (
    ("train.csv", "train"), ("valid.csv", "val"), ("test.csv", "test"), ("test_labels.csv", "test"),
)  # fmt: skip
#: View, age, sex.
_Description = tuple[
    Literal["PA", "AP", "frontal", "lateral"] | None, float | None, Literal["F", "M"] | None
]
_DESCRIPTION = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": None}
_SEXES: Mapping[str, Literal["F", "M"] | None] = {
    "Female": "F", "Male": "M", "Unknown": None, "": None,
}  # fmt: skip
_SIDES = {"Frontal": True, "Lateral": False}
#: LL and RL are decubitus images: frontal ones, neither AP nor PA.
_WAYS: Mapping[str, Literal["PA", "AP", "frontal", "lateral"]] = {"AP": "AP", "PA": "PA"}
_FOLDERS = ("train", "valid", "test")
_PATIENT = re.compile(r"patient\d+")
_NO_NAMES = {"", ".", ".."}


class CheXpert:
    """Reader of CheXpert v1.0 and v1.0-small.

    ``root`` is the folder that holds ``train.csv``, or the folder around it. A folder with some of
    the tables is read as far as they go.
    """

    def __init__(self, root: Path) -> None:
        self.root = base(Path(root))
        self._samples: tuple[Sample, ...] | None = None

    def samples(self) -> Sequence[Sample]:
        """One sample per image, in the tables' order: train, val, test.

        Id is the path below the root (``train/patient00001/study1/view1_frontal.jpg``), patient
        its folder, study patient and study (``patient00001/study1``). Labels (`LABELS`) are 1, 0,
        -1 (uncertain) or None (blank). Age is as the table has it, 0 included. A frontal image is
        "AP" or "PA" where the table says, else "frontal".

        Folders of patients are looked for, by one listing of ``train`` and ``valid``; single
        images are not, since the index of all 223,414 must be quick: one that is missing is an
        error when it is read.

        Raises:
            DataError: missing or renamed columns, values out of range, paths in another layout or
                twice, patients without a folder.
        """
        if self._samples is None:
            found: list[Sample] = []
            splits: set[Split] = set()
            names = names_in(str(self.root))
            for name, split in _TABLES:
                path = self.root / name
                if split in splits or name not in names:
                    continue
                splits.add(split)
                samples = read_samples(path, self.root, split)
                _refuse_missing_patients(self.root, samples, path)
                found.extend(samples)
            self._samples = tuple(found)
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """float32 [H, W] in [0, 1]. Raises DataError for a missing or damaged file."""
        return read_picture(sample.files[0])


def base(root: Path) -> Path:
    """The folder that holds the tables: ``root`` or one inside it. Raises DataError."""
    return find_base(
        root, "CheXpert", LAYOUT, lambda names: "train.csv" in names or "valid.csv" in names
    )


def below_root(path: str) -> str:
    """A path of the tables relative to the dataset's folder: from ``train/`` on."""
    parts = path.replace("\\", "/").split("/")
    return "/".join(parts[-4:])


def read_samples(path: Path, root: Path, split: Split) -> list[Sample]:
    """The samples of one table, whether their images exist or not.

    Args:
        path: the table.
        root: the dataset's folder; images are named below it.
        split: what its samples are.

    Raises:
        DataError: see `CheXpert.samples`.
    """
    described = split != "test"  # the test table in circulation has paths and labels only
    with collector_off():
        table = read_table(path, ("Path", *(_DESCRIPTION if described else ())), COLUMNS)
        return _samples(table, root, split)


def _samples(table: Table, root: Path, split: Split) -> list[Sample]:
    paths = table.column("Path")
    parts = [path.split("/")[-4:] for path in paths]
    table.refuse(
        "a path that is not like 'CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg'",
        _unfit(parts),
        paths,
    )
    ids = ["/".join(part) for part in parts]
    table.refuse("a path that another row has too", repeated(ids), paths)
    views, ages, sexes = zip(*_described(table, ids), strict=True)
    return in_columns(
        len(ids),
        id=ids,
        patient=(part[1] for part in parts),
        files=zip(paths_below(root, parts)),
        labels=_labels(table),
        split=repeat(split),
        study=(f"{part[1]}/{part[2]}" for part in parts),
        view=views,
        age=ages,
        sex=sexes,
    )


def _unfit(parts: list[list[str]]) -> list[int]:
    """Rows whose paths are not in the layout; what they are made of is looked at once each."""
    fits = (
        all(len(part) == 4 for part in parts)
        and {part[0] for part in parts} <= set(_FOLDERS)
        and all(_PATIENT.fullmatch(name) for name in {part[1] for part in parts})
        and not {part[2] for part in parts} & _NO_NAMES
        and not {part[3] for part in parts} & _NO_NAMES
    )
    if fits:
        return []
    return [
        number
        for number, part in enumerate(parts)
        if len(part) != 4
        or part[0] not in _FOLDERS
        or not _PATIENT.fullmatch(part[1])
        or part[2] in _NO_NAMES
        or part[3] in _NO_NAMES
    ]


def _labels(table: Table) -> list[Mapping[str, int | None]]:
    """Labels of each row; rows with the same ones share a mapping, which saves most of the work."""
    known: dict[str, Mapping[str, int | None]] = {}
    odd: dict[str, str] = {}
    for cells in set(table.together):
        pairs = list(zip(COLUMNS, cells.split(","), strict=True))
        wrong = [f"{column}: {cell}" for column, cell in pairs if cell not in _VALUES]
        if wrong:
            odd[cells] = ", ".join(wrong)
        else:
            labels = [_VALUES[cell] for _, cell in pairs]
            known[cells] = dict(zip(LABELS, labels, strict=True))
    if odd:
        wrong_rows = [number for number, cells in enumerate(table.together) if cells in odd]
        shown = [odd[table.together[number]] for number in wrong_rows]
        table.refuse("a label that is not 1, 0, -1 or blank", wrong_rows, shown, pick=False)
    return [known[cells] for cells in table.together]


def _described(table: Table, ids: Sequence[str]) -> list[_Description]:
    """View, age and sex of each row; there are few different ones, so each is read once."""
    columns = [table.column(name) for name in _DESCRIPTION]
    known: dict[str, float | None] = {"": None}
    for cell in set(columns[1]) - {""}:
        with suppress(ValueError):
            known[cell] = float(cell)
    for column, cells, what in (
        ("Sex", _SEXES, "a sex that is not Female, Male or Unknown"),
        ("Age", known, "an age that is not a number"),
        ("Frontal/Lateral", _SIDES, "a view that is neither Frontal nor Lateral"),
    ):
        if column in table.place:
            table.mapped(column, cells, what)
    if "Frontal/Lateral" not in table.place:
        # Told by the file's name.
        columns[2] = [
            "Lateral" if "lateral" in name else "Frontal" if "frontal" in name else ""
            for name in ids
        ]
    rows = list(zip(*columns, strict=True))
    read: dict[tuple[str, ...], _Description] = {}
    for sex, age, side, way in set(rows):
        view = _WAYS.get(way, "frontal") if side == "Frontal" else "lateral" if side else None
        read[sex, age, side, way] = (view, known[age], _SEXES[sex])
    return [read[row] for row in rows]


def _refuse_missing_patients(root: Path, samples: Sequence[Sample], table: Path) -> None:
    tops: dict[str, set[str]] = {}
    for sample in samples:
        tops.setdefault(sample.id.partition("/")[0], set()).add(str(sample.patient))
    for top, patients in tops.items():
        missing = sorted(patients - names_in(str(root / top)))
        if missing:
            raise DataError(
                f"{root / top} lacks the folders of {len(missing):,} of the {len(patients):,} "
                f"patients that {table.name} names: {some(missing)}. Copy them, or give a table of "
                "those that are there."
            )
