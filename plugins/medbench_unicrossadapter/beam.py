"""Beam search over many studies at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from medbench_unicrossadapter.network import START

#: Words so far, int64 [N, t] with `START` first, and which of the rows of the step before each row
#: goes on from, int64 [N] (None in the first step) -> logits of the next word, float [N, words].
Step = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


def beam_search(
    step: Step,
    studies: int,
    *,
    beam: int,
    words: int,
    device: torch.device,
    block_trigrams: bool = False,
) -> list[list[int]]:
    """The likeliest report found for each study, as word numbers without start and end.

    The score is the sum of log probabilities, without a reward for length. A finished report keeps
    its score and its place in the beam. Number 1, the unknown word, is never written.

    Args:
        step: see `Step`; rows of a study stand together, N = ``studies`` x ``beam``.
        studies: number of them.
        beam: 1 is greedy decoding.
        words: most words of a report.
        device: of the logits.
        block_trigrams: lower the log probability of a word by 2 log 2 for each earlier time that it
            has followed the same two words in the report.
    """
    count = studies * beam
    tokens = torch.full((count, 1), START, device=device)
    scores = torch.full((studies, beam), float("-inf"), device=device)
    scores[:, 0] = 0.0  # all beams begin alike: only the first may go on
    ended = torch.zeros(count, dtype=torch.bool, device=device)
    first = torch.arange(studies, device=device)[:, None] * beam
    rows = None
    for _ in range(words):
        chances = step(tokens, rows).float().log_softmax(-1)  # [N, words]
        chances[:, 1] = float("-inf")
        if block_trigrams:
            chances = chances - _repetition(tokens, chances.shape[1])
        chances[ended] = float("-inf")
        chances[ended, START] = 0.0
        size = chances.shape[1]
        totals = (scores.view(-1, 1) + chances).view(studies, beam * size)
        scores, best = totals.topk(beam, dim=1)
        rows = (first + best // size).view(-1)
        word = (best % size).view(-1)
        tokens = torch.cat([tokens[rows], word[:, None]], dim=1)
        ended = ended[rows] | (word == START)
        # scores only fall: a finished report at the top stays there
        if bool(ended.view(studies, beam)[:, 0].all()):
            break
    found: list[list[int]] = tokens.view(studies, beam, -1)[:, 0, 1:].tolist()
    return [row[: row.index(START)] if START in row else row for row in found]


def _repetition(tokens: torch.Tensor, words: int) -> torch.Tensor:
    """2 log 2 times how often each word has followed the last two: float [N, words]."""
    found = torch.zeros(len(tokens), words, device=tokens.device)
    if tokens.shape[1] > 3:
        same = (tokens[:, 1:-2] == tokens[:, -2:-1]) & (tokens[:, 2:-1] == tokens[:, -1:])
        found.scatter_add_(1, tokens[:, 3:], same.float())
    return found * (2 * math.log(2))
