"""``--dry-run``: what a run would do, what is there already, and about how much work is left."""

from __future__ import annotations

from typing import Any

from medbench.run import records
from medbench.run.request import DataSource, Plan, RunSpec
from medbench.run.stores import Store, digest, home


def describe_plan(plan: Plan) -> dict[str, Any]:
    """The plan as a document. Reads what is on disk; trains, renders and writes nothing."""
    store = Store(home())
    return {
        "schema": "medbench.plan/1",
        "cells": [_describe(cell, plan, store) for cell in plan.cells],
        "skipped": [{"model": s.model, "task": s.task, "reason": s.reason} for s in plan.skipped],
        "refused": [{"cell": r.cell, "error": str(r.error)} for r in plan.refused],
    }


def _describe(cell: RunSpec, plan: Plan, store: Store) -> dict[str, Any]:
    from medbench.run.fit import construct, given_weights, stage_key, stages_of
    from medbench.run.load import TASK_CORPUS, images_key, load, phantom_key
    from medbench.run.reporter import Reporter

    rows: list[dict[str, str]] = []

    def add(name: str, cached: bool, work: str) -> None:
        state = "cached" if cached else "to do"
        rows.append({"stage": name, "state": state, "work": "" if cached else work})

    def rendered(source: DataSource) -> bool:
        if source.root is not None:
            return True
        there = store.has("phantoms", phantom_key(source.dataset, cell.preset))
        add(f"render {source.dataset.name}", there, "pixels, on the CPU")
        return there

    loaded = load(cell, store, Reporter()) if rendered(cell.source) else None
    done = loaded is not None and (
        records.find(plan.output / records.run_id(cell, loaded), cell, loaded) is not None
    )
    if cell.baseline:
        add(f"baseline {cell.baseline}, score", done, "no training")
        return _cell(cell, rows, done)
    model = construct(cell)
    count = f"{len(loaded.samples):,} samples" if loaded else "all samples"
    size = int(model.image_size)
    images = loaded is not None and any(
        store.has("images", images_key(loaded.dataset, size, samples))
        for samples in (loaded.samples, loaded.dataset.samples)
    )
    add(f"decode {cell.source.dataset.name}", images, count)
    weights, sha256 = given_weights(cell)
    stages = stages_of(cell, model, weights)
    for name in dict.fromkeys(s.corpus for s in stages if s.weights not in cell.stage_weights):
        if name != TASK_CORPUS:
            rendered(cell.corpora[name])
    keys = {"weights": str(sha256)} if sha256 else {}
    for stage in stages:
        if stage.weights in cell.stage_weights:
            keys[stage.name] = str(
                records.weights_sha256(cell.stage_weights[stage.weights], cell.model.weight_files)
            )
            add(stage.title or stage.name, True, "")
            continue
        work = f"{stage.epochs} x {stage.corpus}" if stage.epochs else stage.corpus
        if loaded is None and stage.corpus == TASK_CORPUS:
            add(stage.title or f"train {stage.name}", False, work)
            keys[stage.name] = ""  # not known before the task's data is there
            continue
        key = stage_key(cell, stage, keys, loaded)
        keys[stage.name] = digest(key)
        add(stage.title or f"train {stage.name}", store.has("checkpoints", key), work)
    add("embed, probe and score", done, count)
    return _cell(cell, rows, done)


def _cell(cell: RunSpec, rows: list[dict[str, str]], done: bool) -> dict[str, Any]:
    return {
        "cell": cell.title,
        "preset": cell.preset,
        "data": f"{cell.source.track} {cell.source.dataset.name}",
        "device": f"{cell.device} {cell.precision}",
        "done": done,
        "stages": rows,
    }
