"""The order of things: load, fit, predict, score, record; one cell after the other.

A cell that fails does not stop the others. What a cell has finished is in the stores, so the same
command goes on from there after a failure, a kill or Ctrl-C.
"""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import medbench
from medbench.errors import CellError, MedbenchError
from medbench.plugins import Registry
from medbench.run import records
from medbench.run.curves import Curves
from medbench.run.reporter import Reporter
from medbench.run.request import Plan, RunSpec
from medbench.run.stores import Store, home
from medbench.run.work import costs, watch_memory
from medbench.schemas.record import Record

if TYPE_CHECKING:
    from medbench.run.load import Loaded


#: Side of the pixels that are prepared where no model asks for a size: baselines see 32 x 32.
BASELINE_SIZE = 64


@dataclass(frozen=True)
class Failure:
    """A cell that ended in an error."""

    cell: str
    message: str
    exit_code: int


@dataclass
class Outcome:
    """Records of the cells that were completed, and what became of the others."""

    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    cells: int = 0

    @property
    def exit_code(self) -> int:
        """0; the failure's own code when it is the only cell; 1 when one of several failed."""
        if not self.failures:
            return 0
        return self.failures[0].exit_code if self.cells == 1 else 1


class Runner:
    """Runs the cells of a plan."""

    def __init__(
        self, registry: Registry, plan: Plan, *, fresh: bool = False, curves: Path | None = None
    ) -> None:
        self.registry = registry
        self.plan = plan
        self.fresh = fresh
        self.reporter = Reporter()
        if curves is not None:
            self.reporter.curves = Curves(curves)
        self.store = Store(home(), fresh=fresh, say=self.reporter.say, ledger=self.reporter.ledger)

    def run(self) -> Outcome:
        """Run every cell. Raises only what is not a cell's own failure, such as Ctrl-C."""
        outcome = Outcome(cells=len(self.plan.cells))
        for skip in self.plan.skipped:
            self.reporter.say(f"Skipped: {skip.model} x {skip.task}: {skip.reason}.")
        for cell in self.plan.cells:
            self.reporter.say(introduction(cell))
            self.reporter.timing = {}
            if self.reporter.curves is not None:
                self.reporter.curves.cell = cell.title
            self.store.used.clear()
            watch_memory(cell.device)
            try:
                record = self._cell(cell)
            except MedbenchError as error:
                self._fail(outcome, cell, error)
            except Exception as error:
                if os.environ.get("MEDBENCH_DEBUG"):
                    traceback.print_exc()
                from medbench.run.stores import explain_os_error

                explained = explain_os_error(error) or CellError(
                    f"{cell.title}: medbench met an error it did not expect: "
                    f"{type(error).__name__}: {error}. --debug shows the traceback."
                )
                self._fail(outcome, cell, explained)
            else:
                outcome.records.append(record)
        return outcome

    def _fail(self, outcome: Outcome, cell: RunSpec, error: MedbenchError) -> None:
        if os.environ.get("MEDBENCH_DEBUG"):
            traceback.print_exc()
        self.reporter.say(f"medbench: {error}")
        outcome.failures.append(Failure(cell.title, str(error), error.exit_code))

    def _cell(self, cell: RunSpec) -> Record:
        """discover and resolve are done; load -> fit -> predict -> score -> record."""
        for complaint in self.registry.notify("medbench_run_started", run=cell):
            self.reporter.say(f"medbench: {complaint}")
        from medbench.run.load import load

        loaded = load(cell, self.store, self.reporter)
        folder = self.plan.output / records.run_id(cell, loaded)
        with self.store.lock(folder):
            record = None if self.fresh else records.find(folder, cell, loaded)
            if record is not None:
                self.reporter.say(f"  already done: {folder}")
            else:
                record = self._evaluate(cell, loaded, folder)
        for complaint in self.registry.notify("medbench_run_finished", run=cell, record=record):
            self.reporter.say(f"medbench: {complaint}")
        return record

    def _evaluate(self, cell: RunSpec, loaded: Loaded, folder: Path) -> Record:
        from medbench.evaluation.score import score
        from medbench.run.fit import Fitted, construct, fit
        from medbench.run.job import Job, baseline_predictions, baselines, protocol_of
        from medbench.run.load import prepared_images
        from medbench.run.strips import write_strips

        specs = [self.registry.metric(name) for name in cell.task.metrics]
        size = BASELINE_SIZE if cell.baseline else int(construct(cell).image_size)
        # decoded before anything is trained: a damaged file must not cost a training
        images = prepared_images(loaded.dataset, size, self.store, self.reporter, loaded.samples)
        job = Job(cell, loaded, images, self.store, self.reporter)
        if cell.baseline:
            fitted = Fitted(None, {}, {}, None, [])
            predictions = baseline_predictions(job, cell.baseline)
        else:
            job.fitted = fitted = fit(cell, loaded, self.store, self.reporter)
            predictions = protocol_of(cell.task).predict(job)
            write_strips(folder, job, predictions)
            fitted.notes += getattr(fitted.model, "notes", ())
        with self.reporter.stage("score", "score"):
            scored = score(predictions, specs)
            beside = baselines(job, specs)
        timing: dict[str, Any] = dict(self.reporter.timing)
        if not cell.baseline:
            timing |= costs(self.reporter.timing, self.store.work(), cell.device)
        results = records.Results(fitted, predictions, scored, beside, timing, job.features)
        return records.write(folder, cell, loaded, results)


def introduction(cell: RunSpec) -> str:
    """The first line of a cell: what is run, on which data, where."""
    if cell.source.root is None:
        data = f"the phantom of {cell.source.dataset.name} ({cell.source.why})"
    elif cell.source.track == "phantom":
        data = f"a phantom of {cell.source.dataset.name}, {cell.source.root}"
    else:
        data = f"real data, {cell.source.root} ({cell.source.why})"
    return (
        f"{cell.title}: preset {cell.preset}, {cell.adaptation or cell.task.type}, {data}, "
        f"on {cell.device} in {cell.precision} (medbench {medbench.__version__})"
    )
