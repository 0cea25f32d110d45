"""Fixtures that every folder of tests shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from program import Medbench


@pytest.fixture
def medbench(tmp_path: Path) -> Medbench:
    """The program with an empty home."""
    return Medbench(tmp_path / "home")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small phantoms, written once per session: name -> folder."""
    from medbench.phantom.write import write_phantom
    from medbench.plugins import discover

    root = tmp_path_factory.mktemp("phantoms")
    registry = discover(third_party=False)
    limits = {"covid-ct-md": 30, "image-text-pairs": 160, "scenes": 64}
    chest = 100  # enough for every class in every part of a division

    def folder(name: str) -> Path:
        path = root / name
        if not path.exists():
            path.mkdir()
            limit = limits.get(name, chest)
            write_phantom(registry.dataset(name), path, preset="tiny", limit=limit)
        return path

    return folder
