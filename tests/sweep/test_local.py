"""Worker processes: several at once, replaced when they die, ended when no longer wanted."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from medbench.errors import UsageError
from medbench.run.request import Request
from medbench.sweep.driver import Means, opened
from medbench.sweep.executor import Call
from medbench.sweep.local import Local, share_of, worker_slots
from medbench.sweep.work import Answer, Session


def remember(session: Session, threads: int, value: str) -> Answer:
    return Answer(said=(value, str(threads), os.environ.get("CUDA_VISIBLE_DEVICES", "")))


def imported(session: Session, threads: int) -> Answer:
    return Answer(said=(str("torch" in sys.modules),))


def raise_error(session: Session, threads: int) -> Answer:
    raise ValueError("a plugin's configuration")


def die(session: Session, threads: int, folder: Path, times: int) -> Answer:
    """Dies of SIGKILL, so many times."""
    with (folder / "deaths").open("a") as file:
        file.write("x")
    if len((folder / "deaths").read_text()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return Answer(said=("survived",))


def sleep(session: Session, threads: int, folder: Path) -> Answer:
    (folder / "asleep").touch()
    time.sleep(600)
    return Answer()


def everything(local: Local, count: int) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    while len(found) < count:
        found.update(local.wait())
    return found


@pytest.fixture
def said() -> list[str]:
    return []


def local(said: list[str], workers: int = 2, retries: int = 1, **more: object) -> Local:
    return Local(Session({}), workers=workers, retries=retries, say=said.append, **more)  # type: ignore[arg-type]


def test_a_dead_worker_costs_its_own_stage_and_no_other(said: list[str], tmp_path: Path) -> None:
    some = local(said)
    some.submit(Call("dies", die, (tmp_path, 1)))
    some.submit(Call("other", remember, ("still here",)))
    assert not some.room()
    found = everything(some, 2)
    some.close()
    assert found["dies"].said == ("survived",)
    assert found["other"].said[0] == "still here"
    assert said == ["A worker died (signal SIGKILL); its stage is begun again, 1 of 1."]


def test_a_stage_that_kills_every_worker_is_given_up(said: list[str], tmp_path: Path) -> None:
    some = local(said, workers=1)
    some.submit(Call("dies", die, (tmp_path, 9)))
    answer = everything(some, 1)["dies"]
    assert answer.exit_code == 1
    assert "its worker died 2 times (signal SIGKILL)" in answer.error
    some.submit(Call("next", raise_error, ()))
    assert "ValueError: a plugin's configuration" in everything(some, 1)["next"].error
    some.close()


def test_closing_ends_what_runs(said: list[str], tmp_path: Path) -> None:
    some = local(said, workers=1)
    some.submit(Call("sleeps", sleep, (tmp_path,)))
    while not (tmp_path / "asleep").exists():
        time.sleep(0.02)
    before = psutil.Process().children()
    some.close()
    assert not [p for p in before if p.is_running() and "spawn_main" in " ".join(p.cmdline())]


def test_cores_and_gpus_are_shared_out(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("medbench.sweep.local.cores", lambda: 6)
    some = local(said, workers=2, gpus=["0", "1"])
    for name in "ab":
        some.submit(Call(name, remember, (name,)))
    found = everything(some, 2)
    some.close()
    assert [found[name].said for name in "ab"] == [("a", "3", "0"), ("b", "3", "1")]


def test_more_gpus_for_a_cell_than_there_are_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("medbench.sweep.driver._gpus", lambda device: ["0"])
    request = Request(models=("toy",), tasks=("covid-ct",), output=tmp_path)
    monkeypatch.setenv("MEDBENCH_HOME", str(tmp_path / "home"))
    told = pytest.raises(UsageError, match="--gpus-per-cell 2: there are 1 GPUs")
    with told, opened(Means(gpus_per_cell=2), request, (), print):
        pass


def test_shares_of_gpus() -> None:
    assert [share_of(["0", "1"], 0.5, i)["CUDA_VISIBLE_DEVICES"] for i in range(4)] == list("0011")
    assert share_of(list("0123"), 2, 1) == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert [worker_slots(list("01"), each) for each in (1, 0.5, 0.4, 2)] == [2, 4, 4, 1]


@pytest.mark.parametrize("warm", [True, False])
def test_warm_workers_have_imported_what_a_stage_needs(said: list[str], warm: bool) -> None:
    some = local(said, workers=1, warm=warm)
    some.submit(Call("imported", imported, ()))
    found = everything(some, 1)
    some.close()
    assert found["imported"].said == (str(warm),)
