"""Reports as numbers and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.errors import WeightsError
from medbench.metrics.captioning import r2gen_words
from medbench.models.tokenizer import END, START, tokenize
from medbench_unicrossadapter.vocabulary import Vocabulary

REPORTS = [
    "The heart is large. No effusion.",
    "Heart size is normal. No pneumothorax.",
    "No acute disease. The heart is normal.",
]
KINDS = ["words", "bpe"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_of_known_words_comes_back(kind: str) -> None:
    vocabulary = Vocabulary.of(kind, REPORTS, 1)  # type: ignore[arg-type]
    for report in REPORTS:
        numbers = vocabulary.encode(report)
        assert min(numbers) >= 2
        assert vocabulary.decode(numbers) == report.lower()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(
        st.lists(st.from_regex(r"[a-zé]{1,9}", fullmatch=True), min_size=1, max_size=6),
        min_size=1,
        max_size=4,
    ),
)
def test_what_is_written_is_read_as_the_same_words(kind: str, sentences: list[list[str]]) -> None:
    report = ". ".join(" ".join(words) for words in sentences) + "."
    vocabulary = Vocabulary.of(kind, [report], 1)  # type: ignore[arg-type]
    written = vocabulary.decode(vocabulary.encode(report))
    assert r2gen_words(written) == r2gen_words(report)


def test_rare_words_are_left_out_and_unknown() -> None:
    vocabulary = Vocabulary.of("words", REPORTS, 2)
    assert vocabulary.tokens == (".", "heart", "is", "no", "normal", "the")
    assert vocabulary.encode("The spleen is normal.") == [7, 1, 4, 6, 2]


def test_byte_pairs_are_clips() -> None:
    vocabulary = Vocabulary.of("bpe", ["cardiomegaly"], 1)
    table = torch.arange(49408.0)[:, None]
    rows = vocabulary.clip_rows(table)[:, 0].long()
    ids = tokenize(["cardiomegaly ."])[0]
    numbers = vocabulary.encode("cardiomegaly")
    assert len(numbers) > 2  # it takes several
    assert [int(rows[n]) for n in numbers] == ids[1 : int(ids.argmax())].tolist()
    assert rows[:2].tolist() == [START, END]


def test_a_word_starts_as_the_mean_of_its_byte_pairs() -> None:
    vocabulary = Vocabulary("words", ["cardiomegaly"])
    table = torch.arange(49408.0)[:, None]
    ids = tokenize(["cardiomegaly"])[0]
    expected = ids[1 : int(ids.argmax())].float().mean()
    assert float(vocabulary.clip_rows(table)[2, 0]) == pytest.approx(float(expected))


def test_round_trip_through_a_tensor() -> None:
    vocabulary = Vocabulary.of("words", [*REPORTS, "Café."], 1)
    tensor = vocabulary.to_tensor()
    assert tensor.dtype == torch.uint8
    again = Vocabulary.from_tensor(tensor)
    assert (again.kind, again.tokens) == (vocabulary.kind, vocabulary.tokens)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"[]", b'{"kind": "letters", "tokens": []}', b'{"kind": "words", "tokens": [1]}',
     b'{"kind": "words", "tokens": ["a", "a"]}', b'{"kind": "words"}'],
)  # fmt: skip
def test_what_is_no_vocabulary_is_refused(content: bytes) -> None:
    tensor = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    with pytest.raises(WeightsError, match="'vocabulary' is not a vocabulary"):
        Vocabulary.from_tensor(tensor)
