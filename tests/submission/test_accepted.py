"""Submissions in the leaderboards: their badges, and what never shares a row."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from medbench.errors import DataError, UsageError, VerificationError
from medbench.leaderboard.build import build, check, held, publish
from medbench.submission.accept import accept
from medbench.submission.pack import pack
from submission.bundles import METRICS, TASKS, Desk, edit_json, packed, unpacked


def take(here: Desk, path: Path, root: Path) -> Path:
    return accept(path, here.verify(path), root, TASKS, METRICS)


def rows(root: Path, name: str = "covid-ct") -> dict[str, dict[str, str]]:
    """Lines of the primary metric, by row."""
    build(held(root), root, TASKS, metrics=METRICS)
    text = (root / f"{name}.csv").read_text(encoding="utf-8")
    return {r["model"]: r for r in csv.DictReader(io.StringIO(text)) if r["metric"] == "auroc"}


def test_a_recomputed_submission_is_ranked_under_its_own_name(
    here: Desk, bundle: Path, tmp_path: Path
) -> None:
    publish(here.run("ours", seed=3), tmp_path)
    folder = take(here, bundle, tmp_path)
    assert folder == tmp_path / "submissions" / "our-lab"
    found = rows(tmp_path)
    assert found["ours [our-lab]"]["badge"] == "recomputed"
    assert found["ours [our-lab]"]["rank"] == "1"
    assert found["ours"]["badge"] == "re-run"
    assert (found["ours"]["seeds"], found["ours [our-lab]"]["seeds"]) == ("3", "0 1")
    assert found["prior"]["badge"] == ""
    page = (tmp_path / "covid-ct.md").read_text(encoding="utf-8")
    for text in ("| Badge |", "| recomputed |", "docs/submissions.md"):
        assert text in page
    # matched by key with those that were published here: the pairs are tested, not compared by eye
    assert "have no common predictions" not in page
    assert check(tmp_path, TASKS, metrics=METRICS) == []


def test_pages_without_submissions_have_no_badges(here: Desk, tmp_path: Path) -> None:
    publish(here.run("ours", seed=3), tmp_path)
    rows(tmp_path)
    assert "Badge" not in (tmp_path / "covid-ct.md").read_text(encoding="utf-8")


def test_a_self_reported_submission_is_listed_without_a_rank(
    here: Desk, bundle: Path, tmp_path: Path
) -> None:
    files = unpacked(bundle)
    for name in [name for name in files if name.endswith("record.json")]:
        edit_json(files, name, lambda r: r["data"].update(renderer="0/tiny"))
    path = packed(tmp_path / "old.zip", files)
    take(here, path, tmp_path)
    found = rows(tmp_path)
    assert found["ours [old]"]["badge"] == "self-reported"
    assert found["ours [old]"]["rank"] == ""
    assert "self-reported" in found["ours [old]"]["flags"]
    assert not list((tmp_path / "submissions").rglob("predictions*"))
    assert check(tmp_path, TASKS, metrics=METRICS) == []


def test_masks_are_taken_in_under_published_keys(desk_of, tmp_path: Path) -> None:
    there = desk_of("rsna-pneumonia")
    path = tmp_path / "masks.zip"
    pack([there.run("ours", "rsna-segmentation")], path, TASKS, METRICS, there.holdings)
    take(there, path, tmp_path)
    build(held(tmp_path), tmp_path, TASKS, metrics=METRICS)
    assert check(tmp_path, TASKS, metrics=METRICS) == []


def test_a_record_changed_after_it_was_accepted_is_found(
    here: Desk, bundle: Path, tmp_path: Path
) -> None:
    folder = take(here, bundle, tmp_path)
    rows(tmp_path)
    path = min(folder.rglob("record.json"))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"seed": 0', '"seed": 9'), encoding="utf-8")
    assert any("not the record that was verified" in p for p in check(tmp_path, TASKS))
    path.write_text(text, encoding="utf-8")
    verdict = folder / "verdict.json"
    document = json.loads(verdict.read_text(encoding="utf-8"))
    for run in document["runs"]:
        run["verdict"] = "re-run"
    verdict.write_text(json.dumps(document), encoding="utf-8")
    assert any("not the record that was verified" in p for p in check(tmp_path, TASKS))
    verdict.unlink()
    with pytest.raises(DataError, match="does not vouch"):
        rows(tmp_path)


def test_a_failed_bundle_or_a_taken_name_is_not_accepted(
    here: Desk, bundle: Path, tmp_path: Path
) -> None:
    files = unpacked(bundle)
    edit_json(files, min(files), lambda r: r["metrics"]["auroc"].update(value=0.99))
    with pytest.raises(VerificationError, match="failed"):
        take(here, packed(tmp_path / "forged.zip", files), tmp_path)
    odd = packed(tmp_path / "Our Lab.zip", unpacked(bundle))
    with pytest.raises(UsageError, match="joined by hyphens"):
        take(here, odd, tmp_path)
    take(here, bundle, tmp_path / "boards")
    with pytest.raises(UsageError, match="not replaced"):
        take(here, bundle, tmp_path / "boards")
    assert not (tmp_path / "submissions").exists()


def test_records_that_cannot_share_the_tables_are_given_back(
    here: Desk, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise VerificationError("unlike networks")

    monkeypatch.setattr("medbench.submission.accept.build", refuse)
    with pytest.raises(VerificationError, match="unlike networks"):
        take(here, bundle, tmp_path)
    assert not list((tmp_path / "submissions").iterdir())
