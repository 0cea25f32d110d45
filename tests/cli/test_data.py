"""``medbench data status|audit|prepare``."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medbench.builtin import medbench_datasets
from medbench.data.dataset import open_dataset
from medbench.data.decoded import Decoded
from medbench.run.load import images_key
from medbench.run.stores import Store
from program import Medbench


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of image-text pairs: so many pictures, each of its own patient."""

    def write(number: int = 8, side: int = 40) -> Path:
        root = tmp_path / "pairs"
        root.mkdir()
        rows = [["image", "text", "patient", "split"]]
        for n in range(number):
            coarse = np.random.default_rng(n).integers(0, 255, (7, 7), np.uint8)
            picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
            picture.save(root / f"{n}.png")
            rows.append([f"{n}.png", f"Picture {n}", f"p{n}", "train" if n % 2 else "test"])
        with (root / "pairs.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return root

    return write


def test_a_sound_dataset_passes_its_audit(medbench: Medbench, pairs: Callable[..., Path]) -> None:
    root = pairs()
    ran = medbench("data", "audit", "image-text-pairs", "--data", root, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["schema"], ran.json["dataset"]) == ("medbench.audit/1", "image-text-pairs")
    assert ran.json["ok"] is True
    assert ran.json["counts"]["splits"]["train"] == {"images": 4, "patients": 4}
    assert "real" in ran.err
    said = medbench("data", "audit", "image-text-pairs", "--data", root)
    assert said.code == 0
    assert "Training may start." in said.out
    assert "decode" not in said.err  # the prepared images of the first audit are used


def test_harm_ends_in_exit_3_with_the_findings(
    medbench: Medbench, pairs: Callable[..., Path]
) -> None:
    root = pairs()
    (root / "1.png").write_bytes((root / "1.png").read_bytes()[:99])
    with (root / "pairs.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["2.png", "again", "p1", "test"])
    Image.open(root / "2.png").save(root / "copy.png")
    with (root / "pairs.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["copy.png", "a copy", "p9", "train"])
    refused = medbench("data", "audit", "image-text-pairs", "--data", root, "--json")
    assert refused.code == 3
    assert [f["kind"] for f in refused.json["findings"]] == ["layout"]  # 2.png has two rows
    lines = (root / "pairs.csv").read_text().splitlines(keepends=True)
    kept = [line.replace("p3", "p4") for line in lines if not line.startswith("2.png,again")]
    (root / "pairs.csv").write_text("".join(kept))
    ran = medbench("data", "audit", "image-text-pairs", "--data", root, "--json")
    assert ran.code == 3, ran.err
    assert {f["kind"] for f in ran.json["findings"]} == {
        "exact-duplicate", "patient-overlap", "unreadable",
    }  # fmt: skip
    assert all(set(f) == {"kind", "severity", "sample", "path", "message"}
               for f in ran.json["findings"])  # fmt: skip
    quick = medbench("data", "audit", "image-text-pairs", "--data", root, "--json", "--quick")
    assert {f["kind"] for f in quick.json["findings"]} == {"patient-overlap"}
    said = medbench("data", "audit", "image-text-pairs", "--data", root)
    assert said.code == 3
    assert "Training must not start." in said.out
    assert str(root / "1.png") in said.out
    assert "Traceback" not in said.err


@pytest.mark.parametrize("root", ["nothing", "empty"])
def test_a_folder_in_another_layout_is_one_finding(
    medbench: Medbench, tmp_path: Path, root: str
) -> None:
    (tmp_path / "empty").mkdir()
    ran = medbench("data", "audit", "covid-ct-md", "--data", tmp_path / root, "--json")
    assert ran.code == 3
    (finding,) = ran.json["findings"]
    assert (finding["kind"], finding["severity"]) == ("layout", "error")
    assert finding["path"] == str(tmp_path / root)


def test_without_real_data_the_phantom_is_audited(medbench: Medbench) -> None:
    medbench.install("toy_dataset")
    ran = medbench("data", "audit", "toy-pairs", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["counts"]["images"] == 6
    (finding,) = ran.json["findings"]
    assert (finding["kind"], finding["severity"]) == ("phantom", "info")
    assert "images 600 (here 6)" in finding["message"]
    again = medbench("data", "audit", "toy-pairs", "--data", "phantom", "--json")
    assert again.json == ran.json
    assert "render" in ran.err
    assert "render" not in again.err


def test_prepared_images_are_those_that_runs_look_for(
    medbench: Medbench, pairs: Callable[..., Path]
) -> None:
    root = pairs()
    several = f"covid-ct-md=/no/such/folder image-text-pairs={root}"
    ran = medbench(
        "data", "prepare", "image-text-pairs", MEDBENCH_DATA=several, MEDBENCH_SIZE="32 48"
    )
    assert ran.code == 0, ran.err
    assert len(ran.out.splitlines()) == 2
    spec = next(spec for spec in medbench_datasets() if spec.name == "image-text-pairs")
    dataset = open_dataset(spec, root)
    for size in (32, 48):
        folder = Store(medbench.home).find("images", images_key(dataset, size, dataset.samples))
        assert folder is not None
        assert str(folder) in ran.out
        images = Decoded.open(folder, dataset.samples)
        assert images[0].shape == (1, size, size)
    again = medbench("data", "prepare", "image-text-pairs", "--data", root, "--size", "32")
    assert "decode" not in again.err


def test_ctrl_c_keeps_finished_parts_and_says_so(
    medbench: Medbench, pairs: Callable[..., Path]
) -> None:
    root = pairs(64, 300)
    arguments = ("data", "prepare", "image-text-pairs", "--data", root, "--size", "2048")
    process = subprocess.Popen(
        medbench.command(*arguments), env=medbench.environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    # 16 pictures of 2048 x 2048 are a part
    while not any(
        path.read_text().count("\n") > 1
        for path in (medbench.home / "images").glob(".*.scratch/chunks.jsonl")
    ):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "decoded so far are kept" in err
    assert "goes on from there" in err
    (journal,) = (medbench.home / "images").glob(".*.scratch/chunks.jsonl")
    assert 2 <= journal.read_text().count("\n") < 5  # a line before the parts
    assert not list((medbench.home / "images").glob("*/payload"))


def test_status_fits_100_columns_and_shows_a_missing_path(
    medbench: Medbench, pairs: Callable[..., Path]
) -> None:
    root = pairs()
    (medbench.home / "config.toml").write_text('[data]\nmimic-cxr = "/no/such/folder"\n')
    ran = medbench("data", "status", MEDBENCH_DATA=f"image-text-pairs={root} /a/path")
    assert ran.code == 0, ran.err
    assert max(map(len, ran.out.splitlines())) <= 100
    lines = {line.split()[0]: line for line in ran.out.splitlines() if line[0] != " "}
    assert "missing path" in lines["mimic-cxr"]
    assert "/no/such/folder" in lines["mimic-cxr"]
    assert "real" in lines["image-text-pairs"]
    assert "phantom only" in lines["covid-ct-md"]


def test_status_as_json_has_every_dataset_and_where_it_is_from(medbench: Medbench) -> None:
    (medbench.home / "config.toml").write_text('[data]\nmimic-cxr = "/no/such/folder"\n')
    entries = {entry["name"]: entry for entry in medbench("data", "status", "--json").json}
    assert set(entries) == {spec.name for spec in medbench_datasets()}
    assert entries["mimic-cxr"]["path"] == "/no/such/folder"
    assert entries["mimic-cxr"]["configured_by"].endswith("config.toml")
    assert entries["mimic-cxr"]["published"]["2.0.0"]["images"] == 377_110
    one = medbench("data", "status", "mimic-cxr", "--json").json
    assert one == entries["mimic-cxr"]
    said = medbench("data", "status", "mimic-cxr").out
    assert max(map(len, said.splitlines())) <= 100
    for word in ("PhysioNet", "377,110 images", "all drawn", "/no/such/folder"):
        assert word in said


def test_status_imports_nothing_heavy() -> None:
    code = """
import sys
from medbench.cli import main
try:
    main(["data", "status"])
except SystemExit:
    pass
heavy = {"torch", "pandas", "transformers", "sklearn", "scipy", "pydicom", "PIL"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("audit", "nih"), "nih-chestxray14"),
        (("status", "nih"), "nih-chestxray14"),
        (("prepare", "scenes", "--size", "0"), "--size"),
        (("prepare", "scenes", "--preset", "tini"), "'tiny'"),
        (("audit", "scenes", "--data", "scene=/tmp"), "scenes"),
        (("audit", "scenes", "--data", "/a", "--data", "scenes=/b"), "twice"),
    ],
)
def test_bad_usage_is_one_paragraph(
    medbench: Medbench, arguments: tuple[str, ...], message: str
) -> None:
    ran = medbench("data", *arguments)
    assert ran.code == 2, ran.err
    assert message in ran.err
    assert ran.out == ""
