"""Two results on the same samples: the difference, its interval, and two paired tests."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medbench.errors import DataError, UsageError
from medbench.evaluation.files import AnyPredictions, read_predictions
from medbench.evaluation.frames import read_frame
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.pairing import Named, common, same_references, select
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.score import evaluate, with_ones
from medbench.metrics.values import FloatArray
from medbench.plugins import Registry
from medbench.schemas.record import Record, predictions_name
from medbench.schemas.specs import MetricSpec
from medbench.schemas.task import load_task
from medbench.statistics.bootstrap import RESAMPLES, SEED, patient_weights
from medbench.statistics.paired import paired


@dataclass(frozen=True)
class _Result:
    path: Path
    kind: str
    table: AnyPredictions
    record: Record | None


def compare(a: Path, b: Path, metric: str | None, registry: Registry) -> dict[str, Any]:
    """Compare two run folders or prediction files.

    Args:
        a, b: folders with ``record.json``, or files as `read_predictions` takes them.
        metric: its name; None: the runs' primary metric, or the first of the type.
        registry: knows metrics and tasks.

    Returns:
        The document ``medbench.compare/1``: metric, a, b, difference (a - b), ci95, p_value (paired
        bootstrap over patients), permutation_p_value (None where rows are not independent),
        patients, samples, notes.

    Raises:
        UsageError: different types or tasks, no such metric, a metric that cannot be compared, or
            was taken in the features of unlike networks.
        DataError: files that cannot be read, no common samples, references that differ.
    """
    multiclass = _multiclass(a, b, registry)
    first, second = (_open(path, multiclass) for path in (a, b))
    if first.kind != second.kind:
        raise UsageError(f"{a} is {first.kind} and {b} is {second.kind}: nothing to compare.")
    spec = _metric(first, second, metric, registry)
    one, two, shared = _align(first, second)
    owners = list(one.patients)
    weights = with_ones(patient_weights(owners, RESAMPLES, SEED))
    found = []
    for result, table in ((first, one), (second, two)):
        values = evaluate(spec, table, weights)
        if values.interval is not None:
            raise UsageError(
                f"{spec.name} has an interval that is not made by resampling patients, so two of "
                "its values cannot be compared in pairs. kid metrics can."
            )
        if not np.isfinite(values.value[0]):
            raise DataError(f"{spec.name} is undefined on {result.path}: {values.reason}.")
        found.append(values.value)
    left, right = found
    tested = paired(float(left[0]), float(right[0]), left[1:], right[1:])
    notes = []
    if shared < min(first.table.support(), second.table.support()):
        notes.append(f"only the {shared:,} samples that both have are compared")
    permuted = None
    if isinstance(one, Named) and type(one) is type(two):
        permuted = permutation(spec, one, two, tested.difference)
    return {
        "schema": "medbench.compare/1",
        "metric": spec.name,
        "a": float(left[0]),
        "b": float(right[0]),
        "difference": tested.difference,
        "ci95": list(tested.ci95),
        "p_value": tested.p_value,
        "permutation_p_value": permuted,
        "patients": len(set(owners)),
        "samples": shared,
        "notes": notes,
    }


def permutation(
    spec: MetricSpec, a: Named, b: Any, difference: float, permutations: int = RESAMPLES
) -> float:
    """Two-sided p value of a paired permutation test: patients swap their predictions.

    Each permutation is a weighting of the rows of both tables together: a patient's rows count on
    one side or the other. So the metric's own weighted form does all of them at once.

    Args:
        spec: the metric.
        a, b: predictions of the same samples in the same order.
        difference: observed, a - b.
        permutations: number of random swaps.
    """
    rng = np.random.default_rng(SEED)
    _, cluster = np.unique(np.asarray(a.patients), return_inverse=True)
    swapped = rng.integers(0, 2, (permutations, int(cluster.max()) + 1)).astype(np.float64)
    mine: FloatArray = swapped[:, cluster]
    both = _stack(a, b)
    left = evaluate(spec, both, np.concatenate([mine, 1 - mine], axis=1)).value
    right = evaluate(spec, both, np.concatenate([1 - mine, mine], axis=1)).value
    drawn = (left - right)[np.isfinite(left - right)]
    # the observed order is one of the permutations, so p is never zero
    extreme = int((np.abs(drawn) >= abs(difference) - 1e-12).sum())
    return (extreme + 1) / (len(drawn) + 1)


def _stack(a: Named, b: Any) -> Any:
    ids = [*(f"a {i}" for i in a.sample_ids), *(f"b {i}" for i in b.sample_ids)]
    owners = [*a.patients, *b.patients]
    if isinstance(a, ClassPredictions):
        limits = a.thresholds is not None and b.thresholds is not None
        return replace(
            a,
            sample_ids=ids,
            patients=owners,
            y=np.concatenate([a.y, b.y]),
            scores=np.concatenate([a.scores, b.scores]),
            thresholds=np.concatenate([a.thresholds, b.thresholds]) if limits else None,
        )
    if isinstance(a, ReportPredictions):
        return replace(
            a,
            sample_ids=ids,
            patients=owners,
            references=[*a.references, *b.references],
            predictions=[*a.predictions, *b.predictions],
        )
    spacing = None if a.spacing is None else np.concatenate([a.spacing, b.spacing])
    return MaskPredictions(
        ids,
        owners,
        np.concatenate([a.reference, b.reference]),
        np.concatenate([a.prediction, b.prediction]),
        spacing,
    )


def _open(path: Path, multiclass: bool | None) -> _Result:
    if not path.is_dir():
        kind = guess_type(path)
        return _Result(path, kind, read_predictions(path, kind, multiclass), None)
    try:
        text = (path / "record.json").read_text(encoding="utf-8")
        record = Record.model_validate_json(text)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not the folder of a run: record.json: {error}.") from error
    table = path / predictions_name(record.task.type)
    if not table.is_file():
        raise DataError(f"{path} has a record and no predictions; run the cell again.")
    return _Result(
        path, record.task.type, read_predictions(table, record.task.type, multiclass), record
    )


def guess_type(path: Path) -> str:
    """The task type of a prediction file, from the names of its columns or arrays.

    Raises DataError when no type has such names.
    """
    if path.suffix == ".npz":
        try:
            with zipfile.ZipFile(path) as archive:
                has = {name.removesuffix(".npy") for name in archive.namelist()}
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read as .npz: {error}.") from error
        for kind, marks in (
            ("segmentation", {"reference", "prediction"}),
            ("retrieval", {"image", "text"}),
            ("image-generation", {"generated"}),
            ("image-generation", {"generated_features"}),
        ):
            if marks <= has:
                return kind
    else:
        columns = {str(name) for name in read_frame(path).columns}
        if any(name.startswith("label:") for name in columns):
            return "classification"
        if {"reference", "prediction"} <= columns:
            return "report-generation"
        has = columns
    raise DataError(f"{path} is of no type that is known: it has {', '.join(sorted(has)[:12])}.")


def _multiclass(a: Path, b: Path, registry: Registry) -> bool | None:
    """As the task of a run says; None where there is no run."""
    for path in (a, b):
        try:
            record = Record.model_validate_json((path / "record.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if record.task.name in registry.names("tasks"):
            return load_task(registry.task_file(record.task.name)).multiclass
    return None


def _metric(a: _Result, b: _Result, name: str | None, registry: Registry) -> MetricSpec:
    if a.record and b.record:
        if a.record.task.name != b.record.task.name:
            raise UsageError(
                f"{a.path} is a run of {a.record.task.name} and {b.path} of {b.record.task.name}."
            )
        if a.record.data.manifest_sha256 != b.record.data.manifest_sha256:
            raise UsageError(
                f"{a.path} and {b.path} were measured on different data (another manifest): their "
                "difference would not be the models'."
            )
    run = a.record or b.record
    if name is None and run is not None and run.task.name in registry.names("tasks"):
        name = load_task(registry.task_file(run.task.name)).primary
    if name is None:
        name = {
            "classification": "auroc",
            "report-generation": "bleu-4",
            "segmentation": "dice",
            "retrieval": "i2t-recall@1",
            "image-generation": "kid-inception",
        }[a.kind]
    spec = registry.metric(name)
    if a.kind not in spec.task_types:
        raise UsageError(f"Metric '{name}' is not one of {a.kind}.")
    for result in (a, b):
        stated = result.record.metrics.get(name) if result.record else None
        from medbench.metrics.cards import card_sha256

        if stated is not None and stated.card_sha256 != card_sha256(spec):
            raise UsageError(
                f"{result.path} was scored with another '{name}' (another identity card) than this "
                "medbench has; values of unlike metrics are not compared. Run or score it again."
            )
    if a.record and b.record:
        judges = [record.judge(name) for record in (a.record, b.record)]
        if judges[0] != judges[1]:
            raise UsageError(
                f"{name} of {a.path} and {b.path} are distances in the features of unlike networks "
                f"(weights {judges[0] or 'not stated'} and {judges[1] or 'not stated'}): they are "
                "not compared. Run or score one of them again with the other's weights."
            )
    return spec


def _align(a: _Result, b: _Result) -> tuple[AnyPredictions, AnyPredictions, int]:
    """Both tables on their common samples, in one order."""
    names = common(a.table, b.table)
    if names is None:
        if isinstance(a.table, Named):
            raise DataError(f"{a.path} and {b.path} have no sample in common.")
        raise DataError(
            f"{a.path} and {b.path} are not of the same samples in the same order, and arrays of "
            f"{a.kind} carry no ids to match them by."
        )
    one, two = (select(table, names) for table in (a.table, b.table))
    if not same_references(one, two):
        raise DataError(
            f"{a.path} and {b.path} disagree on the references of their common samples"
            + (
                ": other real images, or features by another network."
                if a.kind == "image-generation"
                else "."
            )
        )
    return one, two, one.support()
