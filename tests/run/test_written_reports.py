"""Reports of generated images by a task's writer: who reads what, who is trained, what is kept."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import medbench_tasks
from medbench.cli import main
from medbench.data.dataset import open_dataset
from medbench.data.images import resize
from medbench.errors import UsageError, WeightsError
from medbench.plugins import Registry, discover
from medbench.run import records
from medbench.run.job import baseline_key
from medbench.run.load import load, opened
from medbench.run.reporter import Reporter
from medbench.run.request import Plan, Request
from medbench.run.resolve import resolve
from medbench.run.stores import Store, digest
from medbench.schemas.task import load_task
from medbench.sweep.graph import Node, draw
from program import PACKAGES

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]

TASKS = Path(medbench_tasks.__file__).parent
REPORTS = "mimic-cxr-generation-reports"


@pytest.fixture
def run(
    tmp_path: Path,
    phantoms: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run random convolutions on a task whose writer is a toy, in this process: exit code, records
    and messages. ``changes`` are made in the toy, ``writer`` in the task."""
    given = phantoms("mimic-cxr")
    monkeypatch.setenv("MEDBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEDBENCH_CONFIG", str(tmp_path / "none.toml"))

    def install(name: str, *changes: tuple[str, str], source: str = "able_model") -> None:
        text = (PACKAGES / f"{source}.py").read_text("utf-8").replace("able_model", name)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        site = tmp_path / name
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(text, "utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[medbench]\n{name} = {name}\n")
        monkeypatch.syspath_prepend(str(site))

    def go(
        *words: str,
        package: str,
        changes: tuple[tuple[str, str], ...] = (),
        writer: str = "toy-writer",
    ) -> tuple[int, list[dict[str, Any]], str]:
        if not (tmp_path / package).exists():
            larger = (("image_size = 32", "image_size = 48"), ("1, 1, 4, 4", "1, 1, 5, 5"))
            install(f"{package}_able", ('name="able"', f'name="{package}-able"'))
            other = ('name="able"', f'name="{package}-other"')
            install(f"{package}_other", other, *larger)
            install(package, ("toy_writer", package), *changes, source="toy_writer")
            task = (TASKS / f"{REPORTS}.toml").read_text("utf-8")
            task = task.replace('"unicrossadapter"', f'"{writer}"').replace(REPORTS, "toy-reports")
            (tmp_path / package / "toy-reports.toml").write_text(task, "utf-8")
        with pytest.raises(SystemExit) as ended:
            main(["run", *words, "-t", "toy-reports", "--data", str(given), "--json",
                  "--device", "cpu", "--output", str(tmp_path / "runs")])  # fmt: skip
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(out)["records"] if out else [], err

    return go


def test_the_writer_reads_generated_images_and_was_trained_once_for_all(
    run: Run, tmp_path: Path, phantoms: Callable[[str], Path]
) -> None:
    words = ("-m", "told-able", "-m", "told-other", "--seed", "0", "--seed", "1")
    code, found, err = run(*words, package="told")
    assert code == 0, err
    assert len(found) == 4
    data = open_dataset(discover(third_party=False).dataset("mimic-cxr"), phantoms("mimic-cxr"))
    known = {sample.text for sample in data.samples}
    for record in found:
        path = tmp_path / "runs" / record["run_id"] / "predictions.npz"
        with np.load(path, allow_pickle=False) as table:
            generated, said = table["generated"], table["report"].tolist()
            assert set(table["prompt_report"].tolist()) <= known
            assert len(set(table["prompt_report"].tolist())) > 5
        small = resize(generated, 24).astype(np.float32) / 255
        levels = [round(1e4 * float(level)) for level in small.mean((1, 2), dtype=np.float64)]
        told = [int(text.removeprefix("Brightness ").partition(".")[0]) for text in said]
        np.testing.assert_allclose(told, levels, atol=1)
        assert len(set(told)) > 5
        assert set(record["metrics"]) == {"report-finding-f1", "report-bleu-4", "report-rouge-l"}
        assert set(record["baselines"]) == {"real", "nearest-prompt", "noise"}
        # what it was made of is said, and is not the model's own
        notes = " ".join(record["notes"])
        assert "reports of the images are written by toy-writer (told 1.0" in notes
        assert "toy-writer: it has learnt nothing" in notes
        assert "trained on mimic-cxr (phantom)" in notes
        assert f"wrote {len(set(said))} different reports of {len(said)} images" in notes
        assert "does not tell them apart" not in notes
        assert record["model"]["pretraining_data"] == []
        assert record["timing"]["train_seconds"] == 0
        assert record["timing"]["writer"] > 0
        assert not any(name.startswith("fit-") for name in record["timing"])

    # one checkpoint, of the training and validation parts and of nobody who is tested
    (kept,) = (tmp_path / "home" / "checkpoints").glob("*/payload/model.safetensors")
    seen = set(load_file(kept)["seen"].tobytes().decode().split("\n"))
    tested = {sample.id for sample in data.samples if sample.split == "test"}
    assert len(seen) > 20
    assert not seen & tested
    # each set of images was read once: baselines once for both models' image sizes
    assert len(list((tmp_path / "home" / "written").glob("[!.]*"))) == 4 + 3
    prints = {json.dumps(record["baselines"]["real"], sort_keys=True) for record in found}
    assert len(prints) == 1

    code, (alone,), err = run("-m", "baseline@real", package="told")
    assert code == 0, err
    for name, value in alone["metrics"].items():
        assert value["value"] == found[0]["baselines"]["real"][name]["value"]
    assert "written by toy-writer" in " ".join(alone["notes"])


def test_the_writer_reads_on_real_data_too_and_one_that_sees_nothing_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.cache_clear()
    monkeypatch.setattr("medbench.data.dataset._track", lambda *_: ("real", None, False))
    blind = ("round(1e4 * level)", "7")
    code, found, err = run("-m", "onreal-able", package="onreal", changes=(blind,))
    opened.cache_clear()
    assert code == 0, err
    (record,) = found
    assert record["data"]["track"] == "real"
    assert set(record["metrics"]) == {"report-finding-f1", "report-bleu-4", "report-rouge-l"}
    assert not (tmp_path / "home" / "judges").exists()
    assert any("wrote 1 different reports" in n and "tell them apart" in n for n in record["notes"])


@pytest.mark.parametrize(
    ("changes", "writer", "code", "message"),
    [
        ((), "nobody", 2, r"Task 'toy-reports' has the reports .* by 'nobody'.*no model called"),
        ((), "roentgen", 2, "by 'roentgen', which has no generate_reports"),
        ((), "{package}-able", 2, "writes the reports of the images there"),
        ((("round(1e4 * level)", "1 / 0"),), "toy-writer", 1, "raised ZeroDivisionError"),
        (((" for level in levels]", " for level in levels[1:]]"),), "toy-writer", 4,
         r"toy-writer x toy-reports.*model 'toy-writer' breaks its contract: \d+ answers for \d+"),
    ],
    ids=["missing", "silent", "own judge", "raises", "too few"],
)  # fmt: skip
def test_a_writer_that_cannot_judge_is_named(
    run: Run, changes: tuple[tuple[str, str], ...], writer: str, code: int, message: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    package = request.node.callspec.id.replace(" ", "")
    found, listed, err = run(
        "-m", f"{package}-able", package=package, changes=changes,
        writer=writer.format(package=package),
    )  # fmt: skip
    assert found == code, err
    assert not listed
    assert re.search(message, " ".join(err.split())), err


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("MEDBENCH_CONFIG", str(tmp_path / "none.toml"))
    return discover(third_party=False)


def plan(registry: Registry, tmp_path: Path, **more: Any) -> Plan:
    asked = {"models": ("roentgen",), "tasks": (REPORTS,), "preset": "tiny", "device": "cpu"}
    return resolve(Request(**{**asked, "output": tmp_path / "runs", **more}), registry)


def test_who_is_judged_does_not_change_the_judge(registry: Registry, tmp_path: Path) -> None:
    found = plan(
        registry, tmp_path, models=("roentgen", "cls-clip", "baseline"), seeds=(0, 1),
        fractions=(0.5, 1.0), accumulate=2,
    )  # fmt: skip
    writers = [cell.writer for cell in found.cells]
    assert len(writers) == 2 * 2 * (2 + 3)
    first = writers[0]
    assert first is not None
    assert all(writer == first for writer in writers)
    assert (first.model_id, first.seed, first.fraction) == ("unicrossadapter", 0, 1.0)
    assert set(first.corpora) == {"scenes"}
    assert "scenes" not in {c for cell in found.cells[-3:] for c in cell.corpora}
    set_apart = plan(registry, tmp_path, models=("roentgen",), settings=("train.steps=7",))
    assert set_apart.cells[0].writer == first
    copied = pickle.loads(pickle.dumps(found.cells[0]))  # as a sweep's worker gets it
    assert copied.writer == first


def test_in_a_sweep_whoever_is_first_trains_the_writer_and_others_wait(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDBENCH_HOME", str(tmp_path))
    monkeypatch.setattr("medbench.run.runner.BASELINE_SIZE", 32)
    models = ("cls-clip", "cls-clip@clip", "baseline@real")

    def baselines(task: str) -> list[Node]:
        found = draw(plan(registry, tmp_path, models=models, tasks=(task,)), Store(tmp_path))
        return [node for node in found.nodes if node.kind == "baselines"]

    # at two image sizes, and the one of a single cell is a stage of its own
    first, second = baselines(REPORTS)
    assert (first.cells, second.cells) == ((0, 1), (2,))
    assert (first.after, second.after) == ((), (first.id,))
    (shared,) = baselines("mimic-cxr-generation")
    assert (shared.cells, shared.after) == ((0, 1), ())


def test_a_writer_takes_its_own_weights_and_says_why_they_are_needed(
    registry: Registry, tmp_path: Path, phantoms: Callable[[str], Path]
) -> None:
    given = tmp_path / "clip.safetensors"
    given.write_bytes(b"")
    more = {"weights": (f"unicrossadapter@clip={given}",)}
    (cell,) = plan(registry, tmp_path, **more).cells
    assert cell.writer is not None
    assert cell.writer.stage_weights == {"clip": given}
    assert cell.stage_weights == {}
    with pytest.raises(UsageError, match="not in this run"):
        plan(registry, tmp_path, tasks=("mimic-cxr-generation",), **more)
    with pytest.raises(WeightsError, match=rf"Task '{REPORTS}' has .* --weights unicrossadapter="):
        plan(registry, tmp_path, models=("baseline",), preset="paper")


def test_a_writer_of_another_make_is_another_run_and_other_baselines(
    registry: Registry, tmp_path: Path, phantoms: Callable[[str], Path]
) -> None:
    data = (f"mimic-cxr={phantoms('mimic-cxr')}", f"scenes={phantoms('scenes')}")
    (cell,) = plan(registry, tmp_path, models=("baseline@real",), data=data).cells
    assert cell.writer is not None
    loaded = load(cell, Store(tmp_path), Reporter())
    images: Any = SimpleNamespace(size=64)

    def names(**changes: Any) -> tuple[str, str]:
        changed = replace(cell, writer=replace(cell.writer, **changes))  # type: ignore[type-var]
        return records.run_id(changed, loaded), digest(
            baseline_key(changed, loaded, images, "real")
        )

    seen = [names()]
    assert seen[0][0] == records.run_id(cell, loaded)
    seen.append(names(config_values={"beam": 9}))
    seen.append(names(plugin_version="9"))
    seen.append(names(variant=cell.writer.model.variants[0]))
    assert len({run for run, _ in seen}) == len({key for _, key in seen}) == len(seen)
    rendered = {"scenes": replace(cell.writer.corpora["scenes"], root=None)}
    assert names(corpora=rendered)[1] not in {key for _, key in seen}


def test_only_generated_images_have_a_writer_and_other_tasks_keep_their_hash(
    tmp_path: Path,
) -> None:
    plain = load_task(TASKS / "mimic-cxr-generation.toml")
    assert plain.model_copy(update={"writer": "unicrossadapter"}).sha256 != plain.sha256
    assert plain.writer == ""
    wrong = tmp_path / "rsna.toml"
    text = (TASKS / "rsna.toml").read_text("utf-8")
    wrong.write_text(text.replace('unit = "image"', 'unit = "image"\nwriter = "able"', 1))
    with pytest.raises(UsageError, match="writer is for image-generation"):
        load_task(wrong)
    wrong.write_text(text.replace('unit = "image"', 'unit = "image"\nwriter = "Able @"', 1))
    with pytest.raises(UsageError, match="'writer'"):
        load_task(wrong)
    for name in ("mimic-cxr-generation", "iu-xray-generation"):
        looked_up, written = (load_task(TASKS / f"{name}{end}.toml") for end in ("", "-reports"))
        assert written.protocols == looked_up.protocols
        assert written.labels == looked_up.labels
