"""Load: open the data and the training corpora, divide, and refuse what leaks or is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medbench.data.audit import cheap, leaks
from medbench.data.dataset import OpenDataset, open_dataset
from medbench.data.manifest import Manifest, build_manifest
from medbench.data.samples import Corpus, Sample
from medbench.data.splits import (
    TRAIN,
    VAL,
    classes_of,
    divide,
    fraction,
    patients_of,
    shared_patients,
    stratified_limit,
)
from medbench.errors import DataError
from medbench.run.reporter import Reporter
from medbench.run.request import DataSource, RunSpec
from medbench.run.stores import Store, code_sha256, digest
from medbench.schemas.specs import DatasetSpec
from medbench.schemas.task import Split, TaskSpec

if TYPE_CHECKING:
    from medbench.data.decoded import Decoded
    from medbench.evaluation.predictions import ClassPredictions

PART = {TRAIN: "train", VAL: "val", 0: "test"}
_POLICY = {"positive": 1.0, "negative": 0.0, "ignore": np.nan}

opened = cache(open_dataset)  # a matrix of cells lists each dataset once


@dataclass(frozen=True)
class Loaded:
    """The data of a cell, divided and checked.

    Attributes:
        dataset: as opened.
        samples: those that take part, after the protocol's choice and ``--limit``.
        patients: of each sample, [N]: the clusters of the intervals.
        groups: [N], what the division keeps together: patients, or under row-holdout the samples.
        y: labels, float [N, L]; NaN where not scored.
        folds: int [N], the fold in which a sample is scored, or `TRAIN` or `VAL`.
        labelled: bool [N], training samples whose labels may be used, after ``--fraction``.
        manifest: binds samples, labels and folds.
    """

    dataset: OpenDataset
    samples: list[Sample]
    patients: list[str]
    groups: list[str]
    y: npt.NDArray[np.float64]
    folds: npt.NDArray[np.int64]
    labelled: npt.NDArray[np.bool_]
    manifest: Manifest

    @property
    def tested(self) -> npt.NDArray[np.int64]:
        """Indices of the samples that are scored."""
        return np.flatnonzero(self.folds >= 0)

    def predictions(
        self,
        task: TaskSpec,
        scores: npt.NDArray[np.float64],
        thresholds: npt.NDArray[np.float64] | None = None,
    ) -> ClassPredictions:
        """The table of the tested samples.

        Args:
            task: names the labels.
            scores: float [N, L], of all samples.
            thresholds: float [L], NaN where none could be chosen; None: decisions are by arg max.
        """
        from medbench.evaluation.predictions import ClassPredictions

        rows = self.tested
        return ClassPredictions(
            sample_ids=[self.samples[i].id for i in rows],
            patients=[self.patients[i] for i in rows],
            labels=task.label_names,
            y=self.y[rows],
            scores=scores[rows],
            multiclass=task.multiclass,
            thresholds=thresholds,
        )


def load(cell: RunSpec, store: Store, reporter: Reporter) -> Loaded:
    """Open and divide the data of a cell. Raises DataError (exit 3)."""
    dataset = opened(cell.source.dataset, data_root(cell.source, cell.preset, store, reporter))
    task, split = cell.task, cell.task.protocols[cell.protocol]
    names = task.label_names
    y = labels_of(dataset.samples, task, dataset.root)
    classes = classes_of(y, names)
    chosen: list[int] | npt.NDArray[np.int64]
    if cell.limit is not None and split.folds:
        # Folds are dealt after the limit, so that each has its share of what is left.
        chosen = stratified_limit(dataset.samples, classes, cell.limit, split.seed)
        inner, folds = divide(
            [dataset.samples[i] for i in chosen], [classes[i] for i in chosen], split
        )
        chosen = [chosen[i] for i in inner]
    else:
        chosen, folds = divide(dataset.samples, classes, split, _left_out(dataset, split))
        if cell.limit is not None:
            strata = [(int(fold), classes[i]) for fold, i in zip(folds, chosen, strict=True)]
            kept = stratified_limit(
                [dataset.samples[i] for i in chosen], strata, cell.limit, split.seed
            )
            chosen, folds = [chosen[i] for i in kept], folds[kept]
    samples = [dataset.samples[i] for i in chosen]
    classes = [classes[i] for i in chosen]
    patients = patients_of(samples)
    places = [f"fold-{fold}" if split.folds else PART[fold] for fold in folds.tolist()]
    _refuse_unsound(dataset, samples, places, cell.protocol)
    manifest = build_manifest(
        dataset.spec.name,
        samples,
        renderer=dataset.renderer,
        splits={s.id: place for s, place in zip(samples, places, strict=True)},
    )
    return Loaded(
        dataset=dataset,
        samples=samples,
        patients=patients,
        groups=[s.id for s in samples] if split.rule == "row-holdout" else patients,
        y=y[chosen],
        folds=folds,
        labelled=_labelled(patients, classes, folds, cell),
        manifest=manifest,
    )


audited = cache(cheap)  # a matrix of cells looks at each dataset once


def _refuse_unsound(
    dataset: OpenDataset, samples: Sequence[Sample], places: Sequence[str], protocol: str
) -> None:
    """The cheap part of the audit, always; shared patients are let pass under paper-compat alone,
    since that is what some papers' code does."""
    found = [f for f in audited(dataset).findings if f.severity == "error"]
    # The dataset's own parts may overlap where the protocol divides otherwise.
    found = [f for f in found if f.kind != "patient-overlap"]
    if protocol == "clean":
        found += leaks(samples, places)
    if found:
        more = f" And {len(found) - 3:,} more." if len(found) > 3 else ""
        raise DataError(
            f"{dataset.root} cannot be used as it is: "
            + " ".join(f.message for f in found[:3])
            + more
            + f" `medbench data audit {dataset.spec.name}` lists all that is wrong."
        )


def _left_out(dataset: OpenDataset, split: Split) -> set[str]:
    """Patients that other tasks evaluate on. Phantoms are written without them: the rule that picks
    them from a whole dataset would pick others from a part."""
    if split.without != "5x200" or dataset.track == "phantom":
        return set()
    from medbench.data.five_by_200 import choose

    found = choose(dataset.samples).values()
    return {sample.patient for some in found for sample in some if sample.patient}


def labels_of(samples: Sequence[Sample], task: TaskSpec, root: Path) -> npt.NDArray[np.float64]:
    """What the task's policy makes of the dataset's labels: float [N, L], NaN where not scored.

    Raises DataError when the dataset does not have a label at all.
    """
    columns = []
    for label in task.labels:
        if all(label.source not in s.labels for s in samples):
            raise DataError(
                f"{root} has no label '{label.source}', which task '{task.name}' scores."
            )
        values = {1: 1.0, 0: 0.0, -1: _POLICY[label.uncertain], None: _POLICY[label.missing]}
        columns.append([values[s.labels.get(label.source)] for s in samples])
    return np.array(columns, np.float64).reshape(len(task.labels), len(samples)).T


def _labelled(
    patients: list[str], classes: list[str], folds: npt.NDArray[np.int64], cell: RunSpec
) -> npt.NDArray[np.bool_]:
    """Every training label, or those of a share of the patients, drawn by the run's seed."""
    labelled = np.ones(len(patients), bool)
    if cell.fraction < 1:
        # With folds every sample trains in some of them; the fraction is drawn over all.
        trains = np.flatnonzero(folds == TRAIN) if (folds == TRAIN).any() else np.arange(len(folds))
        kept = fraction(
            [patients[i] for i in trains], [classes[i] for i in trains], cell.fraction, cell.seed
        )
        labelled[trains] = False
        labelled[trains[kept]] = True
    return labelled


#: What a stage names to be trained on the training part of the task itself.
TASK_CORPUS = "task"


def open_corpus(
    cell: RunSpec, name: str, loaded: Loaded, store: Store, reporter: Reporter
) -> Corpus:
    """What a stage trains on. Raises DataError when it holds a patient that is evaluated.

    That is the training part of a dataset (all of it where it has no parts), without the images
    that the 5x200 tasks evaluate on; or, for `TASK_CORPUS`, the task's own training and validation
    parts, each sample's ``split`` saying which.
    """
    if name == TASK_CORPUS:
        return _task_corpus(loaded)
    source, dataset = cell.corpora[name], loaded.dataset
    corpus = opened(source.dataset, data_root(source, cell.preset, store, reporter))
    evaluated: Sequence[Sample] = dataset.samples
    if corpus.root == dataset.root:
        # the task divides this very dataset: its training part may be trained on
        evaluated = [loaded.samples[i] for i in np.flatnonzero(loaded.folds != TRAIN)]
    left_out = _evaluated_elsewhere(corpus)
    training = [
        s
        for s in corpus.samples
        if s.split in (None, "", "train") and not (left_out and s.patient in left_out)
    ]
    shared = shared_patients(evaluated, training)
    if shared:
        raise DataError(
            f"The training corpus '{name}' ({corpus.root}) shares {len(shared)} patients with task "
            f"'{cell.task.name}' ({dataset.root}), such as '{shared[0]}'. A model trained on it "
            "cannot be evaluated on that task: take these patients out of the corpus. If they are "
            "other people who happen to be numbered alike, put the collection's name before the "
            "numbers in the corpus."
        )
    return corpus.corpus(training if len(training) < len(corpus.samples) else None)


def _evaluated_elsewhere(corpus: OpenDataset) -> set[str]:
    """Patients of a collection that the 5x200 tasks evaluate on; a phantom holds none of them."""
    if corpus.track == "phantom" or corpus.spec.name not in ("mimic-cxr", "chexpert"):
        return set()
    from medbench.data.five_by_200 import choose

    found = choose(corpus.samples).values()
    return {sample.patient for some in found for sample in some if sample.patient}


def _task_corpus(loaded: Loaded) -> Corpus:
    rows = np.flatnonzero(((loaded.folds == TRAIN) & loaded.labelled) | (loaded.folds == VAL))
    samples = [replace(loaded.samples[i], split=PART[int(loaded.folds[i])]) for i in rows]
    return loaded.dataset.corpus(samples)


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


def images_key(dataset: OpenDataset, size: int, samples: Sequence[Sample]) -> dict[str, Any]:
    """Everything that determines the prepared images of some samples of a dataset."""
    everyone = len(samples) == len(dataset.samples)
    return {
        "dataset": dataset.spec.name,
        "samples": "all" if everyone else digest(sorted(s.id for s in samples)),
        "files": dataset.fingerprint,
        "size": size,
        "code": code_sha256("medbench.data"),
    }


def prepared_images(
    dataset: OpenDataset,
    size: int,
    store: Store,
    reporter: Reporter,
    samples: Sequence[Sample] | None = None,
) -> Decoded:
    """Pixels of the dataset, or of some samples, at a size; each file is decoded once.

    Some samples are taken from the whole dataset where that has been prepared.
    """
    from medbench.data.decoded import Decoded, decode

    wanted = dataset.samples if samples is None else samples
    whole = store.find("images", images_key(dataset, size, dataset.samples))
    if whole is not None:
        return Decoded.open(whole).take(wanted)

    def build(payload: Path, scratch: Path) -> None:
        with reporter.stage(f"decode {dataset.spec.name} at {size} px", "decode") as advance:
            decode(dataset.reader, wanted, size, payload, advance, scratch)

    folder, _ = store.get("images", images_key(dataset, size, wanted), build)
    return Decoded.open(folder).take(wanted)
