"""The base text encoder: what it gives, how it is trained, and that it stays as it was loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.data.samples import Corpus, Sample
from medbench.errors import DataError, WeightsError
from medbench.models.base_text import (
    BaseText,
    BaseTextConfig,
    SmallBert,
    base_text_stage,
    exists,
)
from medbench.models.capabilities import State
from medbench.models.contrastive import seeded
from medbench.models.tokenizer import tokenize
from medbench.run.fitting import StageRun

WORDS = ("lungs", "are", "clear", "small", "left", "pleural", "effusion", "no", "right")


class Killed(Exception):
    """Stands for a kill."""


def text(number: int) -> str:
    return " ".join(WORDS[(number * k + k) % len(WORDS)] for k in range(1, 4 + number % 5))


def corpus(texts: list[str | None]) -> Corpus:
    samples = [
        Sample(id=str(i), patient=None, files=(), text=t, split="train")
        for i, t in enumerate(texts)
    ]
    unread: Any = None
    return Corpus(
        name="mimic-cxr", samples=samples, reader=unread, manifest_sha256="0" * 64, track="phantom"
    )


def config(**values: Any) -> BaseTextConfig:
    small = {"text_layers": 1, "text_width": 16, "text_heads": 2, "context": 16, "text_batch": 8}
    return BaseTextConfig.model_validate(small | {"text_epochs": 3} | values)


def stage_run(folder: Path, seed: int = 0, kill_after: int | None = None) -> StageRun:
    folder.mkdir(exist_ok=True)
    seen = 0

    def advance(done: int, total: int, **figures: float) -> None:
        nonlocal seen
        seen += 1
        if kill_after is not None and seen > kill_after:
            raise Killed

    return StageRun(
        device=torch.device("cpu"),
        precision="fp32",
        seed=seed,
        folder=folder,
        advance=advance,
        say=lambda _: None,
        notes=[],
    )


def fit(folder: Path, *, seed: int = 0, kill_after: int | None = None) -> State:
    stage = base_text_stage(config(), "mimic-cxr")
    model = BaseText(stage.config)
    texts: list[str | None] = [text(i) for i in range(40)]
    model.fit(stage, corpus([*texts, None, ""]), stage_run(folder, seed, kill_after))
    return model.state("text")


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def small_bert() -> SmallBert:
    with seeded(0):
        return SmallBert(layers=2, width=16, heads=2, context=16).eval()


BERT = small_bert()


@settings(max_examples=25, deadline=None)
@given(
    one=st.text(st.sampled_from("ab .!0"), max_size=12),
    others=st.lists(st.text(st.sampled_from("ab .!0"), max_size=60), min_size=1, max_size=4),
)
@torch.no_grad()
def test_a_texts_vector_does_not_depend_on_its_batch(one: str, others: list[str]) -> None:
    alone, together = BERT([one]), BERT([one, *others])
    assert together.shape == (1 + len(others), BERT.dim)
    assert torch.allclose(alone[0], together[0], atol=1e-5)


@torch.no_grad()
def test_the_vector_is_the_mean_over_the_tokens_that_exist() -> None:
    tokens = tokenize(["no effusion"], 16)  # start, two words or pieces, end, zeros
    there = exists(tokens)
    states = BERT.states(tokens, there)
    assert states.shape[1] == int(there.sum())
    assert torch.allclose(BERT(["no effusion"])[0], states[0].mean(dim=0), atol=1e-6)
    assert BERT([]).shape == (0, 16)
    assert not torch.allclose(BERT(["no effusion"]), BERT(["effusion"]), atol=1e-3)


def test_one_seed_gives_the_same_bits_and_so_does_a_fit_that_was_killed(tmp_path: Path) -> None:
    whole = fit(tmp_path / "a")
    assert same(whole, fit(tmp_path / "b"))
    assert not same(whole, fit(tmp_path / "c", seed=1))
    with pytest.raises(Killed):
        fit(tmp_path / "d", kill_after=7)  # in the second epoch
    assert (tmp_path / "d" / "epochs-text.pt").is_file()
    assert same(whole, fit(tmp_path / "d"))


def test_hidden_words_are_told_better_after_training(tmp_path: Path) -> None:
    stage = base_text_stage(config(text_epochs=40, text_lr=1e-2, text_masked=0.3), "mimic-cxr")
    model = BaseText(stage.config)
    texts: list[str | None] = [text(i) for i in range(40)]
    tokens = tokenize([t or "" for t in texts], 16)
    known = tokens[exists(tokens)].unique()

    def loss(encoder: SmallBert) -> float:
        with seeded(5), torch.no_grad():
            return float(encoder.eval().masked_loss(tokens, 0.3, known))

    before = loss(model.encoder)
    model.fit(stage, corpus(texts), stage_run(tmp_path))
    assert before == pytest.approx(torch.tensor(len(known)).log().item(), rel=0.05)
    assert loss(model.encoder) < 0.6 * before


@pytest.mark.parametrize("share", [0.0001, 0.5])
def test_the_loss_is_a_number_even_when_chance_hides_nothing(share: float) -> None:
    encoder = small_bert()
    tokens = tokenize(["effusion"], 16)
    loss = encoder.masked_loss(tokens, share, tokens.unique())
    assert torch.isfinite(loss)


def test_what_was_loaded_stays_frozen_and_gives_equal_vectors(tmp_path: Path) -> None:
    state = fit(tmp_path / "a")
    assert not any("cls" in key for key in state)
    model = BaseText(base_text_stage(config()).config)
    before = model.encoder(["clear lungs"])
    model.load("text", state)
    model.encoder.train()
    after = model.encoder(["clear lungs"])
    assert not torch.allclose(before, after)
    assert torch.equal(after, model.encoder(["clear lungs"]))  # no dropout
    assert not any(m.training for m in model.encoder.modules())
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert same(model.state("text"), state)


def test_weights_that_do_not_fit_are_named() -> None:
    model = BaseText(base_text_stage(config()).config)
    state = model.state("text")
    state["more"] = state.pop("model.bert.embeddings.LayerNorm.bias")
    with pytest.raises(WeightsError, match=r"missing: model\.bert\.embeddings\.LayerNorm\.bias"):
        model.load("text", state)


def test_a_corpus_without_texts_is_refused(tmp_path: Path) -> None:
    stage = base_text_stage(config(), "mimic-cxr")
    for bad in ([], [None, "", "   "]):
        with pytest.raises(DataError, match="'mimic-cxr' has no texts"):
            BaseText(stage.config).fit(stage, corpus(bad), stage_run(tmp_path))


def test_the_stage_holds_what_decides_it_and_no_more() -> None:
    class Plugin(BaseTextConfig):
        other: int = 3

    general, domain = base_text_stage(Plugin(other=4)), base_text_stage(Plugin(), "mimic-cxr")
    assert general == base_text_stage(BaseTextConfig())
    assert (general.corpus, domain.corpus) == ("scenes", "mimic-cxr")
    assert general.config == domain.config
    assert general.name == domain.name == "text"


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of text_heads"):
        BaseTextConfig(text_width=30, text_heads=4)
    with pytest.raises(ValueError, match="width"):
        BaseTextConfig.model_validate({"width": 8})
