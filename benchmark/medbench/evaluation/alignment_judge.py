"""A small space of images and texts, trained on the training split: the judge of alignment.

Whether an image shows what its prompt says is a matter of retrieval in a space that the generator
under test never saw. None ships in a package, so on phantoms one is trained here: linear maps of
the features of a trained classifier, and of the mean of learnt embeddings of the prompt's tokens
(CLIP's byte pairs), by symmetric InfoNCE. Training pairs only; the epoch of lowest loss on the
validation pairs is kept. All of its sizes and rates are assumed. Its values compare generators on
one phantom, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from medbench.errors import DataError
from medbench.metrics.values import FloatArray
from medbench.models.contrastive import info_nce, seeded
from medbench.models.descent import epoch_order
from medbench.models.tokenizer import tokenize

DIMENSIONS = 64
EMBEDDING = 64
EPOCHS, PATIENCE, BATCH, RATE, DECAY = 60, 8, 128, 3e-3, 0.05
#: 1 / temperature of the loss, fixed.
SCALE = 10.0


class AlignmentJudge(nn.Module):
    """Image features [B, F] and texts into one space of 64 dimensions.

    Args:
        features: their number F.
        vocabulary: int64 [V], ascending: the tokens that it learns; others say nothing.
    """

    def __init__(self, features: int, vocabulary: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("vocabulary", vocabulary.clone())
        self.image = nn.Linear(features, DIMENSIONS)
        # row 0, left out of the mean, is what fills a text up and every token never learnt
        self.tokens = nn.EmbeddingBag(len(vocabulary) + 1, EMBEDDING, mode="mean", padding_idx=0)
        self.text = nn.Linear(EMBEDDING, DIMENSIONS)

    mean: torch.Tensor
    scale: torch.Tensor
    vocabulary: torch.Tensor

    def images_of(self, features: torch.Tensor) -> torch.Tensor:
        """float32 [B, F] -> [B, 64], length 1."""
        found: torch.Tensor = self.image((features - self.mean) / self.scale)
        return nn.functional.normalize(found, dim=-1)

    def texts_of(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids int64 [B, T], 0 after the end -> [B, 64], length 1."""
        at = torch.searchsorted(self.vocabulary, ids).clamp_max(len(self.vocabulary) - 1)
        known = self.vocabulary[at] == ids
        found: torch.Tensor = self.text(self.tokens(torch.where(known, at + 1, 0)))
        return nn.functional.normalize(found, dim=-1)

    @classmethod
    def of(cls, weights: Mapping[str, torch.Tensor]) -> AlignmentJudge:
        """With the weights that `train_judge` gave."""
        found = cls(len(weights["mean"]), weights["vocabulary"])
        found.load_state_dict(dict(weights))
        return found.eval()

    @torch.inference_mode()
    def embed_images(self, features: FloatArray) -> FloatArray:
        """float64 [N, F] -> float64 [N, 64]."""
        return np.asarray(self.images_of(torch.from_numpy(features).float()).double().numpy())

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """float64 [N, 64]; equal texts have equal rows."""
        different = list(dict.fromkeys(texts))
        row = {text: i for i, text in enumerate(different)}
        found = self.texts_of(token_ids(different)).double().numpy()
        return np.asarray(found[[row[text] for text in texts]])


def token_ids(texts: Sequence[str]) -> torch.Tensor:
    """int64 [N, 77], 0 after the end. Raises DataError for a text without a word."""
    empty = [i for i, text in enumerate(texts) if not text.strip()]
    if empty:
        raise DataError(f"Prompt {empty[0]} of {len(texts)} has no text to be aligned with.")
    return tokenize(texts).long()


def train_judge(
    features: FloatArray,
    texts: Sequence[str],
    val_features: FloatArray,
    val_texts: Sequence[str],
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Weights of an `AlignmentJudge` of pairs of the training part.

    Args:
        features: float64 [N, F] of the training images, N at least 2.
        texts: their prompts, [N].
        val_features: float64 [M, F], M at least 2; the epoch is chosen on them.
        val_texts: [M].
        seed: of the start and of the order of pairs.

    Raises:
        DataError: fewer than two pairs in a part, or a prompt without a word.
    """
    if min(len(texts), len(val_texts)) < 2:
        raise DataError(
            f"A judge of alignment needs pairs to train on and to choose on; there are {len(texts)}"
            f" and {len(val_texts)}."
        )
    images, ids = torch.from_numpy(features).float(), token_ids(texts)
    val_images, val_ids = torch.from_numpy(val_features).float(), token_ids(val_texts)
    best: tuple[float, dict[str, torch.Tensor]] | None = None
    stale = 0
    with seeded(seed):
        judge = AlignmentJudge(images.shape[1], ids[ids > 0].unique())  # type: ignore[no-untyped-call]
        judge.mean.copy_(images.mean(0))
        judge.scale.copy_(images.std(0).clamp_min(1e-6))
        optimiser = torch.optim.AdamW(judge.parameters(), lr=RATE, weight_decay=DECAY)
        for epoch in range(EPOCHS):
            order = epoch_order(seed, epoch, len(images))
            for rows in np.array_split(order.numpy(), max(1, -(-len(order) // BATCH))):
                loss = info_nce(judge.images_of(images[rows]), judge.texts_of(ids[rows]), SCALE)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            with torch.inference_mode():
                chosen = info_nce(judge.images_of(val_images), judge.texts_of(val_ids), SCALE)
            if best is None or float(chosen) < best[0]:
                state = {name: value.clone() for name, value in judge.state_dict().items()}
                best, stale = (float(chosen), state), 0
            else:
                stale += 1
                if stale == PATIENCE:
                    break
    assert best is not None
    return best[1]
