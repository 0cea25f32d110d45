"""A plugin that watches runs: one observer writes what it saw, the other raises."""

import os
from pathlib import Path

from medbench import hookimpl


@hookimpl
def medbench_run_started(run):
    raise ValueError("this observer is careless")


@hookimpl
def medbench_run_finished(run, record):
    path = Path(os.environ["MEDBENCH_HOME"]) / "observed.txt"
    path.write_text(f"{run.model_id} {record.status}")
