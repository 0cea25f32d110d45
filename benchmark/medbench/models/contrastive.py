"""Contrastive training of images and texts: the loss, and the training that plugins share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from medbench.models.capabilities import FitRun
from medbench.models.descent import Recipe, descend
from medbench.models.prefetch import Pictures

#: Indices of samples, int64 [B] on the CPU -> features [B, D] on the device.
Features = Callable[[torch.Tensor], torch.Tensor]

MAX_SCALE = 100.0  #: CLIP clips its learnt scale here (Radford et al., 2021, section 2.5)


def info_nce(
    images: torch.Tensor, texts: torch.Tensor, scale: float | torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE: the mean of image-to-text and text-to-image cross-entropy.

    Args:
        images: float [B, D]; row i belongs to row i of ``texts``. Normalised here.
        texts: float [B, D]. Normalised here.
        scale: 1 / temperature.

    Returns:
        A scalar, float32; log B for features that say nothing.
    """
    images = F.normalize(images.float(), dim=-1)
    texts = F.normalize(texts.float(), dim=-1)
    logits = scale * images @ texts.T  # [B, B]
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from torch's CPU generator as from this seed inside, and as before outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def train_contrastive(
    images: Features,
    texts: Features,
    count: int,
    *,
    modules: Sequence[nn.Module],
    recipe: Recipe,
    run: FitRun,
    stage: str,
    logit_scale: nn.Parameter | None = None,
    begin: Callable[[int], None] | None = None,
    generators: Sequence[torch.Generator] = (),
    pictures: Pictures | None = None,
) -> list[float]:
    """Train ``modules`` in place by symmetric InfoNCE; they are in evaluation mode afterwards.

    Args:
        images: features of samples, by index; called under autocast.
        texts: likewise; for a frozen text tower, rows of features computed once (`lookup`).
        count: number of pairs.
        modules: what is trained (their parameters that require a gradient), put into training mode
            and, with the optimiser, saved after each epoch.
        recipe: see `Recipe`.
        run: device, seed, resume, progress.
        stage: for progress and errors.
        logit_scale: a parameter (of one of the modules) that holds the logarithm of the scale and
            is learnt; None: the recipe's fixed temperature.
        begin: called with each epoch's number before its first step, for augmentation that draws
            from (seed, epoch).
        generators: those that ``images`` and ``texts`` draw from besides torch's own.
        pictures: where ``images`` takes them from, as in `descend`.

    Returns:
        The mean loss of each epoch trained here (not of those done before a kill).

    Raises:
        CellError: the loss is not a finite number.
    """

    def features(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with run.autocast():
            return images(chosen), texts(chosen)  # [B, D] each

    def loss(found: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        scale: float | torch.Tensor = 1 / recipe.temperature
        if logit_scale is not None:
            scale = logit_scale.exp().clamp(max=MAX_SCALE)
        return info_nce(*found, scale)

    pairs = Pairs(features, loss, run, generators)
    return descend(
        pairs,
        count,
        modules=modules,
        recipe=recipe,
        run=run,
        stage=stage,
        begin=begin,
        in_parts=pairs.in_parts,
        pictures=pictures,
    )


class Pairs:
    """A loss in which every pair of a batch meets every other, however the batch is worked through:
    the whole at once, shared by processes, or in parts.

    Args:
        features: int64 [B] on the CPU -> two sides, float [B, D] each.
        loss: both sides of a whole batch -> a scalar.
        run: device and `Ranks`.
        generators: those that ``features`` draws from besides torch's own.
    """

    def __init__(
        self,
        features: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
        loss: Callable[[tuple[torch.Tensor, torch.Tensor]], torch.Tensor],
        run: FitRun,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        self._features = features
        self._loss = loss
        self._run = run
        self._generators = [torch.default_generator, *generators]
        if run.device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            index = run.device.index
            number = torch.cuda.current_device() if index is None else index
            self._generators.append(torch.cuda.default_generators[number])

    def __call__(self, chosen: torch.Tensor) -> torch.Tensor:
        """The loss of a batch of which this process has ``chosen``."""
        one, two = self._features(chosen)
        return self._loss((self._run.ranks.gather(one), self._run.ranks.gather(two)))

    def in_parts(self, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
        """The same, its gradients added to those of the parameters.

        Features of all pieces first, without what a backward pass needs; then the loss's gradient
        by them; then each piece again, with the same random draws (gradient cache: Gao et al.,
        2021).
        """
        draws: list[list[torch.Tensor]] = []
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        with torch.no_grad():
            for piece in pieces:
                draws.append([generator.get_state() for generator in self._generators])
                found.append(self._features(piece))
        one, two = (torch.cat(some).requires_grad_() for some in zip(*found, strict=True))
        total = self._loss((self._run.ranks.gather(one), self._run.ranks.gather(two)))
        total.backward()  # type: ignore[no-untyped-call]
        start = 0
        for piece, states in zip(pieces, draws, strict=True):
            for generator, state in zip(self._generators, states, strict=True):
                generator.set_state(state)
            end = start + len(piece)
            sides = zip(self._features(piece), (one.grad, two.grad), strict=True)
            roots = [
                (side, g[start:end]) for side, g in sides if side.requires_grad and g is not None
            ]
            torch.autograd.backward([side for side, _ in roots], [g for _, g in roots])
            start = end
        return total


def distinct(texts: Sequence[str]) -> tuple[list[str], torch.Tensor]:
    """The distinct texts in order of first use, and int64 [N]: which of them each text is."""
    number: dict[str, int] = {}
    rows = [number.setdefault(text, len(number)) for text in texts]
    return list(number), torch.tensor(rows, dtype=torch.long)


def lookup(table: torch.Tensor, rows: torch.Tensor | None = None) -> Features:
    """Features that are there already: for sample i row ``rows[i]`` (or i) of ``table`` [U, D]."""

    def features(chosen: torch.Tensor) -> torch.Tensor:
        index = chosen if rows is None else rows[chosen]
        return table[index.to(table.device)]

    return features
