"""Image generation: what was drawn for the same prompts, beside real images of the same finding.

A figure for each prompt: the prompt, its own real image and others of the same finding, then a row
for each run with an image for each seed. Everything is static HTML; images are small JPEGs in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from medbench.evaluation.image_cases import ANY, EACH, NONE, others, own_prompts, prompts
from medbench.evaluation.image_predictions import Bytes, ImagePredictions
from medbench.plugins import Registry
from medbench.report.drawing import Block, Figure
from medbench.report.html import template
from medbench.report.reports import jpeg
from medbench.report.runs import Run, Section
from medbench.run.reporter import Reporter

MOST = 4  #: runs in a figure, without the baseline
SEEDS = 4  #: images of a run in a figure
SIDE = 160  #: of an image at most, in pixels
WIDTH = 1180  #: of a figure, in pixels
LOOKED_UP = "nearest-prompt"  #: the baseline that shows a real training image of a similar report

_READING = (
    "A row for each run, an image for each seed, all of the same prompt. Prompts are drawn blindly "
    "among the tested ones, those that ask for that finding alone first, and are the same for "
    "every run. Above the generated images the real image of that very report, and real images of "
    "other patients with the same finding."
)
_KEEP = (
    "Prompts are texts of the data; those of phantoms are real reports too. Keep this page where "
    "these may be kept; it must not be committed to a repository or published."
)


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, and what it is, in a word."""

    said: str
    image: str


@dataclass(frozen=True)
class Row:
    """Images side by side, and whose they are."""

    head: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Drawn:
    """What the template shows of a prompt; ``prompt`` is "" where the run has not kept it."""

    heading: str
    prompt: str
    findings: str
    rows: list[Row]


def generated(section: Section, baselines: bool = False) -> list[tuple[Run, ImagePredictions]]:
    """Models (or the baseline that looks images up) with images of the section's prompts.

    Those whose real images are not the ones of the first model are left out.
    """
    found = []
    for run in section.runs:
        table = run.predictions
        if (
            isinstance(table, ImagePredictions)
            and (not run.is_baseline or run.record.model.variant == LOOKED_UP)
            and table.generated is not None
            and table.prompts is not None
            and table.real is not None
        ):
            found.append((run, table, table.real))
    return [
        (run, table)
        for run, table, real in found
        if run.is_baseline is baselines and np.array_equal(real, found[0][2])
    ]


def _elsewhere(section: Section) -> list[str]:
    """Runs that are left out since they were held against other real images."""
    together = {run.number for run, _ in generated(section) + generated(section, baselines=True)}
    return [
        run.label
        for run in section.models
        if isinstance(run.predictions, ImagePredictions)
        and run.predictions.generated is not None
        and run.number not in together
    ]


def blocks(section: Section, _: str, __: Registry, ___: Reporter) -> list[Block]:
    """Figures of a few prompts of each finding; nothing in them has an id."""
    runs, looked_up = generated(section), generated(section, baselines=True)
    shown = runs[:MOST] + looked_up[:1]
    if not shown:
        return []
    table, figures = shown[0][1], []
    for finding, rows in prompts(table, EACH if len(shown) < MOST else 1).items():
        for place, row in enumerate(rows, 1):
            lines = [_real(table, finding, row), *(_of_run(pair, row) for pair in shown)]
            heading = f"{_called(finding)}, prompt {place} of {len(rows)}"
            figures.append(figure(heading, table, row, lines))
    notes = [_KEEP]
    if not looked_up:
        notes.append(
            f"What looking up gives is shown where a run of baseline@{LOOKED_UP} is on the page."
        )
    if elsewhere := _elsewhere(section):
        notes.append(
            "Not shown, since they have no prompts or were held against other real images than run "
            f"{shown[0][0].number}: {'; '.join(elsewhere)}."
        )
    if len(runs) > MOST:
        left = "; ".join(run.label for run, _ in runs[MOST:])
        notes.append(f"A page shows the images of {MOST} runs; without those of: {left}.")
    return [Block("Images for the same prompts", _READING, figures, notes)]


def figure(heading: str, table: ImagePredictions, row: int, lines: list[Row]) -> Figure:
    """Rows of images under the prompt of the real image ``row``."""
    texts, own = table.prompt_texts, int(own_prompts(table)[row])
    drawn = Drawn(heading, texts[own] if texts is not None else "", _findings(table, row), lines)
    html = Markup(template("drawn.html").render(drawn=drawn))
    patient = f", patient {table.real_patients[row]}" if table.real_patients else ""
    return Figure(html, f"Prompt {own + 1}{patient}", WIDTH)


def picture(pixels: Bytes, said: str) -> Picture:
    """uint8 [S, S] as the page shows it: no larger than `SIDE`."""
    from medbench.data.images import resize

    small = resize(pixels, SIDE) if len(pixels) > SIDE else pixels
    return Picture(said, jpeg(small, quality=90))


def _real(table: ImagePredictions, finding: str, row: int) -> Row:
    assert table.real is not None
    found = [picture(table.real[row], "of this report")]
    found += [picture(table.real[other], "other patient") for other in others(table, finding, row)]
    return Row("Real", found)


def _of_run(pair: tuple[Run, ImagePredictions], row: int) -> Row:
    run, table = pair
    assert table.prompts is not None
    assert table.generated is not None
    mine = np.flatnonzero(table.prompts == own_prompts(table)[row])[:SEEDS].tolist()
    said = ["looked up"] if run.is_baseline else [f"seed {k}" for k in range(1, len(mine) + 1)]
    return Row(
        run.label,
        [picture(table.generated[k], what) for k, what in zip(mine, said, strict=False)],
    )


def _called(finding: str) -> str:
    return "Any finding" if finding == ANY else finding.capitalize().replace("-", " ")


def _findings(table: ImagePredictions, row: int) -> str:
    """What the labels of a prompt's report say, of those that the task has."""
    if table.real_labels is None:
        return ""
    values: Sequence[float] = table.real_labels[row].tolist()
    named = [name for name, value in zip(table.label_names, values, strict=True) if value == 1]
    return ", ".join(named) or NONE
