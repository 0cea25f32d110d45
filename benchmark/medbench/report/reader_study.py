"""A blinded reader study: real and generated images that only the picture tells apart.

After the radiologists' reading of the RoentGen paper. A folder for the readers holds the images,
shuffled under neutral names, and a scoring sheet; another folder holds the key. Each image has the
prompt that it was drawn from, or the report that it was taken with. A patient gives one image, so
no real image can be held against what was drawn from its own report.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medbench.errors import DataError, UsageError
from medbench.evaluation.image_cases import own_prompts
from medbench.evaluation.image_predictions import Bytes, ImagePredictions
from medbench.report.html import template
from medbench.report.runs import Run
from medbench.run.stores import write_atomically, writing

SHEET = (
    "image",
    "prompt",
    "real_or_generated",
    "realism_1_to_5",
    "agreement_1_to_5",
    "findings_seen",
    "comments",
)
KEY = ("image", "kind", "patient_id", "real_row", "generated_row")
#: Of every file, in seconds since 1970: when it was written must not tell which were made together.
WRITTEN = 315_532_800


@dataclass(frozen=True)
class Case:
    """An image of the study.

    Attributes:
        name: of its file, neutral.
        pixels: uint8 [S, S].
        prompt: what readers are told was asked for.
        patient: whose image or report it is.
        real: row of the real image of that report in the run's predictions.
        generated: row of the generated image likewise; None: the image is real.
    """

    name: str
    pixels: Bytes
    prompt: str
    patient: str
    real: int
    generated: int | None


@dataclass(frozen=True)
class Study:
    """Where the two halves were written."""

    folder: Path
    key: Path
    cases: int


def write(runs: Sequence[Run], folder: Path, count: int, seed: int) -> Study:
    """Write ``folder`` for the readers and ``folder-key`` for whoever evaluates.

    Args:
        runs: one run of image generation whose predictions are at hand.
        folder: new or empty, as ``folder-key`` beside it.
        count: images, half of them real (one more is generated where it is odd); at least 2.
        seed: decides patients, images and order; the same seed gives the same bytes.

    Raises:
        UsageError: another number or kind of runs, or folders that hold something.
        DataError: fewer patients than images, or predictions without pixels or prompts.
    """
    folder = folder.resolve()
    key = folder.with_name(f"{folder.name}-key")
    run, table = _one(runs)
    for place in (folder, key):
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise UsageError(
                f"{place} is there already; a reader study is never written over another, since "
                "the key would be lost. Name a new folder with --reader-study."
            )
    cases = draw(table, count, seed)
    facts = {"cases": cases, "record": run.record, "seed": seed}
    with writing(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        key.mkdir(parents=True, exist_ok=True)
        for case in cases:
            _png(case.pixels, folder / "images" / case.name)
        blank = [""] * (len(SHEET) - 2)
        _csv(folder / "scores.csv", SHEET, [[c.name, _cell(c.prompt), *blank] for c in cases])
        _csv(key / "key.csv", KEY, [_secret(case) for case in cases])
    write_atomically(folder / "README.txt", template("readers.txt").render(facts) + "\n")
    write_atomically(folder / "sheet.html", template("sheet.html").render(facts) + "\n")
    write_atomically(key / "README.txt", template("key.txt").render(facts) + "\n")
    for path in sorted([*folder.rglob("*"), *key.rglob("*")]):
        os.utime(path, (WRITTEN, WRITTEN))
    return Study(folder, key, len(cases))


def draw(table: ImagePredictions, count: int, seed: int) -> list[Case]:
    """The images of a study in the order in which they are read.

    Raises DataError: prompts of fewer patients than images are asked for.
    """
    real, made, asked, texts = table.real, table.generated, table.prompts, table.prompt_texts
    assert real is not None and made is not None  # noqa: PT018
    assert asked is not None and texts is not None  # noqa: PT018
    rng = np.random.default_rng(seed)
    own = own_prompts(table)
    owners = table.real_patients or [str(i) for i in range(table.reals)]
    usable = np.flatnonzero(np.isin(own, asked))
    # one image a patient, whichever comes first in a seeded order
    one = {owners[row]: row for row in rng.permutation(usable).tolist()[::-1]}
    if len(one) < count:
        raise DataError(
            f"The run has prompts of {len(one):,} patients, and a reader study shows one image of "
            f"each: {count:,} images are too many. Ask for at most {len(one):,} with --cases."
        )
    chosen = rng.permutation(sorted(one))[:count].tolist()
    kinds = rng.permutation(np.arange(count) < count // 2).tolist()  # True: real
    width = max(3, len(str(count)))
    cases = []
    for place, (patient, is_real) in enumerate(zip(chosen, kinds, strict=True), 1):
        row, name = one[patient], f"image-{place:0{width}d}.png"
        drawn = None if is_real else int(rng.choice(np.flatnonzero(asked == own[row])))
        pixels = real[row] if drawn is None else made[drawn]
        cases.append(Case(name, pixels, texts[int(own[row])], patient, row, drawn))
    return cases


def _one(runs: Sequence[Run]) -> tuple[Run, ImagePredictions]:
    if len(runs) != 1:
        raise UsageError(
            f"A reader study is of one run; {len(runs)} were given. Name the folder of one run."
        )
    (run,) = runs
    table = run.predictions
    if run.record.task.type != "image-generation":
        raise UsageError(
            f"Run {run.record.run_id} is of {run.record.task.type}; a reader study shows generated "
            "images. Name a run of image generation."
        )
    if not isinstance(table, ImagePredictions):
        raise DataError(
            f"Run {run.record.run_id} has no predictions beside its record. Run the cell again."
        )
    needed = table.real, table.generated, table.prompts, table.prompt_texts
    if table.real is None or table.generated is None or any(some is None for some in needed):
        raise DataError(
            f"The predictions of run {run.record.run_id} lack images or prompts; a reader study "
            "needs the pixels of real and generated images, and the prompts with their texts. Run "
            "the cell again: this version of medbench keeps them."
        )
    if table.real.shape[1:] != table.generated.shape[1:]:
        raise DataError(
            f"Real images of run {run.record.run_id} are {table.real.shape[1:]} and generated ones "
            f"{table.generated.shape[1:]}: their size would tell them apart. Run the cell again."
        )
    return run, table


def _png(pixels: Bytes, path: Path) -> None:
    """Grey, 8 bits, no metadata, not compressed: all files have one size, whatever they show."""
    from PIL import Image

    Image.fromarray(pixels).save(path, "PNG", compress_level=0)


def _csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    # the mark at the beginning is what spreadsheets know UTF-8 by
    with path.open("x", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream).writerows([head, *rows])


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _secret(case: Case) -> list[str]:
    kind, drawn = ("real", "") if case.generated is None else ("generated", str(case.generated))
    return [case.name, kind, case.patient, str(case.real), drawn]
