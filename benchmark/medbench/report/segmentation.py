"""Segmentation: reference and predicted contours of the best, of random and of the worst cases."""

from __future__ import annotations

import numpy as np

from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.metrics.values import FloatArray
from medbench.plugins import Registry
from medbench.report.drawing import Block, Figure, canvas, finish
from medbench.report.pictures import Pictures
from medbench.report.runs import Run, Section
from medbench.report.tables import number
from medbench.run.reporter import Reporter

EACH = 3  #: cases of each kind
SIDE = 160  #: of a picture, in pixels
SEED = 0
#: Bright on a radiograph, and apart for colour-blind readers; the same in light and dark.
REFERENCE, PREDICTION = "#57b5e9", "#f0a000"


def blocks(section: Section, name: str, registry: Registry, reporter: Reporter) -> list[Block]:
    """A figure for each run; ``name`` begins their ids."""
    runs = [
        (run, run.predictions)
        for run in section.models
        if isinstance(run.predictions, MaskPredictions)
    ]
    if not runs:
        return []
    pictures = Pictures(section.first, registry, reporter)
    figures = [_cases(run, table, pictures, f"{name}-cases-{run.number}") for run, table in runs]
    return [
        Block(
            "Best, random and worst cases",
            "Solid blue: the reference. Dashed orange: what the model drew. Best and worst are "
            "taken among images with a lesion; random ones among all, the same for every run of "
            "the same images. Dice is of that image alone.",
            figures,
            [pictures.where],
        )
    ]


def dice(table: MaskPredictions) -> FloatArray:
    """float [N] in [0, 1]: of each image; 1 where both masks are empty."""
    both = (table.reference & table.prediction).sum(axis=(1, 2))
    either = table.reference.sum(axis=(1, 2)) + table.prediction.sum(axis=(1, 2))
    return np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0)


def choose(table: MaskPredictions) -> dict[str, list[int]]:
    """Rows of the best, of random and of the worst cases; equal ones in the order of their ids."""
    values = dice(table)
    rows = sorted(range(len(values)), key=lambda row: table.sample_ids[row])
    lesions = [row for row in rows if table.reference[row].any()]
    ranked = sorted(lesions, key=lambda row: -values[row])
    drawn = np.random.default_rng(SEED).permutation(len(rows))[:EACH]
    return {
        "best": ranked[:EACH],
        "random": [rows[i] for i in drawn],
        "worst": ranked[EACH:][::-1][:EACH],  # none is both
    }


def _cases(run: Run, table: MaskPredictions, pictures: Pictures, name: str) -> Figure:
    values, chosen = dice(table), choose(table)
    told = []
    with canvas(400, 450) as (figure, first):
        first.remove()
        grid = figure.subplots(len(chosen), EACH, squeeze=False)
        for line, (kind, rows) in zip(grid, chosen.items(), strict=True):
            for axes in line:
                axes.set_axis_off()
            for axes, row in zip(line, rows, strict=False):
                sample, reference = table.sample_ids[row], table.reference[row]
                height, width = reference.shape
                extent = (-0.5, width - 0.5, height - 0.5, -0.5)
                axes.imshow(
                    pictures.of(sample, reference, SIDE), cmap="gray", vmin=0, vmax=255,
                    extent=extent, interpolation="none",
                )  # fmt: skip
                marks = ((reference, REFERENCE, "solid"), (table.prediction[row], PREDICTION, "--"))
                for mask, colour, style in marks:
                    if mask.any() and not mask.all():
                        axes.contour(
                            mask.astype(float), [0.5], colors=[colour], linestyles=[style],
                            linewidths=1.4,
                        )  # fmt: skip
                empty = "" if reference.any() else ", no lesion"
                axes.set_title(f"{kind}: {number(values[row])}{empty}", fontsize=10)
                told.append(f"{kind} case {sample}: Dice {number(values[row])}{empty}")
        return finish(
            figure,
            name,
            f"Masks of {run.label}",
            "; ".join(told) + ".",
            f"{run.label}. " + _identifiers(table, chosen),
        )


def _identifiers(table: MaskPredictions, chosen: dict[str, list[int]]) -> str:
    return "From left to right: " + "; ".join(
        f"{kind} {', '.join(table.sample_ids[row] for row in rows)}"
        for kind, rows in chosen.items()
    )
