"""A Frechet distance says from how many generated images it comes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from runs import write_run
from typed_tables import metrics_of, table_of, task_of

from medbench.leaderboard.build import build

KIND = "image-generation"


def page_of(tmp_path: Path, tables: dict[str, Any]) -> str:
    spec = task_of(KIND)
    for model, table in tables.items():
        write_run(
            tmp_path / "r", model, 0, table=table, spec=spec, metrics=metrics_of(KIND),
            adaptation="",
        )  # fmt: skip
    build([tmp_path / "r"], tmp_path, {spec.name: spec}, metrics=metrics_of(KIND))
    return (tmp_path / f"{spec.name}.md").read_text(encoding="utf-8")


def test_the_column_of_a_frechet_distance_names_the_number_of_images(tmp_path: Path) -> None:
    page = page_of(tmp_path, {"good": table_of(KIND, 0.9, 1), "poor": table_of(KIND, 0.3, 2)})
    assert "| fid-phantom (n=180) ↓ |" in page
    assert "| kid-phantom ↓ |" in page  # unbiased at any number
    (baseline,) = re.findall(r"^.*\*real-versus-real\*.*$", page, re.MULTILINE)
    assert "(n=46)" in baseline or "(n=44)" in baseline or "(n=45)" in baseline


def test_a_row_of_another_number_of_images_says_so(tmp_path: Path) -> None:
    table = table_of(KIND, 0.3, 7)
    real, features = table.given["phantom"]
    fewer = replace(
        table, generated=table.generated[::2], prompts=table.prompts[::2],
        given={"phantom": (real, features[::2])},
    )  # fmt: skip
    page = page_of(tmp_path, {"good": table_of(KIND, 0.9, 1), "poor": fewer})
    sizes = {
        name: re.findall(r"\(n=(\d+)\)", line)
        for line in page.splitlines()
        for name in ("good", "poor")
        if f"| {name} |" in line
    }
    assert "fid-phantom (n=180)" in page
    assert sizes == {"good": [], "poor": ["90"]}
