"""RoentGen (arXiv 2211.12737): Stable Diffusion adapted to chest radiographs.

Read from top to bottom: what is trained in which order, how images are drawn, and how checkpoints
come and go. The networks are in `medbench.models.latent_diffusion`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F

from medbench.data.samples import Corpus
from medbench.errors import WeightsError
from medbench.models.base_diffusion import base_diffusion_stages
from medbench.models.base_text import base_text_stage
from medbench.models.capabilities import FitRun, Stage, State
from medbench.models.clip import count
from medbench.models.latent_diffusion import LatentDiffusion
from medbench_roentgen.checkpoint import read_checkpoint
from medbench_roentgen.config import RoentGenConfig
from medbench_roentgen.domain_encoder import load_domain_encoder
from medbench_roentgen.latents import latents_of
from medbench_roentgen.prompts import prompt_of, refuse_empty, told_images
from medbench_roentgen.training import adapt, trained_parts

logger = logging.getLogger("medbench")

#: Texts at a time where they alone are encoded.
_TEXTS = 64


class RoentGen:
    """The model, its variants and its controls: `RoentGenConfig` says which.

    Stages: ``vae`` and ``base``, the general latent diffusion model, pre-trained on ``scenes`` and
    shared (or ``base`` alone, a folder of Stable Diffusion's); ``text``, the encoder of the domain,
    where there is one; and ``adapt``, on the training part of the task.
    """

    def __init__(self, config: RoentGenConfig) -> None:
        self.config = config
        self.image_size = config.image_size
        # without values: all of them come with a stage or with given weights
        self.model = LatentDiffusion(config, empty=True)
        self.safety_checker = False  #: whether the given folder has one; it is never run
        self.cut_prompts = 0  #: of those drawn so far, how many were longer than the window

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of values: ``total``, and ``trainable`` by the stage ``adapt``."""
        parts = trained_parts(self.config.train) if self.config.adapted else ()
        return {
            "total": count(self.model.parameters()),
            "trainable": sum(count(getattr(self.model, part).parameters()) for part in parts),
        }

    # --- training ---------------------------------------------------------------------------

    def stages(self, weights: State | None) -> tuple[Stage, ...]:
        """What is still to be trained, or given in parts."""
        config = self.config
        found: tuple[Stage, ...] = ()
        if weights is None and config.start == "scenes":
            # a folder of the user's, --weights roentgen@base=PATH, stands for both
            found += tuple(replace(s, weights="base") for s in base_diffusion_stages(config))
        elif weights is None:
            found += (_given("base", "latent diffusion model (Stable Diffusion v1-4)", "base"),)
        if config.prompts == "domain" and config.start == "scenes":
            found += (replace(base_text_stage(config.domain, "mimic-cxr"), weights="domain"),)
        elif config.prompts == "domain":
            found += (_given("text", "text encoder of the domain", "domain"),)
        if weights is None and config.adapted:
            own = Stage(
                name="adapt",
                corpus="task",
                config=config.adaptation(),
                needs=tuple(stage.name for stage in found),
                title="RoentGen on radiographs and impressions",
                epochs=0,
            )
            found += (own,)
        return found

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """Train stage ``adapt`` in place; others are trained by their own classes, or given."""
        if stage.name != "adapt":
            raise WeightsError(
                f"The published weights of stage '{stage.name}' ({stage.title}) are not trained "
                f"here. Name a local folder with --weights roentgen@{stage.weights}=PATH."
            )
        if self.safety_checker:
            run.warn("The given folder has a safety checker; it is not run, and no image is hidden")
        samples = told_images(corpus, run)
        prompts = [prompt_of(sample) for sample in samples]
        cut = self._cut(prompts)
        if cut:
            run.warn(
                f"{cut:,} of {len(prompts):,} training prompts have more than "
                f"{self.config.window} tokens and are cut."
            )
        latents = latents_of(self.model, corpus, samples, run)
        losses = adapt(self.model, latents, prompts, self.config.train, run)
        if losses:
            run.warn(f"noise loss of the last {self.config.train.block} steps: {losses[-1]:.4f}")

    def _cut(self, prompts: Sequence[str]) -> int:
        """How many prompts are longer than the window."""
        return sum(n > self.config.window for n in self.model.text_encoder.lengths(prompts))

    # --- drawing ----------------------------------------------------------------------------

    def generate_images(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
        """B prompts and a seed for each -> float32 [B, 3, H, W] in [0, 1], H = W = ``image_size``.

        An image depends on its prompt and its seed alone. Prompts longer than the window are cut
        there and counted (``cut_prompts``); the first are logged. Raises DataError, with its index,
        for an empty prompt, unless prompts are not used at all.
        """
        return self.explain_images(prompts, seeds, 1)[:, 0]

    @torch.no_grad()
    def explain_images(
        self, prompts: Sequence[str], seeds: Sequence[int], count: int
    ) -> torch.Tensor:
        """How images come about: float32 [B, ``count``, 3, H, W] in [0, 1].

        Arguments and errors as `generate_images`. At ``count`` steps, evenly spread, what the
        U-Net took for the clean image then; the last is the finished image.
        """
        sampling = self.config.sampling
        if sampling.prompted:
            refuse_empty(prompts)
            self._count_cut(prompts)
        side = self.image_size
        if not prompts:
            return torch.zeros(0, count, 3, side, side, device=self.model.device)
        self.model.eval()
        empty = self.model.text_encoder([""])
        found: list[torch.Tensor] = []
        for start in range(0, len(prompts), sampling.batch):
            part = slice(start, start + sampling.batch)
            asked = prompts[part] if sampling.prompted else [""] * len(prompts[part])
            with self._autocast():
                seen = self.model.draw(
                    self.model.text_encoder(asked),
                    empty,
                    seeds[part],
                    steps=sampling.steps,
                    guidance=sampling.guidance if sampling.prompted else 1.0,
                    watched=count,
                )
            found.append(torch.stack([self.model.decode(latents) for latents in seen], dim=1))
        return torch.cat(found)

    def _count_cut(self, prompts: Sequence[str]) -> None:
        """Count the prompts that are cut; the first time there are some, say so."""
        cut = self._cut(prompts)
        if cut and not self.cut_prompts:
            logger.warning(
                "%d of %d prompts have more than %d tokens and are cut; so are later ones.",
                cut,
                len(prompts),
                self.config.window,
            )
        self.cut_prompts += cut

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        device = self.model.device
        if self.config.sampling.bf16 and device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    @property
    def notes(self) -> list[str]:
        """What happened in drawing that a reader of the record has to know."""
        found = []
        if self.cut_prompts:
            found.append(
                f"{self.cut_prompts:,} times a prompt of more than {self.config.window} tokens "
                "was cut in drawing"
            )
        if self.safety_checker:
            found.append("the given folder has a safety checker; it was not run: no image hidden")
        return found

    # --- texts ------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """-> float32 [B, W], L2-normalised: the state of CLIP's end token, or the mean over a
        BERT's tokens. What a probe of the text encoder sees; there are no features of images in
        the same space."""
        self.model.eval()
        parts = [texts[i : i + _TEXTS] for i in range(0, len(texts), _TEXTS)]
        found = [self.model.text_encoder.pooled(part) for part in parts]
        if not found:
            return torch.zeros(0, self.config.text_width, device=self.model.device)
        return F.normalize(torch.cat(found), dim=-1)

    # --- checkpoints ------------------------------------------------------------------------

    def state(self, stage: str) -> dict[str, torch.Tensor]:
        """The parts that training changed; contiguous, on the CPU."""
        if stage != "adapt":
            raise ValueError(f"RoentGen keeps no stage '{stage}' of its own")
        return self.model.kept(*trained_parts(self.config.train))

    def load(self, stage: str, state: State) -> None:
        """Load a stage's checkpoint or, as ``"weights"`` or ``"base"``, a folder of the user's.

        Raises WeightsError: no scheduler's configuration, keys that do not fit.
        """
        if stage in ("weights", "base"):
            self._load_whole(state)
        elif stage == "text":
            self.model.text_encoder = load_domain_encoder(self.config, state).to(self.model.device)
        elif stage == "adapt":
            self.model.load(state, *trained_parts(self.config.train))
        elif stage != "vae":  # which stands in the state of "base", too
            raise ValueError(f"RoentGen has no stage '{stage}'")

    def _load_whole(self, state: State) -> None:
        found = read_checkpoint(state)
        tensors = found.tensors
        parts: tuple[str, ...] = ("vae", "unet", "scaling", "text_encoder")
        if self.config.prompts == "domain":  # another text encoder comes in its place
            parts = parts[:3]
            tensors = {k: v for k, v in tensors.items() if not k.startswith("text_encoder.")}
        self.model.load(tensors, *parts)
        if found.schedule is not None:
            self.model.schedule = found.schedule
        self.safety_checker = found.safety_checker
        if found.safety_checker:
            logger.warning("The folder has a safety checker; it is not run: no image is hidden.")

    def save_pretrained(self, folder: Path) -> None:
        """Write a folder that diffusers' ``StableDiffusionPipeline.from_pretrained`` reads, and
        ``--weights roentgen=FOLDER``. Raises WeightsError for a text encoder other than CLIP's."""
        self.model.save_pretrained(folder)


def _given(name: str, title: str, weights: str) -> Stage:
    return Stage(
        name=name,
        corpus="scenes",  # never opened: nothing is trained
        config={},
        title=title,
        weights=weights,
    )
