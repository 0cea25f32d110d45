"""A contrastive image-text model, run as it was published.

On phantoms it is the general-domain CLIP that other plugins start from, with the same checkpoint:
so what they report as the gain of adaptation is measured against this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from medbench.data.samples import Corpus
from medbench.errors import UsageError, WeightsError
from medbench.models.base_clip import base_stage
from medbench.models.batchnorm import has_batchnorm, recalibrate, statistics
from medbench.models.capabilities import FitRun, Stage, State
from medbench.models.clip import MEAN, STD, build_clip, check_fit, count, load_clip
from medbench.models.pairs import evenly, training_pairs
from medbench.models.patches import tower_maps
from medbench.models.tokenizer import tokenize
from medbench.schemas.task import TaskSpec
from medbench_open_clip.architecture import (
    Architecture,
    Tokenizer,
    build,
    described,
    fitting_names,
    named,
    split,
    tokenizer,
)
from medbench_open_clip.checkpoints import load_network
from medbench_open_clip.config import AUTO, BASE, OpenClipConfig

if TYPE_CHECKING:
    from medbench.data.images import Images

#: Images, or texts, in a batch where only forward passes are made.
FORWARD_BATCH = 128

#: Pixels a side where only the weights' own folder could tell.
USUAL_SIZE = 224


class OpenClip:
    """Encodes images, texts and patches with the network that `OpenClipConfig` names.

    A published network exists from `load` on: it is built when its weights are there.

    Stages, of ``model=base`` alone (a published network is never trained):

    - ``base``: the general CLIP, pre-trained on ``scenes`` and shared with other plugins;
    - ``statistics``: BatchNorm statistics over radiology images, where the tower has them; they
      would be those of coloured scenes otherwise, and the comparison with adapted models unfair.
    """

    def __init__(self, config: OpenClipConfig) -> None:
        self.config = config
        self.clip: nn.Module | None = None
        self._named: Architecture | None = None
        self._mean: tuple[float, ...] = MEAN
        self._std: tuple[float, ...] = STD
        self._find_tokenizer: Callable[[], Tokenizer] | None = None  # it may not be there
        self._tokenizer: Tokenizer | None = None
        if config.model == BASE:
            self.image_size = config.base.image_size
            self.clip = build_clip(config.base)
            self._tokenizer = lambda texts: tokenize(texts, config.base.context)
        elif config.model == AUTO:
            self.image_size = config.image_size or USUAL_SIZE
        else:
            self._named = named(config.model)
            self.image_size = self._named.image_size
            if config.image_size not in (None, self.image_size):
                raise UsageError(
                    f"--set image_size={config.image_size}: '{config.model}' sees images of "
                    f"{self.image_size} pixels a side. Leave image_size out."
                )

    @property
    def network(self) -> nn.Module:
        """The network in evaluation mode. Raises WeightsError as long as no weights are loaded."""
        if self.clip is None:
            raise self._without_weights()
        return self.clip.eval()

    @property
    def temperature(self) -> float:
        """The learnt one: cosines are divided by it."""
        return float(torch.exp(-self.network.logit_scale.detach().float()))  # type: ignore[operator]

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of values: ``total``, and ``trainable`` by this plugin's own stages: none."""
        return {"total": count(self.network.parameters()), "trainable": 0}

    def _without_weights(self) -> WeightsError:
        return WeightsError(
            f"Model 'open-clip' with model={self.config.model} needs published weights, and none "
            "are given. Name a local file or folder with --weights open-clip=PATH, or take the "
            "general-domain CLIP of the phantoms with --preset tiny and without --set model."
        )

    # --- training ---------------------------------------------------------------------------

    def stages(self, weights: State | None) -> tuple[Stage, ...]:
        """What is still to be trained: nothing of a published network."""
        config = self.config
        if config.model != BASE:
            if weights is None:
                raise self._without_weights()
            return ()
        base = () if weights is not None else (base_stage(config.base),)
        if not has_batchnorm(self._tower):
            return base
        given = {"given_weights": True} if weights is not None else {}
        return (
            *base,
            Stage(
                name="statistics",
                corpus="image-text-pairs",
                config=config.base.model_dump(mode="json") | given,
                needs=tuple(stage.name for stage in base),
                title="normalisation statistics on 2-D pairs",
                epochs=1,
            ),
        )

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """BatchNorm statistics over the corpus' images; ``base`` is trained by its own class."""
        from medbench.data.images import Images

        if stage.name != "statistics":
            raise ValueError(f"open-clip has no stage '{stage.name}' of its own")
        samples = training_pairs(corpus, "image")
        images = Images(corpus.reader, samples, self.image_size)
        recalibrate(self._tower.to(run.device), self._statistics_batches(images, len(samples), run))

    def _statistics_batches(
        self, images: Images, number: int, run: FitRun
    ) -> Iterator[torch.Tensor]:
        """Normalised batches of one size, the last, incomplete one left out."""
        chosen = evenly(number, self.config.base.statistics_images)
        size = min(FORWARD_BATCH, len(chosen))
        for start in range(0, len(chosen) - size + 1, size):
            yield self._pixels(images.batch(chosen[start : start + size]).to(run.device))
            run.advance(start + size, len(chosen))

    @property
    def _tower(self) -> nn.Module:
        tower: nn.Module = self.network.visual  # type: ignore[assignment]
        return tower

    # --- encoding ---------------------------------------------------------------------------

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in [0, 1], H = W = ``image_size`` -> projected float32 [B, D].

        Not L2-normalised. The channel normalisation that belongs to the weights is done here.
        Differentiable.
        """
        clip = self._on(images.device)
        features: torch.Tensor = clip.encode_image(self._pixels(images), normalize=False)  # type: ignore[operator]
        return features.float()

    def encode_patches(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The same images -> feature maps float32 [B, D, h, h], finest first.

        Those of `medbench.models.patches`, which says what each kind of tower gives.
        """
        return tower_maps(self._on(images.device).visual, self._pixels(images))  # type: ignore[arg-type]

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """-> float32 [B, D], L2-normalised, in the space of the images.

        Raises WeightsError when the tokenizer of a Hugging Face text tower is not there.
        """
        clip = self.network
        if self._tokenizer is None and self._find_tokenizer is not None:
            self._tokenizer = self._find_tokenizer()
        assert self._tokenizer is not None  # a network has one, or a way to find it
        tokens = self._tokenizer(texts).to(next(clip.parameters()).device)
        parts = [
            clip.encode_text(part, normalize=True).float()  # type: ignore[operator]
            for part in torch.split(tokens, FORWARD_BATCH)
        ]
        return torch.cat(parts)

    def class_prompts(self, task: TaskSpec) -> list[list[str]]:
        """One per label, ``<region> <modality>, <label>``: "Chest X-ray, edema".

        The wording of radiology captions, the same for every model: "a photo of" would measure how
        well a model guesses that a radiograph is called a photo.
        """
        place = " ".join(part for part in (task.region.strip(), task.modality.strip()) if part)
        return [[", ".join(p for p in (place, label.text.strip()) if p)] for label in task.labels]

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        """float [B, 3, H, W] in [0, 1] -> normalised, channels-last."""
        mean = images.new_tensor(self._mean).view(1, 3, 1, 1)
        std = images.new_tensor(self._std).view(1, 3, 1, 1)
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    def _on(self, device: torch.device) -> nn.Module:
        clip = self.network
        if next(clip.parameters()).device != device:
            clip.to(device)
        return clip

    # --- checkpoints ------------------------------------------------------------------------

    def state(self, stage: str) -> dict[str, torch.Tensor]:
        """BatchNorm statistics of the image tower, contiguous, on the CPU."""
        if stage != "statistics":
            raise ValueError(f"open-clip keeps no stage '{stage}' of its own")
        found = statistics(self._tower)
        return {key: value.detach().cpu().contiguous() for key, value in found.items()}

    def load(self, stage: str, state: State) -> None:
        """Load a stage's checkpoint or, as ``"weights"``, a published one.

        Of a published one, the files named in ``weight_files`` may be in the state. With
        ``model=auto`` they say what the network is. Raises WeightsError for weights that do not
        fit, naming keys, and UsageError for a network that sees another size than the harness was
        told.
        """
        if stage == "base" or (stage == "weights" and self.config.model == BASE):
            load_clip(self.network, split(state)[1])
        elif stage == "weights":
            self._load_published(state)
        elif stage == "statistics":
            whole = {**self._tower.state_dict(), **state}
            check_fit("the image tower's BatchNorm", self._tower.state_dict(), whole)
            self._tower.load_state_dict(whole)
        else:
            raise ValueError(f"open-clip has no stage '{stage}'")

    def _load_published(self, state: State) -> None:
        files, weights = split(state)
        architecture = self._named or described(files)
        if architecture is None:
            fits = fitting_names(weights)
            raise WeightsError(
                "The weights do not say which network they belong to: there is neither "
                "open_clip_config.json nor config.json beside them. Give the folder as it was "
                "published, or name the network with --set model=NAME"
                + (f" (of their shape: {', '.join(fits)})." if fits else ".")
                + " OpenAI's own weights want a name that ends in -quickgelu."
            )
        if architecture.image_size != self.image_size:
            raise UsageError(
                f"{architecture.name} sees images of {architecture.image_size} pixels a side, and "
                f"{self.image_size} are prepared. Add --set image_size={architecture.image_size}."
            )
        network = build(architecture, files)
        load_network(network, weights, architecture.name)
        self.clip = network
        self._mean, self._std = architecture.mean, architecture.std
        self._tokenizer, self._find_tokenizer = None, partial(tokenizer, architecture, files)
