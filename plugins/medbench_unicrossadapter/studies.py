"""Studies out of a corpus of images: some views and a report each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medbench.data.samples import Corpus, Sample
from medbench.errors import DataError
from medbench.metrics.captioning import r2gen_words
from medbench.models.capabilities import FitRun

#: Frontal views first, as the harness gives them when it asks for reports.
_ORDER = ("PA", "AP", "frontal", None, "lateral")


@dataclass(frozen=True)
class Study:
    """The images of one examination, frontal first, and what was written about them."""

    views: tuple[Sample, ...]
    report: str


def studies_of(corpus: Corpus, views: int, run: FitRun) -> tuple[list[Study], list[Study]]:
    """Studies to train on, and those of the validation part, in the corpus' order.

    Studies without a word of report are dropped, and of others at most ``views`` images are taken;
    the user is told how many. Raises DataError when either part is left empty.
    """
    groups: dict[str, list[Sample]] = {}
    for sample in corpus.samples:
        groups.setdefault(sample.study or sample.id, []).append(sample)
    parts: dict[str, list[Study]] = {"train": [], "val": []}
    silent = crowded = 0
    for group in groups.values():
        group.sort(key=lambda sample: _ORDER.index(sample.view))
        report = group[0].text or ""
        if not r2gen_words(report):
            silent += 1
            continue
        crowded += len(group) > views
        parts[group[0].split or "train"].append(Study(tuple(group[:views]), report))
    if silent:
        run.warn(f"{silent:,} of {len(groups):,} studies have no report and are left out.")
    if crowded:
        run.warn(
            f"{crowded:,} of {len(groups):,} studies have more than {views} images: the first "
            f"{views}, frontal before lateral, are taken."
        )
    for name, found in parts.items():
        if not found:
            raise DataError(
                f"Corpus '{corpus.name}' has no study with a report in its part '{name}'; reports "
                "are learnt on 'train' and the epoch is chosen on 'val'. Add the reports."
            )
    return parts["train"], parts["val"]


def flatten(studies: Sequence[Study]) -> tuple[list[Sample], list[list[int]]]:
    """All images one after the other, and the numbers of each study's."""
    samples: list[Sample] = []
    rows: list[list[int]] = []
    for study in studies:
        rows.append(list(range(len(samples), len(samples) + len(study.views))))
        samples += study.views
    return samples, rows
