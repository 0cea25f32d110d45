"""The gallery of generated reports: cases, marks, images, attention, and nothing that runs."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import SAID, reports, write_run
from PIL import Image
from reading import Page

from medbench.data.report_findings import FINDINGS, read_report
from medbench.errors import DataError
from medbench.evaluation.report_attention import Attention
from medbench.evaluation.report_cases import agreement, attended, bleu_4, choose
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.plugins import Registry, discover
from medbench.report import page
from medbench.report.reports import overlay
from medbench.report.runs import find, read
from medbench.report.wording import marked, shared
from medbench.run.load import opened
from medbench.run.reporter import Reporter

MOST = 3_000_000  #: bytes of a page


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover(third_party=False)


def dataset(root: Path, table: ReportPredictions, size: int = 96) -> Path:
    """The studies of a table in R2Gen's layout: smooth drawn images, frontal and lateral."""
    rng = np.random.default_rng(0)
    entries = []
    for name, text in zip(table.sample_ids, table.references, strict=True):
        paths = [f"{name}/{view}.png" for view in range(2)]
        for path in paths:
            coarse = Image.fromarray(rng.integers(0, 255, (6, 6), np.uint8))
            target = root / "images" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            coarse.resize((size, size), Image.Resampling.BICUBIC).save(target)
        entries.append({"id": name, "report": text, "image_path": paths, "split": "test"})
    content = {"train": [], "val": [], "test": entries}
    (root / "annotation.json").write_text(json.dumps(content), "utf-8")
    return root


def rendered(folder: Path, registry: Registry) -> str:
    return page.render(read(find([folder]), registry), registry, Reporter())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, where iu-xray is configured to be ``tmp_path / "data"``."""
    config = tmp_path / "config.toml"
    config.write_text(f'[data]\niu-xray = "{(tmp_path / "data").as_posix()}"\n', "utf-8")
    monkeypatch.setenv("MEDBENCH_CONFIG", str(config))
    monkeypatch.setenv("MEDBENCH_HOME", str(tmp_path / "home"))
    opened.cache_clear()
    return tmp_path


def run_of(here: Path, table: ReportPredictions, **more: object) -> Path:
    return write_run(
        here / "runs", table=table, task="iu-xray-report", track="real", **more  # type: ignore[arg-type]
    )  # fmt: skip


def figures(text: str) -> list[str]:
    return re.findall(r"<figure.*?</figure>", text, re.S)


# --- cases ------------------------------------------------------------------------------------


def test_findings_are_right_missed_or_invented() -> None:
    found = agreement(
        "There is a pneumothorax. The heart is enlarged. Possible pneumonia.",
        "There is a pneumothorax and a pleural effusion. No fracture.",
    )
    assert found.right == ("pneumothorax",)
    assert found.missed == ("cardiomegaly",)
    assert found.invented == ("pleural-effusion",)
    assert found.f1 == 2 / 4
    assert agreement("", "").f1 == 1
    assert agreement("The heart is enlarged.", "").f1 == 0


@given(st.lists(st.sampled_from(SAID), max_size=4), st.lists(st.sampled_from(SAID), max_size=4))
@settings(max_examples=40, deadline=None)
def test_right_missed_and_invented_divide_what_is_stated(a: list[str], b: list[str]) -> None:
    reference, prediction = " ".join(a), " ".join(b)
    found = agreement(reference, prediction)
    stated, called = (
        {name for name in FINDINGS if read_report(text).labels[name] == 1}
        for text in (reference, prediction)
    )
    assert {*found.right, *found.missed} == stated
    assert {*found.right, *found.invented} == called
    assert len(stated) + len(called) == 2 * len(found.right) + len(found.missed + found.invented)
    assert 0 <= found.f1 <= 1


def test_best_cases_agree_in_findings_worst_do_not_and_none_is_both() -> None:
    table = reports(60)
    chosen = choose(table)
    assert {len(rows) for rows in chosen.values()} == {8}
    assert not set(chosen["best"]) & set(chosen["worst"])
    values = [agreement(a, b).f1 for a, b in zip(table.references, table.predictions, strict=True)]
    assert min(values[i] for i in chosen["best"]) >= sorted(values)[-8]
    assert max(values[i] for i in chosen["worst"]) <= sorted(values)[7]
    told = bleu_4(table.references, table.predictions)
    first, second = chosen["best"][:2]
    assert (values[first], told[first]) >= (values[second], 0)


def test_random_cases_know_nothing_of_predictions_nor_of_order() -> None:
    table = reports(40)
    other = replace(table, predictions=table.predictions[::-1])
    assert choose(table)["random"] == choose(other)["random"]
    rows = np.random.default_rng(3).permutation(40).tolist()
    shuffled = table.take(rows)
    for kind, chosen in choose(shuffled).items():
        names = [table.sample_ids[i] for i in choose(table)[kind]]
        assert [shuffled.sample_ids[i] for i in chosen] == names
    few = choose(table.take(range(3)))
    assert (len(few["best"]), few["worst"]) == (3, [])


def test_sentence_bleu_is_one_for_equal_words_and_small_for_none() -> None:
    found = bleu_4(
        ("The heart is big today.", "a b c d", "x"), ("the heart is big today .", "", "y")
    )
    assert found[0] == pytest.approx(1)
    assert found[1] < 1e-6
    assert found[2] < 1e-2


# --- marks ------------------------------------------------------------------------------------


def test_runs_of_two_words_that_both_have_are_marked_whatever_their_order() -> None:
    text = "The lungs are clear. No pleural effusion."
    other = "no pleural effusion . the lungs are not clear"
    assert [text[a:b] for a, b in shared(text, other)] == [
        "The lungs are", "No pleural effusion.",
    ]  # fmt: skip
    assert shared("clear lungs", "lungs clear") == []
    # "clear no" goes over the end of a sentence
    assert shared("Lungs clear. No heart.", "clear no") == []


@given(
    st.lists(
        st.sampled_from(["heart", "lung", "<b>", "No", "no.", "is", "&", "clear,"]), max_size=9
    ),
    st.lists(st.sampled_from(["heart", "lung", "<b>", "no", "No.", "is", "clear"]), max_size=9),
)
@settings(max_examples=80, deadline=None)
def test_marks_change_no_text_and_escape_all_of_it(a: list[str], b: list[str]) -> None:
    text, other = " ".join(a), " ".join(b)
    html = str(marked(text, other))
    assert re.sub(r"</?mark>", "", html).count("<") == 0
    assert Page(html).text == text
    for start, stop in shared(text, other):
        assert len(text[start:stop].split()) >= 2


def test_equal_reports_are_marked_whole() -> None:
    assert marked("The heart is big.", "the heart is big") == "<mark>The heart is big.</mark>"
    assert marked("", "a b") == ""


# --- the page ---------------------------------------------------------------------------------


def test_a_gallery_has_images_both_reports_findings_and_attention(
    here: Path, registry: Registry
) -> None:
    table = reports()
    dataset(here / "data", table)
    text = rendered(run_of(here, table), registry)
    cases = [figure for figure in figures(text) if 'class="case"' in figure]
    assert len(cases) == 24
    parsed = Page(text)
    assert parsed.scripts == 0
    assert all(
        link.startswith(("#", "data:image/jpeg;base64,", "data:image/png;base64,"))
        for link in parsed.links
    )
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"base64,[\w+/=]+", "", text))
    assert len(text.encode()) < MOST
    chosen = [row for rows in choose(table).values() for row in rows]
    for row, case in zip(chosen, cases, strict=True):
        assert f"Study {table.sample_ids[row]}," in case
        plain = re.sub(r"</?mark>", "", case)
        assert table.references[row] in plain
        assert table.predictions[row] in plain
        found = agreement(table.references[row], table.predictions[row])
        called = case.replace("normal study", "no-finding")
        assert f"missed: {', '.join(found.missed) or 'none'}<" in called
        assert f"invented: {', '.join(found.invented) or 'none'}<" in called
        # of JPEGs outside the attention: the two views
        assert len(re.findall(r'<img src="data:image/jpeg', case)) == 2
    attentive = [case for case in cases if "<details" in case]
    assert 0 < len(attentive) <= 6
    for case in attentive:
        words = re.findall(r"<span>([^<]*)</span></div>", case)
        prediction = re.search(r"Generated</p><p class=\"report\">(.*?)</p>", case, re.S)
        assert prediction
        assert words == re.sub(r"</?mark>", "", prediction[1]).split()
        assert case.count("data:image/png") == 2 * len(words)
    headings = re.findall(r'<p class="kind">([^<]+)<', text)
    assert headings[::8] == [
        "Among the best, 1 of 8",
        "Drawn blindly, 1 of 8",
        "Among the worst, 1 of 8",
    ]
    told = [agreement(a, b) for a, b in zip(table.references, table.predictions, strict=True)]
    right = sum(found.f1 == 1 for found in told)
    assert f"Of all 30 tested studies, {right} reports state just the findings" in text
    assert "text-decoration: underline" in text, "marks are not told by colour alone"
    assert "must not be committed" in text
    assert "Images are the real images of iu-xray, read again" in text


def test_the_images_shown_are_those_of_the_study(here: Path, registry: Registry) -> None:
    table = reports(6, attended=0)
    root = dataset(here / "data", table)
    text = rendered(run_of(here, table), registry)
    case = next(f for f in figures(text) if "Study study-03," in f)
    code = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', case)[1]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))), float)
    own = Image.open(root / "images" / "study-03" / "1.png").resize(shown.shape)
    other = Image.open(root / "images" / "study-03" / "0.png").resize(shown.shape)
    assert np.abs(shown - np.asarray(own, float)).mean() < 5
    assert np.abs(shown - np.asarray(other, float)).mean() > 20


def test_without_the_images_the_texts_stand_and_the_page_says_so(
    here: Path, registry: Registry
) -> None:
    text = rendered(run_of(here, reports()), registry)
    assert text.count("No image at hand.") == 24
    assert "<details style" not in text
    assert "The images are not shown" in text


def test_no_image_is_shown_beside_another_reference(here: Path, registry: Registry) -> None:
    table = reports(8, attended=0)
    dataset(here / "data", table)
    changed = replace(table, references=[SAID[1], *table.references[1:]])
    text = rendered(run_of(here, changed), registry)
    for figure in figures(text):
        if "Study study-00," in figure:
            assert "No image at hand." in figure
        elif 'class="case"' in figure:
            assert "No image at hand." not in figure
    assert "cases are not shown" in text


def test_a_damaged_image_leaves_the_rest(here: Path, registry: Registry) -> None:
    table = reports(4, attended=0)
    root = dataset(here / "data", table)
    (root / "images" / "study-02" / "0.png").write_bytes(b"no picture")
    text = rendered(run_of(here, table), registry)
    case = next(f for f in figures(text) if "Study study-02," in f)
    assert len(re.findall(r"data:image/jpeg", case)) == 1
    assert 'alt="view 1"' in case, "R2Gen's layout does not say which view is which"


def test_a_run_without_attention_has_no_fold(here: Path, registry: Registry) -> None:
    table = reports(attended=0)
    dataset(here / "data", table)
    folder = run_of(here, table)
    assert not (folder / "attention.npz").exists()
    text = rendered(folder, registry)
    assert "word by word" not in text
    assert "Where the model looked" not in text


def test_markup_in_reports_and_words_is_text(here: Path, registry: Registry) -> None:
    evil = '<script>alert(1)</script> & "quoted" </p></figure>'
    table = reports(8)
    row = attended(table)[0]
    predictions = list(table.predictions)
    predictions[row] = evil
    told = [(evil.split(), np.ones((len(evil.split()), 2, 2, 2)))]
    attention = Attention.of([table.sample_ids[row]], told)
    changed = replace(table, predictions=predictions, attention=attention)
    shown = next(i for rows in choose(changed).values() for i in rows if i == row)
    assert shown == row
    dataset(here / "data", changed)
    text = rendered(run_of(here, changed), registry)
    parsed = Page(text)
    assert parsed.scripts == 0
    assert evil in parsed.text
    assert "<script" not in text


def test_an_empty_prediction_is_said_to_be(here: Path, registry: Registry) -> None:
    table = reports(4, attended=0)
    changed = replace(table, predictions=["", *table.predictions[1:]])
    assert "(empty)" in rendered(run_of(here, changed), registry)


def test_a_model_that_looking_up_beats_says_so(here: Path, registry: Registry) -> None:
    table = reports(20, attended=0)
    folder = run_of(here, table)
    path = folder / "record.json"
    record = json.loads(path.read_text("utf-8"))
    value = record["metrics"]["finding-f1"]
    better = {"value": 0.99, "ci95": [0.985, 0.995], "n": value["n"]}
    record["baselines"]["nearest-32-report"] = {"finding-f1": better}
    path.write_text(json.dumps(record), "utf-8")
    assert "does not beat looking up: finding-f1" in rendered(folder, registry)


def test_runs_of_a_section_share_the_space(here: Path, registry: Registry) -> None:
    for seed in range(5):
        write_run(here / "runs", f"m{seed}", table=reports(), task="iu-xray-report", track="real")
    text = rendered(here / "runs", registry)
    cases = [figure for figure in figures(text) if 'class="case"' in figure]
    assert len(cases) == 4 * 3 * 2
    assert "without those of: 5 m4" in text


def test_equal_input_gives_an_equal_gallery(here: Path, registry: Registry) -> None:
    table = reports(10)
    dataset(here / "data", table)
    folder = run_of(here, table)
    assert rendered(folder, registry) == rendered(folder, registry)


# --- attention --------------------------------------------------------------------------------


def test_an_overlay_is_the_more_opaque_the_more_a_place_weighs() -> None:
    weights = np.array([[0.0, 0.1], [0.2, 0.4]])
    code = overlay(weights, 0.4).partition(",")[2]
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))[..., 1]
    assert alpha.tolist() == [[0, 50], [100, 200]]
    assert overlay(np.zeros((2, 2)), 0.4) == ""


def test_attention_comes_back_from_its_file_and_is_padded(tmp_path: Path) -> None:
    told = [(["a", "b"], np.full((2, 1, 2, 3), 0.5)), (["c"], np.full((1, 2, 2, 3), 0.25))]
    Attention.of(["x", "y"], told).write(tmp_path / "attention.npz")
    found = Attention.read(tmp_path / "attention.npz")
    words, weights = found.find("y") or ([], np.zeros(0))
    assert words == ["c"]
    assert weights.shape == (1, 2, 2, 3)
    assert found.weights[0, :, 1].max() == 0
    assert found.find("z") is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"words": np.array([["a"]])}, "are expected"),
        ({"attention": np.full((2, 2, 1, 2, 2), np.nan, np.float16)}, "NaN"),
        ({"attention": -np.ones((2, 2, 1, 2, 2), np.float16)}, "negative"),
        ({"sample_id": np.array(["x", "x"])}, "twice"),
        ({"sample_id": np.array([{}, {}], object)}, "object array"),
    ],
)
def test_attention_that_is_damaged_is_refused_by_name(
    tmp_path: Path, change: dict[str, np.ndarray], named: str
) -> None:
    sound = {
        "sample_id": np.array(["x", "y"]),
        "words": np.array([["a", "b"], ["c", ""]]),
        "attention": np.ones((2, 2, 1, 2, 2), np.float16),
    }
    path = tmp_path / "attention.npz"
    np.savez(path, **(sound | change))
    with pytest.raises(DataError, match=named) as caught:
        Attention.read(path)
    assert str(path) in str(caught.value)


def test_attention_of_an_earlier_run_does_not_stay(tmp_path: Path) -> None:
    table = reports(8)
    table.write(tmp_path / "predictions.parquet")
    again = ReportPredictions.read(tmp_path / "predictions.parquet")
    assert again.attention is not None
    assert again.digest() == table.digest()
    replace(table, attention=None).write(tmp_path / "predictions.parquet")
    assert ReportPredictions.read(tmp_path / "predictions.parquet").attention is None


def test_a_browser_shows_the_gallery(here: Path, registry: Registry) -> None:
    browsers = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in browsers if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no chromium on this machine")
    table = reports(8)
    dataset(here / "data", table)
    path = here / "index.html"
    path.write_text(rendered(run_of(here, table), registry), "utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "word by word" in done.stdout
