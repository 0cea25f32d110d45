"""`medbench export`: committed records as tidy tables and model-index blocks."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

from program import Medbench

BOARDS = Path(__file__).parents[2] / "leaderboards" / "records" / "rsna"


def some() -> list[Path]:
    """Records of several fractions and variants on one dataset."""
    return sorted(BOARDS.rglob("record.json"))[::5]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_a_tidy_table_has_every_number_of_every_record(medbench: Medbench, tmp_path: Path) -> None:
    out = medbench("export", *map(str, some())).out
    table = pd.read_csv(io.StringIO(out), keep_default_na=False)
    expected = 0
    for path in some():
        record = json.loads(path.read_text(encoding="utf-8"))
        mine = table[table["run_id"] == record["run_id"]]
        for name, metric in record["metrics"].items():
            rows = mine[(mine["metric"] == name) & (mine["predictor"] == "model")]
            whole = rows[rows["label"] == ""].iloc[0]
            assert whole["value"] == pytest.approx(metric["value"], abs=1e-12)
            assert [whole["ci95_low"], whole["ci95_high"]] == pytest.approx(metric["ci95"])
            assert set(rows["label"]) - {""} == set(metric.get("per_label") or ())
            expected += len(rows)
        beside = sum(len(metrics) for metrics in record["baselines"].values())
        assert (mine["predictor"] != "model").sum() == beside
        expected += beside
    assert len(table) == expected
    assert set(table["track"]) == {"phantom"}

    file = tmp_path / "all.parquet"
    medbench("export", *map(str, some()), "--format", "parquet", "--output", str(file))
    assert pd.read_parquet(file)["value"].tolist() == pytest.approx(table["value"].tolist())


def test_model_index_blocks_are_read_back_by_the_hub_s_own_code(medbench: Medbench) -> None:
    out = medbench("export", *map(str, some()), "--format", "model-index").out
    seen = 0
    records = {r["run_id"]: r for r in map(read, some())}
    for document in yaml.safe_load_all(out):
        name, results = model_index_to_eval_results(document["model-index"])
        for result in results:
            seen += 1
            mine = records[result.dataset_config]
            assert name == mine["model"]["name"] + (
                f"@{mine['model']['variant']}" if mine["model"]["variant"] else ""
            )
            assert result.dataset_args["seed"] == mine["seed"]
            assert result.dataset_args["fraction"] == mine["fraction"]
            assert result.metric_value == mine["metrics"][result.metric_type]["value"]
            assert result.dataset_name == "rsna-pneumonia (PHANTOM)"
            low, high = result.metric_args["ci95"]
            assert low <= result.metric_value <= high
            assert result.metric_args["baselines"]
            assert result.verified is False
        assert name
    assert seen == sum(len(record["metrics"]) for record in records.values())


def test_a_record_that_cannot_be_read_is_named_and_the_others_are_written(
    medbench: Medbench, tmp_path: Path
) -> None:
    good = json.loads(some()[0].read_text(encoding="utf-8"))
    for name, record in (("a", good), ("b", good | {"schema": "medbench.record/9"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(json.dumps(record), encoding="utf-8")
    done = medbench("export", tmp_path)
    assert done.code == 3
    assert "b/record.json" in done.err
    assert "1 of 2 records could not be read" in done.err
    assert set(pd.read_csv(io.StringIO(done.out))["run_id"]) == {good["run_id"]}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--format", "parquet"), 2, "needs a file"),
        (("none",), 2, "none does not exist"),
        ((".",), 3, "no readable records"),
    ],
)
def test_what_cannot_be_is_refused(
    medbench: Medbench, tmp_path: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    given = [tmp_path / word if word in ("none", ".") else word for word in words]
    done = medbench("export", *given)
    assert done.code == code
    assert told in done.err
