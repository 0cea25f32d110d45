"""The committed site is what the committed records give, to the last byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_site import made

from medbench.plugins import Registry
from medbench.site.sources import sealed

COMMITTED = Path(__file__).parents[2] / "leaderboards"


def test_the_first_page_and_the_whole_are_small() -> None:
    site = COMMITTED / "site"
    loaded = ["index.html", "assets/site.css", "assets/site.js"]
    assert sum((site / name).stat().st_size for name in loaded) < 300_000
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.slow
def test_building_it_again_changes_no_byte(tmp_path: Path, registry: Registry) -> None:
    root = tmp_path / "leaderboards"
    shutil.copytree(COMMITTED, root)
    shutil.rmtree(root / "site")
    made(root, registry)
    assert sealed(root / "site") == sealed(COMMITTED / "site")
    for name in sealed(root / "site")[1]:
        assert (root / "site" / name).read_bytes() == (COMMITTED / "site" / name).read_bytes(), name
