"""What a record says of a model that looking up beats."""

from __future__ import annotations

from collections.abc import Mapping

from medbench.schemas.record import Estimate, MetricValue

#: Task type to the baseline that looks up a training sample instead of making something.
RIVALS = {"report-generation": "nearest-32-report"}


def verdict(
    kind: str,
    primary: str,
    metrics: Mapping[str, MetricValue],
    baselines: Mapping[str, Mapping[str, Estimate]],
) -> list[str]:
    """A sentence for the notes when a model is not above the baseline that looks up; else none.

    Args:
        kind: task type; those without such a baseline get no sentence.
        primary: the metric that ranks.
        metrics: of the model.
        baselines: of the record: name to metric to value.
    """
    rival = RIVALS.get(kind, "")
    own, theirs = metrics.get(primary), baselines.get(rival, {}).get(primary)
    if own is None or theirs is None:
        return []
    above = own.value > theirs.value if own.higher_is_better else own.value < theirs.value
    if above:
        return []
    overlap = own.ci95[0] <= theirs.ci95[1] and theirs.ci95[0] <= own.ci95[1]
    return [
        f"does not beat looking up: {primary} {own.value:.4g} against {theirs.value:.4g} of "
        f"{rival}" + (", within their intervals" if overlap else "")
    ]
