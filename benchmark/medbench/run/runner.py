"""The order of things: load, fit, predict, score, record; one cell after the other.

A cell that fails does not stop the others. What a cell has finished is in the stores, so the same
command goes on from there after a failure, a kill or Ctrl-C.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import medbench
from medbench.errors import CellError, MedbenchError
from medbench.isolated import IsolatedSpec
from medbench.plugins import Registry
from medbench.run import records
from medbench.run.curves import Curves
from medbench.run.reporter import Reporter
from medbench.run.request import Plan, RunSpec
from medbench.run.stores import Store, home
from medbench.run.work import costs, watch_memory
from medbench.schemas.record import Record

if TYPE_CHECKING:
    from medbench.run.job import Job
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
        self,
        registry: Registry,
        plan: Plan,
        *,
        fresh: bool | float = False,
        reporter: Reporter | None = None,
        curves: Path | None = None,
    ) -> None:
        self.registry = registry
        self.plan = plan
        self.fresh = fresh
        self.reporter = reporter or Reporter()
        if curves is not None:
            self.reporter.curves = Curves(curves)
        self.store = Store(home(), fresh=fresh, say=self.reporter.say, ledger=self.reporter.ledger)

    def run(self) -> Outcome:
        """Run every cell. Raises only what is not a cell's own failure, such as Ctrl-C."""
        outcome = Outcome(cells=len(self.plan.cells) + len(self.plan.refused))
        for skip in self.plan.skipped:
            self.reporter.say(f"Skipped: {skip.model} x {skip.task}: {skip.reason}.")
        for refusal in self.plan.refused:
            self.reporter.say(f"medbench: {refusal.cell}: {refusal.error}")
            failure = Failure(refusal.cell, str(refusal.error), refusal.error.exit_code)
            outcome.failures.append(failure)
        for cell in self.plan.cells:
            self.reporter.say(introduction(cell))
            self.reporter.timing = {}
            if self.reporter.curves is not None:
                self.reporter.curves.cell = cell.title
            self.store.used.clear()
            watch_memory(cell.device)
            with self._failing(outcome, cell):
                outcome.records.append(self._cell(cell))
        return outcome

    def make(self, cell: RunSpec, stage: str, name: str = "") -> Outcome:
        """Make one stage of a cell, as `run` would on its way, and stop: the rest finds it in the
        store. A failure is in the outcome.

        Args:
            cell: any of the cells that need the stage.
            stage: ``render`` (the phantom of dataset ``name``), ``decode``, ``baselines``,
                ``train`` (training stage ``name`` and what it needs) or ``features``.
            name: of the dataset or the training stage.
        """
        outcome = Outcome(cells=1)
        with self._failing(outcome, cell):
            self._make(cell, stage, name)
        return outcome

    def _make(self, cell: RunSpec, stage: str, name: str) -> None:
        from medbench.run.load import data_root, load

        if stage == "render":
            sources = {s.dataset.name: s for s in (cell.source, *cell.corpora.values())}
            data_root(sources[name], cell.preset, self.store, self.reporter)
            return
        loaded = load(cell, self.store, self.reporter)
        if stage == "train":
            from medbench.run.fit import fit

            fit(cell, loaded, self.store, self.reporter, only=(name,))
            return
        job = self._job(cell, loaded)
        if stage == "baselines":
            from medbench.run.job import baseline_predictions

            for baseline in cell.task.baselines:
                baseline_predictions(job, baseline)
        elif stage == "features":
            from medbench.run.features import keep_features

            keep_features(job)

    @contextmanager
    def _failing(self, outcome: Outcome, cell: RunSpec) -> Iterator[None]:
        """Whatever is raised becomes a failure of the cell."""
        try:
            yield
        except MedbenchError as error:
            self._fail(outcome, cell, error)
        except Exception as error:
            from medbench.run.stores import explain_os_error

            explained = explain_os_error(error) or CellError(
                f"{cell.title}: medbench met an error it did not expect: "
                f"{type(error).__name__}: {error}. --debug shows the traceback."
            )
            self._fail(outcome, cell, explained)

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
        from medbench.run.fit import Fitted, fit
        from medbench.run.job import baseline_predictions, baselines, protocol_of
        from medbench.run.strips import write_strips
        from medbench.run.subgroups import find_subgroups

        specs = [self.registry.metric(name) for name in cell.task.metrics]
        job = self._job(cell, loaded)
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
            apart = find_subgroups(cell, loaded, predictions, specs)
        timing: dict[str, Any] = dict(self.reporter.timing)
        if not cell.baseline:
            timing |= costs(self.reporter.timing, self.store.work(), cell.device)
        if isinstance(cell.model, IsolatedSpec):
            timing["peak_memory_mb"] += fitted.model.peak_memory_mb()
        results = records.Results(fitted, predictions, scored, beside, apart, timing, job.features)
        return records.write(folder, cell, loaded, results)

    def _job(self, cell: RunSpec, loaded: Loaded) -> Job:
        """The cell with its pixels, which are decoded before anything is trained: a damaged file
        must not cost a training."""
        from medbench.run.fit import construct
        from medbench.run.job import Job
        from medbench.run.load import prepared_images

        size = BASELINE_SIZE if cell.baseline else int(construct(cell).image_size)
        images = prepared_images(loaded.dataset, size, self.store, self.reporter, loaded.samples)
        return Job(cell, loaded, images, self.store, self.reporter)


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
