"""What a verifier holds of the data behind a record: references, ids and the secret of their keys.

The data are found as `medbench run` finds them, by a run of a trivial predictor that is resolved
and loaded, and never run. Phantoms are rendered into the stores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from medbench.data.dataset import open_dataset
from medbench.errors import DataError, UsageError
from medbench.evaluation.files import AnyPredictions
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.retrieval_predictions import RetrievalPredictions
from medbench.plugins import Registry
from medbench.run.load import Loaded, load, phantom_key
from medbench.run.reporter import Reporter
from medbench.run.request import Request, RunSpec
from medbench.run.resolve import resolve
from medbench.run.stores import Store, home
from medbench.schemas.record import Record
from medbench.schemas.task import TaskSpec
from medbench.submission.keys import key_id, sample_hmac, secret

#: Phantoms that are rendered for a verification; larger ones are used where they lie in the store.
RENDERED = ("tiny", "small")


class LackingError(Exception):
    """The data behind a record are not here; the message says which."""


@dataclass(frozen=True)
class Held:
    """The divided data of a task.

    Attributes:
        cell: the trivial predictor's, by which they were found.
        loaded: the samples, divided.
    """

    cell: RunSpec
    loaded: Loaded
    store: Store
    reporter: Reporter

    @cached_property
    def secret(self) -> bytes:
        return secret(self.loaded)

    @property
    def key_id(self) -> str:
        return key_id(self.secret)

    @cached_property
    def ids(self) -> list[str]:
        """Of the tested samples, in the task's own order."""
        return [self.loaded.samples[i].id for i in self.loaded.tested.tolist()]

    @cached_property
    def keys(self) -> list[str]:
        """Of the same samples."""
        return [sample_hmac(self.secret, name) for name in self.ids]

    @cached_property
    def patients(self) -> list[str]:
        """Of the same samples."""
        return [self.loaded.patients[i] for i in self.loaded.tested.tolist()]

    @cached_property
    def references(self) -> AnyPredictions:
        """Predictions that say nothing, beside the true references; rows in the order of `ids`."""
        task = self.cell.task
        if task.type == "classification":
            return self.loaded.predictions(task, np.zeros(self.loaded.y.shape))
        from medbench.run import retrieval, segmentation
        from medbench.run.job import Job

        # neither looks at a pixel
        job = Job(self.cell, self.loaded, cast("Any", None), self.store, self.reporter)
        if task.type == "segmentation":
            return segmentation.baseline(job, "all-empty")
        if task.type == "retrieval":
            return retrieval.baseline(job, "chance")
        raise UsageError(f"Predictions of {task.type} are not in a bundle.")

    def with_predictions(self, arrays: Mapping[str, Any], rows: list[int]) -> AnyPredictions:
        """The references with a bundle's predictions.

        Args:
            arrays: as in `medbench.submission.bundle`, of shapes that fit.
            rows: the row of the arrays that is each tested sample's.
        """
        table = self.references
        if isinstance(table, MaskPredictions):
            shape = table.reference.shape
            bits = np.unpackbits(arrays["prediction"][rows], axis=1, count=shape[1] * shape[2])
            return replace(table, prediction=bits.reshape(shape).astype(bool))
        if isinstance(table, RetrievalPredictions):
            image, text = (arrays[name].astype(np.float64) for name in ("image", "text"))
            return replace(table, image=image[rows], text=text)
        assert isinstance(table, ClassPredictions)
        limits = arrays.get("threshold")
        return replace(
            table,
            scores=arrays["score"][rows],
            thresholds=None if limits is None else limits[rows],
        )


class Holdings:
    """The data that this machine has, each opened once.

    Args:
        registry: of specs; only those of medbench itself are needed.
        data: dataset name to the folder that the user named.
        reporter: tells what takes time.
        phantoms_only: leave real data out, configured or not.
    """

    def __init__(
        self,
        registry: Registry,
        data: Mapping[str, Path],
        reporter: Reporter,
        *,
        phantoms_only: bool = False,
    ) -> None:
        self.registry = registry
        self.phantoms_only = phantoms_only
        self.data = data
        self.reporter = reporter
        self.store = Store(home(), say=reporter.say)
        self._found: dict[tuple[str, ...], Held | LackingError] = {}

    def find(self, record: Record, task: TaskSpec) -> Held:
        """The data behind a record.

        Raises:
            LackingError: they are not here, or cannot be read.
            UsageError: no data could be behind it: an unknown preset or protocol.
        """
        place = (task.name, record.protocol, record.model.preset, record.data.track)
        if place not in self._found:
            try:
                self._found[place] = self._open(record, task)
            except (DataError, LackingError) as error:
                self._found[place] = LackingError(str(error))
        found = self._found[place]
        if isinstance(found, LackingError):
            raise found
        return found

    def _open(self, record: Record, task: TaskSpec) -> Held:
        spec = self.registry.dataset(task.dataset)
        track = record.data.track
        given = self.data.get(spec.name)
        if given is not None and open_dataset(spec, given).track != track:
            given = None
        if given is not None:
            data = f"{spec.name}={given}"
        elif track == "real" and not self.phantoms_only:
            data = "auto"
        else:
            data = "phantom"
            rendered = record.model.preset in RENDERED
            if (
                track == "phantom"
                and not rendered
                and not self.store.has("phantoms", phantom_key(spec, record.model.preset))
            ):
                raise LackingError(
                    f"the phantom of {spec.name} at preset {record.model.preset} is not here, and "
                    "takes long to render: write it with `medbench data phantom` and name it with "
                    "--data"
                )
        with tempfile.TemporaryDirectory() as folder:
            plan = resolve(
                Request(
                    models=(f"baseline@{task.baselines[0]}",),
                    tasks=(task.name,),
                    data=(data,),
                    preset=record.model.preset,
                    protocol=record.protocol,
                    device="cpu",
                    output=Path(folder),
                ),
                self.registry,
            )
        (cell,) = plan.cells
        if cell.source.track != track:
            raise LackingError(
                f"the real data of {spec.name} are not here: name their folder with --data"
            )
        return Held(cell, load(cell, self.store, self.reporter), self.store, self.reporter)
