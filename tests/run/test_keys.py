"""Every field of a cache key counts: change one, and the entry is another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medbench.data.decoded import Decoded
from medbench.models.capabilities import Stage
from medbench.plugins import discover
from medbench.run import records, stores
from medbench.run.embed import Embedder
from medbench.run.fit import Fitted, stage_key
from medbench.run.job import baseline_key
from medbench.run.load import Loaded, images_key, load, phantom_key
from medbench.run.reporter import Reporter
from medbench.run.request import Request, RunSpec
from medbench.run.resolve import resolve
from medbench.run.stores import Store, digest


@dataclass
class Model:
    """What a key asks of a model."""

    image_size: int = 64
    max_slices: int = 8
    image_stages: tuple[str, ...] = ("base", "pairs")


@pytest.fixture
def cell(
    phantoms: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunSpec:
    monkeypatch.setenv("MEDBENCH_CONFIG", str(tmp_path / "none.toml"))
    request = Request(
        models=("radclip",),
        tasks=("covid-ct",),
        data=tuple(f"{n}={phantoms(n)}" for n in ("covid-ct-md", "image-text-pairs")),
        output=tmp_path / "runs",
    )
    return resolve(request, discover()).cells[0]


@pytest.fixture
def loaded(cell: RunSpec, tmp_path: Path) -> Loaded:
    return load(cell, Store(tmp_path), Reporter())


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Pretend that a package's code has been edited."""

    def edit(package: str) -> None:
        original = stores.code_sha256

        def changed(name: str) -> str:
            return "edited" if name == package else original(name)

        for module in ("fit", "load", "embed", "job", "records"):
            monkeypatch.setattr(f"medbench.run.{module}.code_sha256", changed)

    return edit


STAGE = Stage(name="pairs", corpus="image-text-pairs", config={"lr": 0.1}, needs=("base",))
KEYS = {"base": "aaa", "pairs": "bbb", "volumes": "ccc"}


def test_each_part_of_a_checkpoint_key_counts(
    cell: RunSpec, edited: Callable[[str], None], phantoms: Callable[[str], Path]
) -> None:
    def key(cell: RunSpec = cell, stage: Stage = STAGE, keys: dict[str, str] = KEYS) -> str:
        return digest(stage_key(cell, stage, keys))

    seen = [key()]
    seen.append(key(replace(cell, seed=7)))
    seen.append(key(replace(cell, precision="bf16")))
    seen.append(key(replace(cell, device="cuda")))
    seen.append(key(replace(cell, plugin_version="9")))
    seen.append(key(replace(cell, distribution="other")))
    seen.append(key(stage=replace(STAGE, config={"lr": 0.2})))
    seen.append(key(stage=replace(STAGE, name="other")))
    seen.append(key(stage=replace(STAGE, corpus="scenes")))
    seen.append(key(stage=replace(STAGE, cls="medbench.models.base_clip:BaseClip")))
    seen.append(key(stage=replace(STAGE, needs=())))
    seen.append(key(keys={**KEYS, "base": "other"}))
    seen.append(key(keys={**KEYS, "weights": "given"}))
    rendered = dict(cell.corpora)
    rendered["image-text-pairs"] = replace(rendered["image-text-pairs"], root=None)
    seen.append(key(replace(cell, corpora=rendered)))
    seen.append(key(replace(cell, corpora=rendered, preset="small")))
    for package in ("medbench_radclip", "medbench.models", "medbench.data", "medbench.run"):
        edited(package)
        seen.append(key())
    assert len(set(seen)) == len(seen)
    assert key(stage=replace(STAGE, title="another title")) == seen[-1]


def test_a_stage_owned_by_the_harness_is_shared_between_plugins(cell: RunSpec) -> None:
    shared = replace(STAGE, cls="medbench.models.base_clip:BaseClip", needs=())
    other = replace(cell, distribution="third-party", plugin_version="3")
    assert stage_key(cell, shared, {}) == stage_key(other, shared, {})


def test_a_touched_file_of_the_corpus_is_another_corpus(
    cell: RunSpec, phantoms: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    from medbench.run.load import opened

    copied = tmp_path / "pairs"
    shutil.copytree(phantoms("image-text-pairs"), copied)
    corpora = dict(cell.corpora)
    corpora["image-text-pairs"] = replace(corpora["image-text-pairs"], root=copied)
    moved = replace(cell, corpora=corpora)
    before = stage_key(moved, STAGE, KEYS)
    victim = next((copied / "images").iterdir())
    victim.write_bytes(victim.read_bytes() + b" ")
    opened.cache_clear()
    assert stage_key(moved, STAGE, KEYS) != before


def test_each_part_of_a_feature_key_counts(
    cell: RunSpec, loaded: Loaded, edited: Callable[[str], None]
) -> None:
    def key(
        cell: RunSpec = cell,
        keys: dict[str, str] = KEYS,
        what: str = "slices",
        **model: Any,
    ) -> str:
        fitted = Fitted(Model(**model), keys, {}, None, [])
        return digest(
            Embedder(cell, loaded.dataset, loaded.samples, fitted, None, None, None).key(what)
        )  # type: ignore[arg-type]

    seen = [key()]
    assert key(keys={**KEYS, "volumes": "other"}) == seen[0], "pooling shares slice features"
    seen.append(key(what="samples"))
    seen.append(key(keys={**KEYS, "base": "other"}))
    seen.append(key(keys={**KEYS, "pairs": "other"}))
    seen.append(key(keys={**KEYS, "weights": "other"}))
    seen.append(key(image_size=32))
    seen.append(key(max_slices=4))
    seen.append(key(replace(cell, seed=3)))
    seen.append(key(replace(cell, precision="bf16")))
    seen.append(key(replace(cell, device="cuda:1")))
    seen.append(key(replace(cell, batch_size=3)))
    for package in ("medbench_radclip", "medbench.run", "medbench.models"):
        edited(package)
        seen.append(key())
    assert len(set(seen)) == len(seen)


def test_each_part_of_the_image_key_counts(
    cell: RunSpec, loaded: Loaded, edited: Callable[[str], None], tmp_path: Path
) -> None:
    def key(loaded: Loaded = loaded, size: int = 64) -> str:
        return digest(images_key(loaded.dataset, size, loaded.samples))

    seen = [key(), key(size=32)]
    fewer = load(replace(cell, limit=26), Store(tmp_path), Reporter())
    seen.append(key(fewer))
    edited("medbench.data")
    seen.append(key())
    assert len(set(seen)) == 4


def test_each_part_of_a_baseline_key_counts(
    cell: RunSpec, loaded: Loaded, edited: Callable[[str], None]
) -> None:
    images = Decoded.__new__(Decoded)
    images.size = 64

    def key(cell: RunSpec = cell, name: str = "prior") -> str:
        return digest(baseline_key(cell, loaded, images, name))

    task = cell.task.model_copy(update={"version": 2})
    seen = [key(), key(name="pixels-32"), key(replace(cell, task=task))]
    seen.append(key(replace(cell, protocol="paper-compat")))
    edited("medbench.evaluation")
    seen.append(key())
    assert len(set(seen)) == len(seen)


def test_each_part_of_a_phantom_key_counts(cell: RunSpec, edited: Callable[[str], None]) -> None:
    spec = cell.source.dataset
    seen = [digest(phantom_key(spec, "tiny")), digest(phantom_key(spec, "small"))]
    seen.append(digest(phantom_key(replace(spec, name="other"), "tiny")))
    seen.append(digest(phantom_key(replace(spec, phantom="medbench.other:write"), "tiny")))
    edited("medbench.phantom")
    seen.append(digest(phantom_key(spec, "tiny")))
    assert len(set(seen)) == len(seen)


def test_each_part_of_a_runs_identity_counts(cell: RunSpec, loaded: Loaded) -> None:
    def name(**changes: Any) -> str:
        return records.run_id(replace(cell, **changes), loaded)

    other_manifest = replace(loaded, manifest=replace(loaded.manifest, content={"samples": []}))
    variant = cell.model.variants[0]
    seen = [
        name(),
        name(variant=variant),
        name(preset="small"),
        name(config_values={"lr": 2}),
        name(plugin_version="2"),
        name(task=cell.task.model_copy(update={"version": 2})),
        name(protocol="paper-compat"),
        name(adaptation="zero-shot"),
        name(fraction=0.1),
        name(seed=1),
        name(precision="bf16"),
        name(limit=10),
        records.run_id(cell, other_manifest),
    ]
    assert len(set(seen)) == len(seen)
    assert np.all([item.startswith("radclip") for item in seen])
