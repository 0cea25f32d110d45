"""Prediction tables: what is refused, what is written, what is published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medbench.errors import DataError, PluginError, StorageError
from medbench.evaluation.predictions import ClassPredictions, sample_key

MANIFEST = "ab" * 32


def example(**changes: object) -> ClassPredictions:
    rng = np.random.default_rng(0)
    given: dict[str, object] = {
        "sample_ids": [f"s{i}" for i in range(6)],
        "patients": ["p0", "p0", "p1", "p2", "p3", "p4"],
        "labels": ["a", "b"],
        "y": np.array([[1, 0], [0, np.nan], [1, 1], [0, 0], [np.nan, 1], [1, 0]]),
        "scores": rng.normal(size=(6, 2)),
        "multiclass": False,
    }
    return ClassPredictions(**{**given, **changes})  # type: ignore[arg-type]


def same(a: ClassPredictions, b: ClassPredictions) -> bool:
    return (a.sample_ids, a.patients, a.labels) == (
        b.sample_ids,
        b.patients,
        b.labels,
    ) and np.array_equal(a.content, b.content, equal_nan=True)


@pytest.mark.parametrize("thresholds", [None, np.array([0.1, 0.4])])
def test_a_table_reads_back_as_it_was_written(tmp_path: Path, thresholds) -> None:
    table = example(thresholds=thresholds)
    table.write(tmp_path / "t.parquet")
    assert same(ClassPredictions.read(tmp_path / "t.parquet", False), table)


def test_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    import pandas as pd

    example().write(tmp_path / "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert list(frame.columns) == [
        "sample_id", "patient_id", "label:a", "label:b", "score:a", "score:b",
    ]  # fmt: skip
    assert frame["label:b"].isna().tolist() == [False, True, False, False, False, False]


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    example().write(tmp_path / "a.parquet")
    example().write(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_published_table_has_no_ids_and_the_same_digest(tmp_path: Path) -> None:
    table = example()
    table.publish(tmp_path / "t.parquet", MANIFEST)
    published = ClassPredictions.read(tmp_path / "t.parquet", False)
    assert published.keyed
    assert published.digest(MANIFEST) == table.digest(MANIFEST)
    assert set(published.sample_ids) == {sample_key(MANIFEST, i) for i in table.sample_ids}
    assert len(set(published.patients)) == 5
    text = (tmp_path / "t.parquet").read_bytes()
    assert not any(i.encode() in text for i in ("sample_id", "patient_id"))


def test_digest_follows_content_not_order_or_file() -> None:
    table = example()
    assert table.take([3, 1, 5, 0, 2, 4]).digest(MANIFEST) == table.digest(MANIFEST)
    changed = table.scores.copy()
    changed[2, 1] = np.nextafter(changed[2, 1], 9)
    flipped = table.y.copy()
    flipped[0, 0] = 0
    digests = {
        t.digest(MANIFEST)
        for t in (
            table,
            example(scores=changed),
            example(y=flipped),
            example(patients=["p0", "p1", "p1", "p2", "p3", "p4"]),
            example(labels=["a", "c"]),
            example(thresholds=np.array([0.5, 0.5])),
        )
    }
    assert len(digests) == 6
    assert table.digest("00" * 32) not in digests


def test_csv_and_json_lines_are_read_too(tmp_path: Path) -> None:
    csv = tmp_path / "t.csv"
    csv.write_text("sample_id,label:x,score:x\n007,1,0.9\n008,,0.2\n009,0,0.1\n", encoding="utf-8")
    table = ClassPredictions.read(csv)
    assert table.sample_ids == table.patients == ("007", "008", "009")
    assert np.array_equal(table.y[:, 0], [1, np.nan, 0], equal_nan=True)
    lines = tmp_path / "t.jsonl"
    lines.write_text(
        '{"sample_id": "007", "patient_id": "1", "label:x": 1, "score:x": 0.9}\n'
        '{"sample_id": "008", "patient_id": "1", "label:x": null, "score:x": 0.2}\n',
        encoding="utf-8",
    )
    assert ClassPredictions.read(lines).patients == ("1", "1")


def test_three_labels_with_one_each_are_read_as_multiclass(tmp_path: Path) -> None:
    scores = np.full((3, 3), 1 / 3)
    ids = ["a", "b", "c"]
    ClassPredictions(ids, ids, ["x", "y", "z"], np.eye(3), scores, False).write(
        tmp_path / "t.parquet"
    )
    assert ClassPredictions.read(tmp_path / "t.parquet").multiclass
    assert not ClassPredictions.read(tmp_path / "t.parquet", False).multiclass


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_break_the_plugin_contract(bad: float) -> None:
    scores = np.zeros((6, 2))
    scores[3, 1] = bad
    with pytest.raises(PluginError, match="'s3' for label 'b'"):
        example(scores=scores)


def test_scores_of_another_shape_break_the_plugin_contract() -> None:
    with pytest.raises(PluginError, match=r"\(6, 3\), not \(6, 2\)"):
        example(scores=np.zeros((6, 3)))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sample_ids": ["s0", "s1", "s2", "s3", "s4", "s1"]}, "'s1' twice"),
        ({"labels": ["a", "a"]}, "'a' twice"),
        ({"patients": ["p"]}, "1 patients"),
        ({"y": np.full((6, 2), 2.0)}, "0, 1 or blank"),
        ({"y": np.zeros((5, 2))}, "shape"),
        ({"multiclass": True}, "exactly one label"),
        ({"thresholds": np.zeros(3)}, "Thresholds"),
        ({"sample_ids": []}, "0 samples"),
    ],
)
def test_wrong_tables_are_refused(changes: dict[str, object], match: str) -> None:
    with pytest.raises(DataError, match=match):
        example(**changes)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a,b\n1,2\n", "sample_id"),
        ("sample_id\n1\n", "label:<name>"),
        ("sample_id,label:x\n1,1\n", "score of 'x'"),
        ("sample_id,label:x,score:x\n1,1,\n", "not a finite number"),
        ("sample_id,label:x,score:x\n1,1,high\n", "no number"),
        ("sample_id,label:x,score:x\n1,1,.5\n1,0,.5\n", "twice"),
        ("sample_id,label:x,score:x\n,1,.5\n", "without a sample id"),
        ("sample_id,label:x,score:x,score:y\n1,1,.5,.5\n", "'y'"),
    ],
)
def test_wrong_files_are_data_errors_naming_the_file(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=match) as caught:
        ClassPredictions.read(path)
    assert str(path) in str(caught.value)


def test_a_damaged_or_missing_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    for name in ("t.parquet", "none.parquet"):
        with pytest.raises(DataError, match="cannot be read"):
            ClassPredictions.read(tmp_path / name)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageError):
        example().write(tmp_path / "file" / "t.parquet")
