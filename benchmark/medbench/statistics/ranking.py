"""Ranks with ties: two rows differ in rank only where the data tell them apart.

"Not separated" is not transitive (a may be tied with b and b with c while a beats c), so ties
cannot be cut into groups. What is well defined is *who is beaten by how many*: the rank of a row is
1 + the number of rows that are separated from it and better. So the rows that nobody beats are
all first. Where that would give a row a smaller rank than a row of better value above it, it
takes the rank of that row: ranks never improve down a table.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

#: A pair is separated when its Holm-corrected p value is below this.
ALPHA = 0.05


def ranks(
    values: Sequence[float], separated: Collection[tuple[int, int]], higher_is_better: bool = True
) -> list[int]:
    """Rank of each row, 1 the best, in the order given.

    Args:
        values: one finite value per row.
        separated: pairs of row indices, in either order, that a test tells apart.
        higher_is_better: direction.

    >>> ranks([0.9, 0.8, 0.7], [(0, 2)])
    [1, 1, 2]
    """
    sign = 1.0 if higher_is_better else -1.0
    beaten = [0] * len(values)
    for i, j in {(min(pair), max(pair)) for pair in separated}:
        gap = sign * (values[i] - values[j])
        if gap > 0:
            beaten[j] += 1
        elif gap < 0:
            beaten[i] += 1
    found = [0] * len(values)
    worst = 1
    order = sorted(range(len(values)), key=lambda i: -sign * values[i])
    start = 0
    while start < len(order):
        # Rows of equal value stand together, so that their order cannot matter.
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        reached = worst
        for i in order[start:end]:
            found[i] = max(worst, 1 + beaten[i])
            reached = max(reached, found[i])
        worst = reached
        start = end
    return found


def overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether two intervals share a point: the rule for rows without common predictions."""
    return a[0] <= b[1] and b[0] <= a[1]
