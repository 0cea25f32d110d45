"""The audit, with every kind of harm planted on purpose."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from medbench.data import audit as module
from medbench.data.audit import Finding, Report, audit, cheap, leaks, unopened
from medbench.data.dataset import OpenDataset, open_dataset
from medbench.data.decoded import DamagedSamples, Decoded, decode
from medbench.data.near_duplicates import close_pairs, near_duplicates, signatures
from medbench.data.samples import Box, Pixels, Sample
from medbench.errors import DataError
from medbench.schemas.specs import DatasetSpec

SPEC = DatasetSpec(
    name="image-text-pairs",
    title="Pairs",
    description="",
    reader="medbench.data.image_text_pairs:ImageTextPairs",
    unit="pair",
)


def picture(seed: int, side: int = 96) -> npt.NDArray[np.uint8]:
    """Smooth blobs under grain: like a radiograph, and unlike that of any other seed."""
    draws = np.random.default_rng(seed)
    coarse = Image.fromarray(draws.integers(40, 215, (7, 7), np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float64)
    return (smooth + draws.normal(0, 3, (side, side))).clip(0, 255).astype(np.uint8)


class Pairs:
    """A folder of image-text pairs with twelve sound pictures of twelve patients."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[list[str]] = []
        (root / "images").mkdir(parents=True)
        for number in range(12):
            split = ("train", "val", "test")[number // 4]
            self.add(f"{number}.png", picture(number), f"p{number}", split)

    def add(
        self, name: str, pixels: npt.NDArray[np.uint8] | None, patient: str, split: str, **how: Any
    ) -> Path:
        path = self.root / "images" / name
        if pixels is not None:
            Image.fromarray(pixels).save(path, **how)
        self.rows.append([f"images/{name}", f"Chest radiograph, {name}", patient, split])
        return path

    def open(self) -> OpenDataset:
        with (self.root / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["image", "text", "patient", "split"], *self.rows])
        return open_dataset(SPEC, self.root)

    def audit(self) -> Report:
        return audit(self.open(), self.prepare)

    def prepare(self, dataset: OpenDataset) -> Decoded:
        folder = self.root.parent / "store"
        decode(dataset.reader, dataset.samples, 64, folder)
        return Decoded.open(folder)


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    return Pairs(tmp_path / "pairs")


def kinds(report: Report) -> list[tuple[str, str, str | None]]:
    return [(finding.severity, finding.kind, finding.sample) for finding in report.findings]


def test_a_sound_dataset_has_no_findings(pairs: Pairs) -> None:
    report = pairs.audit()
    assert report.findings == ()
    assert report.ok
    document = report.document()
    assert document["schema"] == "medbench.audit/1"
    assert list(document) == ["schema", "dataset", "ok", "counts", "findings"]
    assert document["counts"] == {
        "samples": 12,
        "images": 12,
        "patients": 12,
        "texts": 12,
        "splits": {name: {"images": 4, "patients": 4} for name in ("test", "train", "val")},
        "labels": {},
    }


def test_a_patient_on_both_sides_is_an_error(pairs: Pairs) -> None:
    pairs.add("again.png", picture(50), "p1", "test")
    pairs.add("more.png", picture(51), "p2", "test")
    (finding,) = pairs.audit().findings
    assert (finding.kind, finding.severity) == ("patient-overlap", "error")
    assert "2 patients are on both sides of 'test' and 'train'" in finding.message
    assert "p1, p2" in finding.message


def test_leaks_are_found_between_any_parts_and_samples_outside_them_do_not_count() -> None:
    samples = [Sample(str(n), patient, ()) for n, patient in enumerate("aabbccd")]
    samples.append(Sample("no patient", None, ()))
    parts = ["fold-0", "fold-1", "fold-1", "fold-1", "fold-2", "", "fold-0", "fold-0"]
    (finding,) = leaks(samples, parts)
    assert "1 patient is on both sides of 'fold-0' and 'fold-1', such as a:" in finding.message
    assert leaks(samples, ["x"] * 8) == []


def test_an_exact_copy_across_splits_is_an_error(pairs: Pairs) -> None:
    pairs.add("copy.bmp.png", picture(2), "other", "test", compress_level=0)  # other bytes
    report = pairs.audit()
    assert kinds(report) == [("error", "exact-duplicate", "images/copy.bmp.png")]
    assert not report.ok
    (finding,) = report.findings
    assert finding.path == str(pairs.root / "images" / "copy.bmp.png")
    assert "'images/2.png'" in finding.message
    assert "'train' and 'test'" in finding.message


def test_an_exact_copy_within_a_split_is_said(pairs: Pairs) -> None:
    pairs.add("copy.png", picture(2), "other", "train")
    report = pairs.audit()
    assert kinds(report) == [("info", "exact-duplicate", "images/copy.png")]
    assert report.ok


def test_of_several_copies_the_one_across_splits_is_named(pairs: Pairs) -> None:
    pairs.add("a.png", picture(2), "a", "train")
    pairs.add("b.png", picture(2), "b", "val")
    pairs.add("c.png", picture(2), "c", "train")
    assert kinds(pairs.audit()) == [
        ("error", "exact-duplicate", f"images/{name}.png") for name in "abc"
    ]


@pytest.mark.parametrize("how", ["jpeg", "grain", "brightness", "contrast", "half the size"])
def test_a_near_copy_across_splits_is_a_warning(pairs: Pairs, how: str) -> None:
    pixels, name, options = picture(3), "near.png", {}
    if how == "jpeg":
        name, options = "near.jpg", {"quality": 60}
    elif how == "grain":
        noise = np.random.default_rng(0).normal(0, 4, pixels.shape)
        pixels = (pixels + noise).clip(0, 255).astype(np.uint8)
    elif how == "brightness":
        pixels = (pixels * 0.9 + 12).astype(np.uint8)
    elif how == "contrast":
        pixels = ((pixels / 255) ** 1.2 * 255).astype(np.uint8)
    else:
        pixels = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC))
    pairs.add(name, pixels, "other", "test", **options)
    report = pairs.audit()
    assert kinds(report) == [("warning", "near-duplicate", f"images/{name}")]
    assert "'images/3.png'" in report.findings[0].message
    assert report.ok


def test_copies_without_splits_are_a_warning_between_patients(pairs: Pairs) -> None:
    pairs.add("other.png", picture(2), "other", "")
    pairs.add("same.png", picture(3), "p3", "")
    pairs.rows = [[*row[:3], ""] for row in pairs.rows]
    assert kinds(pairs.audit()) == [
        ("warning", "exact-duplicate", "images/other.png"),
        ("info", "exact-duplicate", "images/same.png"),
    ]


def test_unlike_pictures_are_no_pair_and_copies_are(tmp_path: Path) -> None:
    pairs = Pairs(tmp_path / "pairs")
    for number in range(100, 160):
        pairs.add(f"{number}.png", picture(number), str(number), "train")
    pairs.add("near.jpg", picture(101), "x", "train", quality=70)
    dataset = pairs.open()
    found = near_duplicates(pairs.prepare(dataset))
    assert [[dataset.samples[i].id for i in pair] for pair in found.tolist()] == [
        ["images/101.png", "images/near.jpg"]
    ]


def test_close_pairs_are_those_of_the_whole_table() -> None:
    draws = np.random.default_rng(0)
    # Whole numbers, so that products are exact; 9,000 are more than two tiles.
    vectors = draws.integers(-1, 2, (9000, 14)).astype(np.float32)
    expected = np.argwhere(np.triu(vectors @ vectors.T >= 11, 1))
    assert (expected[:, 0] // 4096 != expected[:, 1] // 4096).any()
    np.testing.assert_array_equal(close_pairs(vectors, 11), expected)
    assert close_pairs(vectors[:0], 0.9).shape == (0, 2)


def test_signatures_know_neither_brightness_nor_contrast() -> None:
    thumbnails = np.random.default_rng(0).random((2, 32, 32), np.float32)
    changed = np.concatenate([thumbnails, thumbnails * 0.4 + 0.3, np.full((1, 32, 32), 0.5)])
    rows = signatures(changed.astype(np.float32))
    np.testing.assert_allclose(rows[:2], rows[2:4], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 1, 1, 0], atol=1e-5)


def test_damaged_files_are_all_named_and_the_others_still_compared(pairs: Pairs) -> None:
    short = pairs.root / "images" / "1.png"
    short.write_bytes(short.read_bytes()[:400])
    pairs.add("empty.png", None, "e", "train").touch()
    pairs.add("text.png", None, "t", "train").write_text("not an image")
    pairs.add("copy.png", picture(2), "other", "test")
    report = pairs.audit()
    assert sorted(kinds(report)) == [
        ("error", "exact-duplicate", "images/copy.png"),
        ("error", "unreadable", "images/1.png"),
        ("error", "unreadable", "images/empty.png"),
        ("error", "unreadable", "images/text.png"),
    ]
    by_sample = {finding.sample: finding for finding in report.findings}
    assert by_sample["images/1.png"].path == str(short)
    assert str(short) in by_sample["images/1.png"].message
    assert "empty (0 bytes)" in by_sample["images/empty.png"].message


def test_the_cheap_part_decodes_nothing(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs.add("empty.png", None, "e", "train").touch()
    pairs.add("text.png", None, "t", "train").write_text("not an image")
    dataset = pairs.open()
    monkeypatch.setattr(dataset.reader, "pixels", None)
    assert kinds(cheap(dataset)) == [("error", "unreadable", "images/empty.png")]


def test_a_file_that_vanishes_after_the_listing_is_missing(pairs: Pairs) -> None:
    dataset = pairs.open()
    (pairs.root / "images" / "5.png").unlink()
    (pairs.root / "images" / "6.png").unlink()
    (pairs.root / "images" / "6.png").symlink_to(pairs.root / "nowhere.png")
    report = audit(dataset, pairs.prepare)
    assert kinds(report) == [
        ("error", "missing-file", "images/5.png"),
        ("error", "missing-file", "images/6.png"),
    ]
    assert report.findings[0].path == str(pairs.root / "images" / "5.png")


def test_orphans_are_counted_and_the_first_named(pairs: Pairs) -> None:
    Image.fromarray(picture(60)).save(pairs.root / "images" / "zz.png")
    (pairs.root / "deep").mkdir()
    Image.fromarray(picture(61)).save(pairs.root / "deep" / "b.jpg")
    (pairs.root / "images" / "._0.png").touch()  # a dropping of a file manager
    (pairs.root / "images" / "notes.txt").touch()
    (finding,) = pairs.audit().findings
    assert (finding.severity, finding.kind) == ("warning", "orphan-image")
    assert "2 image files are" in finding.message
    assert os.path.join("deep", "b.jpg") in finding.message


def test_loops_of_links_and_links_to_images_are_no_orphans(pairs: Pairs) -> None:
    (pairs.root / "loop").symlink_to(pairs.root)
    (pairs.root / "deep").mkdir()
    (pairs.root / "deep" / "self.png").symlink_to(pairs.root / "deep" / "self.png")
    away = pairs.root.parent / "away"
    (pairs.root / "images").rename(away)
    (pairs.root / "images").symlink_to(away)
    assert pairs.audit().findings == ()


def test_a_folder_that_cannot_be_listed_is_an_error(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = pairs.open()
    (pairs.root / "locked").mkdir()
    listing = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (finding,) = cheap(dataset).findings
    assert (finding.severity, finding.kind) == ("error", "unreadable")
    assert "locked cannot be listed: Permission denied" in finding.message


def test_a_flat_picture_is_a_warning_and_no_duplicate(pairs: Pairs) -> None:
    for number in range(3):
        pairs.add(f"flat{number}.png", np.full((64, 64), 9, np.uint8), f"f{number}", "train")
    assert kinds(pairs.audit()) == [
        ("warning", "flat-image", f"images/flat{number}.png") for number in range(3)
    ]


class Regions:
    """A reader with regions, whose samples are handed to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.held: list[Sample] = []
        self.regions: dict[str, tuple[Box, ...] | DataError] = {}
        self.masks: dict[str, Any] = {}

    def samples(self) -> Sequence[Sample]:
        return self.held

    def pixels(self, sample: Sample) -> Pixels:
        return picture(int(sample.id)).astype(np.float32) / 255

    def boxes(self, sample: Sample) -> tuple[Box, ...]:
        found = self.regions.get(sample.id, ())
        if isinstance(found, DataError):
            raise found
        return found

    def mask(self, sample: Sample) -> Any:
        return self.masks.get(sample.id, np.zeros((8, 8), bool))


@pytest.fixture
def regions(tmp_path: Path) -> Callable[..., tuple[Regions, OpenDataset]]:
    """Makes a dataset of samples with these fields changed, one dictionary for each."""

    def build(*changes: dict[str, Any], **spec: Any) -> tuple[Regions, OpenDataset]:
        root = tmp_path / "data"
        root.mkdir()
        reader = Regions(root)
        for number, change in enumerate(changes):
            path = root / f"{number}.png"
            path.write_bytes(b"x")
            plain = Sample(str(number), f"p{number}", (path,), labels={"effusion": 0})
            reader.held.append(replace(plain, **change))
        found = replace(SPEC, **{"unit": "image", **spec})
        return reader, OpenDataset(found, root, reader, tuple(reader.held), "real", None)

    return build


def test_values_that_cannot_be_are_found(regions: Callable[..., Any]) -> None:
    _, dataset = regions(
        {"age": 121.0}, {"age": -1.0}, {"age": 0.0}, {"age": 120.0}, {"text": " \n"},
        {"labels": {"effusion": 2}}, {"labels": {"effusion": -1, "edema": None}},
    )  # fmt: skip
    report = audit(dataset)
    assert kinds(report) == [
        ("error", "empty-text", "4"),
        ("error", "label", "5"),
        ("warning", "age", "0"),
        ("warning", "age", "1"),
    ]
    assert "'effusion' is 2" in report.findings[1].message
    assert report.counts["labels"] == {
        "effusion": {"positive": 0, "negative": 5, "uncertain": 1, "missing": 0},
        "edema": {"positive": 0, "negative": 0, "uncertain": 0, "missing": 7},
    }


def test_regions_that_cannot_be_are_found_through_the_reader(regions: Callable[..., Any]) -> None:
    marked = {"annotation": "0" * 64}
    reader, dataset = regions(*[marked] * 5, {})
    reader.regions = {
        "0": (Box("opacity", 0.1, 0.1, 0.9, 0.9),),
        "1": (Box("opacity", 0.1, 0.1, 0.3, 0.3), Box("opacity", 0.8, 0.1, 0.3, 0.3)),
        "2": DataError("row 3: the runs overrun the image."),
        "3": (Box("opacity", 0.1, 0.1, 0.0, 0.3),),
    }
    reader.masks = {"4": np.zeros((8, 8, 2), np.uint8)}

    def prepare(whole: OpenDataset) -> Decoded:
        decode(whole.reader, whole.samples, 32, whole.root.parent / "store")
        return Decoded.open(whole.root.parent / "store")

    report = audit(dataset, prepare)
    assert kinds(report) == [("error", "annotation", name) for name in "1234"]
    assert [f.sample for f in cheap(dataset).findings] == ["1", "2", "3"]  # masks are not unpacked
    counts = {name: report.counts[name] for name in ("boxes", "rows", "positive", "negative")}
    assert counts == {"boxes": 4, "rows": 7, "positive": 3, "negative": 3}


def test_counts_are_compared_with_every_published_version(regions: Callable[..., Any]) -> None:
    published = {
        "1.0": {"images": 3, "studies": 2, "train": 2},
        "2.0": {"images": 4, "studies": 2, "trainval": 4, "unheard": 9},
    }
    splits = ("train", "train", "val", "val")
    samples = [{"split": split, "study": f"s{n}", "patient": f"p{n // 2}"} for n, split in
               enumerate(splits)]  # fmt: skip
    _, dataset = regions(*samples, published=published)
    (drift,) = audit(dataset).findings
    assert (drift.kind, drift.severity) == ("version-drift", "warning")
    assert "1.0: images 3 (here 4), studies 2 (here 4)" in drift.message
    published["2.0"]["studies"] = 4
    assert "version 2.0" in audit(dataset).findings[0].message
    assert audit(dataset).findings[0].kind == "version"
    (said,) = audit(replace(dataset, track="phantom")).findings
    assert (said.kind, said.severity) == ("phantom", "info")
    assert "images 3 (here 4)" in said.message


def test_studies_are_counted_by_patient_and_files_by_image(regions: Callable[..., Any]) -> None:
    _, dataset = regions(
        {"patient": "a", "study": "study1"}, {"patient": "b", "study": "study1"},
        {"patient": "a", "study": "study1", "files": (Path("0.png"), Path("1.png"))},
    )  # fmt: skip
    counts = module.count(dataset)
    assert (counts["samples"], counts["images"], counts["studies"]) == (3, 4, 2)


def test_long_lists_are_cut_and_counted(regions: Callable[..., Any]) -> None:
    _, dataset = regions(*[{"age": 130.0}] * 5, {"text": ""})
    module_most = module.MOST
    try:
        module.MOST = 3
        report = audit(dataset)
    finally:
        module.MOST = module_most
    assert [f.sample for f in report.findings] == ["5", "0", "1", "2", None]
    assert "And 2 more of kind age; 3 are listed." in report.findings[-1].message


def test_a_dataset_that_cannot_be_opened_is_one_finding() -> None:
    report = unopened("nih-chestxray14", Path("/data/nih"), DataError("No column 'Age'."))
    assert not report.ok
    assert report.findings == (Finding("layout", "error", None, "/data/nih", "No column 'Age'."),)


def test_a_hundred_thousand_rows_are_looked_at_in_seconds(tmp_path: Path) -> None:
    names = [f"label-{n}" for n in range(14)]
    samples = [
        Sample(str(n), f"p{n // 3}", (), labels=dict.fromkeys(names, n % 2), study="s", age=50.0)
        for n in range(100_000)
    ]
    dataset = OpenDataset(SPEC, tmp_path, Regions(tmp_path), samples, "real", None)
    started = time.process_time()
    module.count(dataset)
    list(module._values(dataset))
    list(module._own_splits(dataset))
    assert time.process_time() - started < 4


def test_damage_is_told_from_its_sound_neighbours(pairs: Pairs) -> None:
    (pairs.root / "images" / "1.png").write_bytes(b"x")
    dataset = pairs.open()
    with pytest.raises(DamagedSamples) as caught:
        pairs.prepare(dataset)
    assert len(caught.value.sound) == 11


def test_picture_of_the_tests_is_what_it_says() -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(1)).save(buffer, "PNG")
    assert picture(1).std() > 20
    np.testing.assert_array_equal(picture(1), picture(1))
    assert not np.array_equal(picture(1), picture(2))
