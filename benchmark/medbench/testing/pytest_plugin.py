"""The kit in a plugin's own tests: one test for each check.

The ladder is climbed once a session, in a process of its own; each test tells what became of its
check, over all models of the plugin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from medbench.testing.results import Result

MARKER = "medbench_plugin"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(name, model=''): the plugin, by its entry point, and the one model of it, that "
        "medbench_check is about",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "medbench_check" in metafunc.fixturenames:
        from medbench.testing.ladder import CHECKS

        names = [check.name for check in CHECKS]
        metafunc.parametrize("medbench_check", names, ids=names, indirect=True)


@pytest.fixture
def medbench_check(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Call it to fail, skip or pass as the plugin named by the marker does in this check."""
    marker = request.node.get_closest_marker(MARKER)
    if marker is None:
        raise pytest.UsageError(f'Name the plugin: @pytest.mark.{MARKER}("my-plugin")')
    name: str = request.param
    results = [r for r in _climbed(*marker.args, **marker.kwargs) if r.check == name]

    def check() -> None:
        __tracebackhide__ = True
        failed = [r for r in results if r.status == "failed"]
        if failed:
            pytest.fail("\n".join(map(_told, failed)), pytrace=False)
        if all(r.status == "skipped" for r in results):
            pytest.skip("; ".join(f"{r.model} {r.reason}".strip() for r in results))

    return check


@cache
def _climbed(name: str, model: str = "") -> tuple[Result, ...]:
    from medbench.testing.supervise import check_plugin

    return tuple(check_plugin(name, model))


def _told(result: Result) -> str:
    what = f"{result.check} {result.model}".strip()
    return f"{what}: {result.reason}\n{result.traceback}".rstrip()
