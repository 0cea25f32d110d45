"""Small but genuine runs on small phantoms, their bundles, and what a forger does to them."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leaderboard.runs import write_run
from medbench.evaluation.files import AnyPredictions
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.retrieval_predictions import RetrievalPredictions
from medbench.plugins import discover
from medbench.run.reporter import Reporter
from medbench.schemas.record import Record
from medbench.schemas.task import TaskSpec, load_task
from medbench.submission.archive import write_archive
from medbench.submission.held import Held, Holdings
from medbench.submission.verdicts import Verification
from medbench.submission.verify import verify

REGISTRY = discover(third_party=False)
TASKS = {name: load_task(REGISTRY.task_file(name)) for name in REGISTRY.names("tasks")}
METRICS = [REGISTRY.metric(name) for name in REGISTRY.names("metrics")]


@dataclass
class Desk:
    """Somebody with some phantoms, who runs, packs and verifies."""

    root: Path
    holdings: Holdings
    track: str = "phantom"

    def held(self, task: TaskSpec) -> Held:
        """The data of a task, on the clean protocol at preset tiny."""
        asked = Record.model_construct(
            protocol="clean",
            model=_Named(preset="tiny"),
            data=_Named(track=self.track),
        )
        return self.holdings.find(asked, task)

    def run(
        self, model: str, name: str = "covid-ct", seed: int = 0, skill: float = 2.0, **changes: Any
    ) -> Path:
        """The folder of a run whose model knows ``skill`` of the truth."""
        task = TASKS[name]
        held = self.held(task)
        table = changes.pop("table", None) or skilled(held.references, skill, seed)
        loaded = held.loaded
        data = {
            "dataset": task.dataset,
            "track": loaded.dataset.track,
            "manifest_sha256": loaded.manifest.sha256,
            "renderer": loaded.dataset.renderer,
            "samples": {"train": 8, "val": 0, "test": len(held.ids)},
            "patients": {"train": 4, "val": 0, "test": len(set(held.patients))},
        }
        specs = [REGISTRY.metric(metric) for metric in task.metrics]
        return write_run(
            self.root / f"runs-{len(list(self.root.iterdir()))}",
            model,
            seed,
            spec=task,
            table=table,
            metrics=specs,
            manifest=loaded.manifest.sha256,
            track=self.track,
            adaptation=task.adaptations[0] if task.adaptations else "",
            **{"data": data, **changes},
        )

    def verify(self, path: Path, **options: Any) -> Verification:
        return verify(path, TASKS, METRICS, self.holdings, **options)


class _Named:
    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


def desk(root: Path, data: dict[str, Path]) -> Desk:
    """MEDBENCH_HOME is to be set."""
    root.mkdir(parents=True, exist_ok=True)
    return Desk(root, Holdings(REGISTRY, data, Reporter()))


def skilled(table: AnyPredictions, skill: float, seed: int) -> AnyPredictions:
    """Predictions of some skill for a table of references."""
    from dataclasses import replace

    rng = np.random.default_rng(seed)
    if isinstance(table, MaskPredictions):
        flips = rng.random(table.reference.shape) < 0.2 / max(skill, 0.1)
        return replace(table, prediction=table.reference ^ flips)
    if isinstance(table, RetrievalPredictions):
        texts = rng.normal(size=(len(table.text), 16))
        places = {group: row for row, group in enumerate(table.text_group.tolist())}
        images = texts[[places[group] for group in table.image_group.tolist()]] * skill
        images = images + rng.normal(size=images.shape)
        exact = [array.astype(np.float32).astype(np.float64) for array in (images, texts)]
        return replace(table, image=exact[0], text=exact[1])
    raw = np.exp(skill * table.y + rng.normal(size=table.y.shape))
    if table.multiclass:
        return replace(table, scores=raw / raw.sum(axis=1, keepdims=True))
    return replace(table, scores=raw / (1 + raw), thresholds=np.full(table.y.shape[1], 0.6))


def subgroups(metric: str, best: str = "F") -> dict[str, Any]:
    """What a record may state by sex."""
    part = {"value": 0.8, "ci95": [0.7, 0.9], "n": 20}
    gap = {"value": 0.0, "ci95": [-0.1, 0.1], "between": [best, "M"]}
    return {"sex": {"metric": metric, "groups": {best: part, "M": part}, "gap": gap}}


def unpacked(path: Path) -> dict[str, bytes]:
    """Every entry of a bundle."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, files: dict[str, bytes], sealed: bool = True) -> Path:
    """A bundle of these entries; ``sealed``: with their own hashes, as a forger would write."""
    if sealed:
        index = json.loads(files["submission.json"])
        index["files"] = {
            name: hashlib.sha256(data).hexdigest()
            for name, data in files.items()
            if name != "submission.json"
        }
        files = {**files, "submission.json": json.dumps(index).encode()}
    write_archive(path, files)
    return path


def edit_json(files: dict[str, bytes], name: str, change: Callable[[Any], object]) -> None:
    """Change a JSON document in place."""
    document = json.loads(files[name])
    change(document)
    files[name] = json.dumps(document).encode()


def edit_array(files: dict[str, bytes], name: str, change: Callable[[Any], Any]) -> None:
    """Replace an array by what ``change`` makes of it."""
    array = np.load(io.BytesIO(files[name])).copy()
    stream = io.BytesIO()
    np.save(stream, change(array), allow_pickle=True)
    files[name] = stream.getvalue()


def made(path: Path, entries: list[tuple[zipfile.ZipInfo | str, bytes]], **options: Any) -> Path:
    """A zip file of any entries, names and flags that Python can write."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return path
