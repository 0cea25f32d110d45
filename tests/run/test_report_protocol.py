"""Reports by writing and by looking up: who is asked, what is kept, and what a record says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbench.cli import main
from medbench.data.dataset import open_dataset
from medbench.evaluation.report_attention import Attention
from medbench.evaluation.report_cases import attended
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.verdict import verdict
from medbench.plugins import discover
from medbench.run.reports import LOOKED_UP, nearest_studies, studies
from medbench.schemas.record import Estimate, MetricValue
from program import PACKAGES

Run = Callable[..., tuple[int, dict[str, Any], str]]

WRITES = '"generate_reports",'
EXPLAINS = """
    def explain_reports(self, images, mask):
        import torch

        found = []
        for study, seen in zip(images, mask, strict=True):
            words = self.generate_reports(study[None], seen[None])[0].split()
            weights = torch.ones(len(words), len(seen), 3, 3) * seen[None, :, None, None] / 18
            found.append((words, weights))
        return found

    def generate_images"""


@pytest.fixture
def run(
    tmp_path: Path,
    phantoms: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a changed random convolution on the IU X-Ray phantom, in this process: exit code, record
    and messages."""
    given = phantoms("iu-xray")
    monkeypatch.setenv("MEDBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEDBENCH_CONFIG", str(tmp_path / "none.toml"))

    def go(
        package: str, *changes: tuple[str, str], task: str = "iu-xray-report", data: Path = given
    ) -> tuple[int, dict[str, Any], str]:
        source = (PACKAGES / "able_model.py").read_text("utf-8").replace("able_model", package)
        source = source.replace('name="able"', f'name="{package}"')
        for old, new in changes:
            assert old in source
            source = source.replace(old, new, 1)
        site = tmp_path / package
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{package}.py").write_text(source, "utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[medbench]\n{package} = {package}\n")
        monkeypatch.syspath_prepend(str(site))
        with pytest.raises(SystemExit) as ended:
            main(["run", "-m", package, "-t", task, "--data", str(data), "--json",
                  "--device", "cpu", "--output", str(tmp_path / "runs")])  # fmt: skip
        out, err = capsys.readouterr()
        found = json.loads(out)["records"] if out else []
        return int(ended.value.code or 0), dict(found[0]) if found else {}, err

    return go


def test_an_encoder_looks_reports_up_in_its_own_features(
    run: Run, tmp_path: Path, phantoms: Callable[[str], Path]
) -> None:
    code, record, err = run("looking", (WRITES, ""))
    assert code == 0, err
    assert LOOKED_UP in record["notes"]
    table = pd.read_parquet(tmp_path / "runs" / record["run_id"] / "predictions.parquet")

    # once more, from the kept features alone, plainly
    opened = open_dataset(discover(third_party=False).dataset("iu-xray"), phantoms("iu-xray"))
    (kept,) = (tmp_path / "home" / "features").glob("*/payload/features.safetensors")
    from safetensors.numpy import load_file

    features = load_file(kept)["features"]
    used = [s for s in opened.samples if s.split in ("train", "test")]
    assert len(features) == len(used), "validation is not embedded"
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means: dict[str, list[Any]] = {}
    for sample, row in zip(used, unit, strict=True):
        means.setdefault(str(sample.study), []).append(row)
    about = {str(s.study): s for s in used}
    train = [name for name in means if about[name].split == "train"]

    def cosine(a: str, b: str) -> float:
        x, y = np.mean(means[a], 0), np.mean(means[b], 0)
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    tested = {str(s.study) for s in used if s.split == "test"}
    assert set(table["sample_id"]) == tested
    for study, said in zip(table["sample_id"], table["prediction"], strict=True):
        near = [cosine(study, name) for name in train]
        best = {about[train[k]].text for k in np.flatnonzero(np.isclose(near, max(near)))}
        assert said in best
    assert record["metrics"]["copied-reports"]["value"] == 1
    assert record["baselines"]["nearest-32-report"]["copied-reports"]["value"] == 1
    assert record["metrics"]["distinct-reports"]["value"] > 0.05
    assert not (tmp_path / "runs" / record["run_id"] / "attention.npz").exists()


def test_a_writer_writes_and_says_where_it_looked(run: Run, tmp_path: Path) -> None:
    code, record, err = run("telling", ("\n    def generate_images", EXPLAINS))
    assert code == 0, err
    assert LOOKED_UP not in record["notes"]
    folder = tmp_path / "runs" / record["run_id"]
    found = Attention.read(folder / "attention.npz")
    table = ReportPredictions.read(folder / "predictions.parquet")
    assert list(found.sample_ids) == [table.sample_ids[row] for row in attended(table)]
    for name in found.sample_ids:
        words, weights = found.find(name) or ([], np.zeros(0))
        row = list(table.sample_ids).index(name)
        assert words == table.predictions[row].split()
        assert weights.shape[2:] == (3, 3)
    metrics = record["metrics"]
    assert metrics["report-length"]["value"] == 8
    assert metrics["distinct-reports"]["value"] == pytest.approx(1 / len(table.sample_ids))
    assert metrics["copied-reports"]["value"] == 0
    for name in ("report-length", "length-ratio", "distinct-reports", "copied-reports"):
        low, high = metrics[name]["ci95"]
        assert low <= metrics[name]["value"] <= high


def test_attention_of_another_shape_ends_the_cell_with_the_method(run: Run) -> None:
    broken = EXPLAINS.replace("len(words), len(seen), 3", "len(words) + 1, len(seen), 3")
    code, _, err = run("wrong", ("\n    def generate_images", broken))
    assert code == 4
    assert "explain_reports" in err
    assert "[L, V, h, w] is expected" in err


def test_what_neither_writes_nor_encodes_images_is_refused(run: Run) -> None:
    code, _, err = run("neither", (WRITES, ""), ('"encode_images",', ""))
    assert code == 2
    assert "needs generate_reports or encode_images" in err


def test_a_hit_on_an_equal_report_is_a_hit_both_ways(
    run: Run, tmp_path: Path, phantoms: Callable[[str], Path]
) -> None:
    data = tmp_path / "equal"
    shutil.copytree(phantoms("iu-xray"), data)
    content = json.loads((data / "annotation.json").read_text("utf-8"))
    first, second = content["test"][:2]
    second["report"] = first["report"].replace(" ", "  ")
    (data / "annotation.json").write_text(json.dumps(content), "utf-8")
    code, record, err = run("matching", task="iu-xray-retrieval", data=data)
    assert code == 0, err
    opened = open_dataset(discover(third_party=False).dataset("iu-xray"), data)
    said = [" ".join((s.text or "").split()) for s in opened.samples if s.split == "test"]
    assert len(set(said)) < len(content["test"]), "two studies have one report"
    with np.load(tmp_path / "runs" / record["run_id"] / "predictions.npz") as found:
        image, text = found["image"].astype(float), found["text"].astype(float)
        groups, others = found["image_group"], found["text_group"]
    assert len(others) == len(set(others)) == len(set(said)), "each different report is one text"
    same = np.array(said)[:, None] == np.array(said)[None]
    assert ((groups[:, None] == groups[None]) == same).all()
    match = groups[:, None] == others[None]
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    cosine = image @ (text / np.linalg.norm(text, axis=1, keepdims=True)).T
    for way, scores, hits in (("i2t", cosine, match), ("t2i", cosine.T, match.T)):
        # the best match among five: candidates of equal cosine were not drawn here
        first = np.argsort(-scores, axis=1)[:, :5]
        expected = np.take_along_axis(hits, first, axis=1).any(axis=1).mean()
        assert record["metrics"][f"{way}-recall@5"]["value"] == pytest.approx(expected, abs=0.03)
        chance = record["baselines"]["chance"][f"{way}-recall@1"]["value"]
        assert chance == pytest.approx(hits.mean(axis=1).mean())


# --- the nearest study ------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=8),
    st.lists(st.integers(1, 3), min_size=1, max_size=5),
    st.integers(0, 2**16),
)
@settings(max_examples=50, deadline=None)
def test_the_nearest_study_is_the_one_of_largest_cosine(
    train: list[int], tested: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(sum(train) + sum(tested), 6)).astype(np.float32)
    cuts = np.cumsum([*train, *tested])
    groups = [list(map(int, rows)) for rows in np.split(np.arange(cuts[-1]), cuts[:-1])]
    left, right = groups[: len(train)], groups[len(train) :]
    found = nearest_studies(features, left, right)
    # lengths of single views say nothing
    scaled = features * rng.uniform(0.5, 2, (len(features), 1)).astype(np.float32)
    assert nearest_studies(scaled, left, right) == found

    def mean(rows: list[int]) -> Any:
        return np.mean([features[i] / np.linalg.norm(features[i]) for i in rows], axis=0)

    for rows, chosen in zip(right, found, strict=True):
        cosines = [
            mean(rows) @ mean(other) / np.linalg.norm(mean(rows)) / np.linalg.norm(mean(other))
            for other in left
        ]
        assert cosines[chosen] == pytest.approx(max(cosines), abs=1e-5)


def test_of_equally_near_studies_the_first_is_taken_and_zeros_are_no_neighbour() -> None:
    features = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [3, 0.0]], np.float32)
    assert nearest_studies(features, [[0], [1], [2], [3]], [[4], [3]]) == [1, 3]


def test_views_of_different_studies_never_mix_and_frontal_ones_come_first(
    phantoms: Callable[[str], Path],
) -> None:
    opened = open_dataset(discover(third_party=False).dataset("iu-xray"), phantoms("iu-xray"))
    rows = list(range(len(opened.samples)))[::-1]
    groups = studies(opened.samples, rows)
    assert sorted(i for group in groups for i in group) == sorted(rows)
    for group in groups:
        assert len({opened.samples[i].study for i in group}) == 1
        lateral = [opened.samples[i].view == "lateral" for i in group]
        assert lateral == sorted(lateral)


# --- the verdict ------------------------------------------------------------------------------


def judged(own: float, theirs: float | None, better: bool = True, width: float = 0.01) -> list[str]:
    value = MetricValue(
        value=own,
        ci95=(own - width, own + width),
        n=9,
        higher_is_better=better,
        version=1,
        card_sha256="0" * 64,
    )
    rival = {} if theirs is None else {
        "nearest-32-report": {
            "bleu-4": Estimate(value=theirs, ci95=(theirs - width, theirs + width), n=9)
        }
    }  # fmt: skip
    return verdict("report-generation", "bleu-4", {"bleu-4": value}, rival)


def test_a_generator_below_looking_up_says_so_with_both_values() -> None:
    (note,) = judged(0.0512, 0.0731, width=0.001)
    assert note == "does not beat looking up: bleu-4 0.0512 against 0.0731 of nearest-32-report"
    assert judged(0.0731, 0.0512) == []
    assert judged(0.06, 0.06)[0].endswith("within their intervals")
    assert judged(0.05, 0.06, better=False) == []
    assert len(judged(0.06, 0.05, better=False)) == 1


def test_without_the_baseline_or_the_metric_nothing_is_said() -> None:
    assert judged(0.05, None) == []
    assert verdict("report-generation", "bleu-4", {}, {}) == []
    assert verdict("classification", "auroc", {}, {"prior": {}}) == []
