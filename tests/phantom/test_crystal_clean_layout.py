"""The Crystal Clean phantom: its files, its altered copies, and what its classes show."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medbench.data.crystal_clean import CLASSES, SUFFIXES, CrystalClean
from medbench.phantom.brain import FINDINGS, render_brains, sample_brains
from medbench.phantom.layouts import crystal_clean as layout


def phantom(root: Path, limit: int) -> dict[str, Any]:
    root.mkdir()
    return layout.write(root, preset="tiny", limit=limit, advance=lambda done, total: None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("crystal") / "p"
    return root, phantom(root, 48)


def test_the_reader_of_real_data_reads_it(written: tuple[Path, dict[str, Any]]) -> None:
    root, facts = written
    reader = CrystalClean(root)
    samples = reader.samples()
    assert len(samples) == facts["images"]
    assert 44 <= len(samples) <= 48
    counts = Counter(next(k for k, v in s.labels.items() if v) for s in samples)
    assert dict(counts) == facts["classes"]
    for sample in samples[::9]:
        pixels = reader.pixels(sample)
        assert pixels.shape == (128, 128)
        assert pixels.std() > 0.05
    with Image.open(samples[0].files[0]) as picture:
        assert picture.mode == "RGB"
        assert b"PHANTOM" in picture.info["comment"]


def test_all_pictures_have_the_published_numbers_and_names_of_their_own() -> None:
    pictures = layout.pictures()
    assert Counter(p.kind for p in pictures) == layout.PUBLISHED
    assert len({p.path for p in pictures}) == len({p.row for p in pictures}) == len(pictures)
    copies = [p for p in pictures if p.suffix]
    assert {p.suffix for p in copies} == set(SUFFIXES)
    assert len(copies) == pytest.approx(0.15 * len(pictures), abs=4)
    originals = {p.row: p for p in pictures if not p.suffix}
    for copy in copies:
        assert (originals[copy.original].kind, originals[copy.original].number) == (
            copy.kind, copy.number,
        )  # fmt: skip


def test_a_preset_takes_whole_groups_in_the_proportions_of_the_classes() -> None:
    everything = layout.pictures()
    some = layout.chosen(1_200)
    assert 1_190 <= len(some) <= 1_200
    counts = Counter(p.kind for p in some)
    for kind in CLASSES:
        assert counts[kind] == pytest.approx(1_200 * layout.PUBLISHED[kind] / 3_264, rel=0.07)
    originals = {p.original for p in some}
    assert {p.row for p in some} == {p.row for p in everything if p.original in originals}
    assert {p.row for p in layout.chosen(100)} <= {p.row for p in some}


def test_a_smaller_phantom_holds_the_same_images(
    written: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    phantom(tmp_path / "p", 10)
    fewer = [path.relative_to(tmp_path / "p") for path in (tmp_path / "p").rglob("*.jpg")]
    assert 7 <= len(fewer) <= 10
    for path in fewer:
        assert (tmp_path / "p" / path).read_bytes() == (written[0] / path).read_bytes()


def test_copies_are_altered_as_their_suffix_says() -> None:
    image = np.arange(64 * 64, dtype=np.float64).reshape(64, 64)
    image = (image / image.max() * 200).astype(np.uint8)
    copies = {
        suffix: layout.altered(image, layout.Picture("glioma", 1, 9, 9, suffix))
        for suffix in ("", *SUFFIXES)
    }
    np.testing.assert_array_equal(copies[""], image)
    np.testing.assert_array_equal(copies["VF"], image[::-1])
    np.testing.assert_array_equal(copies["HF"], image[:, ::-1])
    assert 0.01 < (copies["SP"] != image).mean() < 0.06
    ratio = copies["BR"][40, 5:60] / image[40, 5:60]
    assert ratio.std() < 0.05 < abs(ratio.mean() - 1)
    assert (copies["RO"][0, 0], copies["RO"].dtype) == (0, np.uint8)
    assert all(copy.shape == image.shape for copy in copies.values())


def test_an_adenoma_is_a_mass_in_the_midline_and_a_tumour_changes_the_slice() -> None:
    rows = list(range(40))
    brains = sample_brains("test", rows)
    brains.base = np.ones(40, bool)
    brains.sequence[:] = 0

    def draw(name: str) -> np.ndarray:
        brains.finding[:] = FINDINGS.index(name)
        return np.asarray(render_brains("test", brains, 96).numpy())

    change = np.abs(draw("pituitary") - draw("clear"))
    assert (change.reshape(40, -1).max(1) > 0.15).all()
    mean = change.mean(0)
    row, column = np.unravel_index(mean.argmax(), mean.shape)
    assert abs(column - 48) <= 4
    assert 34 <= row <= 48
    assert mean[:, :20].max() < 0.02 * mean.max()


def test_brains_of_other_datasets_have_no_adenoma_and_no_skull_base() -> None:
    brains = sample_brains("image-text-pairs", range(500))
    assert brains.base is None
    assert FINDINGS.index("pituitary") not in brains.finding


def test_slices_of_the_pre_training_pairs_are_what_they_were() -> None:
    """As renderer 1.1 drew them before adenomas came, within what instruction sets may differ."""
    brains = sample_brains("image-text-pairs", range(2_000_000, 2_000_008))
    image = render_brains("image-text-pairs", brains, 16)
    means = [0.18898, 0.20269, 0.21002, 0.22345, 0.21181, 0.17894, 0.21895, 0.20638]
    assert image.mean((1, 2)).tolist() == pytest.approx(means, abs=2e-5)
    words = "|".join(FINDINGS[k] for k in brains.finding)
    assert hashlib.sha256(words.encode()).hexdigest()[:12] == "bd2f78bffced"
