"""``medbench plugins new``: a whole distribution, or a refusal."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from program import Medbench


def test_it_writes_a_distribution_that_registers_and_lints(
    medbench: Medbench, tmp_path: Path
) -> None:
    folder = tmp_path / "work" / "a folder"
    ran = medbench("plugins", "new", "two-words", "--output", folder)
    assert ran.code == 0, ran.err
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == {
        "pyproject.toml", "README.md", ".gitignore", ".github/workflows/test.yml",
        "two_words/__init__.py", "two_words/config.py", "two_words/model.py",
        "tests/test_conformance.py", "tests/test_model.py",
    }  # fmt: skip
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["medbench"] == {"two-words": "two_words"}
    workflow = (folder / ".github/workflows/test.yml").read_text()
    assert "${{ matrix.python }}" in workflow
    for path in folder.rglob("*"):
        if path.is_file():
            assert "<<" not in path.read_text(), path
    rules = ("--isolated", "--select", "E,F,W,I,UP,B", "--line-length", "100")
    linted = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *rules, "."],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert linted.returncode == 0, linted.stdout


def test_its_model_is_listed_once_it_is_on_the_path(medbench: Medbench, tmp_path: Path) -> None:
    assert medbench("plugins", "new", "two-words", "--output", tmp_path / "p").code == 0
    information = tmp_path / "p" / "two_words-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: two-words\nVersion: 0.1.0")
    (information / "entry_points.txt").write_text("[medbench]\ntwo-words = two_words\n")
    ran = medbench("models", "show", "two-words", "--json", PYTHONPATH=str(tmp_path / "p"))
    assert ran.code == 0, ran.err
    assert ran.json["pretraining"] == ["image-text-pairs"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My Model", "no name for a plugin"),
        ("../away", "no name for a plugin"),
        ("radclip", "a model called 'radclip' already"),
        ("torch", "a package called 'torch' is installed"),
        ("3d-model", "cannot import a package called '3d_model'"),
        ("class", "cannot import a package called 'class'"),
    ],
)
def test_a_name_that_cannot_be_is_refused(
    medbench: Medbench, tmp_path: Path, name: str, words: str
) -> None:
    ran = medbench("plugins", "new", name, "--output", tmp_path / "new")
    assert ran.code == 2
    assert words.lower() in ran.err.lower()
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(medbench: Medbench, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    ran = medbench("plugins", "new", "my-model", "--output", folder)
    assert ran.code == 2
    assert f"{folder} exists already" in ran.err
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    ran = medbench("plugins", "new", "my-model", "--output", "/proc/nothing")
    assert ran.code == 2
    assert "/proc/nothing" in ran.err
