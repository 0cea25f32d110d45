"""What a model trains on, out of a corpus of images or volumes with texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from medbench.data.samples import Corpus, Sample
from medbench.errors import DataError


def training_pairs(corpus: Corpus, kind: Literal["image", "volume"]) -> list[Sample]:
    """The corpus' samples of that kind in its training split (or without a split), in its order.

    Raises DataError when there are fewer than two, or when one has no text.
    """
    chosen = [s for s in corpus.samples if s.kind == kind and s.split in (None, "", "train")]
    if len(chosen) < 2:
        raise DataError(
            f"Corpus '{corpus.name}' has {len(chosen)} {kind} samples to train on (its split is "
            f"empty or 'train'); contrastive training needs at least 2. Add {kind}s with texts."
        )
    for sample in chosen:
        if not (sample.text or "").strip():
            raise DataError(
                f"Sample '{sample.id}' of corpus '{corpus.name}' has no text; contrastive "
                "training needs one for each sample. Add it, or leave the sample out."
            )
    return chosen


def texts_of(samples: Sequence[Sample]) -> list[str]:
    """Their texts, as they are."""
    return [sample.text or "" for sample in samples]


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``range(count)``, first and last among them, in order, evenly spread."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [(count - 1) // 2]
    return [(i * (count - 1) + (most - 1) // 2) // (most - 1) for i in range(most)]
