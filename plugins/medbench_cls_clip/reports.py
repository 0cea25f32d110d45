"""Reports as CLS-CLIP reads them: cleaned, in sentences, some of them drawn anew each epoch.

Source: the official code. It takes out the lines of four headings, keeps the other headings
("FINDINGS:"), cuts at every full stop, and drops short pieces. Where it looks for words in the raw
file, this goes by the sections that the reader found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from medbench.data.reports import UNHEADED
from medbench.data.samples import Corpus, Sample
from medbench.errors import DataError
from medbench.models.capabilities import FitRun

#: Sections that say how, when and beside what an image was taken, not what it shows.
_DROPPED = ("technique", "comparison", "examination")
#: Sections whose text stands without a heading.
_UNHEADED = (UNHEADED, "final-report")
#: What de-identification leaves of an age, and of anything else.
_AGE = re.compile(r"_+[ -]*years?[ -]*old", re.IGNORECASE)


def clean(sections: Mapping[str, str], text: str | None) -> str:
    """A report on one line, without the sections on technique, comparison, date and examination.

    Args:
        sections: of the report, by name, in its order, as `medbench.data.reports` names them.
        text: what is taken where there are no sections.

    >>> clean({"technique": "Portable AP.", "findings": "Clear  lungs in ___ year old."}, None)
    'FINDINGS: Clear lungs in .'
    """
    parts = []
    for name, body in sections.items():
        if name in _DROPPED or name.split("-")[0] == "date":
            continue
        heading = "" if name in _UNHEADED else f"{name.replace('-', ' ').upper()}: "
        parts.append(heading + body)
    whole = _AGE.sub("", " ".join(parts) if sections else text or "").replace("_", "")
    return " ".join(whole.split())


def sentences(report: str, least: int) -> tuple[str, ...]:
    """What stands between full stops and has at least ``least`` characters.

    >>> sentences("FINDINGS: Clear lungs. No. Heart 1.5 cm larger.", 5)
    ('FINDINGS: Clear lungs', 'Heart 1', '5 cm larger')
    """
    pieces = (piece.strip() for piece in report.split("."))
    return tuple(piece for piece in pieces if len(piece) >= least)


def told_pairs(
    corpus: Corpus, least: int, run: FitRun
) -> tuple[list[Sample], list[tuple[str, ...]]]:
    """Images of every view that have a report, and its sentences; the user is told of the others.

    Raises DataError when fewer than two are left.
    """
    images = [s for s in corpus.samples if s.kind == "image" and s.split in (None, "", "train")]
    told = [sentences(clean(s.sections, s.text), least) for s in images]
    kept = [i for i, found in enumerate(told) if found]
    if len(kept) < 2:
        raise DataError(
            f"Corpus '{corpus.name}' has {len(kept)} training images with a report among "
            f"{len(images)}; contrastive training needs at least 2. Add the reports to its folder."
        )
    if len(kept) < len(images):
        run.warn(
            f"{len(images) - len(kept):,} of {len(images):,} training images of '{corpus.name}' "
            "have no report, or none with a sentence in it, and are left out."
        )
    return [images[i] for i in kept], [told[i] for i in kept]


class Wording:
    """The text of each image in an epoch, drawn from (seed, epoch, image) alone.

    Args:
        told: the sentences of each image, at least one.
        seed: of the draws.
        fraction: share of the sentences that are told, at least one of them.
        shuffle: whether their order is drawn, too.
    """

    def __init__(
        self, told: Sequence[Sequence[str]], seed: int, *, fraction: float, shuffle: bool
    ) -> None:
        self._told = told
        self._seed = seed % 2**32
        self._fraction = fraction
        self._shuffle = shuffle
        self._epoch = 0

    def begin(self, epoch: int) -> None:
        """Draw for this epoch from here on."""
        self._epoch = epoch

    def texts(self, rows: Sequence[int]) -> list[str]:
        """Texts of images, by number."""
        return [self._text(row) for row in rows]

    def _text(self, row: int) -> str:
        told = self._told[row]
        order = np.random.default_rng((self._seed, self._epoch, row)).permutation(len(told))
        chosen = order[: max(1, round(self._fraction * len(told)))]
        if not self._shuffle:
            chosen = np.sort(chosen)
        return ". ".join(told[i] for i in chosen)
