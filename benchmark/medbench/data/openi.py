"""Reports of the Indiana University chest X-ray collection, as Open-i distributes them: XML.

One file per study. Its sections are ``AbstractText`` elements, its images ``parentImage``, and its
MeSH terms were chosen by hand ("major") and by program ("automatic"). A de-identified word is XXXX.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from medbench.errors import DataError

#: Real reports have at most 9 kB.
_LARGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class OpeniReport:
    """One study.

    Attributes:
        id: such as "CXR2384". Studies of a patient are not linked: each stands for itself.
        sections: "comparison", "indication", "findings", "impression" to text on one line; empty
            ones are left out.
        major, automatic: MeSH terms with qualifiers, such as "Opacity/lung/base/left".
        images: ids of its images, such as "CXR2384_IM-0942-1001", in the file's order.
    """

    id: str
    sections: Mapping[str, str]
    major: tuple[str, ...]
    automatic: tuple[str, ...]
    images: tuple[str, ...]

    @property
    def terms(self) -> tuple[str, ...]:
        """MeSH terms chosen by hand, without "normal" and "No Indexing", which are none."""
        return tuple(t for t in self.major if t.lower() not in ("normal", "no indexing"))


def read_openi_report(path: Path) -> OpeniReport:
    """Read one report file. Raises DataError naming it; see `parse_openi_report`."""
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return parse_openi_report(content, str(path))


def parse_openi_report(content: bytes, name: str) -> OpeniReport:
    """Parse a report.

    Args:
        content: the file's bytes.
        name: what errors call it.

    Raises:
        DataError: empty, larger than 1 MB, not XML, with a document type (entities could be made
            to expand without end, or to fetch files), without an id, or a section or image given
            twice.
    """
    if not content.strip():
        raise DataError(f"{name} is empty. Copy it again from its source.")
    if len(content) > _LARGEST:
        raise DataError(f"{name} is larger than 1 MB, which no report is. Copy it again.")
    # Looked for in every encoding that XML may have; reports have ASCII bytes or UTF-16.
    if any(mark in content for mark in (b"<!DOCTYPE", b"<!ENTITY", "<!D".encode("utf-16-le"))):
        raise DataError(f"{name} has a document type, which no report has. It is not read.")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{name} is not XML: {error}. Copy it again from its source.") from error
    identifier = root.find("uId")
    study = identifier.get("id", "").strip() if identifier is not None else ""
    if not study:
        raise DataError(f"{name} is not an Open-i report: it has no uId. Copy it again.")
    parts = [
        (element.get("Label", "").strip().lower(), " ".join("".join(element.itertext()).split()))
        for element in root.iter("AbstractText")
    ]
    images = [element.get("id", "").strip() for element in root.iter("parentImage")]
    for what, values in (("section", [label for label, _ in parts]), ("image", images)):
        if len(set(values)) < len(values):
            raise DataError(f"{name} has a {what} twice. Copy it again from its source.")
        if "" in values:
            raise DataError(f"{name} has a {what} without a name. Copy it again from its source.")
    return OpeniReport(
        id=study,
        sections={label: text for label, text in parts if text},
        major=_terms(root, "major"),
        automatic=_terms(root, "automatic"),
        images=tuple(images),
    )


def _terms(root: ElementTree.Element, kind: str) -> tuple[str, ...]:
    return tuple(
        element.text.strip()
        for element in root.iterfind(f"MeSH/{kind}")
        if element.text and element.text.strip()
    )
