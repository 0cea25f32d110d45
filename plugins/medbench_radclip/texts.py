"""RadCLIP's wording: ``<region> <modality>, <info>`` (official code, 2-D training script)."""

from __future__ import annotations

from medbench.schemas.task import TaskSpec


def prompt(region: str, modality: str, info: str) -> str:
    """For example ``Abdomen CT, liver lesion``; a part that is empty is left out.

    >>> prompt("Abdomen", "CT", "liver lesion")
    'Abdomen CT, liver lesion'
    >>> prompt("", "CT", "normal")
    'CT, normal'
    """
    place = " ".join(part.strip() for part in (region, modality) if part.strip())
    return ", ".join(part for part in (place, info.strip()) if part)


def class_prompts(task: TaskSpec) -> list[list[str]]:
    """One prompt per label of the task, in its order."""
    return [[prompt(task.region, task.modality, label.text)] for label in task.labels]
