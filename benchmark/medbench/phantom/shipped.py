"""The real annotation tables that the installed torchxrayvision package carries.

They are read from there and never copied into this project: their licences differ, and that of the
Open-i reports forbids changed copies. The package itself is not imported, which would cost seconds.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from medbench.errors import DataError


@cache
def shipped(name: str) -> Path:
    """Path of a file in torchxrayvision's ``data`` folder. Raises DataError if it is not there."""
    spec = find_spec("torchxrayvision")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / name
        if path.is_file():
            return path
    raise DataError(
        f"The installed torchxrayvision has no file data/{name}, which this phantom takes its "
        "annotations from. Install torchxrayvision 1.3 or newer."
    )
