"""Leaderboards: what is in a table, what never is, and that it is a function of the records."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runs import MANIFEST, SPECS, predictions, task, write_run

from medbench.errors import DataError, UsageError, VerificationError
from medbench.evaluation.predictions import ClassPredictions
from medbench.leaderboard.build import build
from medbench.metrics.classification import auroc
from medbench.statistics.bootstrap import content_clusters, interval, patient_weights

TASKS = {"covid-ct": task()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models over three seeds, one seed missing."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        write_run(root, "radclip", seed, 2.0)
        write_run(root, "radclip@clip", seed, 0.3)
        if seed < 2:
            write_run(root, "twin", seed, 2.0)
    return root


def page(records: list[Path], out: Path) -> str:
    build(records, out, TASKS)
    return (out / "covid-ct.md").read_text(encoding="utf-8")


def lines(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / "covid-ct.csv").read_text(encoding="utf-8"))))


def primary(out: Path) -> dict[str, dict[str, str]]:
    return {row["model"]: row for row in lines(out) if row["metric"] == "auroc"}


def test_build_writes_a_page_a_csv_and_the_index(folder: Path, tmp_path: Path) -> None:
    written = build([folder], tmp_path, TASKS)
    assert [p.name for p in written] == ["README.md", "covid-ct.csv", "covid-ct.md"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in written]
    assert "[covid-ct](covid-ct.md)" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_tables_are_the_same_bytes_for_any_order_of_files(folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.rglob("record.json"))
    build([folder], tmp_path / "a", TASKS)
    for turn in range(2):
        random.Random(turn).shuffle(files)
        build(files, tmp_path / "b", TASKS)
        for path in (tmp_path / "a").iterdir():
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_published_predictions_give_the_same_tables(folder: Path, tmp_path: Path) -> None:
    """Keys in place of ids change nothing."""
    shutil.copytree(folder, tmp_path / "keyed")
    for path in (tmp_path / "keyed").rglob("predictions.parquet"):
        ClassPredictions.read(path, True).publish(path, MANIFEST)
    assert page([folder], tmp_path / "a") == page([tmp_path / "keyed"], tmp_path / "b")


def test_tables_are_the_same_in_another_process(folder: Path, tmp_path: Path) -> None:
    build([folder], tmp_path / "a", TASKS)
    code = (
        "import sys; from pathlib import Path; from runs import task\n"
        "from medbench.leaderboard.build import build\n"
        "build([Path(sys.argv[1])], Path(sys.argv[2]), {'covid-ct': task()})\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "b")],
        check=True,
        cwd=Path(__file__).parent,
        env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin"},
    )
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_no_table_holds_a_sample_or_patient_id(folder: Path, tmp_path: Path) -> None:
    build([folder], tmp_path, TASKS)
    for path in tmp_path.iterdir():
        assert "SECRET" not in path.read_text(encoding="utf-8")


def test_models_alike_are_tied_and_a_worse_one_is_below(folder: Path, tmp_path: Path) -> None:
    build([folder], tmp_path, TASKS)
    rows = primary(tmp_path)
    assert rows["radclip"]["rank"] == rows["twin"]["rank"] == "1"
    assert rows["radclip@clip"]["rank"] == "3"
    assert rows["prior"]["kind"] == "baseline"
    assert rows["prior"]["rank"] == ""
    assert float(rows["prior"]["value"]) == 0.5


def test_a_row_is_the_mean_over_seeds_with_the_interval_of_that_mean(
    folder: Path, tmp_path: Path
) -> None:
    import numpy as np

    build([folder], tmp_path, TASKS)
    row = primary(tmp_path)["radclip"]
    tables = [
        ClassPredictions.read(p, True).publishable(MANIFEST)
        for p in sorted(folder.glob("radclip_*/predictions.parquet"))
    ]
    clusters = content_clusters(
        tables[0].patients, np.concatenate([t.content for t in tables], axis=1)
    )
    weights = patient_weights(clusters)
    mean = np.mean([auroc(t, weights).value for t in tables], axis=0)
    ones = np.ones((1, len(tables[0].y)))
    each = [auroc(t, ones).value[0] for t in tables]
    assert float(row["value"]) == pytest.approx(np.mean(each), abs=1e-6)
    low, high = interval(mean)
    assert float(row["ci95_low"]) == pytest.approx(low, abs=1e-6)
    assert float(row["ci95_high"]) == pytest.approx(high, abs=1e-6)
    assert row["interval"] == "patients"
    assert float(row["seed_sd"]) == pytest.approx(np.std(each, ddof=1), abs=1e-6)
    assert float(row["seed_min"]) == pytest.approx(min(each), abs=1e-6)


def test_without_predictions_bounds_are_averaged_and_marked(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "runs")
    for path in (tmp_path / "runs").rglob("predictions.parquet"):
        path.unlink()
    text = page([tmp_path / "runs"], tmp_path / "out")
    assert "]†" in text
    assert "have no common predictions" in text
    rows = primary(tmp_path / "out")
    assert rows["radclip"]["interval"] == "mean-of-bounds"
    assert rows["radclip"]["rank"] == rows["twin"]["rank"] == "1"
    assert rows["radclip@clip"]["rank"] == "3"


def test_missing_seeds_and_metrics_are_visible(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "runs")
    path = next((tmp_path / "runs").glob("twin_*_s0_*/record.json"))
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["metrics"]["f1"]
    path.write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(next((tmp_path / "runs").glob("twin_*_s1_*")))
    text = page([tmp_path / "runs"], tmp_path / "out")
    assert "Missing: twin, seed 1, 2." in text
    assert "—" in next(line for line in text.splitlines() if "| twin |" in line)


def test_phantom_tables_say_so_and_published_values_stand_apart(
    folder: Path, tmp_path: Path
) -> None:
    text = page([folder], tmp_path)
    real, _, phantom = text.partition("## Phantom track")
    assert "PHANTOM" not in real
    assert "rendered by medbench, not patients" in phantom
    assert "### PHANTOM: linear-probe, preset tiny, protocol clean" in phantom
    assert "| RadCLIP | auroc | not obtained |" in real
    assert "0.987" in real
    assert "0.987" not in phantom
    assert "Journal \\| A" in real
    assert "0.987" not in (tmp_path / "covid-ct.csv").read_text(encoding="utf-8")


def test_nothing_is_ranked_across_tracks_adaptations_or_data(tmp_path: Path) -> None:
    write_run(tmp_path / "r", "a", skill=2.0)
    write_run(tmp_path / "r", "b", skill=0.2, adaptation="zero-shot")
    write_run(tmp_path / "r", "c", skill=0.2, track="real")
    write_run(tmp_path / "r", "d", skill=0.2, manifest="34" * 32)
    write_run(tmp_path / "r", "e", skill=0.2, protocol="paper-compat")
    write_run(tmp_path / "r", "f", skill=0.2, fraction=0.1)
    text = page([tmp_path / "r"], tmp_path / "out")
    assert text.count("### PHANTOM") == 5
    assert text.count("\n### linear-probe") == 1
    rows = primary(tmp_path / "out")
    assert {rows[name]["rank"] for name in "abcdef"} == {"1"}


@pytest.mark.parametrize("flag", ["limited", "contaminated", "phantom-pretrained", "dirty"])
def test_flagged_runs_are_listed_without_a_rank(tmp_path: Path, flag: str) -> None:
    write_run(tmp_path / "r", "a", skill=0.2)
    write_run(tmp_path / "r", "b", skill=2.0, flags=(flag,))
    text = page([tmp_path / "r"], tmp_path / "out")
    row = primary(tmp_path / "out")["b"]
    assert (row["kind"], row["rank"], row["flags"]) == ("unranked", "", flag)
    assert flag in text.partition("Listed without a rank")[2]
    assert primary(tmp_path / "out")["a"]["rank"] == "1"


def test_a_run_without_a_rank_is_listed_from_its_record_alone(tmp_path: Path) -> None:
    write_run(tmp_path / "r", "a", skill=2.0)
    run = write_run(tmp_path / "r", "b", flags=("limited",))
    (run / "predictions.parquet").write_bytes(b"not read")
    text = page([tmp_path / "r"], tmp_path / "out")
    assert "| b |" in text.partition("Listed without a rank")[2]


def test_failed_runs_and_runs_of_another_task_file_have_no_rank(tmp_path: Path) -> None:
    write_run(tmp_path / "r", "a")
    write_run(tmp_path / "r", "b", status="failed", metrics={})
    write_run(tmp_path / "r", "c", spec=task(title="edited without a new version"))
    build([tmp_path / "r"], tmp_path / "out", TASKS)
    rows = primary(tmp_path / "out")
    assert rows["b"]["flags"] == "failed"
    assert rows["b"]["value"] == ""
    assert rows["c"]["flags"] == "other-task-file"
    assert rows["a"]["rank"] == "1"


def test_flags_that_do_not_bar_a_rank_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "r", "a", flags=("assumed-hyperparameters",))
    assert "assumed-hyperparameters" in page([tmp_path / "r"], tmp_path / "out")
    assert primary(tmp_path / "out")["a"]["rank"] == "1"


def test_of_two_records_of_one_cell_the_later_given_stands(tmp_path: Path) -> None:
    old = write_run(tmp_path / "r", "a", skill=0.2, tail="_old")
    new = write_run(tmp_path / "r", "a", skill=2.0, tail="_new")
    for records in ([old, new], [new, old]):
        text = page(records, tmp_path / "out")
        assert "1 earlier records" in text
        stated = json.loads((records[1] / "record.json").read_text(encoding="utf-8"))
        value = float(primary(tmp_path / "out")["a"]["value"])
        assert value == pytest.approx(stated["metrics"]["auroc"]["value"], abs=1e-6)


def test_a_dirty_run_does_not_replace_a_clean_one(tmp_path: Path) -> None:
    clean = write_run(tmp_path / "r", "a", tail="_clean")
    dirty = write_run(tmp_path / "r", "a", tail="_dirty", flags=("dirty",))
    build([clean, dirty], tmp_path / "out", TASKS)
    kinds = [row["kind"] for row in lines(tmp_path / "out") if row["metric"] == "auroc"]
    assert sorted(kinds) == ["baseline", "model", "unranked"]


def test_one_model_under_two_settings_makes_two_rows(tmp_path: Path) -> None:
    first = write_run(tmp_path / "r", "a")
    text = (first / "record.json").read_text(encoding="utf-8")
    second = tmp_path / "r" / "other"
    shutil.copytree(first, second)
    other = text.replace('"width": 16', '"width": 32')
    (second / "record.json").write_text(other, encoding="utf-8")
    build([tmp_path / "r"], tmp_path / "out", TASKS)
    names = [name for name in primary(tmp_path / "out") if name.startswith("a ")]
    assert len(names) == 2
    assert names == ["a (width=16)", "a (width=32)"]


def test_a_baseline_run_alone_is_a_row_without_a_rank(tmp_path: Path) -> None:
    write_run(tmp_path / "r", "baseline@prior", skill=0.0)
    write_run(tmp_path / "r", "a")
    build([tmp_path / "r"], tmp_path / "out", TASKS)
    rows = primary(tmp_path / "out")
    assert rows["baseline@prior"]["kind"] == "baseline"
    assert "prior" not in rows


def test_a_baseline_run_alone_stands_in_the_table_of_every_adaptation(tmp_path: Path) -> None:
    """It has no adaptation of its own."""
    write_run(tmp_path / "r", "baseline@pixels-32", skill=0.4, adaptation="")
    write_run(tmp_path / "r", "a")
    write_run(tmp_path / "r", "a", adaptation="zero-shot")
    write_run(tmp_path / "r", "a", fraction=0.5, tail="_half")
    build([tmp_path / "r"], tmp_path / "out", TASKS)
    rows = [r for r in lines(tmp_path / "out")
            if r["model"] == "baseline@pixels-32" and r["metric"] == "auroc"]  # fmt: skip
    assert [(r["adaptation"], r["fraction"], r["kind"], r["rank"]) for r in rows] == [
        ("linear-probe", "1", "baseline", ""),
        ("zero-shot", "1", "baseline", ""),
    ]


def test_baselines_without_any_model_have_a_table(tmp_path: Path) -> None:
    write_run(tmp_path / "r", "baseline@prior", skill=0.0, adaptation="")
    text = page([tmp_path / "r"], tmp_path / "out")
    assert "### PHANTOM: as trained, preset tiny" in text
    assert "| baseline | *baseline@prior* |" in text


def test_costs_are_columns_where_records_have_them(tmp_path: Path) -> None:
    timing = {"fit-a": 3.0, "images_per_second": 1234.5, "peak_memory_mb": 900.0}
    for seed, seconds in enumerate((80.0, 100.0)):
        write_run(
            tmp_path / "r", "new", seed, timing=timing | {"train_seconds": seconds},
            environment={"device": "cpu", "gpu": None},
        )  # fmt: skip
        write_run(tmp_path / "r", "old", seed)
    text = page([tmp_path / "r"], tmp_path / "out")
    head = next(line for line in text.splitlines() if line.startswith("| Rank"))
    assert head.endswith("| Parameters (trainable) | Training | Images/s | Memory |")
    cells = {line.split(" | ")[1]: line.split(" | ")[-4:] for line in text.splitlines()
             if line.startswith("| ") and line.count(" | ") > 7}  # fmt: skip
    assert cells["new"] == ["10 (1)", "90 s", "1,230", "0.9 GB |"]
    assert cells["old"] == ["10 (1)", "—", "—", "— |"]
    assert cells["*prior*"] == ["—", "—", "—", "— |"]
    assert "measured on cpu, as means over seeds" in text
    assert "Memory is the peak of the process" in text
    rows = primary(tmp_path / "out")
    wanted = ("parameters", "trainable_parameters", "train_seconds", "images_per_second")
    wanted = (*wanted, "peak_memory_mb")
    assert [rows["new"][name] for name in wanted] == ["10", "1", "90.000", "1234.500", "900.000"]
    assert [rows["old"][name] for name in wanted] == ["10", "1", "", "", ""]


def test_fractions_of_the_labels_stand_side_by_side_without_ranks(tmp_path: Path) -> None:
    for share, skill in ((1.0, 2.0), (0.1, 0.8), (0.01, 0.2)):
        write_run(tmp_path / "r", "a", skill=skill, fraction=share, tail=f"_{share}")
    write_run(tmp_path / "r", "b", skill=0.4, fraction=0.1, tail="_part")
    write_run(tmp_path / "r", "a", skill=1.0, track="real")
    text = page([tmp_path / "r"], tmp_path / "out")
    assert text.count("### By label fraction") == 1
    table = text.partition("### By label fraction: PHANTOM, linear-probe, preset tiny")[2]
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert rows[0] == "| Model | 1 % | 10 % | all |"
    stated = {(r["model"], r["fraction"]): r for r in lines(tmp_path / "out")
              if r["metric"] == "auroc" and r["track"] == "phantom"}  # fmt: skip
    for row in rows[2:]:
        name, *cells = row.strip("| ").split(" | ")
        for share, cell in zip(("0.01", "0.1", "1"), cells, strict=True):
            found = stated.get((name.strip("*"), share))
            assert cell.startswith(f"{float(found['value']):.3f} [" if found else "—")
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| a", "| *prior*", "| b"]


def test_one_fraction_gives_no_table_of_fractions(folder: Path, tmp_path: Path) -> None:
    assert "By label fraction" not in page([folder], tmp_path)


def test_rows_are_sorted_by_the_primary_metric(folder: Path, tmp_path: Path) -> None:
    build([folder], tmp_path, TASKS)
    values = [float(row["value"]) for row in lines(tmp_path) if row["metric"] == "auroc"]
    assert values == sorted(values, reverse=True)


def test_metrics_with_unlike_cards_are_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "r", "a")
    path = write_run(tmp_path / "r", "b") / "record.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["metrics"]["auroc"]["card_sha256"] = "00" * 32
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(VerificationError, match=r"'auroc'.*a_covid-ct.*|'auroc'.*b_covid-ct.*"):
        build([tmp_path / "r"], tmp_path / "out", TASKS)


def test_samples_that_failed_in_one_run_leave_the_common_ones_to_compare(tmp_path: Path) -> None:
    write_run(tmp_path / "r", "a", skill=2.0)
    write_run(tmp_path / "r", "b", table=predictions(0.2, 5).take(range(80)))
    text = page([tmp_path / "r"], tmp_path / "out")
    assert "no common predictions" not in text
    assert primary(tmp_path / "out")["b"]["rank"] == "2"


def test_runs_that_disagree_on_labels_are_not_compared(tmp_path: Path) -> None:
    from dataclasses import replace

    import numpy as np

    write_run(tmp_path / "r", "a")
    table = predictions(1.0, 5)
    write_run(tmp_path / "r", "b", table=replace(table, y=np.roll(table.y, 1, axis=1)))
    with pytest.raises(VerificationError, match="disagree"):
        build([tmp_path / "r"], tmp_path / "out", TASKS)


def test_a_record_of_an_unknown_task_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "r", "a")
    with pytest.raises(UsageError, match="no task called 'covid-ct'"):
        build([tmp_path / "r"], tmp_path / "out", {"covid-cr": task(name="covid-cr")})


def test_a_record_that_is_not_valid_is_named(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r", "a") / "record.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"clean"', '"dirty"'), encoding="utf-8"
    )
    with pytest.raises(DataError, match="protocol"):
        build([tmp_path / "r"], tmp_path / "out", TASKS)


def test_no_records_give_an_empty_index(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    assert build([tmp_path / "records"], tmp_path, {}) == [tmp_path / "README.md"]


def test_metrics_shown_are_those_of_the_task_primary_first(folder: Path, tmp_path: Path) -> None:
    text = page([folder], tmp_path)
    head = next(line for line in text.splitlines() if line.startswith("| Rank"))
    assert head.startswith("| Rank | Model | auroc ↑ | Seeds (auroc) | accuracy ↑ |")
    assert {row["metric"] for row in lines(tmp_path)} == {spec.name for spec in SPECS}
