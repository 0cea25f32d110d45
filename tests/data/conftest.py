"""Small datasets in their real layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
from ct_files import write_subject
from hypothesis import HealthCheck, settings

# Examples are cheap, but the machine that runs them may be busy.
settings.register_profile(
    "busy", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")


@pytest.fixture
def covid_root(tmp_path: Path) -> Path:
    """Two subjects per class of three slices each, in the published layout."""
    root = tmp_path / "COVID-CT-MD"
    for folder, prefix in (("COVID-19", "P"), ("CAP", "cap"), ("Normal", "normal")):
        for number in (1, 2):
            write_subject(root / f"{folder} subjects" / f"{prefix}{number:03d}", (-900, -600, 0))
    return root
