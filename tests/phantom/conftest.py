"""A small phantom of each dataset, written once."""

from __future__ import annotations

from pathlib import Path

import pytest
from phantom_writers import WRITERS, write


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Root of each written phantom."""
    base = tmp_path_factory.mktemp("phantoms")
    return {name: write(name, base / name) for name in WRITERS}
