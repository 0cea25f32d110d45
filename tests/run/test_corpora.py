"""What stages train on: never a patient that is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from medbench.data.splits import TRAIN, VAL
from medbench.errors import DataError, PluginError, UsageError, WeightsError
from medbench.models.capabilities import Stage
from medbench.plugins import Registry, discover
from medbench.run.fit import fit, stage_key
from medbench.run.load import TASK_CORPUS, Loaded, load, open_corpus
from medbench.run.reporter import Reporter
from medbench.run.request import Request, RunSpec
from medbench.run.resolve import resolve
from medbench.run.stores import Store, digest


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    monkeypatch.setenv("MEDBENCH_CONFIG", str(tmp_path / "none.toml"))
    return discover(third_party=False)


def cell_of(
    registry: Registry, phantoms: Callable[[str], Path], tmp_path: Path, task: str, dataset: str
) -> RunSpec:
    request = Request(
        models=("radclip",),
        tasks=(task,),
        data=(f"{dataset}={phantoms(dataset)}",),
        output=tmp_path / "runs",
    )
    cell = resolve(request, registry).cells[0]
    # as if the model trained on this very dataset
    return replace(cell, corpora={**cell.corpora, dataset: cell.source})


@pytest.fixture
def mimic(registry: Registry, phantoms: Callable[[str], Path], tmp_path: Path) -> RunSpec:
    return cell_of(registry, phantoms, tmp_path, "mimic-cxr-14", "mimic-cxr")


def corpus_patients(cell: RunSpec, loaded: Loaded, name: str, tmp_path: Path) -> set[str]:
    corpus = open_corpus(cell, name, loaded, Store(tmp_path), Reporter())
    return {str(s.patient) for s in corpus.samples}


def test_a_corpus_is_the_training_part_of_the_dataset_that_is_evaluated(
    mimic: RunSpec, tmp_path: Path
) -> None:
    loaded = load(mimic, Store(tmp_path), Reporter())
    evaluated = {loaded.patients[i] for i in range(len(loaded.samples)) if loaded.folds[i] != TRAIN}
    found = corpus_patients(mimic, loaded, "mimic-cxr", tmp_path)
    assert found
    assert not found & evaluated


def test_a_corpus_whose_training_part_holds_a_tested_patient_is_refused(
    mimic: RunSpec, tmp_path: Path
) -> None:
    loaded = load(mimic, Store(tmp_path), Reporter())
    turned = replace(loaded, folds=-1 - loaded.folds)  # what was trained on is tested
    with pytest.raises(DataError, match=r"shares \d+ patients"):
        open_corpus(mimic, "mimic-cxr", turned, Store(tmp_path), Reporter())


def test_the_task_corpus_has_the_parts_of_the_division_and_nothing_tested(
    mimic: RunSpec, tmp_path: Path
) -> None:
    loaded = load(mimic, Store(tmp_path), Reporter())
    corpus = open_corpus(mimic, TASK_CORPUS, loaded, Store(tmp_path), Reporter())
    folds = {s.id: int(f) for s, f in zip(loaded.samples, loaded.folds, strict=True)}
    assert {s.split for s in corpus.samples} == {"train", "val"}
    for sample in corpus.samples:
        assert folds[sample.id] == {"train": TRAIN, "val": VAL}[str(sample.split)]
    assert len(corpus.samples) == int((loaded.folds < 0).sum())


def test_a_share_of_the_labels_is_a_share_of_the_task_corpus_and_another_checkpoint(
    registry: Registry, phantoms: Callable[[str], Path], tmp_path: Path
) -> None:
    mimic = cell_of(registry, phantoms, tmp_path, "covidx", "covidx")
    stage = Stage(name="s", corpus=TASK_CORPUS, config={})
    store = Store(tmp_path)
    few = replace(mimic, fraction=0.5)
    whole, part = load(mimic, store, Reporter()), load(few, store, Reporter())
    ids = [
        {s.id for s in open_corpus(c, TASK_CORPUS, some, store, Reporter()).samples}
        for c, some in ((mimic, whole), (few, part))
    ]
    assert ids[1] < ids[0]
    keys = {digest(stage_key(c, stage, {}, x)) for c, x in ((mimic, whole), (few, part))}
    assert len(keys) == 2


def test_a_stage_on_a_dataset_that_the_spec_does_not_name_is_refused(
    mimic: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(mimic, Store(tmp_path), Reporter())
    monkeypatch.setattr(
        "medbench_radclip.model.Radclip.stages",
        lambda self, weights: (Stage(name="odd", corpus="chexpert", config={}),),
    )
    with pytest.raises(PluginError, match="does not name under pretraining"):
        fit(mimic, loaded, Store(tmp_path), Reporter())


def test_a_published_part_is_not_trained_at_the_published_size(
    mimic: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(mimic, Store(tmp_path), Reporter())
    large = replace(mimic, model=replace(mimic.model, needs_weights=(mimic.preset,)))
    part = Stage(name="vision", corpus="scenes", config={}, weights="clip")
    monkeypatch.setattr("medbench_radclip.model.Radclip.stages", lambda self, weights: (part,))
    with pytest.raises(WeightsError, match="--weights radclip@clip=PATH"):
        fit(large, loaded, Store(tmp_path), Reporter())


def test_weights_of_a_part_are_named_like_those_of_a_variant(
    registry: Registry, phantoms: Callable[[str], Path], tmp_path: Path
) -> None:
    given = tmp_path / "w.safetensors"
    given.write_bytes(b"x")
    request = Request(
        models=("radclip",),
        tasks=("mimic-cxr-14",),
        data=(f"mimic-cxr={phantoms('mimic-cxr')}",),
        weights=(f"radclip@tower={given}",),
        output=tmp_path / "runs",
    )
    with pytest.raises(UsageError, match="tower"):
        resolve(request, registry)
    object.__setattr__(registry.model("radclip"), "parts", ("tower",))
    try:
        cell = resolve(request, registry).cells[0]
    finally:
        object.__setattr__(registry.model("radclip"), "parts", ())
    assert cell.stage_weights == {"tower": given}
