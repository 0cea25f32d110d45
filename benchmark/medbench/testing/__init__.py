"""The conformance kit: what a plugin promises, checked on synthetic inputs.

A ladder of checks, each passed, failed or skipped with a reason; a check whose footing failed is
skipped. Everything runs in a process of its own with a time limit, so that a plugin that hangs or
ends its process is a failed check and nothing else.

From the shell: ``medbench plugins check NAME``. In a plugin's own tests (the kit is a pytest
plugin), one test per check::

    @pytest.mark.medbench_plugin("my-plugin")
    def test_conformance(medbench_check):
        medbench_check()

From Python::

    from medbench.testing import check_plugin

    results = check_plugin("my-plugin")
"""

from __future__ import annotations

from medbench.testing.ladder import CHECKS, Check
from medbench.testing.results import Result
from medbench.testing.supervise import check_plugin

__all__ = ["CHECKS", "Check", "Result", "check_plugin"]
