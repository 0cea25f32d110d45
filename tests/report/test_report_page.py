"""The page itself: whole, readable, true to the records, and the same for the same input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import classes, pairs, write_run
from reading import Page

from medbench.plugins import Registry, discover
from medbench.report import page
from medbench.report.runs import find, read
from medbench.run.reporter import Reporter


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover(third_party=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one task, one with features; one of them with half the labels too; retrieval;
    and one on real data."""
    root = tmp_path_factory.mktemp("runs")
    write_run(root, "frozen", trainable=0, features=True, timing={"train_seconds": 12.5})
    write_run(root, "trained", table=classes(skill=2, seed=4), seed=4, features=True)
    write_run(root, "trained", table=classes(skill=1, seed=5), seed=4, fraction=0.5)
    write_run(root, "matcher", table=pairs(), task="iu-xray-retrieval", flags=("limited",))
    write_run(root, "trained", track="real", flags=("contaminated", "unheard-of"))
    return root


def rendered(folder: Path, registry: Registry) -> str:
    return page.render(read(find([folder]), registry), registry, Reporter())


@pytest.fixture(scope="module")
def text(runs: Path, registry: Registry) -> str:
    return rendered(runs, registry)


@pytest.fixture(scope="module")
def parsed(text: str) -> Page:
    return Page(text)


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text("utf-8")) for p in sorted(folder.rglob("record.json"))]


def test_tags_are_closed_ids_are_unique_and_headings_never_skip(parsed: Page) -> None:
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.headings[0] == 1
    assert parsed.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(parsed.headings[:-1], parsed.headings[1:], strict=True))


def test_every_drawing_is_named_for_those_who_cannot_see_it(text: str, parsed: Page) -> None:
    assert len(parsed.drawings) > 8
    for drawing in parsed.drawings:
        assert drawing["role"] == "img"
        title, description = drawing["aria-labelledby"].split()
        for name in (title, description):
            found = re.search(rf'id="{name}">([^<]+)<', text)
            assert found, name
            assert len(found[1]) > 10


def test_nothing_is_fetched_and_nothing_is_run(text: str, parsed: Page) -> None:
    assert parsed.scripts == 0
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in parsed.links)
    assert not re.search(r"(?:https?:)?//[a-z]", text)
    targets = {link[1:] for link in parsed.links if link.startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert targets <= set(parsed.ids)


def test_each_value_and_interval_is_that_of_the_record(runs: Path, parsed: Page) -> None:
    shown = set()
    for cell in parsed.titled:
        found = re.fullmatch(r"(\S+) \[(\S+), (\S+)\], n ([\d,]+)", cell)
        if found:
            value, low, high = map(float, found.groups()[:3])
            shown.add((value, low, high, int(found[4].replace(",", ""))))
    for record in records(runs):
        estimates = [*record["metrics"].values()]
        estimates += [v for values in record["baselines"].values() for v in values.values()]
        for metric in record["metrics"].values():
            estimates += (metric["per_label"] or {}).values()
        assert estimates
        for estimate in estimates:
            assert (estimate["value"], *estimate["ci95"], estimate["n"]) in shown


def test_no_table_of_values_is_without_baselines(text: str) -> None:
    for table in re.findall(r"<table>.*?</table>", text, re.S):
        if re.search(r"\d\.\d+ \[\d", table):
            assert re.search(r"baseline |prior of the tested", table)


def test_phantom_and_real_are_said_apart_and_never_share_a_table(text: str) -> None:
    assert "<strong>PHANTOM.</strong> The sections marked PHANTOM" in text
    assert "must not be committed" in text
    heads = re.findall(r'<h2 id="part-\d+-head">(.*?)</h2>', text)
    assert len(heads) == 3
    assert ["PHANTOM" in head for head in heads] == [False, True, True]


def test_a_page_of_phantoms_does_not_speak_of_patients_content(
    tmp_path: Path, registry: Registry
) -> None:
    write_run(tmp_path)
    text = rendered(tmp_path, registry)
    assert "Everything here was run on images rendered by medbench" in text
    assert "must not be committed" not in text


def test_flags_are_explained_and_unknown_ones_shown(parsed: Page) -> None:
    assert "a quick look, never ranked" in parsed.text
    assert "unheard-of" in parsed.text


def test_fractions_stand_side_by_side_with_the_baselines_of_each(text: str) -> None:
    (table,) = re.findall(r"<table>\n<caption>[^<]*by share of the labels.*?</table>", text, re.S)
    assert "50 % of the labels" in table
    assert "baseline prior, seed 4" in table
    row = next(line for line in table.splitlines() if "trained" in line)
    assert row.count(" [") >= 4, "two values, shown and in full"


def test_what_older_records_lack_is_a_dash(text: str) -> None:
    tables = re.findall(r"<table>\n<caption>Efficiency.*?</table>", text, re.S)
    frozen = next(line for t in tables for line in t.splitlines() if "frozen" in line)
    other = next(line for t in tables for line in t.splitlines() if "matcher" in line)
    assert ">12.5</td><td>–</td><td>–</td>" in frozen
    assert other.count("<td>–</td>") == 3


def test_runs_without_features_are_named_and_those_with_stand_together(text: str) -> None:
    named = re.findall(r"Without features \(features.npz\), so no t-SNE is drawn: ([^<]*)", text)
    assert sorted(line[2:] for line in named) == [
        "matcher.",
        "trained, 50 % of labels, seed 4, linear-probe.",
        "trained, linear-probe.",
    ]
    assert len(re.findall(r"<title id=\"part-\d+-tsne-\d+-title\">", text)) == 2


def test_frozen_models_stand_apart_from_the_logarithmic_axis(text: str) -> None:
    drawing = re.search(r"<svg[^>]*parameters-title.*?</svg>", text, re.S)
    assert drawing
    assert ">none</text>" in drawing[0]
    assert ">1k</text>" in drawing[0]


def test_subgroups_of_the_runs_that_state_them_are_folded_with_their_gaps(
    tmp_path: Path, registry: Registry, text: str
) -> None:
    assert "Subgroups" not in text
    parts = {
        "metric": "auroc",
        "groups": {
            "F": {"value": 0.8125, "ci95": [0.7, 0.9], "n": 32},
            "M": {"value": 0.75, "ci95": [0.6, 0.85], "n": 28},
        },
        "gap": {"value": 0.0625, "ci95": [-0.05, 0.175], "between": ["F", "M"]},
    }
    write_run(tmp_path, "<b>told</b>", subgroups={"sex": parts})
    write_run(tmp_path, "silent", table=classes(seed=2))
    page_text = rendered(tmp_path, registry)
    (folded,) = re.findall(r"<summary>Subgroups.*?</details>", page_text, re.S)
    assert "a gap need not be the model" in folded
    (table,) = re.findall(r"<table>.*?</table>", folded, re.S)
    assert "auroc ↑ by sex" in table
    assert "&lt;b&gt;told" in table
    assert "silent" not in table
    assert 'title="0.8125 [0.7, 0.9], n 32">0.812 [0.700, 0.900]<' in table
    assert 'title="0.0625 [-0.05, 0.175]">0.062 [-0.050, 0.175], F against M<' in table


def test_a_single_model_has_no_figure_of_parameters(tmp_path: Path, registry: Registry) -> None:
    write_run(tmp_path)
    assert "trainable parameters</text>" not in rendered(tmp_path, registry)


def test_equal_input_gives_equal_bytes(text: str, runs: Path, registry: Registry) -> None:
    assert rendered(runs, registry) == text


def test_markup_in_names_is_text(tmp_path: Path, registry: Registry) -> None:
    evil = '<script>alert("x")</script>$\\frac{1}{2}$'
    for seed in (0, 1):
        write_run(tmp_path, evil, seed=seed, table=classes(seed=seed))
    text = rendered(tmp_path, registry)
    found = Page(text)
    assert found.scripts == 0
    assert "<script" not in text
    assert "<b>markup</b>" not in text
    assert evil in found.text


def test_predictions_that_are_not_there_leave_the_tables(
    tmp_path: Path, registry: Registry
) -> None:
    (write_run(tmp_path) / "predictions.parquet").unlink()
    text = rendered(tmp_path, registry)
    assert "Without predictions" in text
    assert "ROC" not in text
    assert "accuracy ↑" in text


def test_a_run_of_another_version_of_its_task_is_shown_and_said_to_be(
    tmp_path: Path, registry: Registry
) -> None:
    folder = write_run(tmp_path)
    content = json.loads((folder / "record.json").read_text("utf-8"))
    content["task"]["sha256"] = "0" * 64
    (folder / "record.json").write_text(json.dumps(content), "utf-8")
    assert "is not installed in the version of these runs" in rendered(tmp_path, registry)


def test_features_of_other_samples_are_not_drawn(tmp_path: Path, registry: Registry) -> None:
    for seed in (0, 1):
        write_run(tmp_path, seed=seed, table=classes(seed=seed), features=True)
    path = min(tmp_path.rglob("features.npz"))
    found = dict(np.load(path))
    found["sample_id"] = np.array([f"x{i}" for i in range(len(found["features"]))])
    np.savez(path, **found)
    text = rendered(tmp_path, registry)
    assert "its features are of other samples than its predictions" in text
    assert text.count('tsne-2-title"') == 1
    assert "tsne-1-title" not in text


def test_a_browser_opens_the_page(text: str, tmp_path: Path) -> None:
    browsers = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in browsers if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no chromium on this machine")
    path = tmp_path / "index.html"
    path.write_text(text, "utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--screenshot={tmp_path / 'page.png'}", path.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "Efficiency" in done.stdout
    assert (tmp_path / "page.png").stat().st_size > 1000
