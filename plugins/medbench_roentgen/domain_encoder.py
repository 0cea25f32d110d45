"""A BERT of the domain where Stable Diffusion has CLIP's text encoder.

The paper tries RadBERT and SapBERT. The U-Net attends to the states of their last layer; padding
is hidden from it (assumed: the paper does not say; CLIP's padding is seen, as Stable Diffusion has
it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from medbench.errors import WeightsError
from medbench.models.backbones import read_tokenizer, text_of
from medbench.models.base_text import SmallBert, exists
from medbench.models.capabilities import State
from medbench.models.latent_diffusion import PromptEncoder, States
from medbench.models.tokenizer import tokenize
from medbench_roentgen.config import RoentGenConfig
from medbench_roentgen.files import BERT


class DomainPrompts(PromptEncoder):
    """transformers' BERT, and the tokenizer it was trained with.

    Args:
        bert: a ``BertModel``.
        window: tokens of a prompt; more are cut.
        tokenizer: of Rust's ``tokenizers``; None: CLIP's byte pairs, as `SmallBert` reads them.
    """

    def __init__(self, bert: Any, window: int, tokenizer: Any = None) -> None:
        super().__init__()
        self.model = bert
        self.window = window
        self._tokenizer = tokenizer

    def forward(self, prompts: Sequence[str]) -> States:
        """B prompts -> states float [B, window, W], and where there is a token."""
        tokens, there = self._read(prompts, self.window)
        tokens, there = tokens.to(self.model.device), there.to(self.model.device)
        found = self.model(input_ids=tokens, attention_mask=there.long())
        return States(found.last_hidden_state, there)

    def pooled(self, prompts: Sequence[str]) -> torch.Tensor:
        """B prompts -> float32 [B, W], the mean over each prompt's tokens."""
        found = self(prompts)
        weight = found.mask[..., None].float()
        mean: torch.Tensor = (found.states.float() * weight).sum(1) / weight.sum(1)
        return mean

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, start and end among them; counted up to 1,024."""
        _, there = self._read(prompts, 1024)
        return there.sum(1).tolist()

    def _read(self, prompts: Sequence[str], window: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens int64 [B, window], and bool [B, window] where there is one."""
        if self._tokenizer is None:
            tokens = tokenize(prompts, window)
            return tokens, exists(tokens)
        self._tokenizer.enable_truncation(window)
        tokens = torch.zeros(len(prompts), window, dtype=torch.long)
        there = torch.zeros(len(prompts), window, dtype=torch.bool)
        for row, encoding in enumerate(self._tokenizer.encode_batch(list(prompts))):
            tokens[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
            there[row, : len(encoding.ids)] = True
        return tokens, there


def load_domain_encoder(config: RoentGenConfig, state: State) -> DomainPrompts:
    """The encoder of a given folder's tensors and files; or the stand-in that stage ``text``
    trained. Raises WeightsError for one that does not fit, or is of another width than the U-Net
    attends to."""
    if not set(BERT) & set(state):
        stand_in = SmallBert(
            config.domain.text_layers,
            config.domain.text_width,
            config.domain.text_heads,
            config.domain.context,
        )
        stand_in.load(state)
        encoder = DomainPrompts(stand_in.model.bert, config.domain.context)
    else:
        given = {k: v for k, v in state.items() if "/" not in k and k != "model_index.json"}
        found: Any = text_of(given, config.window)
        tokenizer = read_tokenizer(given, True, config.window)
        encoder = DomainPrompts(found.model, found.context, tokenizer)
    width = encoder.model.config.hidden_size
    if width != config.text_width:
        raise WeightsError(
            f"The domain's text encoder has states of {width} values; the U-Net attends to "
            f"{config.text_width}. Give one of that width."
        )
    return encoder.requires_grad_(False).eval()
