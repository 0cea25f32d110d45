"""A plugin that hangs or ends its process is a failed check; the ladder goes on behind it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from medbench.errors import UsageError
from medbench.testing import CHECKS, check_plugin

Install = Callable[[str], None]


def test_a_plugin_that_ends_the_process_in_a_hook_fails_with_its_last_words(site: Install) -> None:
    site("ends_in_hook")
    first, *rest = check_plugin("ends_in_hook")
    assert (first.check, first.status) == ("spec", "failed")
    assert "ended the process with code 3" in first.reason
    assert "goodbye, all of you" in first.reason
    assert len(rest) == len(CHECKS) - 1
    assert {r.status for r in rest} == {"skipped"}
    assert {r.reason for r in rest} == {"it stands on 'spec', which failed"}


def test_a_plugin_that_hangs_in_a_hook_fails_within_the_limit(site: Install) -> None:
    site("hangs_in_hook")
    first, *_ = check_plugin("hangs_in_hook", check_seconds=6)
    assert first.status == "failed"
    assert first.reason == "it did not end within 6 s."


def test_what_another_plugin_does_is_not_held_against_this_one(site: Install) -> None:
    site("ends_in_hook")
    site("raising_hook")
    first, *_ = check_plugin("raising_hook")
    assert "the dataset list is on fire" in first.reason


def test_checks_behind_a_lost_process_go_on_in_another(site: Install) -> None:
    site("misbehaving")
    results = {r.check: r for r in check_plugin("misbehaving", "mis-exits-the-process")}
    assert "ended the process with code 7" in results["outputs"].reason
    for check in ("construct", "fit", "state"):
        assert results[check].status == "passed", results[check]
    for check in ("determinism", "memory"):
        assert results[check].reason == "it stands on 'outputs', which failed"
    assert list(results) == [check.name for check in CHECKS]


@pytest.mark.slow  # it waits for the limit, which has to be long enough for torch to be imported
@pytest.mark.parametrize(
    ("model", "check"), [("mis-hangs", "outputs"), ("mis-hangs-in-fit", "fit")]
)
def test_a_model_that_hangs_fails_within_the_limit(site: Install, model: str, check: str) -> None:
    site("misbehaving")
    results = {r.check: r for r in check_plugin("misbehaving", model, check_seconds=60)}
    assert results[check].reason == "it did not end within 60 s."
    assert results["devices"].status == "skipped"


def test_when_time_is_up_the_rest_is_skipped_and_said(site: Install) -> None:
    site("hangs_in_hook")
    first, *rest = check_plugin("hangs_in_hook", total_seconds=3)
    assert (first.status, first.reason) == ("failed", "there was no time left")
    assert {(r.status, r.reason) for r in rest} == {("skipped", "there was no time left")}


def test_unknown_names_are_refused(site: Install) -> None:
    site("misbehaving")
    with pytest.raises(UsageError, match=r"no plugin called 'misbehavng'\. Did you mean"):
        check_plugin("misbehavng")
    with pytest.raises(UsageError, match="no model of plugin misbehaving called 'mis-nana'"):
        check_plugin("misbehaving", "mis-nana")
