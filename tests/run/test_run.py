"""Whole runs in subprocesses: records, resume after kills, damage, contracts."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from medbench.schemas.record import VOLATILE, Record
from program import Medbench, Ran

Phantoms = Callable[[str], Path]


def line(phantoms: Phantoms, *more: str | Path, model: str = "toy") -> list[str]:
    words: list[str | Path] = ["run", "-m", model, "-t", "covid-ct"]
    words += ["--data", f"covid-ct-md={phantoms('covid-ct-md')}"]
    if model == "toy":
        words += ["--data", f"image-text-pairs={phantoms('image-text-pairs')}"]
    return [str(word) for word in (*words, *more)]


def content(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in VOLATILE}


@pytest.fixture
def toy(medbench: Medbench) -> Medbench:
    medbench.install("toy_model")
    return medbench


@pytest.fixture(scope="module")
def done(
    tmp_path_factory: pytest.TempPathFactory, phantoms: Phantoms
) -> tuple[Medbench, Ran, Path]:
    """One finished run, for the tests that only look."""
    program = Medbench(tmp_path_factory.mktemp("done"))
    program.install("toy_model")
    output = program.home / "out"
    ran = program(*line(phantoms, "--json", "--output", output))
    assert ran.code == 0, ran.err
    return program, ran, output


def test_stdout_is_one_document_with_valid_records(done: tuple[Medbench, Ran, Path]) -> None:
    _, ran, output = done
    assert ran.json["schema"] == "medbench.run/1"
    assert ran.json["skipped"] == []
    (document,) = ran.json["records"]
    record = Record.model_validate(document)
    assert record.status == "complete"
    assert record.data.track == "phantom"
    assert "limited" in record.flags
    assert record.counts.expected == record.counts.scored == 30
    assert set(record.metrics) == {"auroc", "accuracy", "balanced-accuracy", "f1"}
    for name, metric in record.metrics.items():
        low, high = metric.ci95
        assert low <= metric.value <= high
        for baseline in ("prior", "pixels-32"):
            assert name in record.baselines[baseline]
    on_disk = json.loads((output / record.run_id / "record.json").read_text())
    assert on_disk == document


def test_metrics_follow_from_the_predictions_by_scikit_learn(
    done: tuple[Medbench, Ran, Path],
) -> None:
    _, ran, output = done
    (record,) = ran.json["records"]
    table = pd.read_parquet(output / record["run_id"] / "predictions.parquet")
    names = ["normal", "covid-19", "cap"]
    truth = table[[f"label:{n}" for n in names]].to_numpy(float).argmax(1)
    scores = table[[f"score:{n}" for n in names]].to_numpy(float)
    assert np.allclose(scores.sum(1), 1)
    wanted = {
        "auroc": roc_auc_score(truth, scores, multi_class="ovr", average="macro"),
        "accuracy": accuracy_score(truth, scores.argmax(1)),
        "f1": f1_score(truth, scores.argmax(1), average="macro", zero_division=0),
    }
    for name, value in wanted.items():
        assert record["metrics"][name]["value"] == pytest.approx(value, abs=1e-12)
    assert record["baselines"]["prior"]["auroc"]["value"] == 0.5


def test_the_same_command_finds_the_record(
    done: tuple[Medbench, Ran, Path], phantoms: Phantoms
) -> None:
    program, ran, output = done
    again = program(*line(phantoms, "--json", "--output", output))
    assert again.json == ran.json
    assert "already done" in again.err
    assert "train" not in again.err


def test_the_same_seed_gives_the_same_bytes_elsewhere(
    done: tuple[Medbench, Ran, Path], toy: Medbench, phantoms: Phantoms
) -> None:
    _, ran, output = done
    again = toy(*line(phantoms, "--json", "--output", toy.home / "out"))
    (one,), (other,) = ran.json["records"], again.json["records"]
    assert content(one) == content(other)
    name = f"{one['run_id']}/predictions.parquet"
    assert (output / name).read_bytes() == (toy.home / "out" / name).read_bytes()
    other_seed = toy(*line(phantoms, "--json", "--output", toy.home / "out", "--seed", "1"))
    (record,) = other_seed.json["records"]
    assert record["hashes"]["predictions"] != one["hashes"]["predictions"]
    assert record["data"] == one["data"]


def test_another_adaptation_costs_no_second_training_or_forward_pass(
    done: tuple[Medbench, Ran, Path], phantoms: Phantoms
) -> None:
    program, _, output = done
    ran = program(*line(phantoms, "--json", "--output", output, "--adaptation", "zero-shot"))
    assert ran.code == 0, ran.err
    (record,) = ran.json["records"]
    assert record["adaptation"] == "zero-shot"
    assert record["data"]["samples"]["train"] == 0
    for word in ("train fit", "embed", "decode"):
        assert word not in ran.err


def test_killed_at_random_points_it_ends_in_the_same_record(
    done: tuple[Medbench, Ran, Path], medbench: Medbench, phantoms: Phantoms
) -> None:
    """kill -9, again and again, until a run comes through."""
    _, unbroken, whole = done
    medbench.install("toy_model", **{"PAUSE = 0.0": "PAUSE = 0.4"})
    # the pause is not part of what the model is: the same code runs at the end
    output = medbench.home / "out"
    command = medbench.command(*line(phantoms, "--json", "--output", output))
    generator = random.Random(3)
    kills = 0
    for _ in range(6):
        process = subprocess.Popen(
            command, env=medbench.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        time.sleep(generator.uniform(1.5, 7.0))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills >= 3
    final = medbench(*line(phantoms, "--json", "--output", output))
    assert final.code == 0, final.err
    (one,), (other,) = unbroken.json["records"], final.json["records"]
    # the pause changed the plugin's code, hence the checkpoint's key; nothing else may differ
    one, other = content(one), content(other)
    for record in (one, other):
        record["hashes"] = {"predictions": record["hashes"]["predictions"]}
    assert one == other
    name = f"{one['run_id']}/predictions.parquet"
    assert (whole / name).read_bytes() == (output / name).read_bytes()


def test_control_c_keeps_finished_stages(toy: Medbench, phantoms: Phantoms) -> None:
    toy.install("toy_model", **{"PAUSE = 0.0": "PAUSE = 0.5"})
    command = toy.command(*line(phantoms))
    process = subprocess.Popen(
        command, env=toy.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    scratch = toy.home / "checkpoints"
    for _ in range(1200):  # a minute: other tests use the cores, too
        if list(scratch.glob(".*.scratch/epochs-fit.pt")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Finished stages are kept" in err
    assert "Traceback" not in err
    ran = toy(*line(phantoms))
    assert ran.code == 0, ran.err
    assert "going on after epoch" in ran.err
    assert "decode" not in ran.err


# all stores go through one class: one of them stands for them in the daily run
@pytest.mark.parametrize(
    "kind",
    [
        "checkpoints",
        *(pytest.param(k, marks=pytest.mark.slow) for k in ("images", "features", "baselines")),
    ],
)
def test_a_corrupt_cache_entry_is_found_and_built_again(
    toy: Medbench, phantoms: Phantoms, kind: str
) -> None:
    first = toy(*line(phantoms, "--json"))
    entries = [p for p in (toy.home / kind).glob("*/payload/*") if p.suffix != ".json"]
    victim = max(entries, key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0xFF
    victim.write_bytes(bytes(data))
    shutil.rmtree(toy.home / "runs")
    second = toy(*line(phantoms, "--json"))
    assert second.code == 0, second.err
    assert "damaged" in second.err
    assert content(first.json["records"][0]) == content(second.json["records"][0])


def test_a_tampered_record_is_not_taken_for_done(toy: Medbench, phantoms: Phantoms) -> None:
    first = toy(*line(phantoms, "--json"))
    (table,) = (toy.home / "runs").glob("*/predictions.parquet")
    frame = pd.read_parquet(table)
    frame.loc[0, "score:cap"] = 0.123
    frame.to_parquet(table)
    second = toy(*line(phantoms, "--json"))
    assert "already done" not in second.err
    assert content(first.json["records"][0]) == content(second.json["records"][0])


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        ("bad-nan", 4, "NaN"),
        ("bad-short", 4, "shape (0, 4) for 1 inputs"),
        ("bad-integers", 4, "not floating point"),
        ("bad-list", 4, "returned list"),
        ("bad-missing", 4, "declares encode_texts"),
        ("bad-class", 4, "bad_outputs:Nowhere"),
        ("bad-raises", 1, "something inside the model"),
    ],
)
def test_a_model_that_breaks_its_contract_is_named(
    medbench: Medbench, phantoms: Phantoms, model: str, code: int, message: str
) -> None:
    medbench.install("bad_outputs")
    ran = medbench(*line(phantoms, model=model))
    assert ran.code == code, ran.err
    assert message in ran.err
    assert model in ran.err
    assert "Traceback" not in ran.err


def test_one_failing_cell_does_not_stop_the_others(toy: Medbench, phantoms: Phantoms) -> None:
    toy.install("bad_outputs")
    ran = toy(*line(phantoms, "-m", "bad-nan", "--json"))
    assert ran.code == 1
    assert [record["model"]["name"] for record in ran.json["records"]] == ["toy"]
    (failure,) = ran.json["failed"]
    assert failure["exit_code"] == 4
    assert "bad-nan" in failure["cell"]


def test_observers_are_called_and_cannot_stop_a_run(toy: Medbench, phantoms: Phantoms) -> None:
    toy.install("observer")
    ran = toy(*line(phantoms))
    assert ran.code == 0, ran.err
    assert "this observer is careless" in ran.err
    assert (toy.home / "observed.txt").read_text() == "toy complete"


def test_a_corpus_that_shares_a_patient_with_the_task_is_refused(
    toy: Medbench, phantoms: Phantoms, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(phantoms("image-text-pairs"), corpus)
    table = pd.read_csv(corpus / "pairs.csv")
    table.loc[0, "patient"] = "P001"
    table.to_csv(corpus / "pairs.csv", index=False)
    ran = toy(
        "run", "-m", "toy", "-t", "covid-ct", "--data",
        f"covid-ct-md={phantoms('covid-ct-md')}", "--data", f"image-text-pairs={corpus}",
    )  # fmt: skip
    assert ran.code == 3
    assert "shares 1 patients" in ran.err
    assert "P001" in ran.err
    assert not (toy.home / "checkpoints").exists()


def test_damaged_files_are_counted_before_anything_is_trained(
    toy: Medbench, phantoms: Phantoms, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(phantoms("covid-ct-md"), damaged)
    victims = [sorted((damaged / "CAP subjects").glob("*/*.dcm"))[i] for i in (0, -1)]
    for victim in victims:
        victim.write_bytes(victim.read_bytes()[:900])
    ran = toy(
        "run", "-m", "toy", "-t", "covid-ct", "--data", f"covid-ct-md={damaged}",
        "--data", f"image-text-pairs={phantoms('image-text-pairs')}",
    )  # fmt: skip
    assert ran.code == 3
    assert "2 of 30 samples cannot be read" in ran.err
    assert all(str(victim) in ran.err for victim in victims)
    assert not (toy.home / "checkpoints").exists()


def test_an_empty_folder_is_not_a_dataset(toy: Medbench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = toy("run", "-m", "toy", "-t", "covid-ct", "--data", tmp_path / "empty")
    assert ran.code == 3
    assert "COVID-19 subjects" in ran.err


def test_data_without_a_marker_is_still_a_phantom_by_its_headers(
    toy: Medbench, phantoms: Phantoms, tmp_path: Path
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(phantoms("covid-ct-md"), copied)
    (copied / "medbench-phantom.json").unlink()
    ran = toy(
        "run", "-m", "toy", "-t", "covid-ct", "--data", f"covid-ct-md={copied}", "--json",
        "--data", f"image-text-pairs={phantoms('image-text-pairs')}",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.json["records"][0]["data"]["track"] == "phantom"


def test_dry_run_tells_what_is_cached_and_writes_nothing(
    done: tuple[Medbench, Ran, Path], toy: Medbench, phantoms: Phantoms
) -> None:
    program, _, output = done
    ran = program(*line(phantoms, "--dry-run", "--json", "--output", output))
    assert ran.code == 0, ran.err
    (cell,) = ran.json["cells"]
    assert cell["done"]
    assert {stage["state"] for stage in cell["stages"]} == {"cached"}
    fresh = toy(*line(phantoms, "--dry-run"))
    assert "to do" in fresh.out
    assert "cached" not in fresh.out
    assert not (toy.home / "checkpoints").exists()


def test_limit_keeps_every_class_and_is_flagged(toy: Medbench, phantoms: Phantoms) -> None:
    ran = toy(*line(phantoms, "--limit", "26", "--json"))
    assert ran.code == 0, ran.err
    (record,) = ran.json["records"]
    assert record["counts"]["scored"] == 26
    assert "limited" in record["flags"]
