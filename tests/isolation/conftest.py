"""One installation for all tests of this folder; each test has its home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import environments
import pytest

from medbench.isolation.process import end_all
from program import Medbench


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of plugin ``edge-cases``, which brings ``toy`` and ``able`` into its environment
    and asks for another version of ``conflict-lib`` than ours."""
    from medbench.isolation.install import install_isolated

    folder = tmp_path_factory.mktemp("isolated")
    code = (Path(__file__).parent / "edge_cases.py").read_text(encoding="utf-8")
    needs = ("conflict-lib>=2", "toy-model", "able-model")
    with pytest.MonkeyPatch.context() as patch:
        environments.offline(patch, folder)
        wheels = folder / "wheels"
        environments.wheel(wheels, "conflict-lib", "1.0", "VERSION = 1\n")
        environments.wheel(wheels, "conflict-lib", "2.0", "VERSION = 2\n")
        environments.wheel(wheels, "edge-cases", "1.0", code, needs)
        for name in ("toy_model", "able_model"):
            code = (environments.PACKAGES / f"{name}.py").read_text(encoding="utf-8")
            environments.wheel(wheels, name.replace("_", "-"), "1.0", code)
        yield install_isolated("edge-cases", str(environments.python(folder)))
    end_all()


@pytest.fixture
def home(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MEDBENCH_HOME with the installation."""
    path = installed.parents[1]
    monkeypatch.setenv("MEDBENCH_HOME", str(path))
    return path


@pytest.fixture
def program(installed: Path, tmp_path: Path) -> Medbench:
    """The program with a home in which the plugin is installed."""
    made = Medbench(tmp_path / "home")
    (made.home / "plugins").symlink_to(installed.parent)
    return made
