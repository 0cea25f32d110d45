"""Training on reports: teacher forcing, and the epoch of least loss on the validation part."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from medbench.data.images import Images
from medbench.data.samples import Corpus
from medbench.errors import CellError
from medbench.models.capabilities import FitRun
from medbench.models.contrastive import seeded
from medbench.models.descent import Recipe, epoch_order
from medbench.models.pairs import evenly
from medbench_unicrossadapter.augment import crop_and_flip
from medbench_unicrossadapter.config import UniCrossAdapterConfig
from medbench_unicrossadapter.network import START, ReportNetwork, Seen, place
from medbench_unicrossadapter.studies import Study, flatten
from medbench_unicrossadapter.vocabulary import Vocabulary
from medbench_unicrossadapter.whiten import Whiten

#: Training studies, at most, whose maps are held at once for their principal components.
_WHITENED = 2048
#: Batches that are dealt among themselves by the length of reports.
_ALIKE = 16


class Reports:
    """Studies with their pixels, each decoded once, and their reports as numbers.

    Args:
        corpus: whose reader decodes.
        studies: at least one.
        vocabulary: of their words.
        size: side of the images.
        max_length: start, words and end; a longer report is cut, and then has no end.
    """

    def __init__(
        self,
        corpus: Corpus,
        studies: Sequence[Study],
        vocabulary: Vocabulary,
        size: int,
        max_length: int,
    ) -> None:
        samples, self.rows = flatten(studies)
        self.images = Images(corpus.reader, samples, size)
        self.words = [vocabulary.encode(study.report) for study in studies]
        self.ids = [[START, *words, START][:max_length] for words in self.words]

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, chosen: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images float32 [R, 3, S, S] of some studies, one after the other, and bool [B, V]."""
        rows = [self.rows[i] for i in chosen]
        counts = torch.tensor([len(row) for row in rows])
        mask = torch.arange(int(counts.max())) < counts[:, None]
        return self.images.batch([i for row in rows for i in row]), mask

    def batches(self, order: Sequence[int], size: int, alike: bool) -> list[list[int]]:
        """An epoch's batches, in order. With ``alike`` each `_ALIKE` of them are dealt anew by the
        length of their reports, and the batches are then put in the order of their first study's
        place in ``order``, so that lengths do not rise and fall through the epoch."""
        dealt = list(order)
        if alike:
            for start in range(0, len(dealt), _ALIKE * size):
                stop = start + _ALIKE * size
                dealt[start:stop] = sorted(dealt[start:stop], key=lambda i: len(self.ids[i]))
        found = [dealt[start : start + size] for start in range(0, len(dealt), size)]
        if alike:
            place = {study: number for number, study in enumerate(order)}
            found.sort(key=lambda batch: place[batch[0]])
        return found

    def tokens(self, chosen: Sequence[int]) -> torch.Tensor:
        """int64 [B, T + 1], filled up with `START`."""
        rows = [torch.tensor(self.ids[i]) for i in chosen]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=START)


class History:
    """Validation losses, and what had been trained when they were lowest."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.weights: dict[str, torch.Tensor] = {}

    def add(self, loss: float, network: ReportNetwork) -> None:
        """Note an epoch's loss, and its weights if it is the best so far."""
        self.losses.append(loss)
        if loss < min(self.losses[:-1], default=math.inf):
            self.weights = {k: v.detach().cpu().clone() for k, v in network.trained().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses), "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.losses, self.weights = list(state["losses"]), dict(state["weights"])


def report_loss(
    network: ReportNetwork, images: torch.Tensor, mask: torch.Tensor, ids: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """Sum over words, the end among them, of the negative log likelihood given those before, and
    the number of words.

    Args:
        images: float32 [R, 3, H, W] in [0, 1], of the views that exist.
        mask: bool [B, V].
        ids: int64 [B, T + 1], start, words, end and what fills up.
    """
    given, wanted = ids[:, :-1], ids[:, 1:]
    logits = network.read(given, network.see(place(images, mask), mask, given))  # [B, T, words]
    lengths = (wanted != START).sum(1, keepdim=True)
    counted = torch.arange(wanted.shape[1], device=ids.device) <= lengths  # [B, T]
    return F.cross_entropy(logits[counted].float(), wanted[counted], reduction="sum"), int(
        counted.sum()
    )


def train_reports(
    network: ReportNetwork,
    train: Reports,
    val: Reports,
    config: UniCrossAdapterConfig,
    run: FitRun,
) -> History:
    """Train in place; what gave the lowest validation loss is kept, in evaluation mode.

    Raises CellError when a loss is not a finite number.
    """
    optimiser = torch.optim.Adam(
        [p for p in network.parameters() if p.requires_grad],
        lr=config.lr,
        weight_decay=config.weight_decay,
        amsgrad=True,
        fused=True,
    )
    if network.whiten:
        whiten(network, train, config, run)
    history = History()
    steps = math.ceil(len(train) / config.batch)
    parts = (network, optimiser, history)
    for epoch in run.epochs(config.epochs, *parts, title="reports"):
        network.train()
        order = epoch_order(run.seed, epoch, len(train)).tolist()
        for step, chosen in enumerate(train.batches(order, config.batch, config.alike)):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(config, epoch * steps + step, steps)
            pixels, mask = train.pixels(chosen)
            pixels = crop_and_flip(pixels, config.image_size, config.flip)
            with run.autocast():
                total, words = report_loss(
                    network,
                    pixels.to(run.device),
                    mask.to(run.device),
                    train.tokens(chosen).to(run.device),
                )
            loss = total / words
            value = _finite(float(loss.detach()), "loss", epoch, config)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_value_(network.parameters(), config.gradient_clip)
            optimiser.step()
            run.advance(step + 1, steps, loss=value)
        settle(network, train, config, run)
        history.add(_finite(_judge(network, val, config, run), "val loss", epoch, config), network)
    network.load_state_dict(history.weights, strict=False)
    network.eval()
    return history


def learning_rate(config: UniCrossAdapterConfig, step: int, steps: int) -> float:
    """The learning rate of a step, counted from the start; an epoch has ``steps``."""
    if config.schedule == "step":
        return config.lr * config.lr_factor ** (step // steps // config.lr_step)
    recipe = Recipe(
        epochs=config.epochs, batch=config.batch, lr=config.lr, schedule="cosine", warmup=0.05
    )
    return recipe.rate(step, config.epochs * steps)


@torch.no_grad()
def settle(
    network: ReportNetwork, train: Reports, config: UniCrossAdapterConfig, run: FitRun
) -> None:
    """Set the statistics of every BatchNorm that is not CLIP's to their average over batches of
    training studies, seen as in evaluation: without dropout, the middle of each image."""
    network.eval()
    parts = (network.shortcut, network.neck, network.standardise)
    layers = [m for part in parts if part for m in part.modules() if isinstance(m, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain average of all batches
        layer.train()
    for _ in _seen(network, train, config.statistics_studies, config, run):
        pass
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


@torch.no_grad()
def whiten(
    network: ReportNetwork, train: Reports, config: UniCrossAdapterConfig, run: FitRun
) -> None:
    """Take the statistics of the maps, with adapters that do nothing yet, over training studies
    seen as in evaluation."""
    network.eval()
    found: list[list[torch.Tensor]] = [[] for _ in network.whiten]
    views: list[torch.Tensor] = []
    for seen, mask in _seen(network, train, _WHITENED, config, run):
        views.append((mask.cumsum(1) - 1)[mask])
        for maps, stage in zip(found, seen.stages, strict=True):
            maps.append(stage)
    view = torch.cat(views)
    with seeded(run.seed):
        for layer, maps in zip(network.whiten, found, strict=True):
            joined = torch.cat(maps)
            assert isinstance(layer, Whiten)
            for number in range(config.views):
                layer.fit(number, joined[view == number])


@torch.no_grad()
def _seen(
    network: ReportNetwork, train: Reports, most: int, config: UniCrossAdapterConfig, run: FitRun
) -> Iterator[tuple[Seen, torch.Tensor]]:
    """At most so many training studies, evenly spread, in whole batches: the middle of each image,
    and bool [B, V]."""
    chosen = evenly(len(train), most)
    batch = min(config.batch, len(chosen))
    margin = (config.train_size - config.image_size) // 2
    middle = slice(margin, margin + config.image_size)
    for start in range(0, len(chosen) - batch + 1, batch):
        rows = chosen[start : start + batch]
        pixels, mask = train.pixels(rows)
        mask = mask.to(run.device)
        with run.autocast():
            seen = network.see(
                place(pixels[..., middle, middle].to(run.device), mask),
                mask,
                train.tokens(rows)[:, :-1].to(run.device),
            )
        yield seen, mask


@torch.no_grad()
def _judge(
    network: ReportNetwork, val: Reports, config: UniCrossAdapterConfig, run: FitRun
) -> float:
    """Mean loss of a word of the validation part."""
    network.eval()
    total, words = 0.0, 0
    for chosen in val.batches(range(len(val)), config.batch, alike=True):
        pixels, mask = val.pixels(chosen)
        with run.autocast():
            found, count = report_loss(
                network,
                pixels.to(run.device),
                mask.to(run.device),
                val.tokens(chosen).to(run.device),
            )
        total, words = total + float(found), words + count
    return total / words


def _finite(value: float, what: str, epoch: int, config: UniCrossAdapterConfig) -> float:
    if not math.isfinite(value):
        raise CellError(
            f"The {what} of stage 'reports' became {value} in epoch {epoch + 1} at learning rate "
            f"{config.lr:g}. Lower it with --set lr=..., or use --precision fp32."
        )
    return value
