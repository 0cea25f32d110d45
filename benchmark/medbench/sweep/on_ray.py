"""Ray Core as the executor: each stage a remote task with CPUs, a share of a GPU, and memory.

Ray decides where and when; results go through the store, and only the record of a cell comes back.
A task whose worker or node is lost is begun again by Ray itself. The environment of a node's
`ray start` decides what its workers can import; the driver's MEDBENCH_ variables go with each task.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

from medbench.errors import DataError, UsageError
from medbench.run.stores import code_sha256
from medbench.sweep.executor import Call, lost, threads_for, unexpected
from medbench.sweep.shared import Seen, look, refuse_unshared
from medbench.sweep.work import Answer, Session

#: Memory that a stage is expected to take, in bytes, by preset: at `tiny` the most that a process
#: of the committed records had (3.3 GiB, 22 November 2026); assumed for the others.
MEMORY = {"tiny": 4 * 2**30, "small": 8 * 2**30, "paper": 32 * 2**30}

#: Seconds for a node to start a worker and answer.
ANSWERS = 120.0


class OnRay:
    """The executor of a Ray cluster.

    Args:
        session: what each worker is told.
        address: of the cluster, as `ray.init` takes it; None: a Ray on this machine, for the sweep.
        retries: how often Ray begins a stage again after its worker was lost.
        gpus_per_cell: share of a GPU, or number of them, for a stage that computes on one.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self,
        session: Session,
        *,
        address: str | None,
        retries: int,
        gpus_per_cell: float = 1.0,
    ) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if address is None:
            # Ray runs code for whoever reaches its ports. On the systems of this variable's name,
            # and wherever it is 0, its own address is the loopback's, and it listens there alone.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        try:
            import ray
        except ImportError as error:
            raise UsageError(
                "--executor ray needs Ray, which is not installed: pip install 'medbench[ray]', "
                "here and on every node."
            ) from error
        self._ray = ray
        self._quiet = ExitStack()
        # Ray tells of lost workers on stdout, which is for results
        self._quiet.enter_context(redirect_stdout(sys.stderr))
        self.session = session
        self.retries = retries
        self.gpus_per_cell = gpus_per_cell
        self._running: dict[Any, Call] = {}
        mine = {} if address else {"include_dashboard": False}
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level="error", **mine)
        except (ConnectionError, RuntimeError, ValueError) as error:
            self._quiet.close()
            raise UsageError(
                f"There is no Ray cluster at --address {address} ({_first_line(error)}). Start one "
                "with `ray start --head`, or leave --address out for a Ray on this machine."
            ) from error
        self._nodes = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1]
        if not self._nodes:
            self.close()
            raise UsageError("No node of the Ray cluster has a CPU for tasks.")

    @property
    def gpus(self) -> float:
        """GPUs of the cluster."""
        return float(sum(node["Resources"].get("GPU", 0) for node in self._nodes))

    def refuse_missing(self, paths: Sequence[Path]) -> None:
        refuse_unshared(self.ask_nodes(paths))

    def ask_nodes(self, paths: Sequence[Path]) -> list[Seen]:
        """What every node sees of the sweep's files, and of some paths of the user's."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        code = code_sha256("medbench")
        asked = {}
        for node in self._nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = self._ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(look)
            asked[task.remote(self.session, list(paths), code)] = node["NodeManagerAddress"]
        done, silent = self._ray.wait(list(asked), num_returns=len(asked), timeout=ANSWERS)
        if silent:
            raise DataError(
                f"Nodes of the Ray cluster that do not answer: "
                f"{', '.join(sorted(asked[one] for one in silent))}."
            )
        found = []
        for one in done:
            try:
                found.append(self._ray.get(one))
            except self._ray.exceptions.RayError as error:
                where, why = asked[one], _cause(error)
                found.append(Seen(where, None, (f"medbench cannot be run there ({why})",)))
        return [
            Seen(f"{seen.node} ({asked[one]})", seen.left, seen.problems)
            for one, seen in zip(done, found, strict=True)
        ]

    def room(self) -> bool:
        return True

    def submit(self, call: Call) -> None:
        needs = self.resources(call)
        threads = threads_for(needs["num_cpus"])
        task = self._ray.remote(max_retries=self.retries, **needs)(call.function)
        ref = task.options(name=call.function.__name__).remote(
            self.session, threads, *call.arguments
        )
        self._running[ref] = call

    def resources(self, call: Call) -> dict[str, float]:
        """What a stage asks of a node: one CPU, or with a GPU the CPUs that go with its share.

        Raises UsageError where no node has as much.
        """
        able = [node["Resources"] for node in self._nodes]
        if call.gpu:
            able = having = [r for r in able if r.get("GPU", 0) >= self.gpus_per_cell]
            if not having:
                raise UsageError(
                    f"No node of the Ray cluster has {self.gpus_per_cell:g} GPUs for a cell. Give "
                    "less with --gpus-per-cell, or --device cpu."
                )
        # of the nodes that can do it, so that what is asked for can be had on one of them
        most = max(r.get("memory", 0) for r in able)
        needs: dict[str, float] = {"num_cpus": 1, "memory": int(min(MEMORY[call.preset], most))}
        if call.gpu:
            roomy = [r for r in able if r.get("memory", 0) >= needs["memory"]]
            cpus = min(r["CPU"] / r["GPU"] for r in roomy) * self.gpus_per_cell
            needs |= {"num_gpus": self.gpus_per_cell, "num_cpus": max(1, int(cpus))}
        return needs

    def wait(self) -> list[tuple[str, Answer]]:
        done, _ = self._ray.wait(list(self._running), num_returns=1)
        answers = []
        for ref in done:
            call = self._running.pop(ref)
            answers.append((call.id, self._answer(ref)))
        return answers

    def _answer(self, ref: Any) -> Answer:
        exceptions = self._ray.exceptions
        try:
            answer: Answer = self._ray.get(ref)
        except exceptions.RayTaskError as error:
            return unexpected(error.cause)
        except exceptions.RayError as error:
            return lost(self.retries + 1, f"{type(error).__name__}: {_first_line(error)}")
        return answer

    def close(self) -> None:
        for ref in self._running:
            self._ray.cancel(ref, force=True)
        self._running.clear()
        self._ray.shutdown()
        self._quiet.close()


def _cause(error: BaseException) -> str:
    return _first_line(getattr(error, "cause", None) or error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
