"""``--dry-run``: what a run would do, what is there already, and about how much work is left."""

from __future__ import annotations

from typing import Any

from medbench.plugins import Registry
from medbench.run import records
from medbench.run.request import DataSource, Plan, RunSpec
from medbench.run.stores import Store, home


def describe_plan(plan: Plan, registry: Registry) -> dict[str, Any]:
    """The plan as a document. Reads what is on disk; trains, renders and writes nothing."""
    store = Store(home())
    return {
        "schema": "medbench.plan/1",
        "cells": [_describe(cell, plan, store) for cell in plan.cells],
        "skipped": [{"model": s.model, "task": s.task, "reason": s.reason} for s in plan.skipped],
    }


def _describe(cell: RunSpec, plan: Plan, store: Store) -> dict[str, Any]:
    from medbench.run.fit import construct, stage_key, stages_of
    from medbench.run.load import Loaded, images_key, opened, phantom_key
    from medbench.run.stores import digest

    stages: list[dict[str, str]] = []

    def add(name: str, state: bool | None, work: str) -> None:
        text = {True: "cached", False: "to do", None: "unknown until the data is there"}[state]
        stages.append({"stage": name, "state": text, "work": "" if state else work})

    ready = True
    sources: list[DataSource] = [cell.source, *cell.corpora.values()]
    for source in dict.fromkeys(sources):
        if source.root is None:
            there = store.has("phantoms", phantom_key(source.dataset, cell.preset))
            ready = ready and there
            add(f"render {source.dataset.name}", there, "pixels, on the CPU")
    loaded: Loaded | None = None
    done = False
    if ready:
        from medbench.run.load import load
        from medbench.run.reporter import Reporter

        loaded = load(cell, store, Reporter())
        done = records.find(plan.output / records.run_id(cell, loaded), cell, loaded) is not None
    model = construct(cell)
    size = int(model.image_size)
    images = store.has("images", images_key(loaded, size)) if loaded else None
    count = f"{len(loaded.samples):,} samples" if loaded else "all samples"
    add(f"decode {cell.source.dataset.name}", images, count)
    weights = None
    if cell.weights is not None:
        from medbench.models import weights as files

        weights = files.read_weights(cell.weights)
    keys: dict[str, str] = {"weights": files.sha256(cell.weights)} if cell.weights else {}
    for stage in stages_of(cell, model, weights):
        there_already: bool | None = None
        if loaded is not None:
            corpora = {n: opened(c.spec, c.root) for n, c in loaded.corpora.items()}
            key = stage_key(cell, stage, corpora, keys)
            keys[stage.name] = digest(key)
            there_already = store.has("checkpoints", key)
        add(stage.title or f"train {stage.name}", there_already, f"{stage.work:,} images")
    add("embed, probe and score", done, count)
    return {
        "cell": cell.title,
        "preset": cell.preset,
        "data": f"{cell.source.track} {cell.source.dataset.name}",
        "device": f"{cell.device} {cell.precision}",
        "done": done,
        "stages": stages,
    }
