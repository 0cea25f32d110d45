"""Weights that may have seen what is tested, and weights that nobody says anything of."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runs import task, write_run

from medbench import ModelSpec
from medbench.leaderboard.build import build
from medbench.plugins import discover
from medbench.run.records import brought, flags, weights_data
from medbench.schemas.contamination import contamination
from medbench.schemas.record import Record
from medbench.schemas.task import load_task

REGISTRY = discover(third_party=False)
TASKS = {name: load_task(REGISTRY.task_file(name)) for name in REGISTRY.names("tasks")}


@pytest.mark.parametrize(
    ("declared", "name", "found"),
    [
        (["crystal-clean"], "crystal-clean", ["crystal-clean"]),
        (["sartaj-brain-tumor-mri"], "crystal-clean-matching", ["sartaj-brain-tumor-mri"]),
        (["chexpert"], "chexpert-5x200", ["chexpert"]),
        (["nih-chestxray14"], "rsna", ["nih-chestxray14"]),
        (["chexpert", "radimagenet"], "covid-ct", []),
        # the dataset's own training part: kept apart where the task tests on its own test part
        (["mimic-cxr/train"], "mimic-cxr-14", []),
        (["mimic-cxr"], "mimic-cxr-14", ["mimic-cxr"]),
        # and not where the task picks its samples from that part
        (["mimic-cxr/train"], "mimic-5x200", ["mimic-cxr/train"]),
        (["covid-ct-md/train"], "covid-ct", ["covid-ct-md/train"]),
        ([], "chexpert", []),
    ],
)
def test_what_was_trained_on_is_held_against_what_is_tested(
    declared: list[str], name: str, found: list[str]
) -> None:
    assert contamination(declared, TASKS[name], "clean") == found


def test_an_overlap_that_is_learnt_of_leaves_the_task_the_same() -> None:
    assert task(overlaps=["other"]).sha256 == task().sha256


def cell(spec: ModelSpec, name: str, given: bool) -> Any:
    return SimpleNamespace(
        model=spec, task=TASKS[name], weights=Path("w") if given else None, stage_weights={},
        baseline="", limit=None, assumed={}, protocol="clean",
    )  # fmt: skip


def spec(**changes: Any) -> ModelSpec:
    content = {"name": "m", "title": "M", "description": "M.", "cls": "m:M"}
    return ModelSpec(**{**content, "capabilities": ("encode_images", "fit"), **changes})


def flagged(spec: ModelSpec, name: str, given: bool = True) -> set[str]:
    loaded: Any = SimpleNamespace(dataset=SimpleNamespace(limited=False, track="real"))
    fitted: Any = SimpleNamespace(pretraining=[])
    return {*flags(cell(spec, name, given), loaded, fitted)} & {"contaminated", "undeclared"}


@pytest.mark.parametrize("name", ["crystal-clean", "crystal-clean-matching", "chexpert"])
def test_published_radclip_is_contaminated_where_it_may_have_seen_the_data(name: str) -> None:
    radclip = REGISTRY.model("radclip")
    assert flagged(radclip, name) == {"contaminated"}
    assert flagged(radclip, "covid-ct") == set()
    assert flagged(radclip, name, given=False) == set()


def test_weights_of_which_nothing_is_declared_are_flagged() -> None:
    assert flagged(spec(), "chexpert") == {"undeclared"}
    assert flagged(spec(weights_data=()), "chexpert") == set()
    assert flagged(spec(weights_data=("chexpert",)), "chexpert") == {"contaminated"}
    assert flagged(spec(), "chexpert", given=False) == set()
    # a model that trains nothing here brings its weights with it
    assert flagged(spec(capabilities=("encode_images",)), "chexpert", given=False) == {"undeclared"}


def test_the_record_keeps_what_was_declared() -> None:
    known = spec(weights_data=("mimic-cxr/train",), overlaps=("chexpert",))
    assert weights_data(cell(known, "rsna", True)) == ["chexpert", "mimic-cxr/train"]
    assert weights_data(cell(known, "rsna", False)) is None
    assert not brought(cell(known, "rsna", False))


def test_a_spec_names_collections_plainly() -> None:
    for wrong in ("MIMIC", "a b", "mimic-cxr/test", ""):
        with pytest.raises(ValueError, match="weights_data or overlaps"):
            spec(weights_data=(wrong,))


def lines(root: Path, out: Path, spec: Any) -> dict[str, dict[str, str]]:
    build([root], out, {"covid-ct": spec})
    text = (out / "covid-ct.csv").read_text(encoding="utf-8")
    return {r["model"]: r for r in csv.DictReader(io.StringIO(text)) if r["metric"] == "auroc"}


def test_contaminated_and_undeclared_rows_have_no_rank(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "a", skill=2.0)
    write_run(tmp_path / "runs", "b", skill=2.0, flags=("undeclared",))
    found = lines(tmp_path / "runs", tmp_path / "out", task())
    assert (found["a"]["kind"], found["a"]["flags"]) == ("model", "")
    assert (found["b"]["kind"], found["b"]["flags"]) == ("unranked", "undeclared")


def test_an_overlap_learnt_of_later_flags_what_was_published(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "a", skill=2.0)
    record = Record.model_validate_json((folder / "record.json").read_bytes())
    record.model.weights_data = ["big-collection"]
    text = record.model_dump_json(by_alias=True, indent=2)
    (folder / "record.json").write_text(text, encoding="utf-8")
    before = lines(tmp_path / "runs", tmp_path / "out", task())
    after = lines(tmp_path / "runs", tmp_path / "out", task(overlaps=["big-collection"]))
    assert (before["a"]["kind"], after["a"]["kind"]) == ("model", "unranked")
    assert after["a"]["flags"] == "contaminated"
