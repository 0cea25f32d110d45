"""The 3,955 real Open-i reports as phantoms use them: the studies of iu-xray, and wording.

They are read from the installed torchxrayvision at run time; no report is part of this project.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from medbench.data.iu_xray import study_views
from medbench.data.openi import OpeniReport, parse_openi_report
from medbench.data.r2gen import Split
from medbench.data.report_findings import ReportFindings, read_report, with_mesh
from medbench.data.reports import narrative
from medbench.errors import DataError
from medbench.phantom.chest import UNCERTAIN
from medbench.phantom.shipped import shipped

Side = Literal["left", "right", "both"]

ARCHIVE = "NLMCXR_reports.tgz"
#: Shares of train, val and test in R2Gen's split of 2,955 studies (2,069, 296, 590).
SHARES: Mapping[Split, float] = {"train": 2069 / 2955, "val": 296 / 2955, "test": 590 / 2955}

_STUDY_ID = re.compile(r"CXR\d+(?:_\d+)?_IM-\d+")
_FEMALE = re.compile(r"\b(?:female|woman)\b")
_MALE = re.compile(r"\b(?:male|man)\b")

#: Label to what the renderer calls it, where the names differ.
DRAWN = {"pleural-effusion": "effusion"}
#: MeSH heads of what the labels do not name but the renderer can draw.
_MESH_DRAWN = {
    "calcified granuloma": "calcification",
    "granulomatous disease": "calcification",
    "emphysema": "emphysema",
    "pulmonary emphysema": "emphysema",
    "bullous emphysema": "emphysema",
    "pulmonary disease, chronic obstructive": "emphysema",
    "lung, hyperlucent": "emphysema",
    "hernia, hiatal": "hernia",
    "pulmonary fibrosis": "fibrosis",
    "lung diseases, interstitial": "fibrosis",
}


@dataclass(frozen=True)
class Study:
    """A study as R2Gen has it: two images and the findings section of its report.

    Attributes:
        id: such as "CXR2384_IM-0942".
        report: the whole report.
        split: by rule, see `splits`.
        lateral: for each of the two images whether it is the lateral one.
        findings: read from the findings, impression and MeSH terms.
        age: years on the day of the study, from the DICOM header; None where it has none.
        female: from the words of the report; None where it does not say.
    """

    id: str
    report: OpeniReport
    split: Split
    lateral: tuple[bool, bool]
    findings: ReportFindings
    age: float | None
    female: bool | None


def hashed(purpose: str, name: str) -> str:
    """Puts names into an order that depends on nothing but themselves."""
    return hashlib.sha256(f"medbench|{purpose}|{name}".encode()).hexdigest()


@cache
def reports() -> tuple[OpeniReport, ...]:
    """All reports, by number."""
    path = shipped(ARCHIVE)
    found = []
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".xml") else None
                if file is not None:
                    found.append(parse_openi_report(file.read(), f"{path}:{member.name}"))
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Install torchxrayvision again."
        ) from error
    return tuple(sorted(found, key=lambda report: (len(report.id), report.id)))


@cache
def splits() -> Mapping[str, Split]:
    """Report to split, of the reports with at least two images and a findings section.

    Of the 3,955 reports that rule leaves 2,955, which is how many R2Gen has. R2Gen's own list of
    splits is not in the package, so reports are put in the order of a hash of their number, and
    divided in R2Gen's proportions.
    """
    chosen = [
        report.id
        for report in reports()
        if len(report.images) >= 2 and "findings" in report.sections
    ]
    chosen.sort(key=lambda name: hashed("iu-xray split", name))
    train = round(SHARES["train"] * len(chosen))
    val = round(SHARES["val"] * len(chosen))
    return {
        name: "train" if rank < train else "val" if rank < train + val else "test"
        for rank, name in enumerate(chosen)
    }


@cache
def studies() -> tuple[Study, ...]:
    """The studies of iu-xray, by number; see `splits`."""
    split, ages = splits(), _ages()
    found = []
    for report in reports():
        if report.id not in split:
            continue
        images, lateral = _two_views(report.images)
        name = _STUDY_ID.match(images[0])
        found.append(
            Study(
                id=name[0] if name else images[0],
                report=report,
                split=split[report.id],
                lateral=lateral,
                findings=with_mesh(read_report(narrative(report.sections, "")), report.terms),
                age=ages.get(images[0]),
                female=_female(report),
            )
        )
    return tuple(found)


@cache
def wording() -> tuple[OpeniReport, ...]:
    """Reports whose words other phantoms may use: none that iu-xray validates or tests on."""
    split = splits()
    return tuple(report for report in reports() if split.get(report.id, "train") == "train")


def drawn(
    findings: ReportFindings, terms: Sequence[str] = ()
) -> tuple[dict[str, float], dict[str, Side]]:
    """What the renderer draws of a study: finding to severity, finding to side.

    Positive findings are drawn with severity 1, uncertain ones with `UNCERTAIN`. MeSH terms add
    what the labels do not name (calcified granulomas, emphysema, hiatal hernia, fibrosis), and
    tell a nodule from a mass and a thickened pleura from other things pleural.
    """
    heads = {term.lower().split("/")[0].strip(): term.lower() for term in terms}
    severity: dict[str, float] = {}
    sides: dict[str, Side] = {}
    for label, value in findings.labels.items():
        if label == "no-finding" or not value:
            continue
        name = DRAWN.get(label, label)
        if label == "lung-lesion":
            name = "mass" if "mass" in heads else "nodule" if "nodule" in heads else name
        elif label == "pleural-other" and "pleura" in heads.get("thickening", ""):
            name = "pleural-thickening"
        severity[name] = 1.0 if value == 1 else UNCERTAIN
        if label in findings.sides:
            sides[name] = findings.sides[label]
    for head, term in heads.items():
        more = _MESH_DRAWN.get(head)
        if head == "lung" and "hyperdistention" in term:
            more = "emphysema"
        if more is not None:
            severity[more] = 1.0
            for side in ("left", "right"):
                if f"/{side}" in term:
                    sides[more] = "left" if side == "left" else "right"
    return severity, sides


def _two_views(images: Sequence[str]) -> tuple[tuple[str, str], tuple[bool, bool]]:
    """Two images of a study in their order, and which of them is the lateral one.

    Nearly all studies are a frontal and a lateral image, but the tables know only some: the
    frontal one is the first that they call so, else the first that they do not call lateral.
    """
    views = study_views(images)
    places = range(len(images))
    frontal = next((n for n in places if views[n] in ("PA", "AP", "frontal")), None)
    if frontal is None:
        frontal = next((n for n in places if views[n] is None), 0)
    others = [n for n in places if n != frontal]
    lateral = next((n for n in others if views[n] == "lateral"), others[0])
    first, second = sorted((frontal, lateral))
    return (images[first], images[second]), (first == lateral, second == lateral)


def _ages() -> dict[str, float]:
    """Image id to age in whole years, from birth and study date (the year of birth is real)."""
    import pandas as pd

    frame = pd.read_csv(
        shipped("nlmcxr_dicom_metadata.csv.gz"),
        usecols=["imageid", "Patient's Birth Date", "Study Date"],
        dtype=str,
    )
    born, seen = (
        pd.to_datetime(frame[name], format="%Y%m%d", errors="coerce")
        for name in ("Patient's Birth Date", "Study Date")
    )
    years = ((seen - born).dt.days // 365.25).tolist()
    return {
        image: age
        for image, age in zip(frame["imageid"], years, strict=True)
        if 0 <= age <= 120  # also False for NaN
    }


def _female(report: OpeniReport) -> bool | None:
    text = " ".join(report.sections.values()).lower()
    female, male = bool(_FEMALE.search(text)), bool(_MALE.search(text))
    return None if female == male else female
