"""Report generation: a gallery of studies, each with its images, its report and what was generated.

After the UniCrossAdapter paper's Fig. 2, with what it leaves open: which findings were missed and
invented, and cases that nobody picked. Everything is static HTML; images are small JPEGs in it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from medbench.data.images import load
from medbench.errors import MedbenchError
from medbench.evaluation.report_cases import agreement, bleu_4, choose
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.verdict import verdict
from medbench.plugins import Registry
from medbench.report.drawing import Block, Figure
from medbench.report.html import template
from medbench.report.pictures import Pictures
from medbench.report.runs import Run, Section
from medbench.report.wording import marked
from medbench.run.reporter import Reporter
from medbench.run.reports import studies

EACH = 8  #: cases of each kind, of all runs of a section together
FEWEST = 2  #: of each kind and run; further runs are not shown
ATTENDED = 6  #: cases of a section with attention
SIDE = 224  #: of an image, in pixels
WIDTH = 1180  #: of a case, in pixels

_KINDS = {"best": "Among the best", "random": "Drawn blindly", "worst": "Among the worst"}
#: How findings are called here, where they are not called by their label.
_CALLED = {"no-finding": "normal study"}
_READING = (
    "Marked and underlined: two or more words in a row that both reports have. Cases are ranked by "
    "the F1 of the findings that a rule-based reader finds stated as present in the two reports "
    "(uncertain ones do not count), equal ones by the findings of illness that are "
    "right, then by BLEU-4 of the report alone. The random cases are the same for every run of the "
    "same studies."
)
_KEEP = (
    "This gallery holds the report texts of the data it was made from; those of phantoms are real "
    "reports too. Keep it where these may be kept; it must not be committed to a repository or "
    "published."
)


@dataclass(frozen=True)
class Tile:
    """A word, and for each view where the model looked: PNGs, "" where it did not look at all."""

    word: str
    maps: list[str]


@dataclass(frozen=True)
class Case:
    """What the template shows of a study; images are data URIs."""

    heading: str
    views: list[tuple[str, str]]
    reference: Markup
    prediction: Markup
    right: str
    missed: str
    invented: str
    f1: str
    bleu: str
    tiles: list[Tile]


class Studies(Pictures):
    """The images of studies, where they are at hand; only of a study with the very reference."""

    def views(self, study: str, reference: str) -> list[tuple[str, npt.NDArray[np.uint8]]]:
        """Name and uint8 [SIDE, SIDE] (or colour) of each view, frontal first; none where they
        are not at hand."""
        found: list[tuple[str, npt.NDArray[np.uint8]]] = []
        dataset = self._dataset
        if dataset is not None:
            for row in self._rows.get(study, ()):
                sample = dataset.samples[row]
                if (sample.text or "") != reference:
                    break
                name = f"{sample.view} view" if sample.view else f"view {len(found) + 1}"
                try:
                    found.append((name, load(dataset.reader, sample, SIDE)))
                except MedbenchError as error:
                    self._reporter.say(f"An image cannot be shown: {error}")
        self._found += bool(found)
        self._missing += not found
        return found

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        """Study to its samples, in the order in which models are given them."""
        samples = self._dataset.samples if self._dataset else []
        groups = studies(samples, range(len(samples)))
        return {samples[g[0]].study or samples[g[0]].id: g for g in groups}

    @property
    def where(self) -> str:
        data = self._record.data
        what = f"the {data.track} images of {data.dataset}"
        if not self._missing:
            return f"Images are {what}, read again from this machine."
        how = "The images" if not self._found else f"The images of {self._missing} cases"
        return (
            f"{how} are not shown: {what} are not on this machine as they were scored (configure "
            "the dataset, or run the cell here)."
        )


def blocks(section: Section, _: str, registry: Registry, reporter: Reporter) -> list[Block]:
    """A gallery for each run, of as many as there is room for; nothing in them has an id."""
    runs = [
        (run, run.predictions)
        for run in section.models
        if isinstance(run.predictions, ReportPredictions)
    ]
    shown = runs[: EACH // FEWEST]
    if not shown:
        return []
    pictures = Studies(section.first, registry, reporter)
    attended = ATTENDED // len(shown)
    found = []
    for run, table in shown:
        figures, attentive = _cases(run, table, pictures, EACH // len(shown), attended)
        record = run.record
        notes = [
            f"This run {said}."
            for said in verdict(
                record.task.type, section.primary or "", record.metrics, record.baselines
            )
        ]
        reading = _READING + (
            " Where the model looked as it wrote each word unfolds below some cases: the brighter, "
            "the more, relative to the brightest place of that word."
            if attentive
            else ""
        )
        found.append(
            Block(f"Reports of {run.label}", reading, figures, [_summary(table), *notes, _KEEP])
        )
    last = [pictures.where]
    if len(runs) > len(shown):
        left = "; ".join(run.label for run, _ in runs[len(shown) :])
        last.append(f"A page shows the reports of {len(shown)} runs; without those of: {left}.")
    found[-1].notes.extend(last)
    return found


def _cases(
    run: Run, table: ReportPredictions, pictures: Studies, each: int, attended: int
) -> tuple[list[Figure], bool]:
    """Cases of a run as figures, and whether some have attention."""
    page = template("case.html")
    figures, seen = [], set[str]()
    told = bleu_4(table.references, table.predictions)
    for kind, rows in choose(table, each).items():
        for place, row in enumerate(rows, 1):
            sample = table.sample_ids[row]
            reference, prediction = table.references[row], table.predictions[row]
            views = pictures.views(sample, reference)
            tiles: list[Tile] = []
            if sample not in seen and len(seen) < attended and views:
                tiles = _tiles(table, sample, len(views))
            if tiles:
                seen.add(sample)
            findings = agreement(reference, prediction)
            case = Case(
                f"{_KINDS[kind]}, {place} of {len(rows)}",
                [(view, jpeg(pixels)) for view, pixels in views],
                marked(reference, prediction),
                marked(prediction, reference),
                _called(findings.right),
                _called(findings.missed),
                _called(findings.invented),
                f"{findings.f1:.3f}",
                f"{told[row]:.3f}",
                tiles,
            )
            html = Markup(page.render(case=case, side=SIDE))
            caption = f"Study {sample}, run {run.label}"
            figures.append(Figure(html, caption, WIDTH))
    return figures, bool(seen)


def _called(findings: Sequence[str]) -> str:
    return ", ".join(_CALLED.get(name, name) for name in findings) or "none"


def _summary(table: ReportPredictions) -> str:
    """How many of all tested reports have their findings right, and what the others do."""
    found = [agreement(a, b) for a, b in zip(table.references, table.predictions, strict=True)]
    missed, invented = sum(bool(f.missed) for f in found), sum(bool(f.invented) for f in found)
    right = sum(not (f.missed or f.invented) for f in found)
    texts = len(set(table.predictions))
    wrote = "one text for all of them" if texts == 1 else f"{texts:,} different texts"
    return (
        f"The run wrote {wrote}. "
        f"Of all {len(found):,} tested studies, {right:,} reports state just the findings of the "
        f"reference, {missed:,} miss one or more, {invented:,} invent one or more (a study wrongly "
        "called normal misses what it has and invents a normal study)."
    )


def _tiles(table: ReportPredictions, sample: str, views: int) -> list[Tile]:
    """Each word of a case with the maps of its views; none where there is no attention."""
    found = table.attention.find(sample) if table.attention is not None else None
    if found is None:
        return []
    words, weights = found
    return [
        Tile(word, [overlay(view, each.max()) for view in each[:views]])
        for word, each in zip(words, weights.astype(np.float64), strict=True)
    ]


def overlay(weights: npt.NDArray[np.float64], most: float) -> str:
    """A map [h, w] as a PNG, a pixel per place: white, the more opaque the more it weighs beside
    ``most``; "" where nothing weighs anything."""
    from PIL import Image

    if not weights.any():
        return ""
    pixels = np.full((*weights.shape, 2), 255, np.uint8)
    pixels[..., 1] = np.rint(200 * weights / most).astype(np.uint8)
    return _uri(Image.fromarray(pixels, "LA"), "PNG")


def jpeg(pixels: npt.NDArray[np.uint8], quality: int = 70) -> str:
    """uint8 [H, W] or [H, W, 3] as a small JPEG."""
    from PIL import Image

    return _uri(Image.fromarray(pixels), "JPEG", quality)


def _uri(image: object, form: str, quality: int = 70) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, quality=quality, optimize=True)  # type: ignore[attr-defined]
    code = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{form.lower()};base64,{code}"
