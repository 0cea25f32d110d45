"""Every dataset's phantom is written, audited and run on, and every kind of task gives a record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from medbench.data.audit import cheap
from medbench.data.dataset import open_dataset
from medbench.plugins import discover
from program import Medbench

Phantoms = Callable[[str], Path]

#: A task of each dataset, and how many baselines it has.
IMAGE_TASKS = {
    "chexpert": "chexpert",
    "chexpert-5x200": "chexpert-5x200",
    "covidx": "covidx",
    "crystal-clean": "crystal-clean",
    "iu-xray": "iu-xray-findings",
    "mimic-5x200": "mimic-5x200",
    "mimic-cxr": "mimic-cxr-14",
    "nih-chestxray14": "nih-14",
    "rsna-pneumonia": "rsna",
    "siim-pneumothorax": "siim",
}


@pytest.fixture
def able(medbench: Medbench) -> Medbench:
    medbench.install("able_model")
    return medbench


def run(program: Medbench, task: str, data: Path, *more: str) -> dict[str, Any]:
    ran = program("run", "-m", "able", "-t", task, "--data", data, "--json", *more)
    assert ran.code == 0, ran.err
    (record,) = ran.json["records"]
    return dict(record)


@pytest.fixture(scope="module")
def everything(
    tmp_path_factory: pytest.TempPathFactory, phantoms: Phantoms
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """One run of all image tasks: its folder, and task to record."""
    program = Medbench(tmp_path_factory.mktemp("everything"))
    program.install("able_model")
    words: list[str | Path] = ["run", "-m", "able", "--json"]
    for dataset, task in IMAGE_TASKS.items():
        words += ["-t", task, "--data", f"{dataset}={phantoms(dataset)}"]
    ran = program(*words)
    assert ran.code == 0, ran.err
    return program.home / "runs", {r["task"]["name"]: r for r in ran.json["records"]}


@pytest.mark.parametrize("dataset", IMAGE_TASKS)
def test_each_phantom_passes_the_audit_and_a_model_runs_on_it(
    everything: tuple[Path, dict[str, dict[str, Any]]], phantoms: Phantoms, dataset: str
) -> None:
    runs, records = everything
    opened = open_dataset(discover(third_party=False).dataset(dataset), phantoms(dataset))
    assert [f for f in cheap(opened).findings if f.severity == "error"] == []
    record = records[IMAGE_TASKS[dataset]]
    assert record["data"]["track"] == "phantom"
    assert "limited" in record["flags"]
    low, high = record["metrics"]["auroc"]["ci95"]
    assert 0 <= low <= record["metrics"]["auroc"]["value"] <= high <= 1
    assert set(record["baselines"]) == {"prior", "pixels-32"}
    assert record["counts"]["scored"] == record["counts"]["expected"] > 0
    table = pd.read_parquet(runs / record["run_id"] / "predictions.parquet")
    assert len(table) == record["data"]["samples"]["test"]
    assert any(note.startswith(f"phantom of {dataset}") for note in record["notes"])


def test_fine_tuning_beats_nothing_seen_and_is_kept(able: Medbench, phantoms: Phantoms) -> None:
    words = ("rsna", phantoms("rsna-pneumonia"), "--adaptation", "fine-tune")
    record = run(able, *words)
    assert record["adaptation"] == "fine-tune"
    assert any("parameters, 10 epochs at most" in note for note in record["notes"])
    assert record["data"]["samples"]["val"] > 0
    (kept,) = (able.home / "fine-tuned").glob("*/payload/scores.safetensors")
    before = kept.stat().st_mtime_ns
    run(able, *words, "--output", str(able.home / "elsewhere"))
    assert kept.stat().st_mtime_ns == before


def test_a_fraction_of_the_labels_is_recorded_and_nested(
    able: Medbench, phantoms: Phantoms
) -> None:
    data = phantoms("covidx")
    ran = able("run", "-m", "able", "-t", "covidx", "--data", data, "--json",
               "--fraction", "0.5", "--fraction", "1", "--seed", "0", "--seed", "1")  # fmt: skip
    assert ran.code == 0, ran.err
    records = ran.json["records"]
    assert [(r["fraction"], r["seed"]) for r in records] == [(0.5, 0), (0.5, 1), (1, 0), (1, 1)]
    half, whole = records[0]["data"]["samples"], records[2]["data"]["samples"]
    assert 0.3 * whole["train"] < half["train"] < 0.7 * whole["train"]
    assert half["test"] == whole["test"]
    kept = list((able.home / "features").glob("[!.]*"))
    assert len(kept) == 2, "a forward pass per seed, no more"
    refused = able("run", "-m", "able", "-t", "covidx", "--data", data, "--fraction", "0.01")
    assert refused.code == 3
    assert "at least 5 are needed" in refused.err


def test_masks_are_predicted_and_scored_beside_the_empty_mask(
    able: Medbench, phantoms: Phantoms
) -> None:
    record = run(able, "siim-segmentation", phantoms("siim-pneumothorax"))
    with np.load(
        able.home / "runs" / record["run_id"] / "predictions.npz", allow_pickle=False
    ) as found:
        reference, prediction = found["reference"], found["prediction"]
    assert reference.shape == prediction.shape == (record["data"]["samples"]["test"], 64, 64)
    empty = record["baselines"]["all-empty"]
    assert empty["dice"]["value"] == pytest.approx(1 - reference.any(axis=(1, 2)).mean())
    assert empty["dice-positive"]["value"] == 0
    sums = reference.sum(axis=(1, 2)) + prediction.sum(axis=(1, 2))
    overlap = (reference & prediction).sum(axis=(1, 2))
    dice = np.where(sums == 0, 1.0, 2 * overlap / np.maximum(sums, 1))
    assert record["metrics"]["dice"]["value"] == pytest.approx(dice.mean())


def test_reports_are_one_per_study_and_score_like_their_file(
    able: Medbench, phantoms: Phantoms
) -> None:
    record = run(able, "iu-xray-report", phantoms("iu-xray"))
    path = able.home / "runs" / record["run_id"] / "predictions.parquet"
    table = pd.read_parquet(path)
    assert table["sample_id"].is_unique
    assert len(table) == record["counts"]["scored"]
    assert set(table["prediction"].str[:7]) == {"2 views"}
    assert record["data"]["samples"]["test"] == 2 * len(table)
    for name in ("bleu-4", "bleu-4-r2gen", "meteor", "finding-f1"):
        assert name in record["metrics"], record["notes"]
        assert set(record["baselines"]) == {
            "most-frequent-report", "normal-report", "nearest-32-report",
        }  # fmt: skip
    scored = able("score", path, "--type", "report-generation", "--json").json
    for name in ("bleu-1", "meteor", "cider", "finding-f1"):
        assert scored["metrics"][name]["value"] == record["metrics"][name]["value"]
        assert scored["metrics"][name]["ci95"] == record["metrics"][name]["ci95"]


@pytest.mark.parametrize(
    ("task", "dataset"),
    [
        ("iu-xray-retrieval", "iu-xray"),
        ("mimic-5x200-retrieval", "mimic-5x200"),
        ("crystal-clean-matching", "crystal-clean"),
    ],
)
def test_retrieval_stands_beside_chance(
    able: Medbench, phantoms: Phantoms, task: str, dataset: str
) -> None:
    record = run(able, task, phantoms(dataset))
    metric = "i2t-precision@1"
    assert record["adaptation"] is None
    assert record["data"]["samples"]["train"] == 0
    chance = record["baselines"]["chance"][metric]["value"]
    assert 0 < chance < 0.6
    path = able.home / "runs" / record["run_id"] / "predictions.npz"
    scored = able("score", path, "--type", "retrieval", "--json").json
    assert scored["metrics"][metric]["value"] == pytest.approx(record["metrics"][metric]["value"])
    assert scored["baselines"]["chance"][metric]["value"] == pytest.approx(chance)


def test_images_are_judged_beside_real_ones_and_noise(able: Medbench, phantoms: Phantoms) -> None:
    data = phantoms("iu-xray")
    ran = able("run", "-m", "able", "-t", "iu-xray-generation", "--data", data, "--json")
    assert ran.code == 0, ran.err
    (record,) = ran.json["records"]
    floor, ceiling = (record["baselines"][n]["kid-phantom"] for n in ("real-versus-real", "noise"))
    assert floor["value"] < ceiling["value"]
    assert "fid-phantom" in record["metrics"]
    assert "ms-ssim-3" in record["metrics"], record["notes"]
    assert any(note.startswith("kid-xrv is absent") for note in record["notes"])
    assert set(record["baselines"]) == {"real-versus-real", "real", "nearest-prompt", "noise"}
    assert record["baselines"]["real"]["fid-phantom"]["value"] == pytest.approx(0, abs=1e-6)
    for metric in ("label-auroc", "alignment-recall@5", "image-recall@5", "report-finding-f1"):
        for name in ("real", "nearest-prompt", "noise"):
            assert 0 <= record["baselines"][name][metric]["value"] <= 1
    # training images are as near to training images as can be
    assert record["baselines"]["nearest-prompt"]["memorised-share"]["value"] == 1
    assert record["baselines"]["real"]["memorised-share"]["value"] < 0.15
    assert record["baselines"]["real"]["image-recall@1"]["value"] == 1
    # random blots have nothing to do with their prompts
    low, high = record["metrics"]["label-auroc"]["ci95"]
    assert low < 0.6
    assert high > 0.4
    assert record["metrics"]["label-auroc"]["per_label"]
    assert any("different prompts, chance is" in note for note in record["notes"])
    path = able.home / "runs" / record["run_id"] / "predictions.npz"
    with np.load(path, allow_pickle=False) as found:
        assert found["generated"].shape == (4 * len(found["real"]), 64, 64)
        assert np.bincount(found["prompt_id"]).tolist() == [4] * len(found["real"])
        assert len(found["judge_texts"]) == len(found["real"])
    again = able("score", path, "--type", "image-generation", "--json").json
    judged = ("kid-phantom", "label-auroc", "alignment-recall@5", "image-recall@5")
    for metric in (*judged, "memorised-share", "report-finding-f1", "report-rouge-l"):
        assert again["metrics"][metric] == record["metrics"][metric]


@pytest.mark.slow  # test_augmentation.py holds its parts
def test_generated_images_train_a_classifier_that_real_ones_alone_train_too(
    able: Medbench, phantoms: Phantoms
) -> None:
    data = phantoms("mimic-cxr")
    tasks = ("-t", "generation-augmentation", "-t", "generation-synthetic-only")
    ran = able("run", "-m", "able", *tasks, "--data", data, "--json")
    assert ran.code == 0, ran.err
    both, alone = ran.json["records"]
    train = both["data"]["samples"]["train"]
    assert f"trained on {train} real and {train} generated" in " ".join(both["notes"])
    assert f"trained on 0 real and {train} generated" in " ".join(alone["notes"])
    for record in (both, alone):
        assert record["adaptation"] is None
        assert set(record["baselines"]) == {"prior", "real-only"}
        assert 0 < record["metrics"]["auroc"]["value"] < 1
        assert {"auroc", "auprc", "f1", "ece"} == set(record["metrics"])
    assert both["baselines"]["real-only"] == alone["baselines"]["real-only"]
    assert both["metrics"]["auroc"]["value"] != both["baselines"]["real-only"]["auroc"]["value"]
    # drawn once for both tasks, in two halves and what is left of an odd number
    assert len(list((able.home / "generated").glob("[!.]*"))) == 2 + train % 2
    refused = able("run", "-m", "able", *tasks, "--data", data, "--adaptation", "fine-tune")
    assert refused.code == 2
    assert "trains a classifier of its own" in refused.err
    baseline = able("run", "-m", "baseline@real-only", *tasks[:2], "--data", data, "--json")
    assert baseline.code == 0, baseline.err
    (record,) = baseline.json["records"]
    assert record["metrics"]["auroc"]["value"] == both["baselines"]["real-only"]["auroc"]["value"]


def test_baselines_run_alone_on_any_task(able: Medbench, phantoms: Phantoms) -> None:
    data = phantoms("rsna-pneumonia")
    ran = able("run", "-m", "baseline", "-t", "rsna", "-t", "rsna-segmentation", "--data", data,
               "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    found = {(r["task"]["name"], r["model"]["variant"]): r for r in ran.json["records"]}
    assert set(found) == {
        ("rsna", "prior"), ("rsna", "pixels-32"),
        ("rsna-segmentation", "all-empty"), ("rsna-segmentation", "nearest-32-mask"),
    }  # fmt: skip
    for (_, name), record in found.items():
        for metric, value in record["metrics"].items():
            assert record["baselines"][name][metric]["value"] == value["value"]
    refused = able("run", "-m", "baseline@chance", "-t", "rsna", "--data", data)
    assert refused.code == 2
    assert "the task's baselines are prior, pixels-32" in refused.err


def test_two_runs_are_compared_in_pairs(able: Medbench, phantoms: Phantoms) -> None:
    data = phantoms("rsna-pneumonia")
    ran = able("run", "-m", "able", "-m", "baseline@pixels-32", "-t", "rsna", "--data", data,
               "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    a, b = (able.home / "runs" / r["run_id"] for r in ran.json["records"])
    compared = able("compare", a, b, "--json")
    assert compared.code == 0, compared.err
    values = [r["metrics"]["auroc"]["value"] for r in ran.json["records"]]
    assert compared.json["metric"] == "auroc"
    assert compared.json["difference"] == pytest.approx(values[0] - values[1])


def test_a_leaking_division_is_refused_under_clean(able: Medbench, phantoms: Phantoms) -> None:
    """A patient of the test list is written into the train list too, with another image."""
    import shutil

    data = able.home / "leaking"
    shutil.copytree(phantoms("covidx"), data)
    (test,) = data.glob("test*.txt")
    (train,) = data.glob("train*.txt")
    patient = test.read_text().splitlines()[0].split()[0]
    rows = train.read_text().splitlines()
    rows[0] = " ".join([patient, *rows[0].split()[1:]])
    train.write_text("\n".join(rows) + "\n")
    ran = able("run", "-m", "able", "-t", "covidx", "--data", data)
    assert ran.code == 3
    assert "on both sides" in ran.err
    assert "Traceback" not in ran.err
    audited = able("data", "audit", "covidx", "--data", data, "--json")
    assert audited.code == 3
    assert "patient-overlap" in {f["kind"] for f in audited.json["findings"]}
    compat = able("run", "-m", "able", "-t", "covidx", "--data", data, "--protocol",
                  "paper-compat", "--json")  # fmt: skip
    assert compat.code == 0, compat.err
    assert "paper-compat" in compat.json["records"][0]["flags"]
