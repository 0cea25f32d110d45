"""A sweep on a real Ray: a head and two workers on this machine, one of which is killed at work."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from program import Medbench

Phantoms = Callable[[str], Path]

pytest.importorskip("ray")

#: Makes 127.0.0.1 an address of a node for Ray, where alone it listens then.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The working folders of the two nodes: /proc/self/cwd means another on each."""
    return [tmp_path_factory.mktemp(name) for name in ("one", "two")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Medbench:
    """The program with a toy model that kills its worker once with seed 0, and lasts with 7."""
    program = Medbench(tmp_path_factory.mktemp("home"))
    loop = "for _ in run.epochs(EPOCHS, self.layer, optimiser):"
    kills = (
        f"{loop}\n"
        "            import os, pathlib, signal\n"
        "            home = pathlib.Path(os.environ['MEDBENCH_HOME'])\n"
        "            (home / f'trains-{run.seed}').write_text(str(os.getpid()))\n"
        "            if run.seed == 7: time.sleep(60)\n"
        "            if run.seed == 0 and _ == 3 and not (home / 'killed').exists():\n"
        "                (home / 'killed').touch()\n"
        "                os.kill(os.getpid(), signal.SIGKILL)"
    )
    program.install("toy_model", **{loop: kills})
    program.environment.update(LOOPBACK)
    return program


@pytest.fixture(scope="module")
def cluster(home: Medbench, folders: list[Path]) -> Iterator[Any]:
    """A head without CPUs and two workers of one CPU each, of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name, value in LOOPBACK.items():
            patch.setenv(name, value)
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # other tests' memory is not ours
        patch.setenv(
            "PYTHONPATH", home.environment["PYTHONPATH"]
        )  # what `ray start` has, its workers have
        from ray.cluster_utils import Cluster

        small = {
            "object_store_memory": 80 * 2**20,
            "include_log_monitor": False,
            "node_ip_address": "127.0.0.1",
        }
        head = {"num_cpus": 0, "include_dashboard": False, **small}
        found = Cluster(initialize_head=True, head_node_args=head)
        for folder in folders:
            patch.chdir(folder)
            found.add_node(num_cpus=1, wait=False, **small)
        patch.chdir(home.home)
        found.wait_for_nodes()
    yield found
    found.shutdown()


def words(phantoms: Phantoms, cluster: Any, *more: str, volumes: str = "") -> list[str]:
    found = ["sweep", "-m", "toy", "-t", "covid-ct", "--adaptation", "zero-shot"]
    found += ["--data", f"covid-ct-md={volumes or phantoms('covid-ct-md')}"]
    found += ["--data", f"image-text-pairs={phantoms('image-text-pairs')}"]
    return [*found, "--device", "cpu", "--executor", "ray", "--address", cluster.address, *more]


def test_a_killed_worker_costs_its_stage_alone(
    home: Medbench, cluster: Any, phantoms: Phantoms
) -> None:
    line = words(phantoms, cluster, "--seed", "0", "--seed", "1", "--json")
    ran = home(*line)
    assert ran.code == 0, ran.err
    assert (home.home / "killed").exists()
    assert "going on after epoch 3" in ran.err
    assert [r["seed"] for r in ran.json["records"]] == [0, 1]
    made = [s["stage"] for s in ran.json["stages"] if s["state"] == "made"]
    assert len(made) == len(set(made)) == 6  # data, baselines; a training and a cell each
    for what in ("decode covid-ct-md", "train fit"):
        assert ran.err.count(f"  {what}") == (2 if what == "train fit" else 1)


def test_nodes_that_do_not_see_the_store_or_the_data_are_named(
    home: Medbench, cluster: Any, phantoms: Phantoms, tmp_path: Path
) -> None:
    """A path below /proc/self/cwd is another folder for each process: no file system is shared."""
    (tmp_path / "home").mkdir()
    ran = subprocess.run(
        home.command(*words(phantoms, cluster)),
        env=home.environment | {"MEDBENCH_HOME": "/proc/self/cwd/home"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ran.returncode == 3, ran.stderr
    assert ran.stderr.count("MEDBENCH_HOME is not one shared file system") == 2
    assert "process" in ran.stderr
    assert not list((tmp_path / "home").iterdir())

    (tmp_path / "data").symlink_to(phantoms("covid-ct-md"))
    ran = subprocess.run(
        home.command(*words(phantoms, cluster, volumes="/proc/self/cwd/data")),
        env=home.environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ran.returncode == 3, ran.stderr
    assert ran.stderr.count("it has no /proc/self/cwd/data") == 2


@pytest.mark.slow
def test_control_c_cancels_what_runs_on_ray(
    home: Medbench, cluster: Any, phantoms: Phantoms
) -> None:
    process = subprocess.Popen(
        home.command(*words(phantoms, cluster, "--seed", "7")),
        env=home.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    noted = home.home / "trains-7"
    while not (noted.exists() and noted.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    worker = int(noted.read_text())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    until = time.monotonic() + 30  # its 60 s of sleep are not waited for
    while psutil.pid_exists(worker) and time.monotonic() < until:
        time.sleep(0.1)
    assert not psutil.pid_exists(worker)
    assert not list(home.home.glob(".sweep-*"))


HEARD = """
import sys

import psutil
from medbench.sweep.on_ray import OnRay
from medbench.sweep.work import Session

ray = OnRay(Session({}), address=None, retries=0)
for process in psutil.Process().children(recursive=True):
    for one in process.net_connections("inet"):
        if one.status == psutil.CONN_LISTEN:
            print(process.name(), one.laddr.ip, file=sys.__stdout__)
ray.close()
"""


@pytest.mark.slow
def test_a_ray_of_the_sweeps_own_is_heard_on_this_machine_alone(home: Medbench) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", HEARD],
        env={name: value for name, value in home.environment.items() if name not in LOOPBACK},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    listening = {tuple(line.split()) for line in ran.stdout.splitlines()}
    assert {name for name, _ in listening} >= {"gcs_server", "raylet"}
    assert {address.removeprefix("::ffff:") for _, address in listening} == {"127.0.0.1"}
