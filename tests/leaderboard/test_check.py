"""Publishing runs, and finding whatever was changed afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import MANIFEST, predictions, task, write_run

from medbench.errors import DataError, UsageError, VerificationError
from medbench.evaluation.predictions import ClassPredictions
from medbench.leaderboard.build import build, check, publish

TASKS = {"covid-ct": task()}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    for seed in range(2):
        publish(write_run(root / "runs", "radclip", seed, 2.0), root / "boards")
    publish(write_run(root / "runs", "radclip@clip", 0, 0.3), root / "boards")
    build([root / "boards" / "records"], root / "boards", TASKS)
    return root / "boards"


@pytest.fixture
def boards(published: Path, tmp_path: Path) -> Path:
    shutil.copytree(published, tmp_path / "boards")
    return tmp_path / "boards"


def edit(boards: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = min(boards.rglob("record.json"))
    record = json.loads(path.read_text(encoding="utf-8"))
    change(record)
    path.write_text(json.dumps(record), encoding="utf-8")


def rebuilt(boards: Path) -> list[str]:
    """Problems left when the tables were built anew, as a forger would."""
    build([boards / "records"], boards, TASKS)
    return check(boards, TASKS)


def test_published_boards_agree(boards: Path) -> None:
    assert check(boards, TASKS) == []
    assert sorted(p.name for p in (boards / "records" / "covid-ct").iterdir()) == [
        "radclip.clip_covid-ct_tiny_s0_linear-probe_phantom",
        "radclip_covid-ct_tiny_s0_linear-probe_phantom",
        "radclip_covid-ct_tiny_s1_linear-probe_phantom",
    ]


def test_nothing_published_holds_an_id(boards: Path) -> None:
    for path in boards.rglob("*"):
        if path.is_file():
            assert b"SECRET" not in path.read_bytes()
    for path in boards.rglob("*.parquet"):
        assert not any("SECRET" in i for i in ClassPredictions.read(path, True).sample_ids)


def test_a_tampered_table_is_found(boards: Path) -> None:
    for name in ("covid-ct.md", "covid-ct.csv", "README.md"):
        path = boards / name
        original = path.read_bytes()
        path.write_bytes(original.replace(b"radclip", b"radclap", 1))
        (problem,) = check(boards, TASKS)
        assert name in problem
        path.write_bytes(original)
    assert check(boards, TASKS) == []


def test_a_missing_or_extra_table_is_found(boards: Path) -> None:
    (boards / "covid-ct.csv").rename(boards / "other.csv")
    assert sorted(problem.split()[0] for problem in check(boards, TASKS)) == [
        "covid-ct.csv",
        "other.csv",
    ]


def test_tampered_predictions_are_found(boards: Path) -> None:
    path = min(boards.rglob("predictions.parquet"))
    table = ClassPredictions.read(path, True)
    table.scores[0] = table.scores[0][::-1].copy()
    table.write(path)
    problems = rebuilt(boards)
    assert any("hash" in problem for problem in problems)


def test_predictions_tampered_along_with_their_hash_are_found(boards: Path) -> None:
    path = min(boards.rglob("predictions.parquet"))
    table = ClassPredictions.read(path, True)
    table.scores[:20] = table.y[:20]
    table.write(path)
    digest = table.digest(MANIFEST)
    edit(boards, lambda record: record["hashes"].update(predictions=digest))
    problems = rebuilt(boards)
    assert not any("hash" in problem for problem in problems)
    assert any("metric 'auroc' is stated as" in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("value", lambda r: r["metrics"]["auroc"].update(value=0.99)),
        ("last digits", lambda r: r["metrics"]["auroc"].update(
            value=r["metrics"]["auroc"]["value"] + 1e-8)),
        ("interval", lambda r: r["metrics"]["f1"].update(ci95=[0.9, 0.99])),
        ("count", lambda r: r["metrics"]["f1"].update(n=1000)),
        ("per label", lambda r: r["metrics"]["auroc"]["per_label"]["cap"].update(value=0.99)),
        ("dropped", lambda r: r["metrics"].pop("f1")),
        ("direction", lambda r: r["metrics"]["f1"].update(higher_is_better=False)),
        ("prior", lambda r: r["baselines"]["prior"]["auroc"].update(value=0.1, ci95=[0.1, 0.1])),
        ("scored", lambda r: r["counts"].update(scored=89)),
    ],
)  # fmt: skip
def test_a_tampered_metric_is_found(boards: Path, name: str, change) -> None:
    edit(boards, change)
    assert rebuilt(boards) != []


def test_subgroups_are_neither_derived_again_nor_in_the_way(boards: Path) -> None:
    part = {"value": 0.8, "ci95": [0.7, 0.9], "n": 20}
    gap = {"value": 0.0, "ci95": [-0.1, 0.1], "between": ["F", "M"]}
    stated = {"sex": {"metric": "auroc", "groups": {"F": part, "M": part}, "gap": gap}}
    edit(boards, lambda record: record.update(subgroups=stated))
    assert rebuilt(boards) == []


def test_a_metric_of_another_card_is_found(boards: Path) -> None:
    for path in boards.rglob("record.json"):
        text = path.read_text(encoding="utf-8")
        record = json.loads(text)
        card = record["metrics"]["auroc"]["card_sha256"]
        path.write_text(text.replace(card, "00" * 32), encoding="utf-8")
    assert any("identity card" in problem for problem in rebuilt(boards))


def test_a_record_that_is_not_valid_is_found(boards: Path) -> None:
    edit(boards, lambda record: record.update(surprise=1))
    assert any("surprise" in problem for problem in check(boards, TASKS))


def test_a_nan_is_not_valid(boards: Path) -> None:
    edit(boards, lambda record: record["metrics"]["auroc"].update(value=float("nan")))
    assert any("not a valid record" in problem for problem in check(boards, TASKS))


def test_another_task_file_of_the_same_version_is_found(boards: Path) -> None:
    edited = {"covid-ct": task(description="Other classes.")}
    build([boards / "records"], boards, edited)
    problems = check(boards, edited)
    assert len(problems) == 3
    assert all("another task file" in problem for problem in problems)


def test_an_unknown_task_is_found(boards: Path) -> None:
    assert any("no task called" in problem for problem in check(boards, {}))


def test_removed_predictions_are_found(boards: Path) -> None:
    min(boards.rglob("predictions.parquet")).unlink()
    assert any("missing" in problem for problem in rebuilt(boards))


def test_predictions_with_sample_ids_are_found(boards: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "radclip@clip", 0, 0.3)
    shutil.copy(run / "predictions.parquet", boards / "records" / "covid-ct" / run.name)
    (problem,) = rebuilt(boards)
    assert "sample ids" in problem


def test_a_record_moved_to_another_folder_is_found(boards: Path) -> None:
    folder = min(boards.rglob("record.json")).parent
    folder.rename(folder.with_name("elsewhere"))
    assert any("run id" in problem for problem in rebuilt(boards))


def test_real_predictions_are_never_published(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "a", track="real")
    folder = publish(run, tmp_path / "boards")
    assert [p.name for p in folder.iterdir()] == ["record.json"]
    build([tmp_path / "boards" / "records"], tmp_path / "boards", TASKS)
    assert check(tmp_path / "boards", TASKS) == []
    shutil.copy(run / "predictions.parquet", folder)
    assert any("real patients" in problem for problem in rebuilt(tmp_path / "boards"))


@pytest.mark.parametrize("flag", ["dirty", "limited"])
def test_dirty_and_limited_runs_are_not_published(tmp_path: Path, flag: str) -> None:
    run = write_run(tmp_path / "runs", "a", flags=(flag,))
    with pytest.raises(UsageError, match=flag):
        publish(run, tmp_path / "boards")
    assert not (tmp_path / "boards").exists()


def test_a_run_whose_predictions_changed_is_not_published(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "a")
    predictions(0.5, 77).write(run / "predictions.parquet")
    with pytest.raises(VerificationError, match="hash"):
        publish(run, tmp_path / "boards")
    assert list((tmp_path / "boards").rglob("*.json")) == []


def test_publishing_again_replaces_the_same_cell(tmp_path: Path) -> None:
    publish(write_run(tmp_path / "runs", "a", skill=0.5, tail="_1"), tmp_path / "boards")
    publish(write_run(tmp_path / "runs", "a", skill=0.6, tail="_2"), tmp_path / "boards")
    other = publish(write_run(tmp_path / "runs", "a", seed=1, tail="_3"), tmp_path / "boards")
    names = sorted(p.name[-2:] for p in other.parent.iterdir())
    assert names == ["_2", "_3"]


def test_publishing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "a")
    first = {p.name: p.read_bytes() for p in publish(run, tmp_path / "boards").iterdir()}
    second = {p.name: p.read_bytes() for p in publish(run, tmp_path / "boards").iterdir()}
    assert first == second


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"record\.json"):
        publish(tmp_path, tmp_path / "boards")


def test_a_run_id_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "a")
    path = run / "record.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f'"{run.name}"', '"../../x"'), encoding="utf-8")
    with pytest.raises(DataError, match="cannot name a folder"):
        publish(run, tmp_path / "boards")
