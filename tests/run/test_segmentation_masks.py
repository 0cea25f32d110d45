"""A segmentation cell: masks are kept, maps are mapped from disk or encoded anew, to one result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medbench.cli import main
from medbench.run import segmentation
from program import PACKAGES

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(
    home: Path,
    phantoms: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a random convolution on the SIIM phantom, in this process, into a folder of its own."""
    site = home / "site"
    info = site / "able_model-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(PACKAGES / "able_model.py", site)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: able_model\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[medbench]\nable_model = able_model\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("MEDBENCH_HOME", str(home))
    monkeypatch.setenv("MEDBENCH_CONFIG", str(home / "none.toml"))
    data = phantoms("siim-pneumothorax")

    def go(name: str, *words: object) -> dict[str, Any]:
        with pytest.raises(SystemExit) as ended:
            main(["run", "-m", "able", "-t", "siim-segmentation", "--data", str(data), "--json",
                  "--device", "cpu", "--output", str(home / name), *map(str, words)])  # fmt: skip
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        (record,) = json.loads(out)["records"]
        return dict(record)

    return go


def masks(home: Path, name: str, record: dict[str, Any]) -> Any:
    with np.load(home / name / record["run_id"] / "predictions.npz") as found:
        return found["prediction"]


def entries(home: Path, kind: str) -> set[str]:
    return {p.name for p in (home / kind).glob("[!.]*")}


def test_masks_are_kept_so_that_a_rerun_trains_nothing(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("first")
    (note,) = [note for note in first["notes"] if note.startswith("decoder: ")]
    assert int(note.split()[1].replace(",", "")) > 1000
    assert len(entries(home, "segmented")) == 1

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(segmentation, "_train", refuse)
    again = run("second")
    assert (masks(home, "second", again) == masks(home, "first", first)).all()
    for part in ("metrics", "notes", "hashes"):
        assert again[part] == first[part]


def test_a_fraction_and_a_seed_have_masks_of_their_own(run: Run, home: Path) -> None:
    whole = run("runs")
    half = run("runs", "--fraction", 0.5)
    assert len(entries(home, "segmented")) == 2
    assert len(entries(home, "features")) == 1, "the same maps serve both"
    trained = [record["data"]["samples"]["train"] for record in (whole, half)]
    assert 0.3 * trained[0] < trained[1] < 0.7 * trained[0]
    assert whole["data"]["samples"]["test"] == half["data"]["samples"]["test"]
    run("runs", "--seed", 1)
    assert len(entries(home, "segmented")) == 3


def test_maps_too_large_to_be_kept_are_encoded_anew_to_the_same_masks(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = run("mapped")
    shutil.rmtree(home / "segmented")
    shutil.rmtree(home / "features")
    monkeypatch.setattr(segmentation, "LARGEST", 0)
    encoded = run("encoded")
    assert entries(home, "features") == set()
    same = masks(home, "encoded", encoded) == masks(home, "mapped", mapped)
    assert same.mean() > 0.999  # batches of other sizes round otherwise


def test_maps_are_kept_in_half_precision_at_the_paper_preset(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medbench.evaluation.segmentation import Schedule

    quick = Schedule(width=16, epochs=1, batch=32)
    monkeypatch.setattr(segmentation, "schedule_of", lambda _: quick)
    record = run("runs", "--preset", "paper")
    (path,) = (home / "features").glob("*/payload/map-0.npy")
    kept = np.load(path, mmap_mode="r")
    assert kept.dtype == np.float16
    assert kept.shape == (sum(record["data"]["samples"].values()), 8, 8, 8)
    assert masks(home, "runs", record).shape[1:] == (224, 224)


def test_the_published_schedule_is_that_of_the_paper_preset() -> None:
    paper, tiny = segmentation.schedule_of("paper"), segmentation.schedule_of("tiny")
    assert (paper.rate, paper.decay, paper.batch) == (5e-4, 1e-4, 4)
    assert (paper.epochs, paper.patience, paper.width) == (100, 10, 512)
    assert tiny.epochs == 15
    assert tiny.width < segmentation.schedule_of("small").width < paper.width
