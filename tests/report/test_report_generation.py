"""Generated images beside real ones: the same prompts for every run, and strips from noise on."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import ASKED, FINDINGS, drawn, write_run
from PIL import Image
from reading import Page

from medbench.errors import DataError
from medbench.evaluation.image_cases import NONE, first_images, others, prompts
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.plugins import Registry, discover
from medbench.report import page, strips
from medbench.report.runs import find, read
from medbench.run.reporter import Reporter


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover(third_party=False)


@pytest.fixture(scope="module")
def table() -> ImagePredictions:
    return drawn()


def run_of(here: Path, table: ImagePredictions, model: str = "toy") -> Path:
    return write_run(here / "runs", model, table=table, task="iu-xray-generation", track="real")


def rendered(folder: Path, registry: Registry) -> str:
    folders = find([folder])
    return page.render(read(folders, registry), registry, Reporter(), strips.read(folders))


def figures(text: str) -> list[str]:
    return [f for f in re.findall(r"<figure.*?</figure>", text, re.S) if 'class="drawn"' in f]


def rows(figure: str) -> dict[str, list[np.ndarray]]:
    """Head of a row to its images."""
    found: dict[str, list[np.ndarray]] = {}
    for part in figure.split('<p class="whose">')[1:]:
        codes = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', part)
        found[part.partition("<")[0]] = [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(code))), float) for code in codes
        ]
    return found


def same(shown: np.ndarray, pixels: np.ndarray) -> bool:
    """Whether a JPEG shows these pixels."""
    return shown.shape == pixels.shape and bool(np.abs(shown - pixels).mean() < 12)


# --- cases ------------------------------------------------------------------------------------


def test_prompts_are_of_their_finding_once_and_know_nothing_of_images(
    table: ImagePredictions,
) -> None:
    chosen = prompts(table)
    assert list(chosen) == [*FINDINGS, NONE]
    assert table.real_labels is not None
    for name, picked in chosen.items():
        assert len(picked) == 2
        for row in picked:
            labels = dict(zip(FINDINGS, table.real_labels[row], strict=True))
            assert labels[name] == 1 if name in labels else not any(labels.values())
    # those with just that finding first
    assert (table.real_labels[chosen["cardiomegaly"]].sum(axis=1) == 1).all()
    used = [table.real_patients[row] for picked in chosen.values() for row in picked]  # type: ignore[index]
    assert len(used) == len(set(used)), "a patient is shown once"
    other = drawn(model=5)
    assert prompts(other) == chosen


def test_real_images_beside_a_prompt_are_of_other_patients_with_the_finding(
    table: ImagePredictions,
) -> None:
    assert table.real_patients is not None
    for name, (row, *_) in prompts(table).items():
        found = others(table, name, row)
        assert len(found) == 2
        assert table.real_labels is not None
        assert all(table.real_patients[other] != table.real_patients[row] for other in found)
        column = FINDINGS.index(name) if name in FINDINGS else None
        assert all(
            table.real_labels[other].sum() == 0
            if column is None
            else table.real_labels[other, column] == 1
            for other in found
        )
    one = replace(table, real_patients=["same"] * table.reals)
    assert others(one, "cardiomegaly", prompts(one)["cardiomegaly"][0]) == []


def test_a_table_without_labels_has_prompts_too(table: ImagePredictions) -> None:
    plain = replace(table, labels=None, real_labels=None, scores=None, label_names=())
    assert prompts(replace(plain, prompts=None, prompt_texts=None, real_prompts=None)) == {}
    ((name, picked),) = prompts(plain).items()
    assert name == "any"
    assert len(set(picked)) == 6
    assert len(others(plain, name, picked[0])) == 2


def test_strips_are_of_the_first_image_of_prompts_that_are_shown(table: ImagePredictions) -> None:
    shown = {row for picked in prompts(table).values() for row in picked}
    images = first_images(table)
    assert len(images) == 4
    assert {image // 2 for image in images} <= shown
    assert all(image % 2 == 0 for image in images)
    assert first_images(replace(table, prompts=None, prompt_texts=None, real_prompts=None)) == []


# --- the page ---------------------------------------------------------------------------------


def test_the_page_shows_prompts_seeds_and_real_images_of_the_same_finding(
    tmp_path: Path, registry: Registry, table: ImagePredictions
) -> None:
    text = rendered(run_of(tmp_path, table), registry)
    parsed = Page(text)
    assert parsed.scripts == 0
    shown = figures(text)
    picked = [(name, row) for name, some in prompts(table).items() for row in some]
    assert len(shown) == len(picked) == 8
    told = list(ASKED)
    for (name, row), figure in zip(picked, shown, strict=True):
        assert Page(figure).text.count(told[row % len(told)]) == 1, "the prompt, as text"
        assert f"Prompt {row + 1}, patient p{row // 2:02d}" in figure
        lines = rows(figure)
        assert list(lines) == ["Real", "1 toy"]
        assert same(lines["Real"][0], table.real[row])  # type: ignore[index]
        for image, other in zip(lines["Real"][1:], others(table, name, row), strict=True):
            assert same(image, table.real[other])  # type: ignore[index]
        made = table.generated[2 * row : 2 * row + 2]  # type: ignore[index]
        assert all(same(image, own) for image, own in zip(lines["1 toy"], made, strict=True))
    assert "<b>no</b>" not in text
    assert "must not be committed" in text
    assert "have no figures of their own" not in text
    assert rendered(tmp_path / "runs", registry) == text


def test_models_stand_side_by_side_with_what_looking_up_gives(
    tmp_path: Path, registry: Registry, table: ImagePredictions
) -> None:
    for k in range(5):
        run_of(tmp_path, drawn(model=k), f"m{k}")
    run_of(tmp_path, drawn(each=1), "baseline@nearest-prompt")
    text = rendered(tmp_path / "runs", registry)
    for figure in figures(text):
        lines = rows(figure)
        assert [line.partition(" ")[2] for line in lines][1:] == [
            "m0", "m1", "m2", "m3", "baseline@nearest-prompt",
        ]  # fmt: skip
        assert [len(images) for images in lines.values()] == [3, 2, 2, 2, 2, 1]
        assert "looked up" in figure
    assert "without those of: 5 m4" in text
    alone = rendered(tmp_path / "runs" / "m0_iu-xray-generation_tiny_s0_1_real", registry)
    assert "is shown where a run of baseline@nearest-prompt is on the page" in alone


def test_a_run_on_other_images_is_not_set_beside(
    tmp_path: Path, registry: Registry, table: ImagePredictions
) -> None:
    run_of(tmp_path, table, "a")
    run_of(tmp_path, drawn(seed=1), "b")
    text = rendered(tmp_path / "runs", registry)
    assert list(rows(figures(text)[0])) == ["Real", "1 a"]
    assert "were held against other real images than run 1: 2 b" in text


def test_a_run_that_kept_no_prompts_says_so(
    tmp_path: Path, registry: Registry, table: ImagePredictions
) -> None:
    text = rendered(run_of(tmp_path, replace(table, prompt_texts=None)), registry)
    assert text.count("This run has not kept its prompts.") == 8
    assert "Findings of the report: cardiomegaly" in text


def test_a_prompt_is_that_of_the_real_image_beside_it_whatever_their_order(
    tmp_path: Path, registry: Registry, table: ImagePredictions
) -> None:
    turned = replace(
        table,
        real=table.real[::-1],  # type: ignore[index]
        real_labels=table.real_labels[::-1],  # type: ignore[index]
        real_patients=table.real_patients[::-1],  # type: ignore[index]
        real_prompts=table.real_prompts[::-1],  # type: ignore[index]
    )
    shown = figures(rendered(run_of(tmp_path, turned), registry))
    for figure in shown:
        number = int(re.search(r"Prompt (\d+), patient", figure)[1]) - 1  # type: ignore[index]
        lines = rows(figure)
        assert same(lines["Real"][0], table.real[number])  # type: ignore[index]
        assert same(lines["1 toy"][0], table.generated[2 * number])  # type: ignore[index]


# --- strips -----------------------------------------------------------------------------------


def with_strips(folder: Path, table: ImagePredictions, count: int = 8) -> np.ndarray:
    """Strips that fade into the images of a run; returns their steps."""
    assert table.generated is not None
    images = np.array(first_images(table))
    share = np.linspace(0, 1, count)[None, :, None, None]
    steps = (share * table.generated[images][:, None]).round().astype(np.uint8)
    np.savez(folder / "strips.npz", image=images, steps=steps)
    return steps


def test_strips_stand_under_their_prompts_a_row_for_each_run(
    tmp_path: Path, registry: Registry, table: ImagePredictions
) -> None:
    other = drawn(model=3)
    steps = [with_strips(run_of(tmp_path, t, m), t) for m, t in (("a", table), ("b", other))]
    run_of(tmp_path, table, "c")
    text = rendered(tmp_path / "runs", registry)
    shown = [figure for figure in figures(text) if "step 1 of 8" in figure]
    assert len(shown) == 4
    for place, figure in enumerate(shown):
        lines = rows(figure)
        assert list(lines) == ["1 a", "2 b"], "c has none"
        for images, kept in zip(lines.values(), steps, strict=True):
            assert len(images) == 8
            assert images[0].max() < 5
            assert np.abs(images[-1] - kept[place, -1]).mean() < 20
    assert "From noise to image" in text


def test_strips_of_other_images_are_left_out_and_named(
    tmp_path: Path, registry: Registry, table: ImagePredictions
) -> None:
    folder = run_of(tmp_path, table)
    with_strips(folder, drawn(model=9))
    text = rendered(folder, registry)
    assert "The strips of 1 toy do not end in the images that were scored" in text
    assert "step 1 of 8" not in text


def test_a_run_without_strips_has_no_word_of_them(
    tmp_path: Path, registry: Registry, table: ImagePredictions
) -> None:
    assert "From noise to image" not in rendered(run_of(tmp_path, table), registry)


@pytest.mark.parametrize(
    "change",
    [
        {"image": np.array([0, 0, 2, 4])},
        {"image": np.array([0.0, 2.0, 4.0, 6.0])},
        {"steps": np.zeros((4, 8, 4), np.uint8)},
        {"steps": np.zeros((4, 8, 4, 4), np.float32)},
        {"steps": np.zeros((3, 8, 4, 4), np.uint8)},
        {"steps": np.zeros((4, 0, 4, 4), np.uint8)},
    ],
)
def test_damaged_strips_are_refused_by_name(
    tmp_path: Path, table: ImagePredictions, change: dict[str, np.ndarray]
) -> None:
    folder = run_of(tmp_path, table)
    sound = {"image": np.array([0, 2, 4, 6]), "steps": np.zeros((4, 8, 4, 4), np.uint8)}
    np.savez(folder / "strips.npz", **(sound | change))
    with pytest.raises(DataError, match=r"strips.npz: .* are expected.*--fresh"):
        strips.read([folder])


def test_a_browser_shows_the_images(
    tmp_path: Path, registry: Registry, table: ImagePredictions
) -> None:
    browsers = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in browsers if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no chromium on this machine")
    folder = run_of(tmp_path, table)
    with_strips(folder, table)
    path = tmp_path / "index.html"
    path.write_text(rendered(folder, registry), "utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--window-size=400,900", path.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "From noise to image" in done.stdout
