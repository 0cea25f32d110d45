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
    """Small phantoms, written once per session by the program itself: name -> folder."""
    root = tmp_path_factory.mktemp("phantoms")
    program = Medbench(root / "home")
    limits = {"covid-ct-md": 30, "image-text-pairs": 160, "scenes": 64}

    def folder(name: str) -> Path:
        path = root / name
        if not path.exists():
            ran = program("data", "phantom", name, "--output", path, "--limit", str(limits[name]))
            assert ran.code == 0, ran.err
        return path

    return folder
