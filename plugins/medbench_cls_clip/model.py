"""CLS-CLIP (Wiehe et al., 2022): a general CLIP adapted to radiographs by their reports.

Read from top to bottom: what is built, what is trained in which order, how images and texts are
encoded, how images are drawn from texts, and how checkpoints come and go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from medbench.data.images import to_unit
from medbench.data.samples import Corpus, Sample
from medbench.data.splits import fraction, patients_of
from medbench.errors import WeightsError
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
    load_clip,
    normalise,
    strip_wrappers,
    text_features,
)
from medbench.models.contrastive import MAX_SCALE, train_contrastive
from medbench.models.descent import Recipe
from medbench.models.pairs import evenly
from medbench.models.prefetch import Pictures
from medbench.models.tokenizer import tokenize
from medbench.schemas.task import TaskSpec
from medbench_cls_clip.adapters import attach, norms
from medbench_cls_clip.augment import RandomAffine
from medbench_cls_clip.config import ClsClipConfig
from medbench_cls_clip.guidance import draw
from medbench_cls_clip.reports import Wording, told_pairs

if TYPE_CHECKING:
    from medbench.data.decoded import Decoded

#: What the adapters' tensors are called in a checkpoint, behind those of the CLIP.
ADAPTERS = "adapters."

#: Zero-shot prompts are these with and without a label (official code).
PREFIXES = ("Impression:", "FINDINGS:")

#: Images in a batch where only forward passes are made.
FORWARD_BATCH = 128


class ClsClip:
    """The model, its variants and its controls: `ClsClipConfig` says which.

    Stages, those that apply in this order:

    - ``base``: the general CLIP, pre-trained on ``scenes`` and shared with other plugins;
    - ``cls``: contrastive language supervision on ``mimic-cxr``, of all weights or of adapters;
    - ``statistics`` (instead of ``cls``, for a tower with BatchNorm that is not trained here):
      BatchNorm statistics over the same corpus images, in the same order, that ``cls`` ends with.

    Given weights are a general CLIP and stand for ``base``; with ``pretrain.done`` they are a
    finished CLS-CLIP and stand for ``cls`` as well.
    """

    def __init__(self, config: ClsClipConfig) -> None:
        self.config = config
        self.image_size = config.image_size
        self.clip = build_clip(config)
        self.adapters = nn.ModuleDict()
        if config.trained == "adapters":
            self.adapters = attach(self.clip, config.adapter_size, config.adapter_std)
            self.clip.requires_grad_(False)
            for layer in norms(self.clip).values():
                layer.requires_grad_(True)

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of values: ``total``, and ``trainable`` by CLS-CLIP's own stage."""
        everything = [*self.clip.parameters(), *self.adapters.parameters()]
        trained = [p for p in everything if p.requires_grad and self.config.language]
        return {"total": count(everything), "trainable": count(trained)}

    def to(self, device: torch.device | str) -> ClsClip:
        """Move to a device."""
        self.clip.to(device)
        self.adapters.to(device)
        return self

    @property
    def temperature(self) -> float:
        """Of zero-shot's softmax: the learnt one."""
        scale: torch.Tensor = self.clip.logit_scale.detach()  # type: ignore[operator]
        return 1 / float(scale.exp().clamp(max=MAX_SCALE))

    @property
    def _tower(self) -> nn.Module:
        tower: nn.Module = self.clip.visual  # type: ignore[assignment]
        return tower

    # --- training ---------------------------------------------------------------------------

    def stages(self, weights: State | None) -> tuple[Stage, ...]:
        """What is still to be trained. Raises WeightsError for finished weights not given."""
        config = self.config
        done = config.language and config.pretrain.done
        if done and weights is None:
            raise WeightsError(
                "pretrain.done says that the given weights are a finished CLS-CLIP, but none are "
                "given. Name them with --weights cls-clip=PATH, or leave pretrain.done out."
            )
        result: list[Stage] = []
        if weights is None and config.general:
            result.append(base_stage(config))
        values = config.values(*ClipConfig.model_fields, "general", "trained", "statistics_images")
        if config.trained == "adapters":
            values |= config.values("adapter_size", "adapter_std")
        needs = tuple(s.name for s in result)
        if config.language and not done:
            result.append(
                Stage(
                    name="cls",
                    corpus="mimic-cxr",
                    config=values | config.values("pretrain"),
                    needs=needs,
                    title="CLIP on radiographs and reports",
                    epochs=config.pretrain.epochs,
                    together=True,
                )
            )
        elif has_batchnorm(self._tower):
            result.append(
                Stage(
                    name="statistics",
                    corpus="mimic-cxr",
                    config=values | {"sentence_length": config.pretrain.sentence_length},
                    needs=needs,
                    title="normalisation statistics on radiographs",
                    epochs=1,
                )
            )
        return tuple(result)

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """Train one of `stages` in place; ``base`` is trained by its own class."""
        self.to(run.device)
        if stage.name == "cls":
            self._fit_cls(corpus, run)
        elif stage.name == "statistics":
            samples, _ = told_pairs(corpus, self.config.pretrain.sentence_length, run)
            chosen = self._statistics_samples(samples)
            images = _decode(corpus, chosen, self.image_size, run)
            recalibrate(self._tower, self._statistics_batches(images, run))
        else:
            raise ValueError(f"CLS-CLIP has no stage '{stage.name}' of its own")

    def _fit_cls(self, corpus: Corpus, run: FitRun) -> None:
        """Symmetric InfoNCE between augmented images and their reports, reworded each epoch."""
        config, recipe = self.config, self.config.pretrain
        everything, told = told_pairs(corpus, recipe.sentence_length, run)
        kept = fraction(
            patients_of(everything),
            ["pairs"] * len(everything),
            recipe.fraction,
            run.seed,
            fewest=2,  # what a contrast needs: no label is at stake
        ).tolist()
        samples = [everything[i] for i in kept]
        shown = self._statistics_samples(everything) if has_batchnorm(self._tower) else []
        needed = {s.id: s for s in (*samples, *shown)}  # each once, whatever it is for
        decoded = _decode(corpus, list(needed.values()), config.image_size, run)
        images = decoded.take(samples)
        wording = Wording(
            [told[i] for i in kept],
            run.seed,
            fraction=recipe.sentence_fraction,
            shuffle=recipe.shuffle,
        )
        augment = RandomAffine(
            run.seed,
            rotation=recipe.rotation,
            shift=recipe.shift,
            scale=recipe.scale,
            rank=run.ranks.rank,
        )

        pictures = Pictures(images, run.device)

        def begin(epoch: int) -> None:
            wording.begin(epoch)
            augment.begin(epoch)

        def of_images(chosen: torch.Tensor) -> torch.Tensor:
            return image_features(self.clip, augment(pictures(chosen)))

        def of_texts(chosen: torch.Tensor) -> torch.Tensor:
            tokens = tokenize(wording.texts(chosen.tolist()), recipe.tokens)
            return text_features(self.clip, tokens.to(run.device))

        train_contrastive(
            of_images,
            of_texts,
            len(samples),
            modules=[self.clip, self.adapters],
            recipe=Recipe(
                epochs=recipe.epochs,
                batch=recipe.batch,
                lr=recipe.lr,
                weight_decay=recipe.weight_decay,
                betas=(0.9, recipe.beta2),
                eps=recipe.eps,
                schedule="onecycle",
                warmup=recipe.rise,
            ),
            run=run,
            stage="cls",
            logit_scale=self.clip.logit_scale,  # type: ignore[arg-type]
            begin=begin,
            generators=[augment.generator],
            pictures=pictures,
        )
        if shown:
            recalibrate(self._tower, self._statistics_batches(decoded.take(shown), run))

    def _statistics_samples(self, samples: Sequence[Sample]) -> list[Sample]:
        """The same of the corpus for every variant, whatever fraction of it is trained on."""
        return [samples[i] for i in evenly(len(samples), self.config.statistics_images)]

    def _statistics_batches(self, images: Decoded, run: FitRun) -> Iterator[torch.Tensor]:
        """Batches of one size, not augmented."""
        size = min(FORWARD_BATCH, len(images))
        for start in range(0, len(images) - size + 1, size):
            pictures = images.stack(range(start, start + size)).to(run.device)
            yield normalise(to_unit(pictures))
            run.advance(start + size, len(images))

    # --- encoding ---------------------------------------------------------------------------

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 3, H, W] in [0, 1], H = W = ``image_size`` -> float32 [B, D], L2-normalised.

        Projected, as the official code probes them. Differentiable; where adapters are trained,
        they and the normalisation layers alone carry a gradient.
        """
        self._follow(images)
        return F.normalize(image_features(self.clip.eval(), images), dim=-1)

    def encode_patches(self, images: torch.Tensor) -> list[torch.Tensor]:
        """``images`` as `encode_images` takes them -> feature maps float32 [B, D, h, w], finest
        first, adapters included."""
        from medbench.models.patches import patch_features

        self._follow(images)
        return patch_features(self.clip.eval(), images)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """-> float32 [B, D], L2-normalised; texts are taken as they are, and cut at ``context``."""
        return embed_texts(self.clip.eval(), texts, self.config.context)

    def class_prompts(self, task: TaskSpec) -> list[list[str]]:
        """``<prefix> with <label>`` for each of `PREFIXES`, per label."""
        return [[f"{prefix} with {label.text}" for prefix in PREFIXES] for label in task.labels]

    def neutral_prompts(self, task: TaskSpec) -> list[str]:
        """The prefixes alone: what a label adds to them is its score."""
        return list(PREFIXES)

    def _follow(self, tensor: torch.Tensor) -> None:
        if self.clip.logit_scale.device != tensor.device:
            self.to(tensor.device)

    # --- drawing ----------------------------------------------------------------------------

    def generate_images(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
        """B prompts and a seed for each -> float32 [B, 3, H, W] in [0, 1], grey.

        Gradient ascent on pixels (`medbench_cls_clip.guidance`): it needs gradients wherever it is
        called, so it leaves inference mode.
        """
        with torch.inference_mode(False), torch.enable_grad():
            texts = self.encode_texts(prompts)
            return draw(self.encode_images, texts, seeds, self.image_size, self.config.guidance)

    # --- checkpoints ------------------------------------------------------------------------

    def state(self, stage: str) -> dict[str, torch.Tensor]:
        """What the stage decided, contiguous, on the CPU.

        ``cls``: all of the CLIP; or adapters, under ``adapters.``, and normalisation layers.
        """
        if stage == "cls":
            kept = self._trained()
        elif stage == "statistics":
            kept = statistics(self._tower)
        else:
            raise ValueError(f"CLS-CLIP keeps no stage '{stage}' of its own")
        return {key: value.detach().cpu().contiguous() for key, value in kept.items()}

    def _trained(self) -> dict[str, torch.Tensor]:
        if self.config.trained == "full":
            return dict(self.clip.state_dict())
        adapters = {f"{ADAPTERS}{k}": v for k, v in self.adapters.state_dict().items()}
        layers = norms(self.clip).items()
        return adapters | {f"{n}.{k}": v for n, m in layers for k, v in m.state_dict().items()}

    def load(self, stage: str, state: State) -> None:
        """Load a stage's checkpoint or, as ``"weights"``, a user's.

        A user's checkpoint is a CLIP in open_clip's, OpenAI's or Hugging Face's layout; for
        adapters it may hold them, too, under ``adapters.``, and with ``pretrain.done`` it must.
        Raises WeightsError naming the keys that do not fit.
        """
        if stage in ("weights", "base"):
            self._load_clip(state, finished=stage == "weights" and self.config.pretrain.done)
        elif stage == "cls":
            check_fit("CLS-CLIP", self._trained(), state)
            self._put(state)
        elif stage == "statistics":
            check_fit("the image tower's BatchNorm", statistics(self._tower), state)
            self._put({f"visual.{key}": value for key, value in state.items()})
        else:
            raise ValueError(f"CLS-CLIP has no stage '{stage}'")

    def _load_clip(self, state: State, finished: bool) -> None:
        plain = strip_wrappers(state)
        adapters = {k: v for k, v in plain.items() if k.startswith(ADAPTERS)}
        if self.config.trained == "adapters" and (adapters or finished):
            mine = {f"{ADAPTERS}{k}": v for k, v in self.adapters.state_dict().items()}
            check_fit("CLS-CLIP's adapters", mine, adapters)
            load_clip(self.clip, {k: v for k, v in plain.items() if k not in adapters})
            self._put(adapters)
        else:
            load_clip(self.clip, plain)

    def _put(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load tensors whose keys are known to fit; others stay as they are."""
        adapters = {k.removeprefix(ADAPTERS): v for k, v in state.items() if k.startswith(ADAPTERS)}
        self.adapters.load_state_dict(adapters, strict=bool(adapters))
        clip = {k: v for k, v in state.items() if not k.startswith(ADAPTERS)}
        self.clip.load_state_dict(clip, strict=False)


def _decode(corpus: Corpus, samples: Sequence[Sample], size: int, run: FitRun) -> Decoded:
    """Radiographs are large: each is decoded once, several at a time, and kept across a kill."""
    from medbench.data.decoded import INDEX, Decoded, decode

    folder = run.folder / f"images-{size}"
    if not (folder / INDEX).is_file():
        decode(
            corpus.reader,
            samples,
            size,
            folder,
            lambda done, total, _: run.advance(done, total),
            run.folder / f"decoding-{size}",
        )
    return Decoded.open(folder, samples)
