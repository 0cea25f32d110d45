"""Runs on disk: found, held against their own hashes, and grouped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import classes, pairs, write_run

from medbench.errors import DataError
from medbench.evaluation.keyed import keyed_digest, with_keys
from medbench.plugins import Registry, discover
from medbench.report.runs import find, read, sections
from medbench.report.tables import command


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover(third_party=False)


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "record.json"
    content = json.loads(path.read_text("utf-8"))
    edit(content)
    path.write_text(json.dumps(content), "utf-8")


def test_a_folder_of_runs_is_all_of_them_once_and_without_half_copies(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "a", "one"), write_run(tmp_path / "b", "two")
    shutil.copytree(one, tmp_path / ".half" / one.name)
    assert find([tmp_path]) == [one.resolve(), two.resolve()]
    assert find([two, tmp_path]) == [two.resolve(), one.resolve()]


@pytest.mark.parametrize("kind", ["nothing", "empty", "file"])
def test_what_is_no_folder_of_runs_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "there"
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("{}")
    with pytest.raises(DataError, match=r"there is not the folder of a run"):
        find([path])


def test_a_damaged_record_is_named(tmp_path: Path, registry: Registry) -> None:
    folder = write_run(tmp_path)
    change(folder, lambda record: record["metrics"]["auroc"].update(value="much"))
    with pytest.raises(DataError, match=r"record.json is damaged: 'metrics.auroc.value'"):
        read([folder], registry)
    (folder / "record.json").write_text('{"schema": ')
    with pytest.raises(DataError, match=r"record.json cannot be read"):
        read([folder], registry)


def test_another_schema_is_refused_even_beside_good_runs(
    tmp_path: Path, registry: Registry
) -> None:
    good, other = write_run(tmp_path, "good"), write_run(tmp_path, "other")
    change(other, lambda record: record.update(schema="medbench.record/2"))
    with pytest.raises(DataError, match=r"other.*schema 'medbench.record/2'.*medbench.record/1"):
        read([good, other], registry)


@pytest.mark.parametrize("task", ["covid-ct", "iu-xray-retrieval"])
def test_predictions_of_another_run_are_refused(
    tmp_path: Path, registry: Registry, task: str
) -> None:
    tables = {
        "covid-ct": (classes(seed=0), classes(seed=1)),
        "iu-xray-retrieval": (pairs(seed=0), pairs(seed=1)),
    }[task]
    mine, other = (
        write_run(tmp_path / str(k), task=task, table=table) for k, table in enumerate(tables)
    )
    assert len(read([mine, other], registry)) == 2
    for path in other.glob("predictions.*"):
        shutil.copy(path, mine)
    with pytest.raises(DataError, match=r"does not have the hash that its record states"):
        read([mine], registry)


def test_published_predictions_with_keys_are_recognised(tmp_path: Path, registry: Registry) -> None:
    table = pairs()
    folder = write_run(tmp_path, table=table, task="iu-xray-retrieval")
    keyed = with_keys(table, "12" * 32)
    keyed.write(folder / "predictions.npz")
    with pytest.raises(DataError):
        read([folder], registry)
    digest = keyed_digest(keyed)  # type: ignore[arg-type]
    change(folder, lambda record: record["hashes"].update(published=digest))
    assert read([folder], registry)[0].predictions is not None


def test_damaged_features_are_named(tmp_path: Path, registry: Registry) -> None:
    folder = write_run(tmp_path, features=True)
    path = folder / "features.npz"
    found = dict(np.load(path))
    found["features"][3, 2] = np.nan
    np.savez(path, **found)
    with pytest.raises(DataError, match=r"features.npz: 'features' holds 1 values"):
        read([folder], registry)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"features.npz cannot be read"):
        read([folder], registry)


def test_runs_share_a_section_only_on_the_same_samples_of_one_track(
    tmp_path: Path, registry: Registry
) -> None:
    def on(manifest: str, model: str, **more: Any) -> Path:
        return write_run(tmp_path / manifest[:1], model, **more)

    folders = [on("1" * 64, "a"), on("1" * 64, "b", seed=1), on("1" * 64, "a", track="real")]
    limited = on("2" * 64, "a")
    (limited / "predictions.parquet").unlink()
    change(limited, lambda record: record["data"].update(manifest_sha256="2" * 64))
    found = sections(read([*folders, limited], registry))
    assert [(s.first.data.track, len(s.runs)) for s in found] == [
        ("real", 1),
        ("phantom", 2),
        ("phantom", 1),
    ]


def test_models_come_before_trivial_predictors(tmp_path: Path, registry: Registry) -> None:
    folders = [write_run(tmp_path, "baseline@prior"), write_run(tmp_path, "toy")]
    assert [run.record.model_id for run in read(folders, registry)] == ["toy", "baseline@prior"]


def test_runs_of_one_model_are_named_by_the_settings_that_differ(
    tmp_path: Path, registry: Registry
) -> None:
    folders = []
    for seed, epochs in enumerate((5, 9)):
        folders.append(write_run(tmp_path, "toy", seed=seed))
        config = {"pairs": {"epochs": epochs, "batch": 8}} | dict.fromkeys("uvw", epochs)
        change(folders[-1], lambda record, config=config: record["model"].update(config=config))
    folders += [write_run(tmp_path, "toy", task="covid-ct", seed=2, track="real")]
    change(folders[-1], lambda record: record["model"].update(preset="small"))
    assert [run.name for run in read(folders, registry)] == [
        "1 toy pairs.epochs=5, u=5, v=5, ...",
        "2 toy pairs.epochs=9, u=9, v=9, ...",
        "3 toy",
    ]


def test_the_command_says_what_the_record_says(tmp_path: Path, registry: Registry) -> None:
    folder = write_run(tmp_path, "radclip@clip", fraction=0.5, seed=3)
    (folder / "inputs.json").write_text(json.dumps({"inputs": {"identity": {"limit": 40}}}))
    change(folder, lambda record: record["model"].update(config={"pairs_epochs": 7}))
    (run,) = read([folder], registry)
    assert command(run, registry) == (
        "medbench run -m radclip@clip -t covid-ct --data phantom --preset tiny --adaptation "
        "linear-probe --fraction 0.5 --seed 3 --precision fp32 --limit 40 --set pairs_epochs=7"
    )


def test_a_command_for_real_data_asks_for_the_paths(tmp_path: Path, registry: Registry) -> None:
    folder = write_run(tmp_path, "some; rm -rf", track="real")
    change(folder, lambda record: record["model"].update(weights_sha256="ab" * 32))
    (run,) = read([folder], registry)
    text = command(run, registry)
    assert "-m 'some; rm -rf'" in text
    assert "--data covid-ct-md=PATH --weights 'some; rm -rf=PATH'" in text
