"""The submission verbs: packing, verifying, accepting, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from program import Medbench
from submission.bundles import desk, edit_json, packed, unpacked


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, phantoms: Callable[[str], Path]) -> Path:
    """The folder of a run."""
    root = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDBENCH_HOME", str(root / "home"))
        return desk(root / "runs", {"covid-ct-md": phantoms("covid-ct-md")}).run("ours")


def test_from_a_run_to_a_badge_in_the_tables(
    medbench: Medbench, run: Path, phantoms: Callable[[str], Path], tmp_path: Path
) -> None:
    data = ("--data", f"covid-ct-md={phantoms('covid-ct-md')}")
    bundle = tmp_path / "our-lab.zip"
    ran = medbench("submission", "pack", run, "--output", bundle, *data)
    assert ran.code == 0, ran.err
    assert "recomputed" in ran.out
    again = medbench("submission", "pack", run, "--output", bundle, *data)
    assert again.code == 2
    assert "not overwritten" in again.err
    root = tmp_path / "boards"
    # a plugin that breaks when it is imported: verifying imports none
    medbench.install("broken_import")
    ran = medbench("submission", "verify", bundle, "--json", "--accept", root, *data)
    assert ran.code == 0, ran.err
    assert "broken_import" not in ran.err
    assert ran.json["schema"] == "medbench.verification/1"
    assert ran.json["verdict"] == "recomputed"
    (row,) = ran.json["runs"]
    assert (row["task"], row["metric"], row["problems"]) == ("covid-ct", "auroc", [])
    ran = medbench("leaderboard", "build", "--root", root, "--no-plugins")
    assert ran.code == 0, ran.err
    assert "recomputed" in (root / "covid-ct.md").read_text(encoding="utf-8")
    assert medbench("leaderboard", "check", "--root", root, "--no-plugins").code == 0


def test_a_forged_bundle_ends_in_exit_5(
    medbench: Medbench, run: Path, phantoms: Callable[[str], Path], tmp_path: Path
) -> None:
    data = ("--data", f"covid-ct-md={phantoms('covid-ct-md')}")
    bundle = tmp_path / "b.zip"
    assert medbench("submission", "pack", run, "--output", bundle, *data).code == 0
    files = unpacked(bundle)
    name = next(name for name in files if name.endswith("record.json"))
    edit_json(files, name, lambda r: r["metrics"]["auroc"].update(value=0.99))
    forged = packed(tmp_path / "forged.zip", files)
    root = tmp_path / "boards"
    ran = medbench("submission", "verify", forged, "--json", "--accept", root, *data)
    assert ran.code == 5
    assert ran.json["verdict"] == "failed"
    assert [p["kind"] for p in ran.json["runs"][0]["problems"]] == ["metric"]
    assert "'metric'" in ran.err
    assert not root.exists()
    assert set(json.loads(files["submission.json"])) == {"schema", "runs", "files"}


def test_what_is_no_bundle_is_said_to_be_none(medbench: Medbench, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(b"hello")
    ran = medbench("submission", "verify", tmp_path / "b.zip")
    assert ran.code == 5
    assert "not-a-zip" in ran.out
    ran = medbench("submission", "verify", tmp_path / "none.zip")
    assert ran.code == 3
    assert "none.zip" in ran.err
    ran = medbench("submission", "verify", tmp_path / "b.zip", "--data", "covid-ct-md=nowhere")
    assert ran.code == 2
    assert "nowhere" in ran.err
