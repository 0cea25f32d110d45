"""The leaderboard verbs on the committed records."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medbench.cli.leaderboard import tasks_of
from medbench.leaderboard.collect import read
from medbench.plugins import discover
from program import Medbench

COMMITTED = Path(__file__).parents[2] / "leaderboards"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    root = tmp_path / "leaderboards"
    shutil.copytree(COMMITTED, root)
    return root


def test_the_committed_tables_agree_with_their_records(medbench: Medbench) -> None:
    ran = medbench("leaderboard", "check", "--root", COMMITTED)
    assert ran.code == 0, ran.err
    assert "agree" in ran.out


def test_building_again_changes_no_byte(medbench: Medbench, copied: Path) -> None:
    before = {p.name: p.read_bytes() for p in copied.iterdir() if p.is_file()}
    assert {"covid-ct.md", "covid-ct.csv", "README.md"} <= set(before)
    for path in before:
        (copied / path).unlink()
    ran = medbench("leaderboard", "build", "--root", copied)
    assert ran.code == 0, ran.err
    assert {p.name: p.read_bytes() for p in copied.iterdir() if p.is_file()} == before


def test_an_edited_table_ends_in_exit_5(medbench: Medbench, copied: Path) -> None:
    table = copied / "covid-ct.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("radclip", "radclap", 1))
    ran = medbench("leaderboard", "check", "--root", copied)
    assert ran.code == 5
    assert "covid-ct.csv" in ran.err


def test_an_edited_record_ends_in_exit_5(medbench: Medbench, copied: Path) -> None:
    record = next((copied / "records").rglob("record.json"))
    text = record.read_text(encoding="utf-8")
    value = text.partition('"auroc": {\n      "value": ')[2].partition(",")[0]
    record.write_text(text.replace(value, "0.999", 1), encoding="utf-8")
    ran = medbench("leaderboard", "check", "--root", copied)
    assert ran.code == 5
    assert record.parent.name in ran.err


def test_tables_hold_baselines_intervals_and_no_sample_ids(copied: Path) -> None:
    text = (copied / "covid-ct.md").read_text(encoding="utf-8")
    assert "PHANTOM" in text
    for row in ("radclip@no-base", "radclip@mean-head", "pixels-32", "prior"):
        assert row in text
    for path in copied.rglob("*"):
        if path.suffix in (".md", ".csv", ".json"):
            content = path.read_text(encoding="utf-8")
            assert "P001" not in content, path
            assert "cap001" not in content, path


def test_runs_of_arrays_give_pages_and_have_the_hashes_they_state(
    medbench: Medbench, phantoms: Callable[[str], Path], tmp_path: Path
) -> None:
    """Masks and embeddings are recognised after their file was written and read again."""
    medbench.install("able_model")
    names = ("siim-segmentation", "iu-xray-retrieval")
    words = ["run", "-m", "able", "-m", "baseline@chance", "--json"]
    for dataset in ("siim-pneumothorax", "iu-xray"):
        words += ["--data", f"{dataset}={phantoms(dataset)}"]
    for name in names:
        words += ["-t", name]
    ran = medbench(*words)
    assert ran.code == 0, ran.err
    tasks = tasks_of(discover(third_party=False))
    for record in ran.json["records"]:
        entry = read(medbench.home / "runs" / record["run_id"] / "record.json", tasks)
        found = entry.recognised()
        assert found is not None
        assert found.sound
        assert not found.keyed
    built = medbench("leaderboard", "build", "--root", tmp_path, "--local")
    assert built.code == 0, built.err
    index = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert index.count("— (limited)") == 2
    assert "| baseline" not in index
    for name in names:
        page = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        assert "| able |" in page
    assert "baseline@chance" in page
    refused = medbench("leaderboard", "build", "--root", tmp_path, "--local", "--publish")
    assert refused.code == 2
    assert "limited" in refused.err


def test_no_records_is_said(medbench: Medbench, tmp_path: Path) -> None:
    ran = medbench("leaderboard", "build", "--root", tmp_path)
    assert ran.code == 3
    assert "medbench run" in ran.err
    assert medbench("leaderboard", "check", "--root", tmp_path).code == 3
