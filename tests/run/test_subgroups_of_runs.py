"""A run states its task's primary metric by sex, age band and view, and gives no sample away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medbench.cli import main
from medbench.data.dataset import open_dataset
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.score import score
from medbench.metrics.cards import AUROC
from medbench.plugins import discover
from medbench.schemas.record import Record


@pytest.fixture(scope="module")
def done(
    phantoms: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Record]:
    """The folder and the record of a trivial predictor, run in this process."""
    root = tmp_path_factory.mktemp("subgroups")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDBENCH_HOME", str(root / "home"))
        patch.setenv("MEDBENCH_CONFIG", str(root / "none.toml"))
        words = ["run", "-m", "baseline@pixels-32", "-t", "chexpert-5x200", "--device", "cpu"]
        words += ["--data", str(phantoms("chexpert-5x200")), "--output", str(root / "runs")]
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert not ended.value.code
    (path,) = (root / "runs").glob("*/record.json")
    return path.parent, Record.model_validate_json(path.read_text("utf-8"))


def test_each_group_is_the_metric_of_its_samples(
    done: tuple[Path, Record], phantoms: Callable[[str], Path]
) -> None:
    folder, record = done
    table = ClassPredictions.read(folder / "predictions.parquet", True)
    samples = open_dataset(discover(False).dataset("chexpert-5x200"), phantoms("chexpert-5x200"))
    sex = {sample.id: sample.sex for sample in samples.samples}
    assert record.subgroups
    found = record.subgroups["sex"]
    assert found.metric == "auroc"
    for group, estimate in found.groups.items():
        part = table.take([i for i, name in enumerate(table.sample_ids) if sex[name] == group])
        assert estimate.n == len(part.sample_ids) >= 20
        assert estimate.value == pytest.approx(score(part, [AUROC]).metrics["auroc"].value)
        assert estimate.ci95[0] < estimate.value < estimate.ci95[1]
    best, worst = found.gap.between
    assert found.gap.value == found.groups[best].value - found.groups[worst].value > 0


def test_predictions_say_nothing_of_sex_age_or_view(done: tuple[Path, Record]) -> None:
    columns: list[str] = pq.read_schema(done[0] / "predictions.parquet").names
    kinds = {name.partition(":")[0] for name in columns}
    assert kinds <= {"sample_id", "patient_id", "label", "score", "threshold"}


def test_what_is_left_out_is_in_a_note(done: tuple[Path, Record]) -> None:
    folder, record = done
    assert record.subgroups
    assert set(record.subgroups) == {"sex", "age"}
    assert "subgroups by age: under 40 left out, 12 patients are fewer than 20" in record.notes
    (view,) = (note for note in record.notes if note.startswith("subgroups by view: "))
    assert view.endswith("PA left out, 12 patients are fewer than 20; absent: AP alone is left")
    written = json.loads((folder / "record.json").read_text("utf-8"))
    assert list(written["subgroups"]) == list(record.subgroups)
