"""Whether weights may have seen what a task tests: from what specs and task files declare."""

from __future__ import annotations

from collections.abc import Iterable

from medbench.schemas.task import TaskSpec


def contamination(declared: Iterable[str], task: TaskSpec, protocol: str) -> list[str]:
    """Those of the declared training data that hold images of the task's dataset, sorted.

    That is the dataset itself, or one that the task lists under ``overlaps``. The dataset's own
    training part (``NAME/train``) is let pass where the task tests on the dataset's own division;
    a task that lists the name under ``overlaps`` draws its samples otherwise, so there it counts.
    """
    split = task.protocols.get(protocol)  # type: ignore[call-overload]
    kept_apart = split is not None and split.rule == "official"
    found = set()
    for name in declared:
        base, _, part = name.partition("/")
        own = base == task.dataset and not (part == "train" and kept_apart)
        if own or base in task.overlaps:
            found.add(name)
    return sorted(found)
