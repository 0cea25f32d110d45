"""One site for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_site import made, write_records

from medbench.plugins import Registry, discover


@pytest.fixture(scope="session")
def registry() -> Registry:
    return discover(third_party=False)


@pytest.fixture(scope="session")
def boards(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    """A folder with records, tables and a site."""
    root = tmp_path_factory.mktemp("boards")
    write_records(root, registry)
    made(root, registry)
    return root
