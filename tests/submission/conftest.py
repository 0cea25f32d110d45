"""A small phantom, three runs on it, and their bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medbench.submission.pack import pack
from submission.bundles import METRICS, TASKS, Desk, desk


@pytest.fixture(scope="module")
def desk_of(
    tmp_path_factory: pytest.TempPathFactory, phantoms: Callable[[str], Path]
) -> Iterator[Callable[[str], Desk]]:
    """A desk that holds the small phantom of a dataset."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("submission")
        patch.setenv("MEDBENCH_HOME", str(root / "home"))
        patch.setenv("MEDBENCH_CONFIG", str(root / "none.toml"))
        desks: dict[str, Desk] = {}

        def of(dataset: str) -> Desk:
            if dataset not in desks:
                desks[dataset] = desk(root / dataset, {dataset: phantoms(dataset)})
            return desks[dataset]

        yield of


@pytest.fixture(scope="module")
def here(desk_of: Callable[[str], Desk]) -> Desk:
    return desk_of("covid-ct-md")


@pytest.fixture(scope="module")
def bundle(here: Desk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one model and one of another."""
    runs = [here.run("ours", seed=0), here.run("ours", seed=1), here.run("theirs", skill=0.2)]
    path = tmp_path_factory.mktemp("bundle") / "our-lab.zip"
    pack(runs, path, TASKS, METRICS, here.holdings)
    return path
