"""A blinded reader study: only the picture tells real from generated, and the key is apart."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import classes, drawn, write_run
from PIL import Image
from reading import Page

from medbench.cli import main
from medbench.errors import DataError, UsageError
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.plugins import Registry, discover
from medbench.report.reader_study import KEY, SHEET, write
from medbench.report.runs import Run, read

COUNT = 24  #: patients, of two images each
SIDE = 32
EVIL = '=HYPERLINK("x") "opacity", <b>left</b>'


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover(third_party=False)


@pytest.fixture(scope="module")
def table() -> ImagePredictions:
    found = drawn(2 * COUNT, side=SIDE)
    assert found.prompt_texts is not None
    told = list(found.prompt_texts)
    told[:2] = [EVIL] * 2
    return replace(found, prompt_texts=told)


@pytest.fixture
def run(tmp_path: Path, table: ImagePredictions, registry: Registry) -> Run:
    folder = write_run(tmp_path, table=table, task="iu-xray-generation", track="real")
    return read([folder], registry)[0]


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_images_and_key_say_the_same_and_stand_apart(
    tmp_path: Path, run: Run, table: ImagePredictions
) -> None:
    study = write([run], tmp_path / "reading", 21, 0)
    assert (study.folder, study.key, study.cases) == (
        tmp_path / "reading",
        tmp_path / "reading-key",
        21,
    )
    assert sorted(p.name for p in study.folder.iterdir()) == [
        "README.txt", "images", "scores.csv", "sheet.html",
    ]  # fmt: skip
    assert sorted(p.name for p in study.key.iterdir()) == ["README.txt", "key.csv"]
    sheet, key = rows(study.folder / "scores.csv"), rows(study.key / "key.csv")
    assert tuple(sheet[0]) == SHEET
    assert tuple(key[0]) == KEY
    names = [f"image-{k:03d}.png" for k in range(1, 22)]
    assert [row["image"] for row in sheet] == [row["image"] for row in key] == names
    assert sorted(p.name for p in (study.folder / "images").iterdir()) == names
    kinds = [row["kind"] for row in key]
    assert (kinds.count("real"), kinds.count("generated")) == (10, 11)
    assert kinds != sorted(kinds), "shuffled"
    assert kinds != sorted(kinds, reverse=True)
    assert len({row["patient_id"] for row in key}) == 21, "no patient twice"
    told, asked = table.prompt_texts or (), table.prompts
    assert asked is not None
    for seen, secret in zip(sheet, key, strict=True):
        shown = pixels(study.folder / "images" / seen["image"])
        tested = int(secret["real_row"])
        assert secret["patient_id"] == f"p{tested // 2:02d}"
        assert seen["prompt"].removeprefix("'") == told[tested]
        assert not any(seen[name] for name in SHEET[2:]), "for the reader to fill in"
        if secret["kind"] == "real":
            assert secret["generated_row"] == ""
            assert np.array_equal(shown, table.real[tested])  # type: ignore[index]
        else:
            row = int(secret["generated_row"])
            assert np.array_equal(shown, table.generated[row])  # type: ignore[index]
            assert asked[row] == tested


def test_nothing_but_the_picture_tells_them_apart(tmp_path: Path, run: Run) -> None:
    study = write([run], tmp_path / "reading", 20, 0)
    files = sorted((study.folder / "images").iterdir())
    assert len({path.stat().st_size for path in files}) == 1
    assert len({path.stat().st_mtime for path in files}) == 1
    for path in files:
        with Image.open(path) as image:
            assert (image.mode, image.size, image.info) == ("L", (SIDE, SIDE), {})
        data, at, chunks = path.read_bytes(), 8, []
        while at < len(data):
            chunks.append(data[at + 4 : at + 8])
            at += 12 + int.from_bytes(data[at : at + 4], "big")
        assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    record = run.record
    for path in (study.folder / "README.txt", study.folder / "sheet.html"):
        text = path.read_text("utf-8")
        assert record.run_id not in text
        assert record.model_id not in text
    assert not re.search(r"\bp\d\d\b", (study.folder / "scores.csv").read_text("utf-8-sig"))
    warning = (study.key / "README.txt").read_text("utf-8")
    assert "DO NOT GIVE THIS FOLDER TO READERS" in warning
    assert record.run_id in warning


def test_a_seed_fixes_the_study_to_the_byte_and_another_draws_another(
    tmp_path: Path, run: Run
) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        files = [p for p in folder.rglob("*") if p.is_file() and p.name != "README.txt"]
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}

    first, again, other = (
        write([run], tmp_path / name, 12, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert content(first.folder) == content(again.folder)
    assert content(first.key) == content(again.key)
    assert content(first.key) != content(other.key)


def test_a_prompt_is_text_on_the_sheet_and_no_formula(tmp_path: Path, run: Run) -> None:
    study = write([run], tmp_path / "reading", COUNT, 0)
    prompts = [row["prompt"] for row in rows(study.folder / "scores.csv")]
    assert f"'{EVIL}" in prompts
    assert not any(prompt.startswith("=") for prompt in prompts)
    sheet = Page((study.folder / "sheet.html").read_text("utf-8"))
    assert sheet.scripts == 0
    assert "<b>left</b>" in sheet.text
    assert all(link.startswith("images/image-") for link in sheet.links)
    assert len(sheet.links) == COUNT
    assert "Patients’ data." in sheet.text


def test_a_phantom_says_that_its_real_images_show_no_patient(
    tmp_path: Path, table: ImagePredictions, registry: Registry
) -> None:
    folder = write_run(tmp_path, table=table, task="iu-xray-generation", track="phantom")
    study = write(read([folder], registry), tmp_path / "reading", 4, 0)
    for name in ("README.txt", "sheet.html"):
        text = (study.folder / name).read_text("utf-8")
        assert "PHANTOM" in text
        assert "patients’ data" not in text.lower()


def test_a_study_is_never_written_over_another(tmp_path: Path, run: Run) -> None:
    write([run], tmp_path / "reading", 4, 0)
    before = (tmp_path / "reading-key" / "key.csv").read_bytes()
    with pytest.raises(UsageError, match="reading is there already"):
        write([run], tmp_path / "reading", 4, 1)
    shutil.rmtree(tmp_path / "reading")
    with pytest.raises(UsageError, match="reading-key is there already"):
        write([run], tmp_path / "reading", 4, 1)
    assert (tmp_path / "reading-key" / "key.csv").read_bytes() == before
    assert not (tmp_path / "reading").exists()


def test_what_cannot_be_a_study_is_refused_before_anything_is_written(
    tmp_path: Path, run: Run, registry: Registry
) -> None:
    def refused(kind: type[Exception], match: str, *runs: Run, count: int = 4) -> None:
        with pytest.raises(kind, match=match):
            write(runs, tmp_path / "reading", count, 0)
        assert not (tmp_path / "reading").exists()
        assert not (tmp_path / "reading-key").exists()

    refused(UsageError, "of one run; 2 were given", run, run)
    refused(DataError, rf"prompts of {COUNT} patients.*at most {COUNT}", run, count=COUNT + 1)
    refused(DataError, "has no predictions beside its record", replace(run, predictions=None))
    assert isinstance(run.predictions, ImagePredictions)
    plain = replace(run.predictions, prompt_texts=None)
    refused(DataError, "lack images or prompts", replace(run, predictions=plain))
    small = replace(run.predictions, generated=run.predictions.generated[:, :16, :16])  # type: ignore[index]
    refused(DataError, "size would tell them apart", replace(run, predictions=small))
    (other,) = read([write_run(tmp_path, table=classes())], registry)
    refused(UsageError, "is of classification", other)


def test_the_command_writes_a_study_and_no_page(
    tmp_path: Path,
    table: ImagePredictions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MEDBENCH_HOME", str(tmp_path / "home"))
    folder = write_run(tmp_path, table=table, task="iu-xray-generation")

    def go(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["report", str(folder), "--reader-study", str(tmp_path / "reading"), *words])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    code, _, err = go("--output", str(tmp_path / "page"))
    assert code == 2
    assert "a page shows which images are real" in err
    code, _, err = go("--cases", "1")
    assert code == 2
    code, _, err = go()
    assert code == 3
    assert f"at most {COUNT} with --cases" in err
    code, out, err = go("--cases", "5", "--seed", "3", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["schema"] == "medbench.reader-study/1"
    assert found["cases"] == len(rows(tmp_path / "reading" / "scores.csv")) == 5
    assert Path(found["key"]) == tmp_path / "reading-key"
    assert found["runs"][0]["track"] == "phantom"
    assert not list(tmp_path.rglob("index.html"))
    assert go("--cases", "5")[0] == 2, "never over another"


def test_a_browser_shows_the_sheet(tmp_path: Path, run: Run) -> None:
    browsers = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in browsers if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no chromium on this machine")
    study = write([run], tmp_path / "reading", 4, 0)
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         (study.folder / "sheet.html").as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.count("☐ generated") == 4
