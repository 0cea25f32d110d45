"""Opening datasets, their track, manifests and fingerprints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ct_files import write_ct_slice

from medbench.data.dataset import open_dataset
from medbench.data.manifest import build_manifest, fingerprint
from medbench.data.samples import Sample
from medbench.errors import DataError, PluginError
from medbench.schemas.specs import DatasetSpec


def spec(reader: str = "medbench.data.covid_ct_md:CovidCtMd") -> DatasetSpec:
    return DatasetSpec(
        name="covid-ct-md", title="COVID-CT-MD", description="", reader=reader, unit="volume"
    )


def test_a_folder_of_patients_is_real(covid_root: Path) -> None:
    dataset = open_dataset(spec(), covid_root)
    assert (dataset.track, dataset.renderer) == ("real", None)
    assert len(dataset.samples) == dataset.patients == 6
    assert dataset.corpus().manifest_sha256 == dataset.manifest.sha256
    assert dataset.corpus(dataset.samples[:2]).manifest_sha256 != dataset.manifest.sha256


@pytest.mark.parametrize("above", [False, True], ids=["the folder", "the folder around it"])
def test_a_phantom_folder_is_a_phantom_however_it_is_given(covid_root: Path, above: bool) -> None:
    (covid_root / "medbench-phantom.json").write_text(json.dumps({"renderer": "1.0"}))
    dataset = open_dataset(spec(), covid_root.parent if above else covid_root)
    assert (dataset.track, dataset.renderer) == ("phantom", "1.0")
    assert '"renderer":"1.0"' in dataset.manifest.json


def test_a_phantom_series_among_patients_makes_the_dataset_a_phantom(covid_root: Path) -> None:
    path = covid_root / "COVID-19 subjects" / "P002" / "IM0000.dcm"
    write_ct_slice(path, np.zeros((8, 8), np.int16), 0.0, words="PHANTOM")
    assert open_dataset(spec(), covid_root).track == "phantom"


def test_a_damaged_phantom_file_is_named(covid_root: Path) -> None:
    (covid_root / "medbench-phantom.json").write_text("{")
    with pytest.raises(DataError, match=r"medbench-phantom\.json cannot be read"):
        open_dataset(spec(), covid_root)


def test_a_reader_that_cannot_be_imported_or_fails_is_the_plugins_fault(covid_root: Path) -> None:
    with pytest.raises(PluginError, match="cannot be imported"):
        open_dataset(spec("no_such_module:Reader"), covid_root)
    with pytest.raises(PluginError, match="failed on"):
        open_dataset(spec("medbench.data.samples:Sample"), covid_root)


SAMPLES = [
    Sample("b", "p", (Path("/x/b.png"),), labels={"n": 1, "m": None}, text="Träne", split="test"),
    Sample("a", None, (Path("/x/a.png"),), labels={"n": 0}, text=None),
]


def test_a_manifest_is_portable_and_independent_of_order() -> None:
    manifest = build_manifest("d", SAMPLES, renderer="1")
    assert manifest.sha256 == build_manifest("d", SAMPLES[::-1], renderer="1").sha256
    assert "/x/" not in manifest.json
    assert "Tr" not in manifest.json  # texts are hashed: a manifest may be published
    moved = [Sample(s.id, s.patient, (), s.labels, s.text, s.split) for s in SAMPLES]
    assert manifest.sha256 == build_manifest("d", moved, renderer="1").sha256


def test_a_manifest_is_the_same_on_every_machine() -> None:
    golden = "5796c56e40da9f658aa3c280f753c42d5be946034401de53c8d608e829a8d110"
    assert build_manifest("d", SAMPLES, renderer="1").sha256 == golden


@pytest.mark.parametrize(
    "change",
    [{"id": "c"}, {"patient": "q"}, {"labels": {"n": 0, "m": None}}, {"text": "x"},
     {"split": "train"}, {"kind": "volume"}],
)  # fmt: skip
def test_a_manifest_changes_with_everything_it_binds(change: dict[str, object]) -> None:
    first = SAMPLES[0]
    fields = {name: getattr(first, name) for name in Sample.__slots__} | change
    other = build_manifest("d", [Sample(**fields), SAMPLES[1]], renderer="1")  # type: ignore[arg-type]
    assert other.sha256 != build_manifest("d", SAMPLES, renderer="1").sha256


def test_a_manifest_binds_the_folds_it_is_given() -> None:
    plain = build_manifest("d", SAMPLES)
    folds = build_manifest("d", SAMPLES, splits={"a": "fold-0", "b": "fold-1"})
    assert folds.sha256 != plain.sha256
    with pytest.raises(DataError, match="'b' of d is in no split"):
        build_manifest("d", SAMPLES, splits={"a": 0})
    with pytest.raises(DataError, match="two samples called 'a'"):
        build_manifest("d", [SAMPLES[1], SAMPLES[1]])


def test_a_fingerprint_notices_changes_but_not_a_move(covid_root: Path, tmp_path: Path) -> None:
    samples = open_dataset(spec(), covid_root).samples
    first = fingerprint(samples, covid_root)
    assert first == fingerprint(samples[::-1], covid_root)
    moved = tmp_path / "elsewhere"
    shutil.copytree(covid_root, moved)  # keeps times
    assert fingerprint(open_dataset(spec(), moved).samples, moved) == first
    os.utime(samples[0].files[0], (1, 1))
    assert fingerprint(samples, covid_root) != first
    samples[0].files[0].unlink()
    with pytest.raises(DataError, match="cannot be found"):
        fingerprint(samples, covid_root)


def test_importing_readers_costs_nothing_heavy() -> None:
    modules = ("covid_ct_md", "image_text_pairs", "dataset", "splits", "images", "decoded",
               "audit", "near_duplicates", "status")  # fmt: skip
    code = (
        f"import sys; [__import__('medbench.data.' + m) for m in {modules!r}]; "
        "print([m for m in ('torch', 'pandas', 'pydicom', 'nibabel', 'PIL', 'scipy') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
