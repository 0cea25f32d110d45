"""A probe of text embeddings: the words of impressions name the findings; embedded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from program import Medbench

TASK = "mimic-cxr-text-probe"
#: The toy's text encoder, which sees how long a text is, and one that counts words.
BLIND = """rows = [torch.Generator().manual_seed(len(text)) for text in texts]
        features = torch.stack([torch.randn(8, generator=row) for row in rows])"""
READS = """from zlib import crc32

        features = torch.zeros(len(texts), 128)
        for row, text in zip(features, texts, strict=True):
            for word in text.lower().split():
                row[crc32(word.encode()) % 128] += 1"""


def test_an_encoder_that_reads_finds_what_the_words_name_and_reads_them_once(
    medbench: Medbench, phantoms: Callable[[str], Path], tmp_path: Path
) -> None:
    medbench.install("able_model", **{BLIND: READS})
    words = ("run", "-m", "able", "-t", TASK, "--data", phantoms("mimic-cxr"), "--json")
    ran = medbench(*words)
    assert ran.code == 0, ran.err
    (record,) = ran.json["records"]
    assert record["adaptation"] == "linear-probe"
    assert "embed-texts" in record["timing"]
    assert "images_per_second" not in record["timing"]
    assert record["baselines"]["prior"]["auroc"]["value"] == 0.5
    assert record["metrics"]["auroc"]["value"] > 0.65
    # in another folder it is run again, on the features that were kept
    (again,) = medbench(*words, "--output", tmp_path / "other").json["records"]
    assert "embed-texts" not in again["timing"]
    assert again["metrics"] == record["metrics"]


def test_a_model_without_a_text_encoder_is_left_out_with_the_reason(medbench: Medbench) -> None:
    medbench.install("able_model", **{'"encode_texts",': ""})
    ran = medbench("run", "-m", "able", "-t", TASK, "--data", "phantom")
    assert ran.code == 2
    assert "needs encode_texts, which the model does not have" in ran.err


@pytest.mark.parametrize("adaptation", ["zero-shot", "fine-tune"])
def test_texts_are_probed_and_nothing_else(medbench: Medbench, adaptation: str) -> None:
    medbench.install("able_model")
    ran = medbench("run", "-m", "able", "-t", TASK, "--adaptation", adaptation)
    assert ran.code == 2
    assert "the task offers linear-probe" in ran.err
