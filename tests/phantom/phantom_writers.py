"""Writes small phantoms."""

from __future__ import annotations

from pathlib import Path

from medbench.phantom.write import write_phantom
from medbench.schemas.specs import DatasetSpec

WRITERS = {
    "covid-ct-md": "medbench.phantom.layouts.covid_ct_md:write",
    "image-text-pairs": "medbench.phantom.layouts.image_text_pairs:write",
    "scenes": "medbench.phantom.layouts.scenes:write",
}
LIMITS = {"covid-ct-md": 7, "image-text-pairs": 40, "scenes": 30}


def spec(name: str) -> DatasetSpec:
    """A dataset spec that names the writer under test."""
    return DatasetSpec(
        name=name, title=name, description=name, reader="unused:Reader", phantom=WRITERS[name]
    )


def write(name: str, root: Path, limit: int | None = None) -> Path:
    """Write a small phantom into a new folder."""
    root.mkdir(parents=True)
    write_phantom(spec(name), root, preset="tiny", limit=limit or LIMITS[name])
    return root
