"""Load: open the data and the training corpora, divide, and refuse what leaks or is damaged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medbench.data.dataset import OpenDataset, open_dataset
from medbench.data.manifest import Manifest, build_manifest
from medbench.data.samples import Sample
from medbench.data.splits import classes_of, kfold, patients_of, shared_patients, stratified_limit
from medbench.errors import DataError
from medbench.run.reporter import Reporter
from medbench.run.request import DataSource, RunSpec
from medbench.run.stores import Store, code_sha256, digest
from medbench.schemas.specs import DatasetSpec

if TYPE_CHECKING:
    from medbench.data.decoded import Decoded

opened = cache(open_dataset)  # a matrix of cells lists each dataset once


@dataclass(frozen=True)
class Loaded:
    """The data of a cell, divided and checked.

    Attributes:
        dataset: as opened.
        samples: those to be scored, after ``--limit``.
        patients: of each sample, [N].
        y: labels, float [N, L]; NaN where not scored.
        folds: int [N], the fold in which a sample is scored.
        manifest: binds samples, labels and folds.
    """

    dataset: OpenDataset
    samples: list[Sample]
    patients: list[str]
    y: npt.NDArray[np.float64]
    folds: npt.NDArray[np.int64]
    manifest: Manifest


def load(cell: RunSpec, store: Store, reporter: Reporter) -> Loaded:
    """Open and divide the data of a cell. Raises DataError (exit 3)."""
    dataset = opened(cell.source.dataset, data_root(cell.source, cell.preset, store, reporter))
    samples = list(dataset.samples)
    split = cell.task.protocols[cell.protocol]
    if cell.limit is not None:
        samples = stratified_limit(samples, cell.limit, split.seed)
    patients = patients_of(samples)
    names = cell.task.label_names
    absent = sorted({n for n in names if all(n not in s.labels for s in samples)})
    if absent:
        raise DataError(
            f"{dataset.root} has no label {', '.join(absent)}, which task '{cell.task.name}' "
            "scores."
        )
    y = np.array(
        [[np.nan if s.labels.get(n) is None else float(s.labels[n] or 0) for n in names]
         for s in samples]
    )  # fmt: skip
    folds = kfold(patients, classes_of(samples), split.folds, split.seed)
    manifest = build_manifest(
        dataset.spec.name,
        samples,
        renderer=dataset.renderer,
        splits={s.id: f"fold-{fold}" for s, fold in zip(samples, folds, strict=True)},
    )
    return Loaded(dataset, samples, patients, y, folds, manifest)


def open_corpus(
    cell: RunSpec, name: str, dataset: OpenDataset, store: Store, reporter: Reporter
) -> OpenDataset:
    """A training corpus, refused when it holds a patient of the task. Raises DataError."""
    source = cell.corpora[name]
    corpus = opened(source.dataset, data_root(source, cell.preset, store, reporter))
    shared = shared_patients(dataset.samples, corpus.samples)
    if shared:
        raise DataError(
            f"The training corpus '{name}' ({corpus.root}) shares {len(shared)} patients with task "
            f"'{cell.task.name}' ({dataset.root}), such as '{shared[0]}'. A model trained on it "
            "cannot be evaluated on that task: take these patients out of the corpus. If they are "
            "other people who happen to be numbered alike, put the collection's name before the "
            "numbers in the corpus."
        )
    return corpus


def corpus_state(cell: RunSpec, name: str) -> str:
    """What a corpus is made of: a rendered phantom by what renders it, files by their state."""
    source = cell.corpora[name]
    if source.root is None:
        return digest(phantom_key(source.dataset, cell.preset))
    corpus = opened(source.dataset, source.root)
    return digest([corpus.manifest.sha256, corpus.fingerprint])


def data_root(source: DataSource, preset: str, store: Store, reporter: Reporter) -> Path:
    """The folder of a dataset; its phantom is rendered when there is none yet."""
    if source.root is not None:
        return source.root

    def build(payload: Path, _: Path) -> None:
        from medbench.phantom.write import write_phantom

        with reporter.stage(f"render {source.dataset.name}", "render") as advance:
            write_phantom(source.dataset, payload, preset=preset, limit=None, advance=advance)

    return store.get("phantoms", phantom_key(source.dataset, preset), build)[0]


def phantom_key(spec: DatasetSpec, preset: str) -> dict[str, Any]:
    """Everything that determines a phantom on disk."""
    writer = spec.phantom.partition(":")[0]
    package = "medbench.phantom" if writer.startswith("medbench.") else writer.partition(".")[0]
    return {"dataset": spec.name, "preset": preset, "writer": spec.phantom,
            "code": code_sha256(package)}  # fmt: skip


def images_key(loaded: Loaded, size: int) -> dict[str, Any]:
    """Everything that determines the decoded images."""
    return {
        "dataset": loaded.dataset.spec.name,
        "samples": loaded.manifest.sha256,
        "files": loaded.dataset.fingerprint,
        "size": size,
        "code": code_sha256("medbench.data"),
    }


def decoded_images(loaded: Loaded, size: int, store: Store, reporter: Reporter) -> Decoded:
    """The pixels of all samples at the model's size, each file decoded once."""
    from medbench.data.decoded import Decoded, decode

    def build(payload: Path, _: Path) -> None:
        with reporter.stage(f"decode {loaded.dataset.spec.name} at {size} px", "decode") as advance:
            decode(loaded.dataset.reader, loaded.samples, size, payload, advance)

    folder, _ = store.get("images", images_key(loaded, size), build)
    return Decoded.open(folder, loaded.samples)
