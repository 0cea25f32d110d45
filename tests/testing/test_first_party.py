"""First-party plugins keep the contract that third parties are held to."""

from __future__ import annotations

import pytest

from medbench.testing import check_plugin


# the rest takes minutes: their ladders are climbed in the slow run
@pytest.mark.parametrize(
    "name",
    [
        "open-clip",
        "adaptor",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("radclip", "cls-clip", "unicrossadapter")
        ),
    ],
)
def test_a_first_party_plugin_passes_every_check(name: str) -> None:
    results = check_plugin(name)
    assert not [f"{r.check} {r.model}: {r.reason}" for r in results if r.status == "failed"]
    assert {"construct", "fit", "outputs"} <= {r.check for r in results if r.status == "passed"}
