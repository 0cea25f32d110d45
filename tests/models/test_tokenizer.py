"""CLIP's tokenizer against open_clip's own, token for token."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from medbench.models.tokenizer import END, START, VOCABULARY, tokenize

TEXTS = [
    "",
    "a",
    "Chest CT, ground-glass opacity",
    "The heart's enlarged; it isn't acute, they'd say. I'm we've you're she'll",
    "  tabs\tand\nnew   lines  ",
    "12 x 34.5 mm at T2-weighted 3D, 100% of 1,000",
    "Pneumothorax \u2013 caf\u00e9 na\u00efve \u00fcber \u00df \u0130stanbul",
    "\u4f60\u597d \U0001fac1 \u03b1\u03b2\u03b3 \u0440\u0435\u043d\u0442\u0433\u0435\u043d",
    "html &amp; &lt;b&gt; &amp;amp; entities",
    "mojibake caf\u00c3\u00a9 \u00e2\u20ac\u0153quoted\u00e2\u20ac\u009d",
    "XXXX year old M/F s/p CABG (2019) w/o PTX!!! ???",
    "'s 't 're '' ' \" -- __ ... \u2026",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "\u00bd \u2163 \u0661\u0662 1st 2nd",
    "word " * 200,
]


@pytest.mark.parametrize("context", [77, 16, 2])
def test_matches_open_clip(context: int) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    expected = SimpleTokenizer()(TEXTS, context_length=context)
    assert torch.equal(tokenize(TEXTS, context), expected)


def test_shape_and_truncation() -> None:
    tokens = tokenize(["word " * 200, "short"], 12)
    assert tokens.shape == (2, 12)
    assert tokens.dtype == torch.int64
    assert tokens[0, 0] == START
    assert tokens[0, -1] == END  # cut, and still closed
    assert tokens[1].tolist().count(END) == 1
    assert int(tokens.max()) < VOCABULARY
    assert tokenize([], 8).shape == (0, 8)


def test_a_text_cannot_place_an_end_token() -> None:
    tokens = tokenize(["a <end_of_text> b <start_of_text>"])
    assert tokens[0].tolist().count(END) == 1
    assert tokens[0].tolist().count(START) == 1


def test_one_string_is_refused() -> None:
    with pytest.raises(TypeError, match="one string"):
        tokenize("not a list")


def test_does_not_import_open_clip() -> None:
    code = (
        "import sys; from medbench.models.tokenizer import tokenize; tokenize(['a']); "
        "assert 'open_clip' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
