"""RadCLIP (arXiv 2403.09948): a radiology CLIP with a slice pooling adapter for volumes.

Read from top to bottom: what is built, what is trained in which order, how images, texts and
volumes are encoded, and how checkpoints come and go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from medbench.data.samples import Corpus
from medbench.models.base_clip import base_stage
from medbench.models.batchnorm import has_batchnorm, recalibrate, statistics
from medbench.models.capabilities import FitRun, Stage, State
from medbench.models.clip import (
    ClipConfig,
    build_clip,
    check_fit,
    count,
    embed_texts,
    image_features,
    is_image_key,
    load_clip,
    normalise,
    strip_wrappers,
)
from medbench.models.contrastive import distinct, lookup, seeded, train_contrastive
from medbench.models.descent import Recipe
from medbench.models.pairs import evenly, texts_of, training_pairs
from medbench.models.patches import patch_features
from medbench.models.prefetch import Pictures
from medbench.schemas.task import TaskSpec
from medbench_radclip.adapter import MaxPooling, MeanHead, MeanPooling, SlicePooling
from medbench_radclip.config import RadclipConfig
from medbench_radclip.embeddings import SliceEmbeddings
from medbench_radclip.texts import class_prompts

if TYPE_CHECKING:
    from medbench.data.images import Images

#: What a user's checkpoint may call the adapter.
ADAPTER_PREFIXES = ("adapter.", "slice_pooling.")

#: Images in a batch where only forward passes are made.
FORWARD_BATCH = 128


def build_pooling(config: RadclipConfig) -> nn.Module:
    """The module that makes a volume's embedding of its slices'."""
    if config.pooling == "attention":
        return SlicePooling(config.embed_dim, config.heads, config.max_slices, config.position_std)
    if config.pooling == "mean-head":
        return MeanHead(config.embed_dim)
    return MeanPooling() if config.pooling == "mean" else MaxPooling()


class Radclip:
    """The model, its variants and its controls: `RadclipConfig` says which.

    Stages, those that apply in this order:

    - ``base``: the general CLIP, pre-trained on ``scenes`` and shared with other plugins;
    - ``pairs``: image tower and projection on 2-D pairs, against the frozen text tower;
    - ``statistics`` (instead of ``pairs``, for a tower with BatchNorm that is not trained here):
      BatchNorm statistics over the same corpus images, in the same order, that ``pairs`` ends with;
    - ``volumes``: the adapter on frozen slice embeddings.
    """

    #: Checkpoints that decide an image embedding; a run has those of them that apply.
    image_stages = ("weights", "base", "statistics", "pairs")

    def __init__(self, config: RadclipConfig) -> None:
        self.config = config
        self.image_size = config.image_size
        self.max_slices = config.max_slices
        self.temperature = config.temperature
        self.clip = build_clip(config)
        self.pool = build_pooling(config).eval()

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of values: ``total``, and ``trainable`` by RadCLIP's own stages."""
        adapter = count(self.pool.parameters())
        tower = count(self._tower.parameters())
        return {
            "total": count(self.clip.parameters()) + adapter,
            "trainable": adapter + (tower if self.config.adapted else 0),
        }

    def to(self, device: torch.device | str) -> Radclip:
        """Move to a device."""
        self.clip.to(device)
        self.pool.to(device)
        return self

    @property
    def _tower(self) -> nn.Module:
        tower: nn.Module = self.clip.visual  # type: ignore[assignment]
        return tower

    # --- training ---------------------------------------------------------------------------

    def stages(self, weights: State | None) -> tuple[Stage, ...]:
        """What is still to be trained. Given weights replace ``base`` and ``pairs``."""
        config = self.config
        dims = config.values(*ClipConfig.model_fields)
        result: list[Stage] = []
        if weights is None and config.general:
            # a general CLIP of the user's, --weights radclip@clip=PATH, stands for it
            result.append(replace(base_stage(config), weights="clip"))
        if weights is None and config.adapted:
            result.append(
                Stage(
                    name="pairs",
                    corpus="image-text-pairs",
                    config=dims
                    | config.values(
                        "general",
                        "temperature",
                        "weight_decay",
                        "pairs_epochs",
                        "pairs_batch",
                        "pairs_lr",
                        "statistics_images",
                    ),
                    needs=tuple(s.name for s in result),
                    title="image tower on 2-D pairs",
                    epochs=config.pairs_epochs,
                    together=True,
                )
            )
        elif has_batchnorm(self._tower):
            result.append(
                Stage(
                    name="statistics",
                    corpus="image-text-pairs",
                    config=dims | config.values("statistics_images") | _origin(weights),
                    needs=tuple(s.name for s in result),
                    title="normalisation statistics on 2-D pairs",
                    epochs=1,
                )
            )
        trained = config.pooling in ("attention", "mean-head")
        if trained and not (weights is not None and _split(weights)[1]):
            result.append(
                Stage(
                    name="volumes",
                    corpus="image-text-pairs",
                    config=dims
                    | config.values(
                        "pooling",
                        "temperature",
                        "weight_decay",
                        "max_slices",
                        "volumes_epochs",
                        "volumes_batch",
                        "volumes_lr",
                        *(("heads", "readout", "position_std") if self._attends else ()),
                    )
                    | _origin(weights),
                    needs=tuple(s.name for s in result),
                    title="slice pooling on volumes",
                    epochs=config.volumes_epochs,
                    together=True,
                )
            )
        return tuple(result)

    @property
    def _attends(self) -> bool:
        return self.config.pooling == "attention"

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """Train one of `stages` in place; ``base`` is trained by its own class."""
        self.to(run.device)
        if stage.name == "pairs":
            self._fit_pairs(corpus, run)
        elif stage.name == "statistics":
            self._fit_statistics(corpus, run)
        elif stage.name == "volumes":
            if "given_weights" in stage.config and self._attends:
                run.warn(
                    "The given weights hold no slice pooling adapter: it is trained on "
                    f"'{corpus.name}'."
                )
            self._fit_volumes(corpus, run)
        else:
            raise ValueError(f"RadCLIP has no stage '{stage.name}' of its own")

    def _fit_pairs(self, corpus: Corpus, run: FitRun) -> None:
        """Stage 1: image tower and projection, symmetric InfoNCE against frozen text features."""
        from medbench.data.images import Images

        config = self.config
        if not config.general:
            with seeded(run.seed):
                self.clip = build_clip(config).to(run.device)
        clip, tower = self.clip, self._tower
        clip.requires_grad_(False)
        tower.requires_grad_(True)
        samples = training_pairs(corpus, "image")
        images = Images(corpus.reader, samples, config.image_size)
        images.warm(run.advance)
        texts, rows = distinct(texts_of(samples))
        table = embed_texts(clip, texts, config.context)  # [U, D]; the text tower runs once
        pictures = Pictures(images, run.device)
        train_contrastive(
            lambda chosen: image_features(clip, pictures(chosen)),
            lookup(table, rows),
            len(samples),
            modules=[tower],
            recipe=Recipe(
                epochs=config.pairs_epochs,
                batch=config.pairs_batch,
                lr=config.pairs_lr,
                weight_decay=config.weight_decay,
                temperature=config.temperature,
            ),
            run=run,
            stage="pairs",
            pictures=pictures,
        )
        recalibrate(tower, self._statistics_batches(images, len(samples), run))

    def _fit_statistics(self, corpus: Corpus, run: FitRun) -> None:
        """BatchNorm statistics alone, over the images that `_fit_pairs` ends with."""
        from medbench.data.images import Images

        samples = training_pairs(corpus, "image")
        images = Images(corpus.reader, samples, self.image_size)
        recalibrate(self._tower, self._statistics_batches(images, len(samples), run))

    def _statistics_batches(
        self, images: Images, number: int, run: FitRun
    ) -> Iterator[torch.Tensor]:
        """Batches of one size of the same corpus images in the same order for every variant."""
        chosen = evenly(number, self.config.statistics_images)
        size = min(FORWARD_BATCH, len(chosen))
        for start in range(0, len(chosen) - size + 1, size):
            yield normalise(images.batch(chosen[start : start + size]).to(run.device))
            run.advance(start + size, len(chosen))

    def _fit_volumes(self, corpus: Corpus, run: FitRun) -> None:
        """Stage 2: the adapter, on slice embeddings of the frozen tower, each computed once."""
        config = self.config
        with seeded(run.seed):
            self.pool = build_pooling(config).to(run.device)
        samples = training_pairs(corpus, "volume")
        slices = SliceEmbeddings(config.max_slices, config.embed_dim, run.device)
        slices.compute(corpus, samples, self.encode_images, config.image_size, run)
        texts, rows = distinct(texts_of(samples))
        table = embed_texts(self.clip, texts, config.context)  # [U, D]
        train_contrastive(
            lambda chosen: self.pool(*slices.batch(chosen)),
            lookup(table, rows),
            len(samples),
            modules=[self.pool],
            recipe=Recipe(
                epochs=config.volumes_epochs,
                batch=config.volumes_batch,
                lr=config.volumes_lr,
                weight_decay=config.weight_decay,
                temperature=config.temperature,
            ),
            run=run,
            stage="volumes",
        )

    # --- encoding ---------------------------------------------------------------------------

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in [0, 1], H = W = ``image_size`` -> projected float32 [B, D].

        Not L2-normalised; CLIP's channel normalisation is done here. Differentiable.
        """
        self._follow(images)
        return image_features(self.clip.eval(), images)

    def encode_patches(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The same images -> feature maps float32 [B, D, h, h] of the image tower, finest first.

        Those of `medbench.models.patches.patch_features`; the pooling of slices has no part in it.
        """
        self._follow(images)
        return patch_features(self.clip.eval(), images)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """-> float32 [B, D], L2-normalised, in the space of images and volumes."""
        return embed_texts(self.clip.eval(), texts, self.config.context)

    @torch.no_grad()
    def pool_slices(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Slice embeddings float [B, S, D] of `encode_images`, bool [B, S] -> float32 [B, D].

        L2-normalised. Every row of ``mask`` has a slice.
        """
        self._follow(embeddings)
        pooled: torch.Tensor = self.pool.eval()(embeddings, mask)
        return pooled

    @torch.no_grad()
    def encode_volumes(self, slices: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """float32 [B, S, 3, H, W] in [0, 1], bool [B, S] -> float32 [B, D], L2-normalised."""
        embeddings = slices.new_zeros(*mask.shape, self.config.embed_dim)  # [B, S, D]
        real = slices[mask]  # [R, 3, H, W]: padding is never encoded
        parts = [self.encode_images(part) for part in torch.split(real, FORWARD_BATCH)]
        embeddings[mask] = torch.cat(parts).to(embeddings.dtype)
        return self.pool_slices(embeddings, mask)

    def slice_attention(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The attention each slice received, float32 [B, S], summing to 1 in each row.

        Raises ValueError for variants without attention.
        """
        if not isinstance(self.pool, SlicePooling):
            raise ValueError(f"pooling '{self.config.pooling}' has no attention")
        self._follow(embeddings)
        return self.pool.eval().attention(embeddings, mask)

    def class_prompts(self, task: TaskSpec) -> list[list[str]]:
        """``<region> <modality>, <label>``, one per label."""
        return class_prompts(task)

    def _follow(self, tensor: torch.Tensor) -> None:
        if self.clip.logit_scale.device != tensor.device:
            self.to(tensor.device)

    # --- checkpoints ------------------------------------------------------------------------

    def state(self, stage: str) -> dict[str, torch.Tensor]:
        """What the stage decided, contiguous, on the CPU.

        ``pairs``: the image tower; without a general base the frozen, random text tower as well,
        since no other checkpoint holds it.
        """
        if stage == "pairs":
            whole = self.clip.state_dict()
            kept = {k: v for k, v in whole.items() if is_image_key(k) or not self.config.general}
        elif stage == "statistics":
            kept = statistics(self._tower)
        elif stage == "volumes":
            kept = self.pool.state_dict()
        else:
            raise ValueError(f"RadCLIP keeps no stage '{stage}' of its own")
        return {key: value.detach().cpu().contiguous() for key, value in kept.items()}

    def load(self, stage: str, state: State) -> None:
        """Load a stage's checkpoint or, as ``"weights"``, a user's.

        A user's checkpoint is a CLIP in open_clip's, OpenAI's or Hugging Face's layout, with or
        without adapter weights under ``adapter.`` or ``slice_pooling.``. Raises WeightsError
        naming the keys that do not fit.
        """
        if stage == "weights":
            clip, adapter = _split(state)
            load_clip(self.clip, clip)
            if adapter and self._attends:
                self._load_into(self.pool, "the slice pooling adapter", adapter)
        elif stage == "base":
            load_clip(self.clip, state)
        elif stage == "pairs" and not self.config.general:
            self._load_into(self.clip, "RadCLIP's two towers", state)
        elif stage == "pairs":
            tower = {k.removeprefix("visual."): v for k, v in state.items()}
            self._load_into(self._tower, "RadCLIP's image tower", tower)
        elif stage == "statistics":
            whole = {**self._tower.state_dict(), **state}
            self._load_into(self._tower, "the image tower's BatchNorm", whole)
        elif stage == "volumes":
            self._load_into(self.pool, "the slice pooling", state)
        else:
            raise ValueError(f"RadCLIP has no stage '{stage}'")

    @staticmethod
    def _load_into(module: nn.Module, what: str, state: Mapping[str, torch.Tensor]) -> None:
        check_fit(what, module.state_dict(), state)
        module.load_state_dict(state)


def _split(state: State) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A user's checkpoint -> the CLIP's tensors, and the adapter's without their prefix."""
    clip: dict[str, torch.Tensor] = {}
    adapter: dict[str, torch.Tensor] = {}
    for key, value in strip_wrappers(state).items():
        prefix = next((p for p in ADAPTER_PREFIXES if key.startswith(p)), None)
        if prefix:
            adapter[key.removeprefix(prefix)] = value
        else:
            clip[key] = value
    return clip, adapter


def _origin(weights: State | None) -> dict[str, bool]:
    """Marks a stage that is trained on given weights (which the harness puts into its key)."""
    return {} if weights is None else {"given_weights": True}
