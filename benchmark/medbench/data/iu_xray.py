"""IU X-Ray: chest radiographs of Indiana University with reports, from Open-i.

Two layouts, as published. R2Gen's, with exactly two images of each study::

    <root>/annotation.json                 {"train" | "val" | "test": [{id, report, image_path}]}
    <root>/images/CXR2384_IM-0942/0.png    and 1.png

and Open-i's own, as unpacked from NLMCXR_png.tgz and NLMCXR_reports.tgz::

    <root>/NLMCXR_png/CXR1000_IM-0003-1001.png
    <root>/NLMCXR_reports/ecgen-radiology/1000.xml
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from medbench.data import r2gen
from medbench.data.folders import names_in, refuse_missing
from medbench.data.openi import OpeniReport, read_openi_report
from medbench.data.pictures import read_picture
from medbench.data.report_findings import read_report, with_mesh
from medbench.data.reports import narrative
from medbench.data.samples import Pixels, Sample
from medbench.data.tables import some
from medbench.errors import DataError
from medbench.phantom.shipped import shipped

logger = logging.getLogger("medbench")

LAYOUT = (
    "'annotation.json' beside 'images/<id>/0.png' (R2Gen), or 'NLMCXR_png/*.png' and "
    "'NLMCXR_reports/ecgen-radiology/*.xml' (Open-i)"
)

View = Literal["PA", "AP", "frontal", "lateral"]

_VIEWS: Mapping[str, View] = {
    "PA": "PA", "AP": "AP", "LL": "lateral", "RL": "lateral", "LATERAL": "lateral",
    "LARGE LATERAL": "lateral",
}  # fmt: skip
_REPORT_ID = re.compile(r"CXR\d+")


class IuXray:
    """Reader of IU X-Ray in R2Gen's or in Open-i's layout.

    ``root`` is the folder of the layout, or the one around it, or ``annotation.json`` itself. Where
    a folder has both, R2Gen's is read.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._annotation = _base(Path(root))
        self._samples: tuple[Sample, ...] | None = None

    def samples(self) -> Sequence[Sample]:
        """One sample per image.

        Patient is the number of the report ("CXR2384"): Open-i does not link the studies of a
        patient. Labels are read by rule (`medbench.data.report_findings`): from the text, and in
        Open-i's layout also from the MeSH terms.

        R2Gen: in the file's order; id is the path without its suffix ("CXR2384_IM-0942/0"), text
        the report as it stands (the findings section), split as given; the view is not said.
        Open-i: by report number; id is the image's ("CXR2384_IM-0942-1001"), text the findings and
        impression, None where a report has neither; no split; views from the DICOM headers and
        the view table that torchxrayvision ships, None for an image they do not know.

        Raises:
            DataError: a damaged table or report, missing image files, images of no report,
                reports or images that occur twice.
        """
        if self._samples is None:
            if self._annotation is not None:
                self._samples = tuple(_from_annotation(self._annotation, self.root))
            else:
                self._samples = tuple(_from_openi(self.root))
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """float32 [H, W] in [0, 1]. Raises DataError for a damaged or missing file."""
        return read_picture(sample.files[0])


def patient_of(study: str) -> str:
    """Patient of a study: the report's number, however the study is called.

    >>> patient_of("CXR2384_IM-0942")
    'CXR2384'
    """
    found = _REPORT_ID.match(study)
    return found[0] if found else study


def study_views(images: Sequence[str]) -> tuple[View | None, ...]:
    """Views of the images of one Open-i study, None where they are not known.

    Two tables that torchxrayvision ships tell them. The view table was made from the images
    themselves, and speaks of one image of each study; the DICOM headers (View Position, or the
    patient's orientation) speak of two in three, but call many laterals PA. So the view table is
    believed; a header that says lateral is believed; and one that says PA or AP where the view
    table is silent only if it is alone in its study.

    Raises:
        DataError: the installed torchxrayvision has no such tables.
    """
    headers, seen = _view_tables()
    views: list[View | None] = []
    for image in images:
        said = headers.get(image)
        if image in seen and (said is None or (said == "lateral") != (seen[image] == "lateral")):
            said = seen[image]
        views.append(said)
    frontal = [n for n, view in enumerate(views) if view not in (None, "lateral")]
    if len(frontal) > 1:
        for n in frontal:
            if images[n] not in seen:
                views[n] = None
    return tuple(views)


@cache
def _view_tables() -> tuple[Mapping[str, View], Mapping[str, View]]:
    """Image id to view by the DICOM headers, and by the view table."""
    import pandas as pd

    columns = ["imageid", "View Position", "Patient Orientation"]
    frame = pd.read_csv(shipped("nlmcxr_dicom_metadata.csv.gz"), usecols=columns, dtype=str)
    headers: dict[str, View] = {}
    for image, position, orientation in frame[columns].fillna("").itertuples(index=False):
        if position in _VIEWS:
            headers[image] = _VIEWS[position]
        elif orientation:
            # "['L', 'F']": rows run to the patient's left, so the image is a frontal one.
            headers[image] = "lateral" if orientation[2] in "AP" else "frontal"
    table = pd.read_csv(shipped("nlmcxr_tsne_pa.csv.gz"), dtype=str)
    kinds = table["tsne-view"].map({"L": "lateral", "PA": "frontal"})
    return headers, dict(zip(table["imageid"], kinds, strict=True))


def _base(root: Path) -> tuple[Path, Path | None]:
    """The folder that holds the dataset, and its annotation.json when that is what to read."""
    if root.name == r2gen.FILE and os.path.isfile(root):
        return root.parent, root
    if not os.path.exists(root):
        raise DataError(f"{root} does not exist. Give the folder that holds {LAYOUT}.")
    if not os.path.isdir(root):
        raise DataError(f"{root} is a file. Give the folder that holds {LAYOUT}.")
    folders = [name for name in sorted(names_in(str(root))) if os.path.isdir(root / name)]
    for folder in (root, *(root / name for name in folders)):
        if os.path.isfile(folder / r2gen.FILE):
            return folder, folder / r2gen.FILE
    for folder in (root, *(root / name for name in folders)):
        if _reports_folder(folder) is not None:
            # Reports and images are unpacked side by side.
            return (root if folder.name == "NLMCXR_reports" else folder), None
    raise DataError(
        f"{root} is not IU X-Ray: it has neither annotation.json nor the folder ecgen-radiology. "
        f"Expected layout: {LAYOUT}."
    )


def _reports_folder(folder: Path) -> Path | None:
    for name in ("NLMCXR_reports/ecgen-radiology", "ecgen-radiology"):
        if os.path.isdir(folder / name):
            return folder / name
    return None


def _from_annotation(annotation: Path, root: Path) -> Iterable[Sample]:
    studies = r2gen.read_annotation(annotation)
    images = root / "images" if os.path.isdir(root / "images") else root
    refuse_missing([image for study in studies for image in study.images], images, annotation)
    for study in studies:
        labels = read_report(study.report).labels
        for path in study.images:
            yield Sample(
                id=os.path.splitext(path)[0],
                patient=patient_of(study.id),
                files=(images / path,),
                labels=labels,
                text=study.report,
                split=study.split,
                study=study.id,
                sections={"findings": study.report},
            )


def _from_openi(root: Path) -> Iterable[Sample]:
    reports = _read_reports(_reports_folder(root) or root)
    files = _find_images(root)
    known = {image for report in reports for image in report.images}
    missing = [image for report in reports for image in report.images if image not in files]
    if missing:
        raise DataError(
            f"{root}: {len(missing):,} of {len(known):,} images that the reports name are missing: "
            f"{some(missing)}. Unpack NLMCXR_png.tgz in it, or take away the "
            "reports of images that you do not have."
        )
    strange = sorted(files.keys() - known)
    if strange:
        raise DataError(
            f"{root}: {len(strange):,} PNG files belong to no report: {some(strange)}. "
            "Unpack NLMCXR_reports.tgz in it, or take these images away."
        )
    views_of = _views_of()
    for report in reports:
        text = narrative(report.sections, "") or None
        labels = with_mesh(read_report(text or ""), report.terms).labels
        for image, view in zip(report.images, views_of(report.images), strict=True):
            yield Sample(
                id=image,
                patient=report.id,
                files=(files[image],),
                labels=labels,
                text=text,
                study=report.id,
                view=view,
                sections=report.sections,
            )


def _views_of() -> Callable[[Sequence[str]], tuple[View | None, ...]]:
    try:
        _view_tables()
    except DataError as error:
        logger.warning("Views of the Open-i images are not known. %s", error)
        return lambda images: (None,) * len(images)
    return study_views


def _read_reports(folder: Path) -> list[OpeniReport]:
    names = sorted(
        (name for name in names_in(str(folder)) if name.lower().endswith(".xml")),
        key=lambda name: (len(name), name),  # 2.xml before 10.xml
    )
    if not names:
        raise DataError(f"{folder} has no XML files. Unpack NLMCXR_reports.tgz again.")
    reports = [read_openi_report(folder / name) for name in names]
    seen: dict[str, str] = {}
    for name, report in zip(names, reports, strict=True):
        for identifier in (report.id, *report.images):
            if identifier in seen:
                raise DataError(
                    f"{folder / seen[identifier]} and {name} both have the id {identifier}. Keep "
                    "one of them."
                )
            seen[identifier] = name
    return reports


def _find_images(root: Path) -> dict[str, Path]:
    """Image id to file: the PNG files of the folder itself or of those directly in it."""
    found: dict[str, Path] = {}
    inner = [name for name in sorted(names_in(str(root))) if os.path.isdir(root / name)]
    for folder in (root, *(root / name for name in inner)):
        for name in sorted(names_in(str(folder))):
            if name.lower().endswith(".png") and not name.startswith("."):
                image = name[:-4]
                if image in found:
                    raise DataError(
                        f"{found[image]} and {folder / name} are of one name. Keep one of them."
                    )
                found[image] = folder / name
    return found
