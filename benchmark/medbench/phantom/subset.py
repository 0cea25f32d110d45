"""Which rows of a table a phantom holds, and single choices that depend on the row alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from medbench.phantom.draws import seed


def stratified(dataset: str, strata: Sequence[Hashable], *, balanced: bool = False) -> list[int]:
    """Rows in an order of which every beginning holds the strata in proportion.

    So a preset is a beginning of the next larger one, and a limited phantom of its preset.

    Args:
        dataset: seeds the order.
        strata: stratum of each row.
        balanced: every beginning holds equally many rows of each stratum, while these last: a
            small phantom then has enough of a rare class for a hundredth of its labels.

    Returns:
        Every row number once.
    """
    members: dict[Hashable, list[int]] = {}
    keys = [seed(dataset, "subset", row) for row in range(len(strata))]
    for row in sorted(range(len(strata)), key=keys.__getitem__):
        members.setdefault(strata[row], []).append(row)
    place = {
        row: (rank + 0.5) / (1 if balanced else len(rows))
        for rows in members.values()
        for rank, row in enumerate(rows)
    }
    return sorted(place, key=lambda row: (place[row], keys[row]))


def chance(dataset: str, purpose: str, row: int) -> float:
    """A uniform number in [0, 1) that depends on its arguments alone."""
    return seed(dataset, purpose, row) / 2**63


def pick(dataset: str, purpose: str, row: int, weights: Mapping[str, float]) -> str:
    """A name drawn in proportion to its weight."""
    left = chance(dataset, purpose, row) * sum(weights.values())
    for name, weight in weights.items():
        left -= weight
        if left < 0:
            return name
    return name
