"""What cells cost: kept with what was built, told again by whoever uses it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import medbench.run.reporter as reporters
from medbench.run.reporter import Reporter
from medbench.run.stores import ENTRY, Store
from medbench.run.work import Clock, Ledger, Work, costs
from program import Medbench

KEY: dict[str, Any] = {"what": "checkpoint"}


def build(reporter: Reporter, seconds: float = 0.0) -> Callable[[Path, Path], None]:
    def write(payload: Path, _: Path) -> None:
        with reporter.stage("train it", "fit-a") as advance:
            time.sleep(seconds)
            advance(7, 7)
        (payload / "file.txt").write_text("content")

    return write


def test_an_entry_keeps_its_work_and_tells_it_to_the_next_process(tmp_path: Path) -> None:
    reporter = Reporter()
    store = Store(tmp_path, ledger=reporter.ledger)
    store.get("checkpoints", KEY, build(reporter, 0.2))
    ((works, found),) = store.work()
    assert not found
    assert works is not None
    assert (works[0].name, works[0].items) == ("fit-a", 7)
    assert 0.2 <= works[0].seconds < 5
    later = Store(tmp_path)
    later.get("checkpoints", KEY, build(reporter))
    assert list(later.work()) == [(works, True)]


def test_entries_are_counted_once_and_data_not_at_all(tmp_path: Path) -> None:
    reporter = Reporter()
    store = Store(tmp_path, ledger=reporter.ledger)
    for kind in ("images", "checkpoints", "checkpoints"):
        store.get(kind, KEY, build(reporter))
    assert [found for _, found in store.work()] == [False]
    store.used.clear()
    assert list(store.work()) == []


def test_an_entry_that_does_not_say_is_not_known(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder, _ = store.get("checkpoints", KEY, build(Reporter()))
    path = folder.parent / ENTRY
    entry = json.loads(path.read_text())
    del entry["work"]
    path.write_text(json.dumps(entry))
    assert list(store.work()) == [(None, False)]
    assert "train_seconds" not in costs({}, store.work(), "cpu")


def test_the_time_of_a_killed_attempt_counts(tmp_path: Path) -> None:
    note = tmp_path / "seconds-fit-a"
    note.write_text("120.5")
    clock = Clock(note)
    clock.pause()
    assert 120.5 <= float(note.read_text()) < 125
    assert 120.5 <= clock.stop() < 125
    assert not note.exists()
    note.write_text("half a num")
    assert Clock(note).stop() < 5


def test_an_attempt_that_fails_leaves_its_time_to_the_next(tmp_path: Path) -> None:
    reporter = Reporter()
    store = Store(tmp_path, ledger=reporter.ledger)

    def fail(_: Path, __: Path) -> None:
        with reporter.stage("train it", "fit-a"):
            time.sleep(0.3)
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="luck"):
        store.get("checkpoints", KEY, fail)
    assert reporter.ledger == Ledger()
    store.get("checkpoints", KEY, build(reporter))
    ((works, _),) = store.work()
    assert works is not None
    assert works[0].seconds >= 0.3


def test_costs_sum_training_and_take_the_speed_of_embedding() -> None:
    entries = [
        ([Work("fit-base", 30.0, 10)], True),
        ([Work("fit-pairs", 12.0, 10)], False),
        ([Work("embed", 2.0, 500)], True),
        ([Work("embed", 3.0, 500), Work("backbone", 9.0)], False),
    ]
    timing = {"fit-pairs": 12.0, "decoder": 5.0, "probe": 4.0, "embed": 3.0}
    found = costs(timing, entries, "cpu")
    assert found["train_seconds"] == 47.0
    assert found["images_per_second"] == 200.0
    assert found["cached"] == ["embed", "fit-base"]
    assert found["peak_memory_mb"] > 10
    nothing = costs({"probe": 1.0}, [], "cpu")
    assert nothing["train_seconds"] == 0
    assert "images_per_second" not in nothing


def test_off_a_terminal_a_stage_is_a_line_and_a_long_one_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = Reporter()
    with reporter.stage("short", "a") as advance:
        for step in range(5):
            advance(step, 5)
    assert capsys.readouterr().err.splitlines() == ["  short: 0.0 s"]
    monkeypatch.setattr(reporters, "SAID", 0.2)
    with reporter.stage("long", "b") as advance:
        for step in range(10):
            time.sleep(0.05)
            advance(step, 10, "loss 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 4
    assert lines[0].startswith("  long: ")
    assert "% after" in lines[0]
    assert lines[0].endswith("loss 0.5")
    assert reporter.timing.keys() == {"a", "b"}


def test_a_cached_run_reports_the_time_of_the_training(
    medbench: Medbench, phantoms: Callable[[str], Path]
) -> None:
    medbench.install("toy_model")
    words = [
        "run", "-m", "toy", "-t", "covid-ct", "--json", "--adaptation", "zero-shot",
        "--data", f"covid-ct-md={phantoms('covid-ct-md')}",
        "--data", f"image-text-pairs={phantoms('image-text-pairs')}",
    ]  # fmt: skip
    timings = []
    for name in ("one", "two"):
        ran = medbench(*words, "--output", medbench.home / name)
        assert ran.code == 0, ran.err
        timings.append(ran.json["records"][0]["timing"])
    first, again = timings
    assert first["train_seconds"] == pytest.approx(first["fit-fit"], abs=0.1)
    assert first["cached"] == []
    assert "fit-fit" not in again
    for key in ("train_seconds", "images_per_second"):
        assert again[key] == first[key] > 0
    assert again["cached"] == ["embed", "fit-fit"]
    assert again["peak_memory_mb"] > 50
