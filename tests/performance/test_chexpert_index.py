"""The index of all 223,414 rows of CheXpert, from a cold start."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from medbench.phantom.shipped import shipped

ROWS = 223_414
CODE = f"""
from pathlib import Path
import sys, time
from medbench.data.chexpert import CheXpert
samples = CheXpert(Path(sys.argv[1])).samples()
print(time.process_time())
assert len(samples) == {ROWS}
assert not {{"torch", "pandas"}} & set(sys.modules)
"""
BARE = """
import pandas, sys, time
pandas.read_csv(sys.argv[1] + "/train.csv")
print(time.process_time())
"""


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
    # A busy machine is slower by the second: there, pandas alone says what a second is worth.
    assert min(ours) < max(3.0, 4 * min(bare))


def _seconds(code: str, root: Path) -> float:
    """Processor time of a new interpreter from its start to the end of ``code``."""
    command = [sys.executable, "-c", code, str(root)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)
