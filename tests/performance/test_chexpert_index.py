"""The index of all 223,414 rows of CheXpert, from a cold start."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medbench.phantom.shipped import shipped

ROWS = 223_414
CODE = f"""
from pathlib import Path
import sys
from medbench.data.chexpert import CheXpert
samples = CheXpert(Path(sys.argv[1])).samples()
assert len(samples) == {ROWS}
assert not {{"torch", "pandas"}} & set(sys.modules)
"""
BARE = "import pandas, sys; pandas.read_csv(sys.argv[1] + '/train.csv')"


@pytest.mark.performance
def test_the_whole_table_is_listed_from_cold_in_3_seconds(tmp_path: Path) -> None:
    content = gzip.decompress(shipped("chexpert_train.csv.gz").read_bytes())
    (tmp_path / "train.csv").write_bytes(content)
    (tmp_path / "train").mkdir()
    for patient in {line.split("/")[2] for line in content.decode().splitlines()[1:]}:
        (tmp_path / "train" / patient).mkdir()
    ours, bare = [], []
    for _ in range(3):
        ours.append(_seconds(CODE, tmp_path))
        bare.append(_seconds(BARE, tmp_path))
    print(f"{ROWS:,} rows in {min(ours):.2f} s; pandas.read_csv alone: {min(bare):.2f} s")
    # On a busy machine seconds say little, so the time of pandas alone stands in for them.
    assert min(ours) < max(3.0, 3 * min(bare))


def _seconds(code: str, root: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(root)], check=True)
    return time.perf_counter() - started
