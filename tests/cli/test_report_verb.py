"""``medbench report`` on runs of the program itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from program import Medbench


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, phantoms: Callable[[str], Path]) -> Medbench:
    """With runs of a classification with two shares of the labels, and of a segmentation."""
    found = Medbench(tmp_path_factory.mktemp("report"))
    found.install("able_model")
    data = phantoms("rsna-pneumonia")
    (found.home / "config.toml").write_text(f'[data]\nrsna-pneumonia = "{data}"\n')
    ran = found("run", "-m", "able", "-t", "rsna", "--fraction", "0.5", "--fraction", "1")
    assert ran.code == 0, ran.err
    ran = found("run", "-m", "able", "-t", "rsna-segmentation")
    assert ran.code == 0, ran.err
    return found


def test_a_page_of_real_runs(program: Medbench, tmp_path: Path) -> None:
    ran = program("report", program.home / "runs", "--output", tmp_path / "page", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["schema"] == "medbench.report/1"
    assert [run["task"] for run in ran.json["runs"]].count("rsna") == 2
    assert {run["track"] for run in ran.json["runs"]} == {"phantom"}
    path = Path(ran.json["page"])
    assert path == tmp_path / "page" / "index.html"
    text = path.read_text("utf-8")
    for record in (program.home / "runs").rglob("record.json"):
        for metric in json.loads(record.read_text("utf-8"))["metrics"].values():
            low, high = metric["ci95"]
            assert f"{metric['value']!r} [{low!r}, {high!r}], n {metric['n']:,}" in text
    assert "by share of the labels" in text
    assert 'tsne-2-title"' in text
    assert "Drawn on the phantom images of rsna-pneumonia" in text
    assert "Contours on black" not in text
    assert str(program.home) not in text
    assert "t-SNE of" in ran.err


def test_without_the_images_contours_are_on_black_and_it_is_said(
    program: Medbench, tmp_path: Path
) -> None:
    run = next((program.home / "runs").glob("able_*segmentation*"))
    ran = program("report", run, MEDBENCH_CONFIG=str(tmp_path / "none.toml"))
    assert ran.code == 0, ran.err
    path = Path(ran.out.strip())
    assert path.parent.parent == program.home / "reports"
    assert "Contours on black" in path.read_text("utf-8")


def test_bad_input_ends_in_its_exit_code(program: Medbench, tmp_path: Path) -> None:
    ran = program("report", tmp_path)
    assert ran.code == 3
    assert "is not the folder of a run" in ran.err
    one, other = sorted((program.home / "runs").glob("able_rsna_*"))
    broken = tmp_path / one.name
    shutil.copytree(one, broken)
    shutil.copy(other / "predictions.parquet", broken)
    ran = program("report", broken, "--output", tmp_path / "page")
    assert ran.code == 3
    assert "predictions.parquet does not have the hash" in ran.err
    assert not (tmp_path / "page").exists()
    (tmp_path / "file").write_text("")
    ran = program("report", one, "--output", tmp_path / "file")
    assert ran.code == 2
    assert "is a file" in ran.err
    assert program("report").code == 2
