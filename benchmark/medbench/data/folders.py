"""Whether files are there, from one listing per folder instead of one look per file."""

from __future__ import annotations

import os
from pathlib import Path

from medbench.errors import DataError


def refuse_missing(paths: list[str], root: Path, source: Path) -> None:
    """Raise DataError, with their number and first few, for image files that are not there.

    Args:
        paths: relative to ``root``, with forward slashes.
        root: folder of images. Each folder is listed once; no file is touched.
        source: the table that names the paths, for the message.
    """
    folders: dict[str, set[str]] = {}
    base = str(root)
    missing: list[str] = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        names = folders.get(folder)
        if names is None:
            names = folders[folder] = names_in(f"{base}/{folder}" if folder else base)
        if name not in names:
            missing.append(path)
    if missing:
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        raise DataError(
            f"{root}: {len(missing):,} of {len(paths):,} image files that {source.name} names are "
            f"missing: {', '.join(missing[:5])}{more}. Copy them, or give a table of those that "
            "are there."
        )


def names_in(folder: str) -> set[str]:
    """Names in a folder; none when it does not exist. Raises DataError when it cannot be read."""
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed: {error.strerror}. Check its permissions and links."
        ) from error
