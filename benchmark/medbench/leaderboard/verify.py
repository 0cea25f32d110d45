"""Does a record follow from its predictions?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medbench.errors import MedbenchError
from medbench.evaluation.baselines import prior
from medbench.evaluation.files import AnyPredictions, trivial
from medbench.evaluation.keyed import PUBLISHED
from medbench.evaluation.predictions import ClassPredictions
from medbench.evaluation.score import baseline_estimates, score
from medbench.leaderboard.collect import RECORD, Entry
from medbench.leaderboard.submitted import SELF_REPORTED
from medbench.metrics.cards import card_sha256
from medbench.schemas.record import Estimate, MetricValue
from medbench.schemas.specs import MetricSpec

#: Sums may differ in their last bits between processors; nothing else may.
TOLERANCE = 1e-9


def verify(entry: Entry, metrics: Sequence[MetricSpec]) -> list[str]:
    """What does not agree in a published record; empty when all does."""
    record, task = entry.record, entry.task
    problems = []
    if record.task.version == task.version and record.task.sha256 != task.sha256:
        problems.append(
            f"it was made with another task file '{task.name}' of the same version {task.version}"
        )
    if entry.path.name == RECORD and entry.path.parent.name != record.run_id:
        problems.append(f"its folder is not called '{record.run_id}', its run id")
    if record.task.type not in PUBLISHED:
        if entry.table.is_file():
            problems.append(
                f"predictions of {record.task.type} must not be published, whatever the track: "
                f"remove {entry.table.name}"
            )
        return problems
    if not entry.table.is_file():
        whole = record.data.track == "phantom" and record.status == "complete"
        if whole and entry.badge != SELF_REPORTED:
            problems.append(f"its predictions {entry.table.name} are missing")
        return problems
    if record.data.track == "real":
        problems.append("predictions on real patients must not be published: remove them")
    try:
        found = entry.recognised()
        assert found is not None
        if found.sound and not found.keyed:
            problems.append("its predictions hold sample ids: publish them with keys")
        if not found.sound:
            problems.append("its predictions do not have the hash in the record")
        return problems + disagreements(entry, found.table, metrics)
    except MedbenchError as error:
        return [*problems, str(error)]


def disagreements(entry: Entry, table: AnyPredictions, metrics: Sequence[MetricSpec]) -> list[str]:
    """What a record states and a table of predictions does not give: counts, metrics, and the
    baselines that follow from the references."""
    record = entry.record
    problems = []
    if isinstance(table, ClassPredictions) and tuple(table.labels) != entry.task.label_names:
        problems.append(f"its predictions are for the labels {', '.join(table.labels)}")
    if record.counts.scored != table.support():
        problems.append(
            f"it counts {record.counts.scored} scored samples and has {table.support()}"
        )
    installed = {spec.name: spec for spec in metrics}
    usable = []
    for name in sorted({*record.metrics, *entry.task.metrics}):
        given = record.metrics.get(name)
        spec = installed.get(name)
        if spec is None:
            problems.append(f"metric '{name}' is not installed and cannot be derived again")
        elif given is not None and given.card_sha256 != card_sha256(spec):
            problems.append(f"metric '{name}' has an identity card unlike the installed metric's")
        else:
            usable.append(spec)
    derived = score(table, usable).metrics
    for spec in usable:
        problems += _compare(spec.name, record.metrics.get(spec.name), derived.get(spec.name))
    for baseline, predictions in _derivable(entry, table).items():
        stated = record.baselines.get(baseline)
        if stated is None:
            continue
        expected = baseline_estimates(predictions, usable)
        for name in sorted({*expected, *stated} & {spec.name for spec in usable}):
            problems += _compare(f"{baseline}/{name}", stated.get(name), expected.get(name))
    return problems


def _derivable(entry: Entry, table: AnyPredictions) -> dict[str, AnyPredictions]:
    """Baselines that follow from the references alone: the empty mask, chance, and the prior over
    folds. The prior of a training part, and others, need what was not published."""
    if not isinstance(table, ClassPredictions):
        return trivial(table)
    if not entry.task.protocols[entry.record.protocol].folds:
        return {}
    return {
        "prior": ClassPredictions(
            table.sample_ids,
            table.patients,
            table.labels,
            table.y,
            prior(table.y),
            table.multiclass,
        )
    }


def _compare(name: str, stated: Estimate | None, derived: Estimate | None) -> list[str]:
    """Value, bounds, count, and the same per label."""
    if stated is None and derived is None:
        return []
    if stated is None or derived is None:
        return [f"metric '{name}' is {'absent' if stated is None else 'stated'}, wrongly"]
    problems = []
    pairs = zip((stated.value, *stated.ci95), (derived.value, *derived.ci95), strict=True)
    if any(abs(a - b) > TOLERANCE for a, b in pairs) or stated.n != derived.n:
        problems.append(
            f"metric '{name}' is stated as {stated.value:.6f} "
            f"[{stated.ci95[0]:.6f}, {stated.ci95[1]:.6f}], n {stated.n}, and its predictions give "
            f"{derived.value:.6f} [{derived.ci95[0]:.6f}, {derived.ci95[1]:.6f}], n {derived.n}"
        )
    if isinstance(stated, MetricValue) and isinstance(derived, MetricValue):
        if stated.higher_is_better != derived.higher_is_better:
            problems.append(f"metric '{name}' states the wrong direction")
        mine: Mapping[str, Estimate] = stated.per_label or {}
        theirs: Mapping[str, Estimate] = derived.per_label or {}
        for label in sorted({*mine, *theirs}):
            problems += _compare(f"{name}/{label}", mine.get(label), theirs.get(label))
    return problems
