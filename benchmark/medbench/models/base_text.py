"""The frozen text encoder that stands where a published BERT stands at the published size.

It is a small BERT with CLIP's byte-pair vocabulary, pre-trained by masked language modelling
(Devlin et al., 2019, section 3.1) on captions of ``scenes`` (where general BERT stands) or on the
training reports of ``mimic-cxr`` (where the BERTs of the biomedical domain stand). Its stage is the
same for every plugin that asks for it with the same values, so they share one checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch.nn import functional as F

from medbench.data.samples import Corpus
from medbench.errors import DataError
from medbench.models.capabilities import FitRun, Stage, State
from medbench.models.clip import ASSUMED, check_fit
from medbench.models.contrastive import distinct, seeded
from medbench.models.descent import Recipe, descend
from medbench.models.text_encoder import TextEncoder
from medbench.models.tokenizer import END, START, VOCABULARY, tokenize

MASK = VOCABULARY  #: the one token that CLIP's vocabulary does not have
#: Texts of a batch where only forward passes are made.
_FORWARD_BATCH = 256


class BaseTextConfig(BaseModel):
    """A small BERT and how it is pre-trained where no weights are given.

    None of it comes from a paper but the shares of masked tokens: at the published size the weights
    are the published ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text_layers: int = Field(2, ge=1, description="of the encoder", json_schema_extra=ASSUMED)
    text_width: int = Field(
        128, ge=8, description="of the encoder: the feature", json_schema_extra=ASSUMED
    )
    text_heads: int = Field(4, ge=1, description="of its attention", json_schema_extra=ASSUMED)
    context: int = Field(
        77, ge=4, description="tokens of a text; more are cut", json_schema_extra=ASSUMED
    )
    text_epochs: int = Field(
        2, ge=1, description="passes over the distinct texts", json_schema_extra=ASSUMED
    )
    text_batch: int = Field(64, ge=1, description="texts in a batch", json_schema_extra=ASSUMED)
    text_lr: float = Field(
        2e-3, gt=0, description="peak rate of AdamW, cosine to 0", json_schema_extra=ASSUMED
    )
    text_weight_decay: float = Field(
        0.01, ge=0, description="AdamW's, on everything", json_schema_extra=ASSUMED
    )
    text_warmup: float = Field(
        0.1, ge=0, lt=1, description="share of steps with a rising rate", json_schema_extra=ASSUMED
    )
    text_masked: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="share of tokens to be told (Devlin et al., 2019)",
        json_schema_extra=ASSUMED,
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> BaseTextConfig:
        if self.text_width % self.text_heads:
            raise ValueError("text_width is not a multiple of text_heads")
        return self


def base_text_stage(
    config: BaseTextConfig, corpus: Literal["scenes", "mimic-cxr"] = "scenes"
) -> Stage:
    """The stage, from those values alone that decide its result."""
    domain = "captions of scenes" if corpus == "scenes" else f"reports of {corpus}"
    return Stage(
        name="text",
        corpus=corpus,
        cls="medbench.models.base_text:BaseText",
        config=config.model_dump(mode="json", include=set(BaseTextConfig.model_fields)),
        title=f"text encoder on {domain}",
        epochs=config.text_epochs,
        together=True,
    )


class SmallBert(TextEncoder):
    """transformers' BERT over CLIP's tokens; a text's vector is the mean over its tokens.

    The mean, start and end token included, because masked language modelling trains every token's
    state and no pooler: the published encoders' ``pooler_output`` comes from next-sentence
    prediction, which pairs of sentences alone can train.
    """

    def __init__(self, layers: int, width: int, heads: int, context: int) -> None:
        from transformers import BertConfig, BertForMaskedLM  # takes seconds, so only here

        super().__init__()
        self.dim, self.context = width, context
        config = BertConfig(
            vocab_size=VOCABULARY + 1,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=context,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,  # so short a training does not overfit
            attention_probs_dropout_prob=0.0,
            pad_token_id=None,
        )
        self.model: Any = BertForMaskedLM(config)

    def forward(self, texts: Sequence[str]) -> torch.Tensor:
        """B texts -> float32 [B, dim], the mean over each text's tokens."""
        device = self.model.device
        if not texts:
            return torch.zeros(0, self.dim, device=device)
        tokens = tokenize(texts, self.context).to(device)
        return torch.cat([self._mean(part) for part in torch.split(tokens, _FORWARD_BATCH)])

    def _mean(self, tokens: torch.Tensor) -> torch.Tensor:
        there = exists(tokens)  # [B, L]
        states = self.states(tokens, there).float()  # [B, l, D]
        weight = there[:, : states.shape[1], None].float()
        return (states * weight).sum(dim=1) / weight.sum(dim=1)

    def states(self, tokens: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        """int64 [B, L], bool [B, L] -> float [B, l, D], l the length of the longest text."""
        length = int(there.sum(dim=1).max())
        found: torch.Tensor = self.model.bert(
            input_ids=tokens[:, :length], attention_mask=there[:, :length].long()
        ).last_hidden_state
        return found

    def masked_loss(self, tokens: torch.Tensor, share: float, known: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of hidden tokens, a scalar.

        Of the ``share`` of words to be told 80 % are masked, 10 % are others and 10 % stand as
        they are; in a batch where chance tells none, one is told. Drawn from torch's CPU generator.

        Args:
            tokens: int64 [B, L], each text with a word in it.
            share: in (0, 1).
            known: int64 [K], ascending, the tokens there are in the corpus: the others are no
                candidates, which saves most of the time over a vocabulary of 49,408.
        """
        there = exists(tokens)
        draw, fate = torch.rand(2, *tokens.shape).to(tokens.device)
        others = known[torch.randint(len(known), tokens.shape).to(tokens.device)]
        word = there & (tokens != START) & (tokens != END)
        draw = draw.masked_fill(~word, 2)
        told = draw <= draw.min().clamp(min=share)
        given = torch.where(told & (fate < 0.8), MASK, tokens)
        given = torch.where(told & (fate >= 0.9), others, given)
        states = self.states(given, there)  # [B, l, D]
        told = told[:, : states.shape[1]]
        head = self.model.cls.predictions  # only where something is told, and for known tokens
        scores = F.linear(
            head.transform(states[told]), head.decoder.weight[known], head.decoder.bias[known]
        )  # [T, K]
        right = torch.searchsorted(known, tokens[:, : states.shape[1]][told])
        return F.cross_entropy(scores.float(), right)

    def load(self, state: State) -> None:
        """Load what `BaseText.state` gave, and freeze. Raises WeightsError naming keys."""
        own = self.kept()
        check_fit("the base text encoder", own, state)
        self.load_state_dict(dict(state), strict=False)
        self.freeze()

    def kept(self) -> dict[str, torch.Tensor]:
        """The encoder's tensors, without the head that tells tokens."""
        return {k: v for k, v in self.state_dict().items() if k.startswith("model.bert.")}


def exists(tokens: torch.Tensor) -> torch.Tensor:
    """int64 [B, L] of `tokenize` -> bool [B, L]: up to the end token, which has the highest id."""
    end = tokens.argmax(dim=1, keepdim=True)  # [B, 1]
    return torch.arange(tokens.shape[1], device=tokens.device) <= end


class BaseText:
    """Trains, keeps and loads the base text encoder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = BaseTextConfig.model_validate(dict(config))
        self.encoder = self._new()

    def _new(self) -> SmallBert:
        config = self.config
        return SmallBert(config.text_layers, config.text_width, config.text_heads, config.context)

    def stages(self, weights: State | None) -> tuple[Stage, ...]:
        """The one stage (of the general encoder), or none when its weights are given."""
        return () if weights is not None else (base_text_stage(self.config),)

    def fit(self, stage: Stage, corpus: Corpus, run: FitRun) -> None:
        """Train on the distinct texts of the corpus' training part; empty ones are left out.

        Raises DataError when there is none.
        """
        config = self.config
        texts, _ = distinct(
            [s.text for s in corpus.samples if s.text and s.split in (None, "", "train")]
        )
        tokens = tokenize(texts, config.context)  # [N, context]
        tokens = tokens[exists(tokens).sum(dim=1) > 2]  # more than start and end
        if not len(tokens):
            raise DataError(
                f"Corpus '{corpus.name}' has no texts to train the text encoder on (of samples "
                "whose split is empty or 'train'). Add texts."
            )
        with seeded(run.seed):
            self.encoder = self._new()
        encoder = self.encoder.to(run.device)
        known = torch.unique(tokens[exists(tokens)]).to(run.device)

        def tell(chosen: torch.Tensor) -> torch.Tensor:
            with run.autocast():
                return encoder.masked_loss(tokens[chosen].to(run.device), config.text_masked, known)

        descend(
            tell,
            len(tokens),
            modules=[encoder],
            recipe=Recipe(
                epochs=config.text_epochs,
                batch=config.text_batch,
                lr=config.text_lr,
                weight_decay=config.text_weight_decay,
                schedule="cosine",
                warmup=config.text_warmup,
            ),
            run=run,
            stage=stage.name,
        )
        encoder.freeze()

    def state(self, stage: str) -> dict[str, torch.Tensor]:
        """The encoder alone, contiguous, on the CPU."""
        return {k: v.detach().cpu().contiguous() for k, v in self.encoder.kept().items()}

    def load(self, stage: str, state: State) -> None:
        """Load `state` and freeze. Raises WeightsError naming keys that do not fit."""
        self.encoder.load(state)
