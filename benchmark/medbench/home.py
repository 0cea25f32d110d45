"""Where medbench keeps what it has made."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """``MEDBENCH_HOME``, or the user's cache folder for medbench."""
    if given := os.environ.get("MEDBENCH_HOME"):
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("medbench", appauthor=False)
