"""Sections of a radiology report, by its headings.

MIMIC-CXR reports are plain text: headings in capitals, at the start of a line or inside one, with
the text behind them or below. Headings mean the same under many names ("REASON FOR EXAM",
"CLINICAL HISTORY"), and the description of the images may stand under the name of the views
("PA AND LATERAL CHEST:"), under "FINDINGS", or under no heading at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

#: Canonical names and what they are called in reports, in capitals.
HEADINGS: Mapping[str, tuple[str, ...]] = {
    "findings": (
        "FINDINGS", "FINDING", "FINDINGS AND IMPRESSION", "FINDINGS/IMPRESSION",
        "IMPRESSION AND FINDINGS", "REPORT",
    ),
    "impression": ("IMPRESSION", "IMPRESSIONS", "CONCLUSION", "CONCLUSIONS", "OPINION"),
    "indication": (
        "INDICATION", "INDICATIONS", "CLINICAL INDICATION", "REASON FOR EXAM",
        "REASON FOR EXAMINATION", "REASON FOR THE EXAM", "REASON FOR STUDY", "HISTORY",
        "CLINICAL HISTORY", "CLINICAL INFORMATION", "PATIENT HISTORY",
    ),
    "comparison": (
        "COMPARISON", "COMPARISONS", "COMPARISON STUDY", "COMPARISON STUDIES", "COMPARISON FILM",
        "COMPARISON FILMS",
    ),
    "technique": ("TECHNIQUE", "PROCEDURE", "PROCEDURE COMMENTS"),
    "examination": (
        "EXAMINATION", "EXAM", "STUDY", "TYPE OF EXAM", "TYPE OF EXAMINATION", "EXAMINATION NAME",
    ),
    "recommendation": ("RECOMMENDATION", "RECOMMENDATIONS", "RECOMMENDATION(S)"),
    "notification": ("NOTIFICATION", "NOTIFICATIONS"),
    "addendum": ("ADDENDUM", "FINAL ADDENDUM"),
    "wet-read": ("WET READ", "WET READ VERSION", "PRELIMINARY READ"),
    "final-report": ("FINAL REPORT",),
}  # fmt: skip

#: Name of the text before the first heading, or of the whole report when it has none.
UNHEADED = "body"

_NAMES = {spelling: name for name, spellings in HEADINGS.items() for spelling in spellings}
_KNOWN = "|".join(re.escape(s) for s in sorted(_NAMES, key=len, reverse=True))
#: A heading that only names the views stands over their description.
_VIEWS = re.compile(r"\b(?:CHEST|VIEWS?|RADIOGRAPHS?|FRONTAL|LATERAL|PORTABLE|UPRIGHT|SUPINE)\b")
#: Words in capitals, which are a heading at the start of a line, before a colon.
_CAPITALS = re.compile(r"[A-Z][A-Z_]+(?:[ ,/&()'-]+[A-Z0-9_]+){0,9}\)?")
#: A known name in capitals inside a line, before a colon.
_INLINE = re.compile(rf"(?<![^\s.])(?:{_KNOWN})[ \t]*$")


def split_report(text: str) -> list[tuple[str, str]]:
    """A report as pairs of heading and text, in their order, without losing a word.

    Returns:
        (heading as written, "" before the first one; text below it, stripped). A report without
        headings is one pair.
    """
    pairs: list[tuple[str, str]] = []
    heading, start = "", 0
    for first, last, found in _headings(text):
        pairs.append((heading, text[start:first].strip()))
        heading, start = found, last
    pairs.append((heading, text[start:].strip()))
    return [pair for pair in pairs if any(pair)]


def _headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and words of each heading.

    A heading is a known name in capitals alone on its line, or stands before a colon: at the start
    of a line a known name in any case or any words in capitals (a time such as 14:30 is none),
    inside a line a known name in capitals.
    """
    first = 0
    for line in text.splitlines(keepends=True):
        last = first + len(line)
        words = line.strip()
        if words in _NAMES:
            yield first, last, words
        else:
            begin, colon = first, text.find(":", first, last)
            while colon >= 0:
                segment = text[begin:colon]
                words = segment.strip()
                inline = (
                    _INLINE.search(segment) if words[-1:].isupper() or words[-1:] == ")" else None
                )
                if begin == first and (
                    words.upper() in _NAMES
                    or (_CAPITALS.fullmatch(words) and not text[colon + 1 : colon + 2].isdigit())
                ):
                    yield begin, colon + 1, words
                    begin = colon + 1
                elif inline:
                    yield begin + inline.start(), colon + 1, inline[0].strip()
                    begin = colon + 1
                colon = text.find(":", colon + 1, last)
        first = last


def sections(text: str) -> dict[str, str]:
    """Sections of a report: lower-case name to text, empty ones left out.

    Names are those of `HEADINGS`; headings that name only the views count as "findings", others
    keep their own words, lower-case and joined by hyphens; text without a heading is `UNHEADED`.
    A section that occurs twice, as with an addendum, is joined.
    """
    found: dict[str, str] = {}
    for heading, body in split_report(text):
        if body:
            name = _name(heading)
            found[name] = f"{found[name]}\n{body}" if name in found else body
    return found


def _name(heading: str) -> str:
    if not heading:
        return UNHEADED
    upper = heading.upper()
    known = _NAMES.get(upper)
    if known is not None:
        return known
    return (
        "findings" if _VIEWS.search(upper) else "-".join(re.findall(r"[a-z0-9]+", heading.lower()))
    )


def narrative(parts: Mapping[str, str], text: str) -> str:
    """What the radiologist saw and concluded: findings, then impression, on one line.

    A report with neither section gives its last paragraph, where such reports describe the image.
    """
    told = [parts[name] for name in ("findings", "impression") if parts.get(name)]
    if not told:
        paragraphs = [p for p in re.split(r"\n[ \t]*\n", text) if p.strip()]
        told = paragraphs[-1:]
    return one_line(" ".join(told))


def one_line(text: str) -> str:
    """Text with each run of white space as one blank."""
    return " ".join(text.split())
