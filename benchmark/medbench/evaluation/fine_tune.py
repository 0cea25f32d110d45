"""Fine-tuning: a linear head and the model's own weights, trained on labels, equal for every model.

The head starts as the prior baseline (no weights, a bias from the frequencies of the labels), then
head and backbone go at rates of their own. The epoch of lowest loss on the validation part is
kept. The test part is only predicted, once, with what was kept. A model whose paper puts another
head on it brings its own (`medbench.models.capabilities.BringsHead`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from medbench.data.images import to_unit
from medbench.errors import CellError, DataError, PluginError
from medbench.metrics.thresholds import best_thresholds
from medbench.metrics.values import FloatArray
from medbench.models.prefetch import ahead

Rows = npt.NDArray[np.int64]
Weights = Mapping[str, torch.Tensor]
Encode = Callable[[torch.Tensor], torch.Tensor]
Advance = Callable[..., None]
Epochs = Callable[..., Iterator[int]]
MakeHead = Callable[[int, int], nn.Module]  #: width of the features and number of labels

SHOWN = 2048  #: training pictures, at most, from which the head learns the scale of the features


class Batches(Protocol):
    """Pictures by row."""

    def batch(self, indices: Rows, /) -> torch.Tensor:
        """int64 [B] -> uint8 [B, H, W] or [B, H, W, 3], or float32 [B, 3, H, W] in [0, 1].

        Called from another thread, not from two, and draws nothing from any generator.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a model is fine-tuned. Sources: MGCA (arXiv 2210.06044) and its released code; CLS-CLIP
    (Wiehe et al., 2022) and its released code; the released configurations of BenchX (arXiv
    2410.21969). These differ, and none serves every model: what is mixed or assumed is marked.

    Attributes:
        head_rate: AdamW's peak rate of the head (MGCA: 5e-4).
        backbone_rate: AdamW's peak rate of everything else (CLS-CLIP's ViT-B/32: 1e-5 for all
            weights, 1e-4 where adapters alone are trained; BenchX: a tenth of the head's).
        decay: AdamW's weight decay (MGCA: 1e-6; CLS-CLIP: 0.2; BenchX: none).
        batch: samples in a batch (MGCA: 48; BenchX: 64 and 128; CLS-CLIP: 256).
        epochs: at most (MGCA: 50).
        least_steps: updates in an epoch, at least: it goes through a small training part several
            times. Assumed. CLS-CLIP is best after 100 passes at 1 % of labels and 20 at all;
            BenchX makes 1,200 to 3,000 updates at 1 %.
        patience: epochs without a lower validation loss, after which training stops (MGCA: 10).
        warmup: share of all updates over which the rates rise from 0; they then fall to 0 along a
            cosine (CLS-CLIP: 0.05, in a one-cycle schedule; BenchX: 60 of 1,200, and a cosine).
        clip: largest norm of the gradient of all weights together (BenchX: 1.0).
        least_area: with less than 1, training pictures are random crops, no smaller than this
            share of the area, at the picture's aspect ratio, enlarged to its size. Off: assumed,
            so that no model gains from knowing its augmentation already.
        flip: mirror half of the training pictures. Off: sides matter in radiology (a heart on
            the right is a finding), and reports name them.
    """

    head_rate: float = 5e-4
    backbone_rate: float = 1e-5
    decay: float = 1e-6
    batch: int = 48
    epochs: int = 50
    least_steps: int = 20
    patience: int = 10
    warmup: float = 0.05
    clip: float = 1.0
    least_area: float = 1.0
    flip: bool = False

    def __post_init__(self) -> None:
        if min(self.batch, self.epochs, self.least_steps, self.patience) < 1:
            raise ValueError("batch, epochs, least_steps and patience are 1 or more")
        if not (0 < self.least_area <= 1 and 0 <= self.warmup < 1):
            raise ValueError("least_area is in (0, 1], warmup in [0, 1)")

    def factor(self, step: int, steps: int) -> float:
        """What the peak rates are multiplied with at update ``step`` (from 0) of ``steps``."""
        rising = self.warmup * steps
        if step + 1 < rising:
            return (step + 1) / rising
        done = (step - rising) / max(1.0, steps - rising)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))


@dataclass(frozen=True)
class FineTuned:
    """What `fine_tune` gives.

    Attributes:
        scores: float64 [T, L], probabilities of the test rows; rows sum to 1 when multiclass.
        thresholds: float64 [L], of best F1 on the validation part; None when multiclass. NaN for a
            label with one class there.
        losses: mean validation loss after each epoch run.
        epoch: the one kept, from 0: where ``losses`` is lowest, the first of equal ones.
        trained: number of parameters that training changed, the head's among them.
        weights: parameters and buffers of the epoch kept, on the CPU: ``head.`` and the head's
            name, or the number of the module, a dot, and its name there.
    """

    scores: FloatArray
    thresholds: FloatArray | None
    losses: tuple[float, ...]
    epoch: int
    trained: int
    weights: Weights


class Scaled(nn.Module):
    """A head behind a fixed centring and scaling of the features.

    One learning rate then serves unit vectors and large activations alike. One scale for all
    features: a feature that is almost constant at first would, divided by its own deviation,
    explode when the backbone moves.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(()))

    def measure(self, features: torch.Tensor) -> None:
        """Centre and scale as these float [N, D] ask for."""
        values = features.double()
        deviation = float(values.var(dim=0, correction=0).mean().sqrt())
        self.mean.copy_(values.mean(dim=0))
        self.scale.fill_(deviation if deviation > 1e-8 else 1.0)

    def scaled(self, features: torch.Tensor) -> torch.Tensor:
        """float [B, D] -> float32 [B, D]."""
        return (features.float() - self.mean) / self.scale


class Head(Scaled):
    """A linear layer; it is as linear as without the centring and scaling."""

    def __init__(self, features: int, bias: torch.Tensor) -> None:
        super().__init__(features)
        self.weight = nn.Parameter(torch.zeros(len(bias), features))
        self.bias = nn.Parameter(bias.clone())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """float [B, D] -> logits float32 [B, L]."""
        return F.linear(self.scaled(features), self.weight, self.bias)


class OwnHead(Scaled):
    """A model's own head."""

    def __init__(self, features: int, own: nn.Module) -> None:
        super().__init__(features)
        self.own = own

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """float [B, D] -> logits [B, L]."""
        logits: torch.Tensor = self.own(self.scaled(features))
        return logits


def fine_tune(
    encode: Encode,
    modules: Sequence[nn.Module],
    images: Batches,
    y: FloatArray,
    train: Rows,
    val: Rows,
    test: Rows,
    multiclass: bool,
    seed: int,
    device: torch.device,
    *,
    schedule: Schedule | None = None,
    make_head: MakeHead | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    epochs: Epochs | None = None,
    advance: Advance | None = None,
) -> FineTuned:
    """Train a head on ``encode``, and the weights behind it; predict the test rows.

    The loss is binary cross-entropy averaged over the labels that are scored, or cross-entropy when
    multiclass; no class is weighted, so that probabilities stay probabilities. A frozen part (a
    module none of whose parameters require a gradient) is kept in evaluation mode, so its
    running statistics stay. Where all is frozen and pictures are not augmented, each is encoded
    once. On return ``modules`` are as they were; what was trained is in `FineTuned.weights`.
    Deterministic on one device and number of threads.

    Args:
        encode: float32 [B, 3, H, W] in [0, 1] on ``device`` -> float [B, D], differentiable.
        modules: on ``device``, what ``encode`` calls; parameters of them that require a gradient
            are trained. None of them do: the head alone.
        images: pictures by row.
        y: float [N, L]: 1, 0, or NaN where not scored; one 1 per row when multiclass.
        train, val, test: rows; no row is in two of them, and the caller sees to it that no patient
            is. Training rows without any label are left out. Labels of ``test`` are not read.
        multiclass: labels exclude each other.
        seed: of the order of samples, of augmentation, and of whatever the model draws.
        device: where.
        schedule: see `Schedule`.
        make_head: gives the head, freshly drawn; None: `Head`.
        autocast: gives the context in which ``encode`` is called, as `medbench.FitRun.autocast`
            does. The head and the loss stay in float32.
        epochs: called with the number of epochs and things with a ``state_dict``, as
            `medbench.FitRun.epochs`; a killed fine-tune goes on where it was, to the same bits.
        advance: called with updates done in an epoch, their number, and figures.

    Raises:
        CellError: a loss, a gradient or a score is not a finite number.
        DataError: parts share rows, or one is empty, or has no label; a label is scored nowhere in
            the training part.
        PluginError: ``encode`` gives no finite vector per picture, or one without a gradient;
            the head gives anything but a number per label.
    """
    plan = schedule or Schedule()
    y = np.asarray(y, dtype=np.float64)
    train = _check_parts(y, train, val, test, multiclass)
    with _lent(modules):
        network = _Network(encode, images, device, autocast, plan.batch)
        if is_frozen(modules) and plan.least_area == 1 and not plan.flip:
            network = network.encoded_once(np.concatenate([train, val, test]))
        width = network.features(train[:1]).shape[1]
        network.head = _head(make_head, width, _prior(y[train], multiclass), seed, device)
        trained = _Trained({"head": network.head} | {str(i): m for i, m in enumerate(modules)})
        optimiser = _optimiser(network.head, modules, plan)
        history = _History()
        parts = math.ceil(len(train) / plan.batch)
        passes = math.ceil(plan.least_steps / parts)
        steps = parts * passes
        for epoch in (epochs or _plainly)(plan.epochs, trained, optimiser, history):
            if history.stale(plan.patience):
                break
            with _seeded(seed, epoch, device):
                if epoch == 0:
                    network.head.measure(network.features(_shuffled(train)[:SHOWN]).to(device))
                # parts of equal size: a last batch of one would break BatchNorm
                batches = [
                    rows for _ in range(passes) for rows in np.array_split(_shuffled(train), parts)
                ]
                network.head.train()
                for module in modules:
                    _set_training(module)
                for step, (rows, pictures) in enumerate(network.ahead(batches)):
                    _set_rates(optimiser, plan, epoch * steps + step, plan.epochs * steps)
                    pictures = _augment(pictures, plan.least_area, plan.flip)
                    logits = network(pictures, learns=len(optimiser.param_groups) > 1)
                    loss = _loss(logits, torch.from_numpy(y[rows]).to(logits), multiclass)
                    value = _update(optimiser, loss, plan.clip)
                    if not math.isfinite(value):
                        raise CellError(
                            f"Fine-tuning diverged: the loss or its gradient became {value} in "
                            f"epoch {epoch + 1}, update {step + 1} of {steps}, at rates "
                            f"{plan.head_rate:g} (head) and {plan.backbone_rate:g} (backbone). "
                            "Lower them, or use --precision fp32."
                        )
                    if advance is not None:
                        advance(step + 1, steps, loss=value)
                network.head.eval()
                for module in modules:
                    module.eval()
                judged = network.logits(val)
            target = torch.from_numpy(y[val]).to(judged)
            history.add(float(_loss(judged, target, multiclass)), judged, trained)
        trained.load_state_dict(history.weights)
        scores = _probabilities(network.logits(test), multiclass)
        count = sum(parameter.numel() for parameter in optimiser.state)
    chosen = None
    if not multiclass:
        chosen = best_thresholds(y[val], _probabilities(history.logits, multiclass))
    return FineTuned(scores, chosen, tuple(history.losses), history.best, count, history.weights)


def _check_parts(y: FloatArray, train: Rows, val: Rows, test: Rows, multiclass: bool) -> Rows:
    """The training rows that have a label. Raises DataError."""
    known = ~np.isnan(y)
    labelled = np.asarray(known.all(axis=1) if multiclass else known.any(axis=1))
    for name, part in (("training", train), ("validation", val), ("test", test)):
        if not len(part):
            raise DataError(f"Fine-tuning needs a {name} part, and it is empty.")
    for name, part in (("training", train), ("validation", val)):
        if not labelled[part].any():
            raise DataError(f"No sample of the {name} part has a label to fine-tune with.")
    for one, other in ((train, val), (train, test), (val, test)):
        shared = np.intersect1d(one, other)
        if len(shared):
            raise DataError(
                f"{len(shared):,} samples, row {shared[0]} the first, are in two of the training, "
                "validation and test parts."
            )
    missing = np.flatnonzero(~known[train].any(axis=0))
    if len(missing):
        raise DataError(f"Label {missing[0]} is scored nowhere in the training part.")
    rows: Rows = train[labelled[train]]
    return rows


def _prior(y: FloatArray, multiclass: bool) -> torch.Tensor:
    """The head's first bias, float32 [L]: log-odds or logarithms of the labels' frequencies.

    One sample of each class is added, so that a class that never occurs has a finite one.
    """
    known = ~np.isnan(y)
    positive = np.nansum(y, axis=0)
    if multiclass:
        prior = np.log((positive + 1) / (len(y) + y.shape[1]))
    else:
        prior = np.log((positive + 1) / (known.sum(axis=0) - positive + 1))
    return torch.from_numpy(prior).float()


class _Network:
    """The model's encoder and the head behind it, fed by row."""

    head: Scaled

    def __init__(
        self,
        encode: Encode,
        images: Batches,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]],
        batch: int,
    ) -> None:
        self.encode, self.images, self.device = encode, images, device
        self.autocast, self.batch = autocast, batch

    def __call__(self, pictures: torch.Tensor, learns: bool = False) -> torch.Tensor:
        """float32 [B, 3, H, W] -> logits [B, L]. Raises PluginError."""
        features = self._encode(pictures)
        if learns and not features.requires_grad:
            raise PluginError(
                "The model's image features carry no gradient, so its weights cannot be "
                "fine-tuned: its encoder must not run under torch.no_grad()."
            )
        logits: torch.Tensor = self.head(features)
        return logits

    def encoded_once(self, rows: Rows) -> _Network:
        """The same for those rows alone, on features that are computed here. Raises PluginError."""
        table = _Features(self.features(rows), rows)
        return _Network(lambda features: features, table, self.device, nullcontext, self.batch)

    def ahead(self, batches: Sequence[Rows]) -> Iterator[tuple[Rows, torch.Tensor]]:
        """Each batch with its pictures on the device; see `medbench.models.prefetch.ahead`."""
        with closing(ahead(map(self.images.batch, batches), self.device)) as arriving:
            for rows, pictures in zip(batches, arriving, strict=True):
                yield rows, to_unit(pictures) if pictures.dtype == torch.uint8 else pictures

    @torch.no_grad()
    def features(self, rows: Rows) -> torch.Tensor:
        """float32 [R, D] on the CPU. Raises PluginError."""
        found = torch.cat([self._encode(pictures).float().cpu() for pictures in self._each(rows)])
        if not bool(found.isfinite().all()):
            raise PluginError("The model's image features are not finite before fine-tuning.")
        return found

    @torch.no_grad()
    def logits(self, rows: Rows) -> torch.Tensor:
        """float32 [R, L] on the CPU. Raises CellError."""
        found = torch.cat([self(pictures).cpu() for pictures in self._each(rows)])
        wrong = (~found.isfinite()).any(dim=1).nonzero()
        if len(wrong):
            raise CellError(
                f"The fine-tuned model gives scores that are not finite for {len(wrong):,} of "
                f"{len(rows):,} samples, row {rows[int(wrong[0])]} the first. Lower the learning "
                "rates, or use --precision fp32."
            )
        return found

    def _each(self, rows: Rows) -> Iterator[torch.Tensor]:
        batches = np.array_split(rows, math.ceil(len(rows) / self.batch))
        return (pictures for _, pictures in self.ahead(batches))

    def _encode(self, pictures: torch.Tensor) -> torch.Tensor:
        with self.autocast():
            features = self.encode(pictures)
        if features.ndim != 2 or len(features) != len(pictures):
            raise PluginError(
                f"The model gives image features of shape {tuple(features.shape)} for "
                f"{len(pictures)} pictures; a fine-tune needs one vector per picture."
            )
        return features


class _Features:
    """Features in the place of pictures: float32 [R, D] of some rows."""

    def __init__(self, features: torch.Tensor, rows: Rows) -> None:
        self._features = features
        self._places = np.zeros(rows.max() + 1, np.int64)
        self._places[rows] = np.arange(len(rows))

    def batch(self, indices: Rows, /) -> torch.Tensor:
        """int64 [B] -> float32 [B, D]."""
        return self._features[torch.from_numpy(self._places[indices])]


def is_frozen(modules: Sequence[nn.Module]) -> bool:
    """Whether nothing in them is trained, so that a picture's features never change."""
    return not any(p.requires_grad for module in modules for p in module.parameters())


def _head(
    make: MakeHead | None, width: int, prior: torch.Tensor, seed: int, device: torch.device
) -> Scaled:
    """The head, on the device. Raises PluginError."""
    if make is None:
        return Head(width, prior).to(device)
    with _seeded(seed, -1, device):
        head = OwnHead(width, make(width, len(prior))).to(device)
    with torch.no_grad():
        answer = head.eval()(torch.zeros(2, width, device=device))
    if not (isinstance(answer, torch.Tensor) and answer.shape == (2, len(prior))):
        raise PluginError(
            f"The model's classification head gives {tuple(getattr(answer, 'shape', ()))} for 2 "
            f"vectors of {width} and {len(prior)} labels; it needs one number per label."
        )
    return head


class _Trained:
    """What training changes: parameters that require a gradient, and buffers, by name."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules

    def _tensors(self) -> dict[str, torch.Tensor]:
        # looked up each time: a module may put another tensor in the place of a buffer
        return {
            f"{prefix}.{name}": tensor.detach()
            for prefix, module in self._modules.items()
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
            if tensor.requires_grad or not isinstance(tensor, nn.Parameter)
        }

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors themselves, not copies."""
        return self._tensors()

    def copy(self) -> dict[str, torch.Tensor]:
        """Copies on the CPU."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._tensors().items()}

    def load_state_dict(self, state: Weights) -> None:
        """Raises KeyError where names differ."""
        mine = self._tensors()
        if mine.keys() != state.keys():
            raise KeyError(f"other weights are trained: {sorted(mine.keys() ^ state.keys())[:5]}")
        for name, tensor in mine.items():
            tensor.copy_(state[name])


class _History:
    """Validation losses, and weights and validation logits of the best epoch so far."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.weights: Weights = {}
        self.logits = torch.empty(0)

    @property
    def best(self) -> int:
        return self.losses.index(min(self.losses))

    def stale(self, patience: int) -> bool:
        return bool(self.losses) and len(self.losses) - 1 - self.best >= patience

    def add(self, loss: float, logits: torch.Tensor, trained: _Trained) -> None:
        self.losses.append(loss)
        if self.best == len(self.losses) - 1:
            self.weights, self.logits = trained.copy(), logits

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self.losses), "weights": self.weights, "logits": self.logits}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.losses = list(state["losses"])
        self.weights, self.logits = state["weights"], state["logits"]


@contextmanager
def _lent(modules: Sequence[nn.Module]) -> Iterator[None]:
    """In evaluation mode inside; afterwards with the weights and modes they had, no gradients."""
    whole = _Trained({str(number): module for number, module in enumerate(modules)})
    weights = whole.copy()
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        whole.load_state_dict(weights)
        for part, mode in modes:
            part.training = mode
        for module in modules:
            module.zero_grad(set_to_none=True)


def _set_training(module: nn.Module) -> None:
    """Training mode, but for parts whose parameters are all frozen."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()


def _optimiser(head: nn.Module, modules: Sequence[nn.Module], plan: Schedule) -> torch.optim.AdamW:
    """Group 0 is the head, group 1 the backbone, where there is something to train in it."""
    every = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}
    groups = [{"params": list(head.parameters())}, {"params": list(every.values())}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], weight_decay=plan.decay, fused=True
    )


def _set_rates(optimiser: torch.optim.Optimizer, plan: Schedule, step: int, steps: int) -> None:
    factor = plan.factor(step, steps)
    for group, peak in zip(
        optimiser.param_groups, (plan.head_rate, plan.backbone_rate), strict=False
    ):
        group["lr"] = factor * peak


def _update(optimiser: torch.optim.Optimizer, loss: torch.Tensor, clip: float) -> float:
    """One update. Returns the loss; or, and nothing is updated, what is not finite."""
    value = float(loss.detach())
    if not math.isfinite(value):
        return value
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    everything = [p for group in optimiser.param_groups for p in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(everything, clip))
    if not math.isfinite(norm):
        return norm
    optimiser.step()
    return value


def _loss(logits: torch.Tensor, target: torch.Tensor, multiclass: bool) -> torch.Tensor:
    """Mean over what is scored: float [B, L], the target with NaN, to a scalar."""
    known = ~target.isnan()
    target = target.nan_to_num(0.0)
    if multiclass:
        known = known.all(dim=1)
        each = F.cross_entropy(logits, target.argmax(dim=1), reduction="none")
    else:
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (each * known).sum() / known.sum()


def _probabilities(logits: torch.Tensor, multiclass: bool) -> FloatArray:
    double = logits.double()
    values = double.softmax(dim=1) if multiclass else double.sigmoid()
    return np.asarray(values.numpy(), dtype=np.float64)


def _augment(pictures: torch.Tensor, least_area: float, flip: bool) -> torch.Tensor:
    """Random crops and mirror images of float [B, 3, H, W], one draw per picture, bilinear."""
    if least_area == 1 and not flip:
        return pictures
    side, x, y, mirror = torch.rand(4, len(pictures))
    side = (least_area + (1 - least_area) * side).sqrt()  # uniform in area
    signed = torch.where(mirror < 0.5, -side, side) if flip else side
    none = torch.zeros_like(side)
    frame = torch.stack(
        [
            torch.stack([signed, none, (2 * x - 1) * (1 - side)], dim=1),
            torch.stack([none, side, (2 * y - 1) * (1 - side)], dim=1),
        ],
        dim=1,
    ).to(pictures)  # [B, 2, 3]
    grid = F.affine_grid(frame, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def _shuffled(rows: Rows) -> Rows:
    shuffled: Rows = rows[torch.randperm(len(rows)).numpy()]
    return shuffled


@contextmanager
def _seeded(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Draw as from (seed, epoch) inside, and as before outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed * 1_000_003 + epoch)
        yield


def _plainly(count: int, *parts: Any) -> Iterator[int]:
    yield from range(count)
