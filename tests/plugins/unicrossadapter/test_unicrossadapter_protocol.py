"""Where the leaking form may be run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medbench.errors import UsageError
from medbench.plugins import discover
from medbench.run.request import Plan, Request
from medbench.run.resolve import resolve
from medbench.schemas.specs import Variant


def plan(*models: str, **values: object) -> Plan:
    request = Request(models=models, tasks=("iu-xray-report",), device="cpu", preset="tiny")
    return resolve(replace(request, **values), discover())


def test_the_leaking_form_is_skipped_under_clean_with_the_reason() -> None:
    found = plan("unicrossadapter", "unicrossadapter@as-released")
    assert [cell.variant for cell in found.cells] == [None]
    (skip,) = found.skipped
    assert skip.reason == "unicrossadapter@as-released is run under --protocol paper-compat only"


@pytest.mark.parametrize("task", ["iu-xray-report", "mimic-cxr-report"])
def test_both_forms_are_run_under_paper_compat(task: str) -> None:
    names = ("unicrossadapter", "unicrossadapter@as-released")
    found = plan(*names, tasks=(task,), protocol="paper-compat")
    assert len(found.cells) == 2
    assert not found.skipped


def test_nothing_left_to_run_is_bad_usage() -> None:
    with pytest.raises(UsageError, match="--protocol paper-compat only"):
        plan("unicrossadapter@as-released")


def test_a_protocol_that_does_not_exist_breaks_the_spec() -> None:
    with pytest.raises(ValueError, match="protocols has 'leaky'"):
        Variant(name="as-released", description="", protocols=("leaky",))
