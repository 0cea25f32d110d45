"""The registry as the program's flags ask for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medbench.plugins import Registry


def registry() -> Registry:
    """Discover plugins, without third parties when ``--no-plugins`` was given."""
    from medbench.plugins import discover

    off = os.environ.get("MEDBENCH_NO_PLUGINS", "").lower() not in ("", "0", "false", "no")
    return discover(third_party=not off)
