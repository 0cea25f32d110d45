"""Reports of real sentences for drawn labels.

Phantoms of datasets whose reports cannot be shipped take their sentences from Open-i reports that
iu-xray neither validates nor tests on, read at run time from the installed torchxrayvision. A
report is composed so that it states its labels and nothing else, as the rules of
`medbench.data.report_findings` read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np

from medbench.data.report_findings import ReportFindings, read_report
from medbench.phantom.draws import seed
from medbench.phantom.openi_reports import Side, wording

Item = TypeVar("Item")
Label = int | None
#: What a sentence states: labels and their values.
Stated = frozenset[tuple[str, int]]


class Stream:
    """Uniform numbers of one (dataset, purpose, row), as many as are asked for."""

    def __init__(self, dataset: str, purpose: str, row: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed(dataset, purpose, row)))

    def uniform(self) -> float:
        """In [0, 1)."""
        return float(self._generator.random())

    def below(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[int(self.uniform() * len(items))]

    def weighed(self, edges: Sequence[tuple[Item, float]]) -> Item:
        """One of the items by its cumulated share; the last share is 1."""
        u = self.uniform()
        return next(item for item, edge in edges if u < edge)


@dataclass(frozen=True)
class Bank:
    """Real sentences by what they state.

    Attributes:
        stating: set of (label, value) to the sentences that state exactly these, with their sides;
            the empty set to those that state none, from findings sections.
        clear: impressions of normal studies, as often as they occur, with what they deny.
        indications: by whether they speak of a woman; None: they do not tell.
        comparisons: what reports were compared with.
    """

    stating: Mapping[Stated, Sequence[tuple[str, Mapping[str, Side]]]]
    clear: Sequence[tuple[str, Stated]]
    indications: Mapping[bool | None, Sequence[str]]
    comparisons: Sequence[str]


@cache
def bank() -> Bank:
    """The sentences of `medbench.phantom.openi_reports.wording`."""
    stating: dict[Stated, list[tuple[str, Mapping[str, Side]]]] = {}
    clear: list[tuple[str, Stated]] = []
    indications: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    comparisons: list[str] = []
    seen: set[str] = set()
    for report in wording():
        parts = report.sections
        for name in ("findings", "impression"):
            for sentence in _sentences(parts.get(name, "")):
                if sentence in seen:
                    continue
                seen.add(sentence)
                stated = read_report(sentence)
                key = _stated(stated)
                # What an impression says besides findings makes no sense elsewhere.
                if key or name == "findings":
                    stating.setdefault(key, []).append((sentence, stated.sides))
        if report.major == ("normal",) and "impression" in parts:
            words = " ".join(_sentences(parts["impression"]))
            key = _stated(read_report(words))
            if words and not any(value for _, value in key):
                clear.append((words, key))
        indication = _clean(parts.get("indication", ""))
        if indication:
            low = indication.lower()
            sexes = (bool(re.search(r"female|woman|\bshe\b|\bher\b", low)),
                     bool(re.search(r"\bmale|\bman\b|\bhis\b|\bhe\b", low)))  # fmt: skip
            indications[None if sexes[0] == sexes[1] else sexes[0]].append(indication)
        if "comparison" in parts:
            comparisons.append(_clean(parts["comparison"]))
    return Bank(stating, clear, indications, [words for words in comparisons if words])


def compose(draw: Stream, wanted: Mapping[str, Label]) -> tuple[list[str], list[str]]:
    """Sentences for findings and impression that state what is wanted, and nothing else.

    A label for which there is no sentence that keeps to the others stays unmentioned. Sentences
    about one finding agree on its side.
    """
    sentences = bank()
    targets = {
        (name, value)
        for name, value in wanted.items()
        if value is not None and name != "no-finding"
    }
    usable = sorted(
        ((key, some) for key, some in sentences.stating.items() if key and key <= targets),
        key=lambda item: sorted(item[0]),
    )
    sides: dict[str, Side] = {}

    def say(target: tuple[str, int], excluded: Sequence[str]) -> tuple[str, set[str]] | None:
        fitting = [
            (sentence, places, key)
            for key, some in usable
            if target in key
            for sentence, places in some
            if sentence not in excluded
            and all(sides.get(name, side) == side for name, side in places.items())
        ]
        if not fitting:
            return None
        sentence, places, key = draw.pick(fitting)
        sides.update(places)
        return sentence, {name for name, _ in key}

    findings: list[str] = []
    told: set[str] = set()
    # Abnormal ones first; the order of the report is drawn below.
    for target in sorted(targets, key=lambda item: (item[1] == 0, item[0])):
        if target[0] not in told:
            said = say(target, findings)
            if said is not None:
                findings.append(said[0])
                told |= said[1]
    neutral = [sentence for sentence, _ in sentences.stating[frozenset()]]
    for _ in range(draw.weighed(((0, 0.3), (1, 0.75), (2, 1.0)))):
        findings.append(draw.pick(neutral))
    findings = [item for _, item in sorted((draw.uniform(), item) for item in findings)]

    impression: list[str] = []
    abnormal = sorted(target for target in targets if target[1] and target[0] in told)
    for _, target in sorted((draw.uniform(), item) for item in abnormal)[:3]:
        said = say(target, (*findings, *impression))
        if said is not None:
            impression.append(said[0])
    if all(name == "support-devices" for name, _ in abnormal):
        impression.append(draw.pick([words for words, key in sentences.clear if key <= targets]))
    return findings, impression or findings[:1]


def _stated(findings: ReportFindings) -> Stated:
    return frozenset(
        (name, value)
        for name, value in findings.labels.items()
        if value is not None and name != "no-finding"
    )


def _sentences(text: str) -> list[str]:
    """Sentences of a section, without the numbers of a list, that make sense on their own."""
    found = []
    for piece in re.split(r"(?<=[.?!])\s+(?=[A-Z0-9])", text):
        words = re.sub(r"^\d+\s*[.)]\s*", "", piece).strip(" .")
        if 2 <= len(words.split()) <= 40 and words.count("XXXX") <= 1 and words[0].isupper():
            found.append(_clean(words) + ".")
    return found


def _clean(text: str) -> str:
    """MIMIC-CXR marks a de-identified word by underscores, Open-i by XXXX."""
    return " ".join(text.replace("XXXX", "___").split())
