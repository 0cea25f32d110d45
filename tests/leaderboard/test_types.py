"""Leaderboards of every task type: intervals of seed means, paired ranks, publishing, checking."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import MANIFEST, write_run
from typed_tables import NAMES, metrics_of, table_of, task_of

from medbench.errors import VerificationError
from medbench.evaluation.files import read_predictions
from medbench.evaluation.keyed import keyed_digest, with_keys
from medbench.evaluation.score import evaluate
from medbench.leaderboard.build import build, check, publish
from medbench.schemas.record import predictions_name
from medbench.statistics.bootstrap import content_clusters, interval, patient_weights

KINDS = tuple(NAMES)
OPEN = ("segmentation", "retrieval")  # what may be published of phantoms
CLOSED = ("report-generation", "image-generation")


def write(root: Path, kind: str, model: str, seed: int, skill: float, **more: object) -> Path:
    table = more.pop("table", None) or table_of(kind, skill, seed + 100 * sum(model.encode()))
    given = {"spec": task_of(kind), "metrics": metrics_of(kind), "adaptation": "", **more}
    return write_run(root, model, seed, table=table, **given)


@pytest.fixture(scope="module", params=KINDS)
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Two models over two seeds, one clearly better."""
    kind = request.param
    root = tmp_path_factory.mktemp(kind)
    for seed in range(2):
        write(root, kind, "good", seed, 0.9)
        write(root, kind, "poor", seed, 0.3)
    return kind, root


def tables(records: Path, kind: str, out: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """The page, and the rows of the primary metric by model."""
    spec = task_of(kind)
    build([records], out, {spec.name: spec}, metrics=metrics_of(kind))
    text = (out / f"{spec.name}.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text))
    page = (out / f"{spec.name}.md").read_text(encoding="utf-8")
    return page, {row["model"]: row for row in rows if row["metric"] == spec.primary}


def problems(root: Path, kind: str) -> list[str]:
    spec = task_of(kind)
    build([root / "records"], root, {spec.name: spec}, metrics=metrics_of(kind))
    return check(root, {spec.name: spec}, metrics=metrics_of(kind))


def test_pairs_are_tested_where_predictions_are_at_hand(
    folder: tuple[str, Path], tmp_path: Path
) -> None:
    kind, root = folder
    page, rows = tables(root, kind, tmp_path)
    assert (rows["good"]["rank"], rows["poor"]["rank"]) == ("1", "2")
    assert "no common predictions" not in page
    assert rows["good"]["interval"] == "patients"


def test_the_interval_is_that_of_the_mean_over_seeds(
    folder: tuple[str, Path], tmp_path: Path
) -> None:
    kind, root = folder
    _, rows = tables(root, kind, tmp_path)
    spec = next(s for s in metrics_of(kind) if s.name == task_of(kind).primary)
    files = sorted(root.glob(f"good_*/{predictions_name(kind)}"))
    found = [read_predictions(path, kind) for path in files]
    content = np.concatenate([t.content for t in found], axis=1)
    weights = patient_weights(content_clusters(found[0].patients, content))
    drawn = np.mean([evaluate(spec, t, weights).value for t in found], axis=0)
    low, high = interval(drawn)
    assert float(rows["good"]["ci95_low"]) == pytest.approx(low, abs=1e-6)
    assert float(rows["good"]["ci95_high"]) == pytest.approx(high, abs=1e-6)


def test_a_metric_with_an_interval_of_its_own_is_not_resampled(tmp_path: Path) -> None:
    spec = task_of("image-generation").model_copy(update={"primary": "fid-phantom"})
    for seed in range(2):
        write(tmp_path / "r", "image-generation", "good", seed, 0.9, spec=spec)
        write(tmp_path / "r", "image-generation", "poor", seed, 0.3, spec=spec)
    build([tmp_path / "r"], tmp_path, {spec.name: spec}, metrics=metrics_of("image-generation"))
    page = (tmp_path / f"{spec.name}.md").read_text(encoding="utf-8")
    text = (tmp_path / f"{spec.name}.csv").read_text(encoding="utf-8")
    kinds = {r["metric"]: r["interval"] for r in csv.DictReader(io.StringIO(text))
             if r["kind"] == "model"}  # fmt: skip
    assert kinds == {"fid-phantom": "mean-of-bounds", "kid-phantom": "patients"}
    assert "1 of 1 pairs have no common predictions" in page


def test_images_whose_prompts_are_not_aligned_are_compared_by_intervals(tmp_path: Path) -> None:
    write(tmp_path / "r", "image-generation", "good", 0, 0.9)
    table = table_of("image-generation", 0.3, 7)
    generated, (real, features) = table.generated, table.given["phantom"]
    fewer = replace(
        table, generated=generated[::2], prompts=table.prompts[::2],
        given={"phantom": (real, features[::2])},
    )  # fmt: skip
    write(tmp_path / "r", "image-generation", "poor", 0, 0.3, table=fewer)
    page, rows = tables(tmp_path / "r", "image-generation", tmp_path)
    assert "1 of 1 pairs have no common predictions" in page
    assert rows["poor"]["rank"] == "2"


def test_features_by_networks_trained_apart_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path / "r", "image-generation", "good", 0, 0.9)
    table = table_of("image-generation", 0.3, 7)
    real, made = table.given["phantom"]
    other = replace(table, given={"phantom": (real * 1.1, made)})
    write(tmp_path / "r", "image-generation", "poor", 0, 0.3, table=other)
    with pytest.raises(VerificationError, match="network"):
        tables(tmp_path / "r", "image-generation", tmp_path)


def test_distances_by_unlike_weights_are_refused_by_name(tmp_path: Path) -> None:
    for model, digest in (("a", "0123456789ab"), ("b", "ba9876543210")):
        note = f"kid-phantom: features by xrv weights {digest}"
        write(tmp_path / "r", "image-generation", model, 0, 0.5, notes=[note])
    with pytest.raises(VerificationError, match=r"kid-phantom.*0123456789ab.*ba9876543210"):
        tables(tmp_path / "r", "image-generation", tmp_path)
    again = tmp_path / "r" / "b_iu-xray-generation_tiny_s0__phantom" / "record.json"
    again.write_text(again.read_text().replace("ba9876543210", "0123456789ab"))
    page, _ = tables(tmp_path / "r", "image-generation", tmp_path)
    # a network that this machine may not have is not run again
    assert "1 of 1 pairs have no common predictions" in page


@pytest.mark.parametrize("kind", ["segmentation", "retrieval", "report-generation"])
def test_unlike_references_are_refused(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "r", kind, "a", 0, 0.5)
    table = table_of(kind, 0.5, 8)
    changed = {
        "segmentation": lambda: replace(table, reference=np.roll(table.reference, 1, axis=0)),
        "retrieval": lambda: replace(table, image_group=table.image_group[::-1].copy()),
        "report-generation": lambda: replace(table, references=table.references[::-1]),
    }[kind]()  # fmt: skip
    write(tmp_path / "r", kind, "b", 0, 0.5, table=changed)
    with pytest.raises(VerificationError, match="disagree"):
        tables(tmp_path / "r", kind, tmp_path)


@pytest.fixture(scope="module", params=OPEN)
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    kind = request.param
    root = tmp_path_factory.mktemp("published")
    for seed in range(2):
        publish(write(root / "runs", kind, "good", seed, 0.9), root / "boards")
    publish(write(root / "runs", kind, "poor", 0, 0.3), root / "boards")
    return kind, root


def test_masks_and_embeddings_are_published_with_keys(published: tuple[str, Path]) -> None:
    kind, root = published
    assert problems(root / "boards", kind) == []
    for path in (root / "boards").rglob("predictions.npz"):
        table = read_predictions(path, kind)
        names = [*table.patients, *getattr(table, "sample_ids", [])]
        assert not any("SECRET" in name for name in names)


def test_published_tables_rank_as_the_runs_do(published: tuple[str, Path], tmp_path: Path) -> None:
    kind, root = published
    pages = [tables(some, kind, tmp_path / n) for n, some in
             (("a", root / "runs"), ("b", root / "boards" / "records"))]  # fmt: skip
    assert pages[0] == pages[1]


def test_tampered_and_unkeyed_predictions_are_found(
    published: tuple[str, Path], tmp_path: Path
) -> None:
    kind, root = published
    boards = tmp_path / "boards"
    shutil.copytree(root / "boards", boards)
    path = min(boards.rglob("predictions.npz"))
    name = path.parent.name
    shutil.copy(root / "runs" / name / "predictions.npz", path)
    assert any("sample ids" in problem for problem in problems(boards, kind))
    other = table_of(kind, 0.2, 5)
    with_keys(other, MANIFEST).write(path)
    assert any("hash" in problem for problem in problems(boards, kind))
    record = json.loads((path.parent / "record.json").read_text())
    record["hashes"]["published"] = keyed_digest(with_keys(other, MANIFEST))
    (path.parent / "record.json").write_text(json.dumps(record))
    found = problems(boards, kind)
    assert not any("hash" in problem for problem in found)
    assert any("is stated as" in problem for problem in found)


def test_a_tampered_baseline_is_found(published: tuple[str, Path], tmp_path: Path) -> None:
    kind, root = published
    shutil.copytree(root / "boards", tmp_path / "boards")
    path = min((tmp_path / "boards").rglob("record.json"))
    record = json.loads(path.read_text())
    name = {"segmentation": "all-empty", "retrieval": "chance"}[kind]
    metric = task_of(kind).metrics[0]
    record["baselines"][name][metric]["value"] += 0.1
    path.write_text(json.dumps(record))
    assert any(f"{name}/{metric}" in problem for problem in problems(tmp_path / "boards", kind))


@pytest.mark.parametrize("kind", CLOSED)
def test_reports_and_images_are_never_published(tmp_path: Path, kind: str) -> None:
    run = write(tmp_path / "runs", kind, "good", 0, 0.9)
    kept = publish(run, tmp_path / "boards")
    publish(write(tmp_path / "runs", kind, "poor", 0, 0.2), tmp_path / "boards")
    assert [path.name for path in kept.iterdir()] == ["record.json"]
    assert problems(tmp_path / "boards", kind) == []
    page, rows = tables(tmp_path / "boards" / "records", kind, tmp_path / "out")
    assert "are not published" in page
    assert rows["poor"]["rank"] == "2"
    for path in (tmp_path / "boards").rglob("*"):
        assert path.is_dir() or b"SECRET" not in path.read_bytes()
    shutil.copy(run / predictions_name(kind), kept)
    assert any(
        "must not be published" in problem for problem in problems(tmp_path / "boards", kind)
    )
