"""Whole sweeps on this machine: the records of `run`, each stage once, whatever dies meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from medbench.schemas.record import VOLATILE
from program import Medbench, Ran

Phantoms = Callable[[str], Path]


def line(
    verb: str,
    phantoms: Phantoms,
    *more: str | Path,
    models: tuple[str, ...] = ("toy", "toy@plain"),
) -> list[str]:
    """Two variants that share everything, zero-shot, which is quick."""
    words: list[str | Path] = [verb, *(w for m in models for w in ("-m", m)), "-t", "covid-ct"]
    for name in ("covid-ct-md", "image-text-pairs"):
        words += ["--data", f"{name}={phantoms(name)}"]
    words += ["--adaptation", "zero-shot", "--device", "cpu"]
    if verb == "sweep":
        words += ["--workers", "2"]
    return [str(word) for word in (*words, *more)]


def contents(ran: Ran) -> list[dict[str, Any]]:
    """The records, but for what may differ between any two runs."""
    return [{k: v for k, v in r.items() if k not in VOLATILE} for r in ran.json["records"]]


def start(program: Medbench, words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        program.command(*words),
        env=program.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_epoch(program: Medbench) -> None:
    """Until a training is under way."""
    for _ in range(1200):
        if list((program.home / "checkpoints").glob(".*.scratch/epochs-fit.pt")):
            return
        time.sleep(0.05)
    raise AssertionError("no training began")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, phantoms: Phantoms) -> tuple[Medbench, Ran]:
    """A finished sweep, for the tests that only look."""
    program = Medbench(tmp_path_factory.mktemp("swept"))
    program.install("toy_model")
    ran = program(*line("sweep", phantoms, "--json"))
    assert ran.code == 0, ran.err
    return program, ran


def test_records_are_those_of_a_run(
    swept: tuple[Medbench, Ran], medbench: Medbench, phantoms: Phantoms
) -> None:
    medbench.install("toy_model")
    plain = medbench(*line("run", phantoms, "--json"))
    assert plain.code == 0, plain.err
    program, ran = swept
    assert contents(ran) == contents(plain)
    for record in ran.json["records"]:
        name = f"runs/{record['run_id']}/predictions.parquet"
        assert (program.home / name).read_bytes() == (medbench.home / name).read_bytes()


def test_what_cells_share_is_made_once(swept: tuple[Medbench, Ran]) -> None:
    program, ran = swept
    made = [(s["kind"], s["cells"]) for s in ran.json["stages"]]
    assert sorted(made) == [
        ("baselines", 2), ("cell", 1), ("cell", 1), ("dataset", 2), ("features", 2),
        ("pre-training", 2),
    ]  # fmt: skip
    assert {s["state"] for s in ran.json["stages"]} == {"made"}
    for what in ("decode covid-ct-md", "train fit", "embed covid-ct-md:"):
        assert sum(f"  {what}" in part for part in ran.err.splitlines()) == 1, what
    assert len(list((program.home / "checkpoints").glob("[!.]*"))) == 1
    assert len(list((program.home / "features").glob("[!.]*"))) == 1
    assert not list(program.home.glob(".sweep-*"))


def test_the_same_command_makes_nothing_twice(
    swept: tuple[Medbench, Ran], phantoms: Phantoms
) -> None:
    program, ran = swept
    again = program(*line("sweep", phantoms, "--json"))
    assert again.json["records"] == ran.json["records"]
    assert [s["kind"] for s in again.json["stages"]] == ["cell"] * 2
    assert again.err.count("already done") == 2
    plan = program(*line("sweep", phantoms, "--json", "--dry-run", "--fresh")).json
    assert {s["state"] for s in plan["stages"]} == {"to do"}
    assert len(plan["stages"]) == len(ran.json["stages"])


def test_failures_cost_their_own_cells(medbench: Medbench, phantoms: Phantoms) -> None:
    """Seed 1 raises, seed 2 kills its worker each time, seed 0 goes on after it was killed once."""
    fails = (
        "for _ in run.epochs(EPOCHS, self.layer, optimiser):\n"
        "            import os, pathlib, signal\n"
        "            if run.seed == 1: raise ValueError('bad seed')\n"
        "            once = pathlib.Path(os.environ['MEDBENCH_HOME'], 'died')\n"
        "            if run.seed == 2 or (_ == 3 and not once.exists()):\n"
        "                if run.seed == 0: once.touch()\n"
        "                os.kill(os.getpid(), signal.SIGKILL)"
    )
    loop = "for _ in run.epochs(EPOCHS, self.layer, optimiser):"
    medbench.install("toy_model", **{loop: fails})
    seeds = ["--seed", "0", "--seed", "1", "--seed", "2", "--max-retries", "1", "--json"]
    ran = medbench(*line("sweep", phantoms, *seeds, models=("toy",)))
    assert ran.code == 1, ran.err
    assert [r["seed"] for r in ran.json["records"]] == [0]
    assert "going on after epoch 3" in ran.err
    failed = {f["cell"]: f["error"] for f in ran.json["failed"]}
    assert set(failed) == {"toy x covid-ct, seed 1", "toy x covid-ct, seed 2"}
    assert "bad seed" in failed["toy x covid-ct, seed 1"]
    assert "worker died 2 times" in failed["toy x covid-ct, seed 2"]
    states = {s["stage"]: s["state"] for s in ran.json["stages"]}
    assert states["toy: train fit, seed 1"] == "failed"
    assert states["toy x covid-ct, seed 1"] == states["toy x covid-ct, seed 2"] == "not run"
    assert ran.err.count("toy: train fit, seed 1: failed") == 1  # not tried again


@pytest.mark.slow
def test_control_c_ends_the_workers_and_the_same_command_goes_on(
    medbench: Medbench, phantoms: Phantoms
) -> None:
    medbench.install("toy_model", **{"PAUSE = 0.0": "PAUSE = 0.4"})
    words = line("sweep", phantoms, "--json", models=("toy",))
    process = start(medbench, words)
    wait_for_epoch(medbench)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    zombie = psutil.STATUS_ZOMBIE  # an orphan that this machine's init has not reaped yet
    assert not [w for w in workers if w.is_running() and w.status() != zombie]
    ran = medbench(*words)
    assert ran.code == 0, ran.err
    assert "going on after epoch" in ran.err
    assert "decode" not in [s["kind"] for s in ran.json["stages"] if s["state"] == "made"]
    assert "  decode" not in ran.err


@pytest.mark.slow
def test_two_sweeps_on_one_store_wait_for_each_other(
    medbench: Medbench, phantoms: Phantoms
) -> None:
    medbench.install("toy_model", **{"PAUSE = 0.0": "PAUSE = 0.3"})
    words = line("sweep", phantoms, "--json")
    both = [start(medbench, words) for _ in range(2)]
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    one, other = (json.loads(out)["records"] for out, _ in said)
    assert one == other  # the very same: the second found what the first had made
    lines = [part for _, err in said for part in err.splitlines()]
    for what in ("  train fit", "  decode covid-ct-md", "  embed covid-ct-md"):
        assert sum(what in part for part in lines) == 1, what


def test_a_model_whose_parts_have_no_values_before_their_stage_is_swept(
    medbench: Medbench, phantoms: Phantoms
) -> None:
    """As RoentGen's: each stage is that of another class, and gives one part."""
    medbench.install(
        "toy_model",
        **{
            'return [Stage(name="fit", corpus="image-text-pairs", config={"epochs": EPOCHS})]': (
                "one = Stage(name='fit', corpus='image-text-pairs', config={},"
                " cls='toy_model:Part')\n"
                "        return [one, replace(one, name='late', needs=('fit',))]"
            ),
            "import time\n": "import time\nfrom dataclasses import replace\n",
            "self.drop = torch.nn.Dropout(0.2)": (
                "self.drop = torch.nn.Dropout(0.2)\n"
                "        self.late = torch.nn.Linear(2, 2, device='meta')"
            ),
            "        self.layer.load_state_dict(state)\n": (
                "        if stage == 'late':\n"
                "            self.late.to_empty(device='cpu')\n"
                "            self.late.load_state_dict({'weight': state['weight'][:2, :2],"
                " 'bias': state['bias'][:2]})\n"
                "        else:\n"
                "            self.layer.load_state_dict(state)\n"
            ),
            "        return [[label.text] for label in task.labels]\n": (
                "        return [[label.text] for label in task.labels]\n"
                "\n\nclass Part(Toy):\n"
                "    def __init__(self, config):\n"
                "        super().__init__()\n"
                "        del self.late\n"
            ),
        },
    )
    swept = medbench(*line("sweep", phantoms, "--json", models=("toy",)))
    assert swept.code == 0, swept.err
