"""Beam search, and that keeping what was read changes nothing."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from unicrossadapter_toys import make, stirred, toy_views

from medbench.errors import DataError
from medbench_unicrossadapter.beam import beam_search
from medbench_unicrossadapter.model import UniCrossAdapter

CPU = torch.device("cpu")


def table(seed: int, studies: int, beam: int, words: int = 5):  # type: ignore[no-untyped-def]
    """A step whose logits depend on the study, the place and the last word."""
    drawn = torch.randn(studies, 12, words, words, generator=torch.Generator().manual_seed(seed))

    def step(tokens: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        study = torch.arange(studies).repeat_interleave(beam)
        return drawn[study, tokens.shape[1] - 1, tokens[:, -1]]

    return step, drawn


def greedy(drawn: torch.Tensor, study: int, length: int) -> list[int]:
    found, last = [], 0
    for place in range(length):
        logits = drawn[study, place, last].clone()
        logits[1] = -math.inf
        last = int(logits.argmax())
        if last == 0:
            break
        found.append(last)
    return found


def likeliest(drawn: torch.Tensor, study: int, length: int) -> list[int]:
    """By trying every report."""
    best, score = [], -math.inf
    chances = drawn[study].log_softmax(-1)
    for size in range(length + 1):
        for words in itertools.product(range(2, drawn.shape[-1]), repeat=size):
            row = [0, *words, *([0] if size < length else [])]
            total = sum(float(chances[i, a, b]) for i, (a, b) in enumerate(itertools.pairwise(row)))
            if total > score:
                best, score = list(words), total
    return best


def test_a_beam_of_one_is_greedy() -> None:
    step, drawn = table(0, 6, 1)
    found = beam_search(step, 6, beam=1, words=8, device=CPU)
    assert found == [greedy(drawn, i, 8) for i in range(6)]
    assert any(found)
    assert any(len(row) < 8 for row in found)


def test_a_beam_that_holds_everything_finds_the_likeliest() -> None:
    step, drawn = table(1, 4, 64)
    found = beam_search(step, 4, beam=64, words=4, device=CPU)
    assert found == [likeliest(drawn, i, 4) for i in range(4)]
    assert found != [greedy(drawn, i, 4) for i in range(4)]


def test_the_unknown_word_is_never_written() -> None:
    def step(tokens: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        return torch.tensor([0.0, 9.0, 1.0]).expand(len(tokens), -1)

    assert beam_search(step, 1, beam=1, words=3, device=CPU) == [[2, 2, 2]]


def test_repeated_trigrams_are_discounted() -> None:
    def step(tokens: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        logits = torch.full((len(tokens), 6), -9.0)
        following = {0: 2, 2: 3, 3: 4, 4: 2, 5: 2}  # 2 3 4 2 3 4 ...
        for row, last in enumerate(tokens[:, -1].tolist()):
            logits[row, following[last]] = 1.0
        logits[:, 5] = 0.5
        return logits

    def search(block: bool) -> list[int]:
        return beam_search(step, 1, beam=1, words=8, device=CPU, block_trigrams=block)[0]

    assert search(False) == [2, 3, 4, 2, 3, 4, 2, 3]
    # after 2 3 once more, 4 is worth 1 - 2 log 2, less than 0.5
    assert search(True)[:6] == [2, 3, 4, 2, 3, 5]


# --- the model's own steps ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> UniCrossAdapter:
    return stirred(make())


def test_keeping_what_was_read_changes_no_report(model: UniCrossAdapter) -> None:
    images, mask = toy_views(6)
    with torch.no_grad():
        rows = [
            beam_search(step, 6, beam=3, words=12, device=CPU)
            for step in (model._going_on(images, mask), model._rereading(images, mask))
        ]
    assert rows[0] == rows[1]
    assert len({tuple(row) for row in rows[0]}) > 1


def test_a_beam_of_one_gives_the_greedy_report(model: UniCrossAdapter) -> None:
    images, mask = toy_views()
    alone = stirred(make(beam=1))
    with torch.no_grad():
        seen = alone.network.see(images, mask)
        tokens = torch.zeros(5, 1, dtype=torch.long)
        for _ in range(15):
            logits = alone.network.read(tokens, seen)[:, -1]
            logits[:, 1] = -math.inf
            word = logits.argmax(-1, keepdim=True)
            word[(tokens[:, 1:] == 0).any(1)] = 0
            tokens = torch.cat([tokens, word], dim=1)
    expected = [[w for w in row if w] for row in tokens.tolist()]
    assert alone.generate_reports(images, mask) == [alone.vocabulary.decode(r) for r in expected]


@pytest.mark.parametrize("leaks", [False, True])
def test_order_and_size_of_a_batch_change_no_report(leaks: bool) -> None:
    model = stirred(make(leaks=leaks, max_length=8))
    images, mask = toy_views()
    whole = model.generate_reports(images, mask)
    order = [4, 2, 0, 3, 1]
    assert model.generate_reports(images[order], mask[order]) == [whole[i] for i in order]
    single = [model.generate_reports(images[i : i + 1], mask[i : i + 1])[0] for i in range(5)]
    assert single == whole
    assert len(set(whole)) > 1


def test_of_three_views_the_first_two_are_read(model: UniCrossAdapter) -> None:
    images, _ = toy_views(3)
    third = torch.cat([images, torch.rand(3, 1, 3, 32, 32)], dim=1)
    mask = torch.ones(3, 3, dtype=torch.bool)
    expected = model.generate_reports(images, mask[:, :2])
    assert model.generate_reports(third, mask) == expected
    gap = torch.tensor([[True, False, True]] * 3)  # the second is missing: the third is read
    read = model.generate_reports(third[:, [0, 2]], mask[:, :2])
    assert model.generate_reports(third, gap) == read


def test_a_study_without_an_image_is_refused(model: UniCrossAdapter) -> None:
    images, mask = toy_views()
    mask[3] = False
    with pytest.raises(DataError, match="Study 3 of a batch of 5 has no image"):
        model.generate_reports(images, mask)


def test_an_untrained_model_says_so() -> None:
    with pytest.raises(DataError, match="learnt no words"):
        make().generate_reports(*toy_views())


def test_explanations_go_with_the_reports(model: UniCrossAdapter) -> None:
    images, mask = toy_views()
    reports = model.generate_reports(images, mask)
    for i, (words, paid) in enumerate(model.explain_reports(images, mask)):
        assert " ".join(words).replace(" .", ".") == reports[i]
        assert paid.shape == (len(words), 2, 2, 2)
        assert bool((paid >= 0).all())
        total = paid.sum((1, 2, 3))
        assert bool(((total > 0) & (total <= 1 + 1e-5)).all())
        if not mask[i, 1]:
            assert not paid[:, 1].any()
