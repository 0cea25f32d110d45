"""What stands behind a dataset's name on this machine: its folder or its phantom, unopened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medbench.data.dataset import PHANTOM_FILE
from medbench.schemas.specs import DatasetSpec


@dataclass(frozen=True)
class Status:
    """The state of one dataset.

    Attributes:
        spec: what its plugin says about it.
        path: the configured folder or table, or None.
        why: where that path was given, in words; empty without one.
    """

    spec: DatasetSpec
    path: Path | None
    why: str

    @property
    def state(self) -> Literal["real", "phantom folder", "phantom only", "missing path", "none"]:
        """By a look at the path alone: the files are `medbench data audit`'s affair."""
        if self.path is None:
            return "phantom only" if self.spec.phantom else "none"
        if not self.path.exists():
            return "missing path"
        folder = self.path if self.path.is_dir() else self.path.parent
        return "phantom folder" if (folder / PHANTOM_FILE).is_file() else "real"

    @property
    def size(self) -> str:
        """Published images or volumes of its first version; empty if that is not known."""
        for numbers in self.spec.published.values():
            divided = sum(numbers.get(part, 0) for part in ("train", "val", "test"))
            return f"{numbers.get('images') or numbers.get('volumes') or divided:,}"
        return ""

    def document(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "name": self.spec.name,
            "title": self.spec.title,
            "state": self.state,
            "path": None if self.path is None else str(self.path),
            "configured_by": self.why or None,
            "published": {version: dict(held) for version, held in self.spec.published.items()},
            "licence": self.spec.licence,
            "access": self.spec.access,
            "homepage": self.spec.homepage,
            "phantom": bool(self.spec.phantom),
            "phantom_of": self.spec.phantom_of,
        }
