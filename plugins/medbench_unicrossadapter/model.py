"""UniCrossAdapter (arXiv 2503.15940): radiology reports from a frozen CLIP with adapters.

Read from top to bottom: what is trained in which order, how reports are written, and how
checkpoints come and go. The network is in `medbench_unicrossadapter.network`.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from medbench.data.samples import Corpus
from medbench.errors import DataError, WeightsError
from medbench.models.base_clip import base_stage
from medbench.models.capabilities import FitRun, Stage, State
from medbench.models.clip import build_clip, check_fit, count, load_clip
from medbench.models.contrastive import seeded
from medbench_unicrossadapter.attention import Cache
from medbench_unicrossadapter.beam import Step, beam_search
from medbench_unicrossadapter.config import UniCrossAdapterConfig
from medbench_unicrossadapter.network import START, ReportNetwork
from medbench_unicrossadapter.studies import studies_of
from medbench_unicrossadapter.training import Reports, train_reports
from medbench_unicrossadapter.vocabulary import Vocabulary


class UniCrossAdapter:
    """The model, its variants and its controls: `UniCrossAdapterConfig` says which.

    Stages: ``base``, the general CLIP, pre-trained on ``scenes`` and shared with other plugins; and
    ``reports``, everything else, on the training part of the task.
    """

    def __init__(self, config: UniCrossAdapterConfig) -> None:
        self.config = config
        self.image_size = config.image_size
        self.vocabulary = Vocabulary(config.vocabulary, [])
        self.network = ReportNetwork(config, len(self.vocabulary)).eval()

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of values: ``total``, and ``trainable`` by the stage ``reports``."""
        return {
            "total": count(self.network.parameters()),
            "trainable": count(p for p in self.network.parameters() if p.requires_grad),
        }

    # --- training ---------------------------------------------------------------------------

    def stages(self, weights: State | None) -> tuple[Stage, ...]:
        """What is still to be trained: nothing when a whole model is given."""
        if weights is not None:
            return ()
        config = self.config
        # a general CLIP of the user's, --weights unicrossadapter@clip=PATH, stands for the base
        base = (replace(base_stage(config), weights="clip"),) if config.general else ()
        reports = Stage(
            name="reports",
            corpus="task",
            config=config.values(),
            needs=tuple(stage.name for stage in base),
            title="adapters, encoder and decoder on reports",
            epochs=config.epochs,
        )
        return (*base, reports)

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """Train stage ``reports`` in place; ``base`` is trained by its own class."""
        if stage.name != "reports":
            raise ValueError(f"UniCrossAdapter has no stage '{stage.name}' of its own")
        config = self.config
        if config.leaks:
            run.warn(
                "This is the released code's form, which leaks: in training its adapters see the "
                "words that are to be predicted. Its loss says nothing, and its reports suffer."
            )
        train, val = studies_of(corpus, config.views, run)
        self.vocabulary = Vocabulary.of(
            config.vocabulary, [study.report for study in train], config.min_frequency
        )
        with seeded(run.seed):
            clip = self.network.clip if config.general else build_clip(config)
            self.network = ReportNetwork(config, len(self.vocabulary), clip)
        with torch.no_grad():
            table = self.network.clip.token_embedding.weight.cpu()
            self.network.words.weight.copy_(self.vocabulary.clip_rows(table))
        self.network.to(run.device)
        learnt = Reports(corpus, train, self.vocabulary, config.train_size, config.max_length)
        judged = Reports(corpus, val, self.vocabulary, config.image_size, config.max_length)
        _tell(learnt, config, run)
        for reports in (learnt, judged):
            reports.images.warm(run.advance)
        history = train_reports(self.network, learnt, judged, config, run)
        best = history.losses.index(min(history.losses))
        run.warn(
            f"epoch {best + 1} of {config.epochs} is kept: its loss per word on the validation "
            f"part is {history.losses[best]:.3f}"
        )

    # --- writing reports --------------------------------------------------------------------

    @torch.no_grad()
    def generate_reports(self, images: torch.Tensor, mask: torch.Tensor) -> list[str]:
        """Write the report of each study.

        Args:
            images: float32 [B, V, 3, H, W] in [0, 1], H = W = ``image_size``, frontal view first.
            mask: bool [B, V], True where a view exists. Of more than ``config.views`` the first
                are taken.

        Returns:
            B texts in lower case, words of the vocabulary, a dot after each sentence.

        Raises:
            DataError: a study has no image, or the model knows no words yet.
        """
        images, mask = self._prepared(images, mask)
        return [self.vocabulary.decode(row) for row in self._write(images, mask)]

    @torch.no_grad()
    def explain_reports(
        self, images: torch.Tensor, mask: torch.Tensor
    ) -> list[tuple[list[str], torch.Tensor]]:
        """Write reports, and say where the decoder looked as it wrote each token.

        Arguments and errors as `generate_reports`. Returns for each study T tokens (words; byte
        pairs with ``vocabulary="bpe"``) and float32 [T, V, h, h]: the last layer's attention to
        each place of each view, mean over heads. A token's sum is at most 1: the rest went to the
        study's own token. Views that do not exist, or were not taken, have 0.
        """
        kept, taken = self._prepared(images, mask)
        rows = self._write(kept, taken)
        grid = self.image_size // 16
        found = []
        for i, numbers in enumerate(rows):
            ids = torch.tensor([[START, *numbers]], device=kept.device)
            seen = self.network.see(kept[i : i + 1], taken[i : i + 1], ids)
            watch: list[torch.Tensor] = []
            self.network.read(ids, seen, watch=watch)
            # the place that gave word j is that of the word before it
            looked = watch[-1][0, : len(numbers), 1:].reshape(len(numbers), -1, grid, grid)
            whole = looked.new_zeros(len(numbers), mask.shape[1], grid, grid)
            whole[:, : looked.shape[1]] = looked
            tokens = [self.vocabulary.tokens[n - 2].removesuffix("</w>") for n in numbers]
            found.append((tokens, whole.cpu()))
        return found

    def _prepared(
        self, images: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """On the network's device's terms: at most so many views of each study."""
        if not self.vocabulary.tokens:
            raise DataError(
                "This UniCrossAdapter has learnt no words. Train its stage 'reports', or load a "
                "checkpoint of it."
            )
        empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
        if empty:
            raise DataError(
                f"Study {empty[0]} of a batch of {len(mask)} has no image: there is nothing to "
                "report on. Leave it out."
            )
        if self.network.study_token.device != images.device:
            self.network.to(images.device)
        self.network.eval()
        taken = mask & (mask.cumsum(1) <= self.config.views)
        last = int(taken.any(dim=0).nonzero().max()) + 1
        return images[:, :last], taken[:, :last]

    def _write(self, images: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
        config = self.config
        return beam_search(
            self._rereading(images, mask) if config.leaks else self._going_on(images, mask),
            len(mask),
            beam=config.beam,
            words=config.max_length - 1,
            device=images.device,
            block_trigrams=config.block_trigrams,
        )

    def _going_on(self, images: torch.Tensor, mask: torch.Tensor) -> Step:
        """The images are looked at once, and each word is read once."""
        seen, cache = self.network.see(images, mask), Cache()

        def step(tokens: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
            if rows is not None:
                cache.reorder(rows)
            return self.network.read(tokens[:, -1:], seen, cache)[:, -1]

        return step

    def _rereading(self, images: torch.Tensor, mask: torch.Tensor) -> Step:
        """Every word changes what is made of the images and of all other words."""
        beam, network = self.config.beam, self.network
        begun = network.begin(images, mask).repeat_interleave(beam, 0)
        beams = mask.repeat_interleave(beam, 0)

        def step(tokens: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
            return network.read(tokens, network.look(begun, beams, tokens))[:, -1]

        return step

    # --- checkpoints ------------------------------------------------------------------------

    def state(self, stage: str) -> dict[str, torch.Tensor]:
        """The whole network, CLIP included, and its vocabulary; contiguous, on the CPU."""
        if stage != "reports":
            raise ValueError(f"UniCrossAdapter keeps no stage '{stage}' of its own")
        # cloned: tensors that share memory cannot be written
        state = {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
        state = {key: value.contiguous() for key, value in state.items()}
        return {**state, "vocabulary": self.vocabulary.to_tensor()}

    def load(self, stage: str, state: State) -> None:
        """Load a stage's checkpoint or, as ``"weights"``, a user's, which is one of ``reports``.

        Raises WeightsError: a vocabulary that does not fit, another depth, keys that do not fit.
        """
        if stage == "base":
            load_clip(self.network.clip, state)
        elif stage in ("reports", "weights"):
            self._load_reports(dict(state))
        else:
            raise ValueError(f"UniCrossAdapter has no stage '{stage}'")

    def _load_reports(self, state: dict[str, torch.Tensor]) -> None:
        if "vocabulary" not in state:
            raise WeightsError(
                "The weights hold no vocabulary: they are not a UniCrossAdapter's. Give a "
                "checkpoint of its stage 'reports', or a CLIP with --weights "
                "unicrossadapter@clip=PATH."
            )
        vocabulary = Vocabulary.from_tensor(state.pop("vocabulary"))
        self._refuse_unlike(vocabulary, state)
        network = self.network
        if len(vocabulary) != network.words.num_embeddings:
            network = ReportNetwork(self.config, len(vocabulary), network.clip).eval()
        check_fit("UniCrossAdapter", network.state_dict(), state)
        network.load_state_dict(state)
        self.network, self.vocabulary = network, vocabulary

    def _refuse_unlike(self, vocabulary: Vocabulary, state: State) -> None:
        config = self.config
        if vocabulary.kind != config.vocabulary:
            raise WeightsError(
                f"The checkpoint writes {vocabulary.kind}, the configuration asks for "
                f"{config.vocabulary}. Set vocabulary={vocabulary.kind}, or give another one."
            )
        for key in ("words.weight", "head.weight"):
            if key in state and len(state[key]) != len(vocabulary):
                raise WeightsError(
                    f"The checkpoint's vocabulary has {len(vocabulary):,} tokens, but its {key} "
                    f"has {len(state[key]):,} rows: they are not of one training. Give a "
                    "checkpoint that holds both."
                )
        for part in ("encoder", "decoder"):
            layers = len({key.split(".")[1] for key in state if key.startswith(f"{part}.")})
            if layers != config.layers:
                raise WeightsError(
                    f"The checkpoint's {part} has {layers} layers, the configuration's "
                    f"{config.layers}. The published depth is 3 for IU X-ray and 6 for MIMIC-CXR: "
                    "use the variant @mimic for the latter, or give the other checkpoint."
                )


def _tell(reports: Reports, config: UniCrossAdapterConfig, run: FitRun) -> None:
    """What training does not get to see of its reports."""
    longer = sum(len(words) + 2 > config.max_length for words in reports.words)
    if longer:
        run.warn(
            f"{longer:,} of {len(reports):,} training reports have more than "
            f"{config.max_length - 2} tokens and are cut after {config.max_length - 1}."
        )
    total = sum(map(len, reports.words))
    unknown = sum(words.count(1) for words in reports.words)
    if unknown:
        run.warn(
            f"{unknown:,} of {total:,} tokens of the training reports occur less than "
            f"{config.min_frequency} times and are unknown words."
        )
