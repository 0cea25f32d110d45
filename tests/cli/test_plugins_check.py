"""``medbench plugins check``: what it prints, and how it ends."""

from __future__ import annotations

from medbench.testing import CHECKS
from program import Medbench


def test_a_failing_plugin_ends_in_exit_code_4_and_one_document(medbench: Medbench) -> None:
    medbench.install("ends_in_hook")
    ran = medbench("plugins", "check", "ends_in_hook", "--json")
    assert ran.code == 4, ran.err
    assert ran.json["schema"] == "medbench.check/1"
    assert ran.json["ok"] is False
    assert [check["check"] for check in ran.json["checks"]] == [check.name for check in CHECKS]
    last = ran.err.strip().splitlines()[-1]
    assert last.startswith("medbench: Plugin 'ends_in_hook' breaks its contract in 1 of")
    assert "Traceback" not in ran.err


def test_a_conforming_plugin_ends_in_exit_code_0(medbench: Medbench) -> None:
    medbench.install("misbehaving")
    ran = medbench("plugins", "check", "misbehaving", "-m", "mis-well-behaved")
    assert ran.code == 0, ran.out + ran.err
    for check in CHECKS:
        assert check.name in ran.out
    assert "fit mis-well-behaved: passed" in ran.err


def test_an_unknown_plugin_is_bad_usage(medbench: Medbench) -> None:
    ran = medbench("plugins", "check", "radclop")
    assert ran.code == 2
    assert "medbench-radclip" in ran.err
