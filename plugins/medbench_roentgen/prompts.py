"""What is drawn: impressions of reports."""

from __future__ import annotations

from collections.abc import Sequence

from medbench.data.samples import Corpus, Sample
from medbench.errors import DataError
from medbench.models.capabilities import FitRun


def prompt_of(sample: Sample) -> str:
    """The impression of a sample's report, or the report where it has none, on one line; empty
    where it has neither. The tasks prompt with the same."""
    return " ".join((sample.sections.get("impression") or sample.text or "").split())


def told_images(corpus: Corpus, run: FitRun) -> list[Sample]:
    """The training images that have a prompt; the user is told how many have none.

    Raises DataError when none has.
    """
    images = [s for s in corpus.samples if s.kind == "image" and s.split in (None, "", "train")]
    told = [s for s in images if prompt_of(s)]
    if not told:
        raise DataError(
            f"Corpus '{corpus.name}' has no training image with a report among {len(images)}: "
            "there is nothing to learn to draw from. Add the reports to its folder."
        )
    if len(told) < len(images):
        run.warn(
            f"{len(images) - len(told):,} of {len(images):,} training images have no report and "
            "are left out."
        )
    return told


def refuse_empty(prompts: Sequence[str]) -> None:
    """Raise DataError, naming the first prompt without a word."""
    for number, prompt in enumerate(prompts):
        if not prompt.strip():
            raise DataError(
                f"Prompt {number} of {len(prompts)} is empty: there is nothing to draw. Leave it "
                "out, or use the variant @unconditional, which draws without prompts."
            )
