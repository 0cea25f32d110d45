"""``medbench sweep``: what cannot go together is refused before any work."""

from __future__ import annotations

from typing import Any

import pytest

from medbench.errors import UsageError
from medbench.run.request import Request
from medbench.sweep.driver import Means, check
from program import Medbench

LINE = ("sweep", "-m", "radclip", "-t", "covid-ct", "--preset", "tiny", "--device", "cpu")


@pytest.mark.parametrize(
    ("options", "device", "words"),
    [
        ({"executor": "rya"}, "cpu", "Did you mean 'ray'"),
        ({"workers": 0}, "cpu", "--workers is a number of processes"),
        ({"workers": 2, "executor": "ray"}, "cpu", "--workers is for --executor local"),
        ({"address": "auto"}, "cpu", "--address is for --executor ray"),
        ({"gpus_per_cell": 0.0}, "cuda", "--gpus-per-cell is a share"),
        ({"gpus_per_cell": 1.5}, "cuda", "--gpus-per-cell is a share"),
        ({"max_retries": -1}, "cpu", "--max-retries is 0 or more"),
        ({"executor": "ray"}, "cuda:1", "Ray deals out the GPUs"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], device: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check(Means(**options), Request(models=("m",), tasks=("t",), device=device))


def test_bad_names_end_as_they_do_in_run(medbench: Medbench) -> None:
    ran = medbench("sweep", "-m", "radclp", "-t", "covid-ct", "--workers", "1")
    assert ran.code == 2
    assert "Did you mean 'radclip'" in ran.err
    assert not list(medbench.home.glob(".sweep-*"))


def test_without_ray_the_command_to_install_it_is_told(medbench: Medbench) -> None:
    (medbench.site / "ray.py").write_text("raise ImportError('no ray here')")
    ran = medbench(*LINE, "--executor", "ray")
    assert ran.code == 2
    assert "pip install 'medbench[ray]'" in ran.err


def test_without_a_cluster_the_address_is_named(medbench: Medbench) -> None:
    pytest.importorskip("ray")
    ran = medbench(*LINE, "--executor", "ray", "--address", "auto", RAY_TMPDIR=str(medbench.home))
    assert ran.code == 2
    assert "--address auto" in ran.err
