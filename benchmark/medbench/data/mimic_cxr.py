"""MIMIC-CXR: chest radiographs of an emergency department, with reports and 14 labels.

Layout of MIMIC-CXR-JPG 2.0.0, as PhysioNet publishes it (doi 10.13026/8360-t248)::

    <root>/files/p10/p10000032/s50414267/<dicom_id>.jpg
    <root>/mimic-cxr-2.0.0-split.csv.gz        dicom_id, study_id, subject_id, split
    <root>/mimic-cxr-2.0.0-metadata.csv.gz     dicom_id, ..., ViewPosition, ...
    <root>/mimic-cxr-2.0.0-chexpert.csv.gz     subject_id, study_id, 14 labels; or -negbio
    <root>/mimic-cxr-reports/files/p10/p10000032/s50414267.txt    or in files/, or absent

or R2Gen's ``annotation.json`` beside ``images/p10/p10000032/s50414267/<dicom_id>.jpg``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from medbench.data import r2gen
from medbench.data.folders import names_in, refuse_missing
from medbench.data.pictures import read_picture
from medbench.data.report_findings import read_report
from medbench.data.reports import narrative, one_line, sections
from medbench.data.samples import Pixels, Sample
from medbench.data.tables import collector_off, read_table, repeated, some
from medbench.errors import DataError

LAYOUT = (
    "'files/p10/p10000032/s50414267/<dicom_id>.jpg' beside 'mimic-cxr-2.0.0-split.csv.gz' and "
    "'mimic-cxr-2.0.0-metadata.csv.gz', or R2Gen's 'annotation.json' beside 'images'"
)
#: Columns of the label tables, in their order.
LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other",
    "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip

_SPLITS = {"train": "train", "validate": "val", "test": "test"}
#: Oblique, decubitus and axial views are none of those that a sample's view can say.
_VIEWS: Mapping[str, Literal["PA", "AP", "lateral"]] = {
    "PA": "PA", "AP": "AP", "LATERAL": "lateral", "LL": "lateral", "XTABLE LATERAL": "lateral",
}  # fmt: skip
_VALUES = {"1.0": 1, "0.0": 0, "-1.0": -1, "1": 1, "0": 0, "-1": -1, "": None}
_DICOM, _DIGITS = re.compile(r"[0-9A-Za-z.-]+"), re.compile(r"[0-9]+")
_TABLE = re.compile(
    r"mimic-cxr-\d+\.\d+\.\d+-(split|metadata|chexpert|negbio)\.csv(?:\.gz)?", re.IGNORECASE
)
_REPORTS = ("mimic-cxr-reports/files", "mimic-cxr-reports", "reports/files", "reports", "files")


def label_name(column: str) -> str:
    """Name of a label: "Pleural Effusion" is "pleural-effusion"."""
    return column.lower().replace(" ", "-")


class MimicCxr:
    """Reader of MIMIC-CXR-JPG, or of R2Gen's annotation over its images.

    ``root`` is the folder that holds the tables or ``annotation.json``, or the folder around it, or
    ``annotation.json`` itself. Where a folder has both, the tables are read.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._annotation = _base(Path(root))
        self._samples: tuple[Sample, ...] | None = None

    def samples(self) -> Sequence[Sample]:
        """One sample per image, in the order of the split table or of ``annotation.json``.

        Id is the DICOM id, patient the folder of the subject (``p10000032``), study that of the
        study (``s50414267``). Labels are the table's: 1, 0, -1 and None for blank; a study without
        a row has None throughout. With ``annotation.json`` they are read from the report by rule
        (`medbench.data.report_findings`). Text is the report's findings and impression, with
        ``annotation.json`` its report as it stands; None where there is no report tree.

        Each study's folder is listed once and no image is touched. With a report tree, all
        reports are read.

        Raises:
            DataError: missing or renamed columns, values out of range, ids that occur twice or
                contradict each other, missing image or report files, empty reports.
        """
        if self._samples is None:
            with collector_off():
                if self._annotation is not None:
                    self._samples = tuple(_from_annotation(self._annotation, self.root))
                else:
                    self._samples = tuple(_from_tables(self.root))
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """float32 [H, W] in [0, 1]. Raises DataError for a damaged or missing file."""
        return read_picture(sample.files[0])


def _base(root: Path) -> tuple[Path, Path | None]:
    """The folder that holds the dataset, and its annotation.json when that is what to read."""
    if root.name == r2gen.FILE and os.path.isfile(root):
        return root.parent, root
    if not os.path.exists(root):
        raise DataError(f"{root} does not exist. Give the folder that holds {LAYOUT}.")
    if not os.path.isdir(root):
        raise DataError(f"{root} is a file. Give the folder that holds {LAYOUT}.")
    names = names_in(str(root))
    candidates = [root, *(root / name for name in sorted(names) if (root / name).is_dir())]
    for folder in candidates:
        if "split" in _tables(folder):
            return folder, None
    for folder in candidates:
        if (folder / r2gen.FILE).is_file():
            return folder, folder / r2gen.FILE
    found = _tables(root)
    lacks = (
        f"it has {', '.join(p.name for p in found.values())} but no split table"
        if found
        else ("it has neither a split table nor annotation.json")
    )
    raise DataError(f"{root} is not MIMIC-CXR: {lacks}. Expected layout: {LAYOUT}.")


def _tables(folder: Path) -> dict[str, Path]:
    """Kind of table to its file; of a compressed and a plain copy the first by name."""
    found: dict[str, Path] = {}
    for name in sorted(names_in(str(folder))):
        match = _TABLE.fullmatch(name)
        if match:
            found.setdefault(match[1].lower(), folder / name)
    return found


def _from_tables(root: Path) -> Iterable[Sample]:
    tables = _tables(root)
    if "metadata" not in tables:
        raise DataError(
            f"{root} has no mimic-cxr-2.0.0-metadata.csv.gz, which tells the views. Expected "
            f"layout: {LAYOUT}."
        )
    images = read_table(tables["split"], ("dicom_id", "study_id", "subject_id", "split"))
    names, studies, subjects = map(images.column, ("dicom_id", "study_id", "subject_id"))
    images.refuse("a dicom_id that another row has too", repeated(names), names)
    splits = images.mapped("split", _SPLITS, "a split other than train, validate and test")
    # Ids become parts of paths, so they are held to what they may consist of.
    for column, pattern in (("dicom_id", _DICOM), ("study_id", _DIGITS), ("subject_id", _DIGITS)):
        values = images.column(column)
        wrong = [row for row, value in enumerate(values) if not pattern.fullmatch(value)]
        images.refuse(f"an impossible {column}", wrong, values)
    views = _views(tables["metadata"], names)
    labels = _labels(tables.get("chexpert") or tables.get("negbio"))

    folders = [f"p{a[:2]}/p{a}/s{b}" for a, b in zip(subjects, studies, strict=True)]
    paths = [f"{folder}/{name}.jpg" for folder, name in zip(folders, names, strict=True)]
    files = root / "files"
    refuse_missing(paths, files, tables["split"])
    reports = _reports(root, list(dict.fromkeys(folders)))
    unlabelled = dict.fromkeys(map(label_name, LABELS)) if labels is not None else {}
    nothing: tuple[str | None, dict[str, str]] = (None, {})
    for path, folder, name, subject, study, split, view in zip(
        paths, folders, names, subjects, studies, splits, views, strict=True
    ):
        text, parts = reports.get(folder, nothing)
        yield Sample(
            id=name,
            patient="p" + subject,
            files=(files / path,),
            labels=(labels or {}).get((subject, study), unlabelled),
            text=text,
            split=split,
            study="s" + study,
            view=_VIEWS.get(view.upper()),
            sections=parts,
        )


def _views(path: Path, images: Sequence[str]) -> list[str]:
    """ViewPosition of each image, "" where blank."""
    table = read_table(path, ("dicom_id", "ViewPosition"))
    names, views = table.column("dicom_id"), table.column("ViewPosition")
    table.refuse("a dicom_id that another row has too", repeated(names), names)
    known = dict(zip(names, views, strict=True))
    lacking = [image for image in images if image not in known]
    if lacking:
        raise DataError(
            f"{path} lacks {len(lacking):,} of the images in the split table: {some(lacking)}. The "
            "two are of different releases; copy both again."
        )
    return [known[image] for image in images]


def _labels(path: Path | None) -> dict[tuple[str, str], dict[str, int | None]] | None:
    """(subject, study) to labels; None without a table."""
    if path is None:
        return None
    table = read_table(path, ("subject_id", "study_id"), together=LABELS)
    studies = table.column("study_id")
    table.refuse("a study_id that another row has too", repeated(studies), studies)
    # Studies share their labels with many others: each combination is taken apart once.
    known: dict[str, dict[str, int | None]] = {}
    for cells in set(table.together):
        values = cells.split(",")
        for name, value in zip(LABELS, values, strict=True):
            if value not in _VALUES:
                table.refuse(
                    f"a value of '{name}' other than 1, 0, -1 and blank",
                    [row for row, other in enumerate(table.together) if other == cells],
                    [value] * len(studies),
                )
        known[cells] = {
            label_name(name): _VALUES[value] for name, value in zip(LABELS, values, strict=True)
        }
    rows = zip(table.column("subject_id"), studies, table.together, strict=True)
    return {(subject, study): known[cells] for subject, study, cells in rows}


def _reports(root: Path, studies: Sequence[str]) -> Mapping[str, tuple[str, dict[str, str]]]:
    """Folder of a study to its text and sections; nothing when there is no report tree."""
    patients = list(dict.fromkeys(study[: study.rindex("/")] for study in studies))
    base = next((root / name for name in _REPORTS if _holds_reports(root / name, patients)), None)
    if base is None:
        return {}
    refuse_missing([f"{study}.txt" for study in studies], base, base)

    def read(some: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
        return [_report(f"{base}/{study}.txt") for study in some]

    # Opening files is waiting, above all on network storage.
    parts = [studies[start : start + 500] for start in range(0, len(studies), 500)]
    with ThreadPoolExecutor(8) as pool:
        found = [report for some in pool.map(read, parts) for report in some]
    return dict(zip(studies, found, strict=True))


def _report(path: str) -> tuple[str, dict[str, str]]:
    """Text and sections of one report."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}. Copy it again.") from error
    if not text.strip():
        raise DataError(f"{path} is empty. Copy it again from its source.")
    parts = {name: one_line(part) for name, part in sections(text).items()}
    return narrative(parts, text), parts


def _holds_reports(base: Path, patients: Sequence[str]) -> bool:
    """Whether any of the patients' folders holds a report."""
    return os.path.isdir(base) and any(
        name.endswith(".txt") for patient in patients for name in names_in(f"{base}/{patient}")
    )


def _from_annotation(annotation: Path, root: Path) -> Iterable[Sample]:
    studies = r2gen.read_annotation(annotation)
    paths = [image for study in studies for image in study.images]
    images = next((root / name for name in ("images", "files") if (root / name).is_dir()), root)
    refuse_missing(paths, images, annotation)
    ids = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    if len(set(ids)) < len(ids):
        raise DataError(f"{annotation}: images of one name in different folders. Copy it again.")
    for study in studies:
        labels = read_report(study.report).labels
        for path in study.images:
            yield Sample(
                id=os.path.splitext(os.path.basename(path))[0],
                patient=_prefixed("p", study.subject_id),
                files=(images / path,),
                labels=labels,
                text=study.report,
                split=study.split,
                study=_prefixed("s", study.study_id) or study.id,
                sections={"findings": study.report},
            )


def _prefixed(letter: str, number: str | None) -> str | None:
    """Ids of R2Gen are numbers; those of the folders have a letter in front."""
    return None if number is None else letter + number.removeprefix(letter)
