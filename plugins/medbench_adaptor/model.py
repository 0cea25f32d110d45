"""Adaptor (arXiv 2401.01179): a trained module between two frozen encoders.

Read from top to bottom: what is built, what is trained in which order, how images and texts are
encoded, and how checkpoints come and go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from medbench.data.samples import Corpus, Sample
from medbench.errors import UsageError, WeightsError
from medbench.models.backbones import TEXT_FILES
from medbench.models.capabilities import FitRun, Stage, State
from medbench.models.clip import check_fit, count, strip_wrappers
from medbench.models.contrastive import MAX_SCALE, distinct, seeded
from medbench.models.text_encoder import TextEncoder
from medbench.schemas.task import TaskSpec
from medbench_adaptor.adaptor import Adaptor
from medbench_adaptor.config import AdaptorConfig
from medbench_adaptor.embeddings import embed_once
from medbench_adaptor.encoders import (
    build_text_encoder,
    build_vision_encoder,
    load_text_encoder,
    text_stage,
    vision_stage,
)
from medbench_adaptor.head import two_layer_head
from medbench_adaptor.pairs import divide_pairs, report_pairs
from medbench_adaptor.training import Recipe, train_adaptor

#: What a user's checkpoint may put before every key of the module, besides common wrappers.
PREFIXES = ("adaptor.", "adaptor_module.")


class AdaptorModel:
    """The model, its variants and its control: `AdaptorConfig` says which.

    Stages, those that apply in this order:

    - ``vision``, ``text``: the frozen encoders: given, or stand-ins shared with other plugins;
    - ``adaptor``: the module, on vectors of these that are computed once.
    """

    #: Checkpoints that decide an image feature; a run has those of them that apply.
    image_stages = ("weights", "vision", "adaptor")

    def __init__(self, config: AdaptorConfig) -> None:
        self.config = config
        self.vision = build_vision_encoder(config)
        self.vision.freeze()
        self.image_size = self.vision.image_size
        self.text: TextEncoder | None = None
        self.adaptor: Adaptor | None = None
        if config.adapted:
            self.text = build_text_encoder(config)
            self.text.freeze()
            self.adaptor = self._new(self.text.dim)

    def _new(self, text_dim: int) -> Adaptor:
        config = self.config
        module = Adaptor(
            self.vision.dim,
            text_dim,
            config.dim,
            layers=config.layers,
            heads=config.heads,
            hidden=config.hidden,
            dropout=config.dropout,
        )
        return module.requires_grad_(False).eval()

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of values: ``total`` with the frozen encoders, ``trainable`` in the module."""
        modules = [m for m in (self.vision, self.text, self.adaptor) if m is not None]
        return {
            "total": sum(count(module.parameters()) for module in modules),
            "trainable": 0 if self.adaptor is None else count(self.adaptor.parameters()),
        }

    # --- training ---------------------------------------------------------------------------

    def stages(self, weights: State | None) -> tuple[Stage, ...]:
        """What is still needed. Given weights of the module replace ``adaptor``."""
        config = self.config
        if not config.adapted:
            return (vision_stage(config),)
        frozen = (vision_stage(config), text_stage(config))
        if weights is not None:
            return frozen
        own = Stage(
            name="adaptor",
            corpus="mimic-cxr",
            config=config.values(
                "encoders", "vision", "text", "dim", "layers", "heads", "hidden", "dropout",
                "alpha", "epochs", "batch", "lr", "weight_decay", "warmup", "patience",
                "validation", "pretrain",
            ),
            needs=("vision", "text"),
            title="Adaptor on reports",
            epochs=config.epochs,
        )  # fmt: skip
        return (*frozen, own)

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """Train the module in place; stand-ins are trained by their own classes."""
        if stage.name in ("vision", "text"):
            raise WeightsError(
                f"The published {stage.name} encoder '{stage.config['encoder']}' is not trained "
                f"here. Name a local file or folder with --weights adaptor@{stage.name}=PATH."
            )
        if stage.name != "adaptor":
            raise ValueError(f"Adaptor has no stage '{stage.name}' of its own")
        text, config = self._text, self.config
        samples, words = report_pairs(corpus, run)
        train, val = divide_pairs(samples, config.validation, config.pretrain.fraction, run.seed)
        images, texts = self._vectors(corpus, samples, words, run)
        with seeded(run.seed):
            self.adaptor = self._new(text.dim)
        adaptor = self.adaptor.to(run.device).requires_grad_(True)
        history = train_adaptor(
            adaptor,
            images,
            texts,
            train,
            val,
            Recipe(
                epochs=config.epochs,
                batch=config.batch,
                lr=config.lr,
                weight_decay=config.weight_decay,
                warmup=config.warmup,
                patience=config.patience,
                image_weight=config.alpha,
            ),
            run,
        )
        adaptor.requires_grad_(False)
        run.warn(
            f"Adaptor: {len(train):,} pairs trained on, {len(val):,} of other patients to stop by; "
            f"epoch {history.best + 1} of {len(history.losses)} kept, validation loss "
            f"{min(history.losses):.3f}."
        )

    def _vectors(
        self, corpus: Corpus, samples: Sequence[Sample], words: Sequence[str], run: FitRun
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Frozen vectors float32 [N, Dv] and [N, Dt] of the pairs, each computed once."""
        from medbench.data.images import Images

        vision, text = self.vision.to(run.device), self._text.to(run.device)
        pictures = Images(corpus.reader, samples, self.image_size, memory_bytes=0)
        images = embed_once(
            "images",
            len(samples),
            lambda first, last: vision(pictures.batch(range(first, last)).to(run.device)),
            run,
        )
        unique, rows = distinct(words)
        texts = embed_once("texts", len(unique), lambda first, last: text(unique[first:last]), run)
        return images, texts[rows]

    # --- encoding ---------------------------------------------------------------------------

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in [0, 1], H = W = ``image_size`` -> float32 [B, D].

        The module's output for the frozen vector, without a text, not L2-normalised; of the control
        the frozen vector itself. Without gradients: nothing of it is trained downstream.
        """
        self._follow(images)
        vector: torch.Tensor = self.vision(images)
        return vector if self.adaptor is None else self.adaptor.encode_images(vector).float()

    def encode_patches(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The same images -> maps float32 [B, D, h, h], finest first.

        Of a ResNet autoencoder: its finer maps, and the image's feature as the coarsest, h = 1. Of
        any other encoder one map: each position of its last map through the module.
        """
        self._follow(images)
        maps = self.vision.maps(images)
        if self.config.vision == "resnet-ae":
            return [*maps[:-1], self.encode_images(images)[:, :, None, None]]
        tokens = maps[-1]  # [B, Dv, h, h]
        if self.adaptor is None:
            return [tokens]
        number, dim, side, _ = tokens.shape
        flat = tokens.permute(0, 2, 3, 1).reshape(-1, dim)  # [B * h * h, Dv]
        grid = self.adaptor.encode_images(flat).float().view(number, side, side, -1)
        return [grid.permute(0, 3, 1, 2).contiguous()]

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """-> float32 [B, D], L2-normalised, in the space of images.

        Raises UsageError for the control, which has no such space.
        """
        encoder = self._text
        assert self.adaptor is not None
        return F.normalize(self.adaptor.encode_texts(encoder(texts)).float(), dim=-1)

    def classification_head(self, features: int, labels: int) -> nn.Module:
        """The published head: float [B, ``features``] -> logits float32 [B, ``labels``]."""
        return two_layer_head(features, labels)

    @property
    def temperature(self) -> float:
        """The learnt one."""
        assert self.adaptor is not None
        return 1 / float(self.adaptor.logit_scale.exp().clamp(max=MAX_SCALE))

    def class_prompts(self, task: TaskSpec) -> list[list[str]]:
        """Each label's text as it stands: the paper has no zero-shot, and so no prompts."""
        return [[label.text] for label in task.labels]

    @property
    def _text(self) -> TextEncoder:
        if self.text is None:
            raise UsageError(
                "adaptor@no-adaptor is an image encoder alone: it has no texts in its space. "
                "Leave it out of retrieval and zero-shot."
            )
        return self.text

    def _follow(self, images: torch.Tensor) -> None:
        if next(self.vision.parameters()).device != images.device:
            for module in (self.vision, self.text, self.adaptor):
                if module is not None:
                    module.to(images.device)

    # --- checkpoints ------------------------------------------------------------------------

    def state(self, stage: str) -> dict[str, torch.Tensor]:
        """The module's tensors, contiguous, on the CPU; the encoders are kept by their own."""
        if stage != "adaptor" or self.adaptor is None:
            raise ValueError(f"Adaptor keeps no stage '{stage}' of its own")
        return {k: v.detach().cpu().contiguous() for k, v in self.adaptor.state_dict().items()}

    def load(self, stage: str, state: State) -> None:
        """Load a stage's checkpoint or, as ``"weights"``, a user's of the module.

        Raises WeightsError naming the keys that do not fit.
        """
        if stage != "text" or self.config.encoders == "stand-in":
            # files that lie in the folder, as a published text encoder alone needs them
            state = {name: value for name, value in state.items() if name not in TEXT_FILES}
        if stage == "vision":
            self.vision.load(state)
        elif stage == "text":
            self.text = load_text_encoder(self.config, self._text, state)
            if self.adaptor is None or self.adaptor.text_projection.in_features != self.text.dim:
                self.adaptor = self._new(self.text.dim)
        elif stage in ("adaptor", "weights"):
            self._load_module(state)
        else:
            raise ValueError(f"Adaptor has no stage '{stage}'")

    def _load_module(self, state: State) -> None:
        if self.adaptor is None:
            raise WeightsError(
                "adaptor@no-adaptor has no module to load weights into. Give those of its image "
                "encoder with --weights adaptor@vision=PATH."
            )
        plain = _without_prefix(strip_wrappers(state))
        check_fit("the Adaptor module", self.adaptor.state_dict(), plain)
        self.adaptor.load_state_dict(plain)


def _without_prefix(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)
