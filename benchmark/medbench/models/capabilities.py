"""What a model class may implement (structural typing), and what `fit` is given.

A model class is constructed as ``Class(config)`` with the validated configuration of its spec
(or without arguments when the spec has none), after the harness has seeded every generator. It
holds an untrained network then; the harness calls `load` with each checkpoint, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn

    from medbench.data.samples import Corpus
    from medbench.models.ranks import Ranks
    from medbench.schemas.task import TaskSpec

State = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training stage. Its checkpoint is stored under a hash of everything below, of the
    corpus, of the code that trains it, and of the stages it needs: so two variants, or two
    plugins, that ask for the same stage share it.

    Attributes:
        name: unique within the model.
        corpus: name of the dataset it trains on: its training part, or all of it where it has no
            parts. Or "task": the training and validation parts of the task that is run, each
            sample's ``split`` saying which ("train", "val").
        config: every value that decides the result. JSON types only.
        cls: ``package.module:Class`` whose ``fit`` trains this stage; empty: the model's own.
        needs: names of earlier stages whose checkpoints are loaded first.
        title: one line for progress and ``--dry-run``.
        epochs: passes over the corpus, for the plan of ``--dry-run``.
        weights: name of a variant, or one of the spec's ``parts``, whose weights, given as
            ``--weights MODEL@NAME=PATH``, stand for this stage, which is then not trained. At a
            preset that needs weights it is not trained without them either.
        together: with ``--devices N``, N processes call ``fit``, and it shares its batches among
            them through ``run.ranks``, as `medbench.models.descent.descend` does. False: one
            process trains this stage whatever the number of devices.
    """

    name: str
    corpus: str
    config: Mapping[str, Any]
    cls: str = ""
    needs: tuple[str, ...] = ()
    title: str = ""
    epochs: int = 0
    weights: str = ""
    together: bool = False


class FitRun(Protocol):
    """What the harness gives to ``fit``: where, how, and a way to survive a kill."""

    device: torch.device
    seed: int
    folder: Path  #: a scratch folder that outlives a kill, and goes when the stage is stored
    ranks: Ranks  #: the processes that train this stage; one, unless its ``together`` is True

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision as asked for by ``--precision``; a no-op in fp32."""
        ...

    def epochs(self, count: int, *parts: Any, title: str = "") -> Iterator[int]:
        """Yield the epochs still to run, 0-based.

        ``parts`` (modules, optimisers, schedulers: whatever has ``state_dict``) are saved after
        each epoch and restored at the start, so that a killed fit goes on where it was, to the
        same result. Seed per-epoch randomness from ``(seed, epoch)``.
        """
        ...

    def advance(self, done: int, total: int, **figures: float) -> None:
        """Report progress within an epoch, with figures such as ``loss=0.7``."""
        ...

    def warn(self, message: str) -> None:
        """A line for the user, and a note in the record."""
        ...


@runtime_checkable
class EncodesImages(Protocol):
    """Image features."""

    image_size: int

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """``images`` float32 [B, 3, H, W] in [0, 1], H = W = ``image_size`` -> float [B, D].

        Differentiable, for fine-tuning; the harness switches gradients off where it embeds."""
        ...


@runtime_checkable
class EncodesPatches(Protocol):
    """Feature maps, for segmentation."""

    image_size: int

    def encode_patches(self, images: torch.Tensor) -> torch.Tensor | Sequence[torch.Tensor]:
        """``images`` as above -> one map float [B, D, h, h], or several, finest first."""
        ...


@runtime_checkable
class GeneratesReports(Protocol):
    """Reports of studies."""

    image_size: int

    def generate_reports(self, images: torch.Tensor, mask: torch.Tensor) -> Sequence[str]:
        """``images`` float32 [B, V, 3, H, W] in [0, 1], V views of each study, frontal first;
        ``mask`` bool [B, V], True where a view exists -> B texts."""
        ...


class ExplainsReports(Protocol):
    """Which part of its images a generator looked at, for galleries. Optional."""

    def explain_reports(
        self, images: torch.Tensor, mask: torch.Tensor
    ) -> Sequence[tuple[Sequence[str], torch.Tensor]]:
        """Inputs as of ``generate_reports`` -> per study its L words, and float [L, V, h, w]:
        the share of attention that each word paid to each place of each view."""
        ...


@runtime_checkable
class GeneratesImages(Protocol):
    """Images from prompts."""

    image_size: int

    def generate_images(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
        """B prompts and a seed for each -> float [B, 3, H, W] in [0, 1]. A seed fixes its image."""
        ...


class ExplainsImages(Protocol):
    """How images of a generator came about, for galleries. Optional."""

    def explain_images(
        self, prompts: Sequence[str], seeds: Sequence[int], count: int
    ) -> torch.Tensor:
        """Inputs as of ``generate_images`` -> float [B, ``count``, 3, H, W] in [0, 1]: at
        ``count`` steps, evenly spread, what was taken for the finished image then; the last is the
        image that ``generate_images`` gives."""
        ...


@runtime_checkable
class EncodesTexts(Protocol):
    """Text features in the space of the image (or volume) features."""

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """-> float [B, D], L2-normalised."""
        ...


@runtime_checkable
class EncodesVolumes(Protocol):
    """Volume features."""

    image_size: int

    def encode_volumes(self, slices: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``slices`` float32 [B, S, 3, H, W] in [0, 1]; ``mask`` bool [B, S], True where a slice
        exists -> float [B, D]."""
        ...


@runtime_checkable
class PoolsSlices(Protocol):
    """A volume encoder that is an image encoder and a pooling of its slice embeddings.

    A model that implements this and ``encode_images`` need not write ``encode_volumes``: the
    harness embeds each slice once and shares the embeddings between variants that pool
    differently (``image_stages`` says which checkpoints decide them).
    """

    image_size: int
    image_stages: tuple[str, ...]
    max_slices: int  #: more slices are sampled uniformly before any is embedded

    def encode_images(self, images: torch.Tensor) -> torch.Tensor: ...

    def pool_slices(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``embeddings`` float [B, S, D], ``mask`` bool [B, S] -> float [B, D]."""
        ...


@runtime_checkable
class PromptsClasses(Protocol):
    """Zero-shot prompts.

    A model may have ``neutral_prompts(task) -> Sequence[str]`` besides: of each prompt the text
    without a label, in the order of every label's prompts. A label's score is then the mean over
    prompts of the cosine to the prompt less the cosine to its neutral text.
    """

    temperature: float  #: cosines are divided by it before the softmax over labels

    def class_prompts(self, task: TaskSpec) -> Sequence[Sequence[str]]:
        """One or more prompts per label, in the task's label order."""
        ...


@runtime_checkable
class BringsHead(Protocol):
    """A model whose paper puts a head of its own on the features for classification."""

    def classification_head(self, features: int, labels: int) -> nn.Module:
        """A freshly drawn module: float [B, ``features``] -> logits float [B, ``labels``].

        Adaptation ``fine-tune`` trains it in place of its linear layer, and with it whatever
        parameters of the model require a gradient."""
        ...


class Trains(Protocol):
    """A model that is trained, or loads checkpoints."""

    def stages(self, weights: State | None) -> Sequence[Stage]:
        """Stages still needed, given what ``--weights`` brought (None: nothing)."""
        ...

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """Train that stage in place. Only ``corpus`` may be seen."""
        ...

    def state(self, stage: str) -> State:
        """Tensors that stage trained (contiguous, on the CPU), to be kept as safetensors."""
        ...

    def load(self, stage: str, state: State) -> None:
        """Load what `state` gave, or, with stage ``"weights"``, a user's checkpoint.

        Raises `medbench.errors.WeightsError` naming the keys that do not fit.
        """
        ...
