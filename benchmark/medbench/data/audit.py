"""Audit: is a dataset what it is said to be, and fit to train and test on?

The cheap part reads no pixel: counts against the published ones, patients on both sides of a
split, impossible values, files that are missing, empty or named by nobody. The whole part decodes
every sample once, through the prepared images, and looks for the same picture twice.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medbench.data.dataset import OpenDataset
from medbench.data.decoded import DamagedSamples, Decoded
from medbench.data.samples import Annotates, Sample
from medbench.errors import DataError

SCHEMA = "medbench.audit/1"

#: Findings of one kind that are listed; the others are counted.
MOST = 1000

#: What an image file is called.
IMAGES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".nii", ".nii.gz")

#: The greatest age that is believed, in years.
OLDEST = 120

_LABELS = frozenset((1, 0, -1, None))

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Attributes:
        kind: in one or two words, such as "patient-overlap".
        severity: "error": training must not start; "warning": to be looked at; "info".
        sample: the sample that it is about (the first of several), or None.
        path: the file or folder, or None.
        message: one paragraph.
    """

    kind: str
    severity: Severity
    sample: str | None
    path: str | None
    message: str


@dataclass(frozen=True)
class Report:
    """The outcome of an audit."""

    dataset: str
    counts: Mapping[str, Any]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether training may start: no error."""
        return all(finding.severity != "error" for finding in self.findings)

    def document(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "schema": SCHEMA,
            "dataset": self.dataset,
            "ok": self.ok,
            "counts": dict(self.counts),
            "findings": [asdict(finding) for finding in self.findings],
        }


def audit(dataset: OpenDataset, prepare: Callable[[OpenDataset], Decoded] | None = None) -> Report:
    """Audit a dataset.

    Args:
        dataset: as opened.
        prepare: gives the prepared images of a dataset, at any size; without it, only the cheap
            part is done.

    Returns:
        Counts, and findings with the worst first.
    """
    findings = [*_own_splits(dataset), *_values(dataset), *_regions(dataset, prepare is not None)]
    on_disk, gone = _on_disk(dataset)
    findings += on_disk
    if prepare is not None:
        present = [sample for sample in dataset.samples if sample.id not in gone]
        findings += _pixels(dataset, present, prepare)
    counts = count(dataset)
    findings += _versions(dataset, counts)
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    findings.sort(key=lambda finding: order[finding.severity])
    return Report(dataset.spec.name, counts, tuple(_shortened(findings)))


def cheap(dataset: OpenDataset) -> Report:
    """The part that reads no pixel: what every run looks at."""
    return audit(dataset)


def unopened(dataset: str, root: Path | None, error: DataError) -> Report:
    """The report on a dataset that its reader refuses."""
    path = None if root is None else str(root)
    return Report(dataset, {}, (Finding("layout", "error", None, path, str(error)),))


def leaks(samples: Sequence[Sample], parts: Sequence[str]) -> list[Finding]:
    """Patients on both sides of a division: one error for each two parts that share some.

    Args:
        samples: of the dataset.
        parts: of each sample, the part it is in; "" for one that takes no part.
    """
    places: dict[str, dict[str, Sample]] = defaultdict(dict)
    for sample, part in zip(samples, parts, strict=True):
        if sample.patient and part:
            places[sample.patient].setdefault(part, sample)
    shared: dict[tuple[str, str], list[str]] = defaultdict(list)
    for patient, held in places.items():
        if len(held) > 1:
            names = sorted(held)
            for position, first in enumerate(names):
                for second in names[position + 1 :]:
                    shared[first, second].append(patient)
    return [
        Finding(
            "patient-overlap",
            "error",
            places[patients[0]][first].id,
            _path(places[patients[0]][first]),
            f"{_many(len(patients), 'patient')} on both sides of '{first}' and '{second}', such as "
            f"{', '.join(sorted(patients)[:3])}: a score would be inflated. Divide by patient.",
        )
        for (first, second), patients in sorted(shared.items())
    ]


def count(dataset: OpenDataset) -> dict[str, Any]:
    """What there is.

    Returns:
        ``samples``; then, where there are any, ``images`` (files of pictures), ``volumes``,
        ``patients``, ``studies``, ``texts``; ``boxes``, ``rows`` (one for each box, and one for
        each image without), ``positive`` and ``negative`` (images with and without a box) of
        datasets with regions; ``splits``: name to its images (or volumes), studies and patients;
        ``labels``: name to how many are positive, negative, uncertain, missing.
    """
    samples = dataset.samples
    counts: dict[str, Any] = {"samples": len(samples), **_sizes(samples)}
    counts["texts"] = sum(1 for sample in samples if sample.text)
    if isinstance(dataset.reader, Annotates):
        boxes = [len(_boxes(dataset.reader, sample)) for sample in samples]
        if any(boxes):
            counts["boxes"] = sum(boxes)
            counts["rows"] = sum(max(1, number) for number in boxes)
            counts["positive"] = sum(1 for number in boxes if number)
            counts["negative"] = len(samples) - counts["positive"]
    counts = {name: number for name, number in counts.items() if number or name == "samples"}
    by_split: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_split[sample.split or ""].append(sample)
    counts["splits"] = {name: _sizes(held) for name, held in sorted(by_split.items()) if name}
    values = Counter(chain.from_iterable(sample.labels.items() for sample in samples))
    names = dict.fromkeys(chain.from_iterable(sample.labels for sample in samples))
    said: Counter[str] = Counter()
    for (name, value), number in values.items():
        said[name] += number if value is not None else 0
    words = {"positive": 1, "negative": 0, "uncertain": -1}
    counts["labels"] = {
        name: {word: values[name, value] for word, value in words.items()}
        | {"missing": len(samples) - said[name]}
        for name in names
    }
    return counts


def _sizes(samples: Sequence[Sample]) -> dict[str, int]:
    sizes = {
        "images": sum(len(sample.files) for sample in samples if sample.kind == "image"),
        "volumes": sum(1 for sample in samples if sample.kind == "volume"),
        "patients": len({sample.patient for sample in samples if sample.patient}),
        "studies": len({(s.patient, s.study) for s in samples if s.study}),
    }
    return {name: number for name, number in sizes.items() if number}


def _versions(dataset: OpenDataset, counts: Mapping[str, Any]) -> list[Finding]:
    """Which published version the counts are those of."""
    published = dataset.spec.published
    if not published:
        return []
    splits = {
        name: held.get("images", held.get("volumes", 0)) for name, held in counts["splits"].items()
    }
    here = {**counts, **splits}
    if {"train", "val"} <= splits.keys():
        here["trainval"] = splits["train"] + splits["val"]
    differences = {
        version: {
            name: (number, here[name])
            for name, number in numbers.items()
            if name in here and here[name] != number
        }
        for version, numbers in published.items()
    }
    words = "; ".join(
        f"{version}: "
        + ", ".join(f"{name} {number:,} (here {found:,})" for name, (number, found) in odd.items())
        for version, odd in differences.items()
        if odd
    )
    path = str(dataset.root)
    if dataset.track == "phantom":
        message = "A phantom: smaller than what it stands for."
        if words:
            message += f" Published counts, {words}."
        return [Finding("phantom", "info", None, path, message)]
    compared = [v for v, numbers in published.items() if any(name in here for name in numbers)]
    same = [version for version in compared if not differences[version]]
    if same:
        message = f"Its counts are those of version {' and '.join(same)}."
        return [Finding("version", "info", None, path, message)]
    if not compared:
        return []
    message = (
        f"Its counts are those of no known version. Published, {words}. A part may be missing, or "
        "this is another release: its results cannot be compared with published ones."
    )
    return [Finding("version-drift", "warning", None, path, message)]


def _own_splits(dataset: OpenDataset) -> list[Finding]:
    return leaks(dataset.samples, [sample.split or "" for sample in dataset.samples])


def _values(dataset: OpenDataset) -> Iterator[Finding]:
    """Values that cannot be."""
    for sample in dataset.samples:
        odd: list[tuple[str, object]] = []
        if not _LABELS.issuperset(sample.labels.values()):
            odd = [(name, value) for name, value in sample.labels.items() if value not in _LABELS]
        for name, value in odd:
            yield _about(
                sample, "label", "error",
                f"label '{name}' is {value!r}; it can be 1, 0, -1 (uncertain) or None",
            )  # fmt: skip
        if sample.age is not None and not 0 <= sample.age <= OLDEST:
            yield _about(sample, "age", "warning", f"the patient is {sample.age:g} years old")
        if sample.text is not None and not sample.text.strip():
            yield _about(sample, "empty-text", "error", "its text is empty")


def _regions(dataset: OpenDataset, masks: bool) -> Iterator[Finding]:
    """Boxes and masks that cannot be, by the reader that gives them."""
    if not isinstance(dataset.reader, Annotates):
        return
    for sample in dataset.samples:
        if sample.annotation is None:
            continue
        try:
            boxes = dataset.reader.boxes(sample)
            mask = dataset.reader.mask(sample) if masks else None
        except DataError as error:
            yield Finding("annotation", "error", sample.id, _path(sample), str(error))
            continue
        for box in boxes:
            right, bottom = box.x + box.width, box.y + box.height
            inside = box.x >= 0 and box.y >= 0 and right <= 1 + 1e-6 and bottom <= 1 + 1e-6
            if not (inside and box.width > 0 and box.height > 0):
                yield _about(
                    sample, "annotation", "error",
                    f"its box '{box.label}' ({box.x:g}, {box.y:g}) to ({right:g}, {bottom:g}) is "
                    "not inside the image, whose sides are 1",
                )  # fmt: skip
        if mask is not None and (mask.ndim != 2 or mask.dtype != np.bool_):
            yield _about(
                sample, "annotation", "error",
                f"its mask is {mask.dtype} of shape {mask.shape}, not bool [H, W]",
            )  # fmt: skip


def _boxes(reader: Annotates, sample: Sample) -> Sequence[Any]:
    """The boxes of a sample; none where they are impossible, which `_regions` reports."""
    try:
        return reader.boxes(sample)
    except DataError:
        return ()


def _on_disk(dataset: OpenDataset) -> tuple[list[Finding], set[str]]:
    """Files that are missing, empty or nobody's; and the samples that have a missing one."""
    findings: list[Finding] = []
    root = Path(getattr(dataset.reader, "root", dataset.root))
    held, unlisted = _walk(root if root.is_dir() else root.parent)
    findings += [
        Finding("unreadable", "error", None, str(error.filename), f"{error.filename} cannot be "
                f"listed: {error.strerror}. Mend its permissions, or the link.")
        for error in unlisted
    ]  # fmt: skip
    named: set[str] = set()
    gone: set[str] = set()
    for sample in dataset.samples:
        if not sample.files:
            findings.append(_about(sample, "missing-file", "error", "it has no file"))
            gone.add(sample.id)
        for path in map(str, sample.files):
            named.add(path)
            size = held.get(path)
            if size is None:
                try:
                    size = os.stat(path).st_size
                except OSError as error:
                    why = f"{path} cannot be found: {error.strerror}. Copy it again."
                    findings.append(Finding("missing-file", "error", sample.id, path, why))
                    gone.add(sample.id)
                    continue
            if size == 0:
                why = f"{path} is empty (0 bytes). Copy it again from its source."
                findings.append(Finding("unreadable", "error", sample.id, path, why))
    orphans = [path for path in held if path not in named]
    if orphans:
        real = {os.path.realpath(path) for path in named - held.keys()}
        orphans = sorted(path for path in orphans if not real or os.path.realpath(path) not in real)
    if orphans:
        findings.append(
            Finding(
                "orphan-image",
                "warning",
                None,
                orphans[0],
                f"{_many(len(orphans), 'image file')} under {root} in no sample, such as "
                f"{', '.join(os.path.relpath(path, root) for path in orphans[:3])}: without a "
                "label, a text or a row.",
            )
        )
    return findings, gone


def _walk(root: Path) -> tuple[dict[str, int], list[OSError]]:
    """Image files below a folder with their sizes, and folders that cannot be listed.

    Links are followed; a folder that has been seen is not entered again, so a loop ends. Links
    that lead nowhere are left to the samples that name them.
    """
    files: dict[str, int] = {}
    errors: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                listed = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            errors.append(error)
            continue
        for entry in listed:
            try:
                if entry.is_dir():
                    waiting.append(entry.path)
                elif entry.name.lower().endswith(IMAGES):
                    files[entry.path] = entry.stat().st_size
            except OSError:
                continue
    return files, errors


def _pixels(
    dataset: OpenDataset, samples: Sequence[Sample], prepare: Callable[[OpenDataset], Decoded]
) -> Iterator[Finding]:
    """What decoding shows: damaged files, flat pictures, the same picture twice."""
    from medbench.data.near_duplicates import near_duplicates

    if not samples:
        return
    complete = len(samples) == len(dataset.samples)
    try:
        images = prepare(dataset if complete else replace(dataset, samples=tuple(samples)))
    except DamagedSamples as error:
        for entry in error.damage:
            if not os.path.exists(entry.path) or os.stat(entry.path).st_size:  # else said before
                yield Finding("unreadable", "error", entry.sample, entry.path, entry.message)
        images = error.sound
    by_id = {sample.id: sample for sample in samples}
    sound = [by_id[name] for name in images.ids]
    hashes = images.pixels_sha256
    equal: dict[str, list[int]] = defaultdict(list)
    for index, sha256 in enumerate(hashes):
        equal[sha256].append(index)
    for index in np.flatnonzero(np.ptp(images.thumbnails, axis=(1, 2)) == 0).tolist():
        yield _about(sound[index], "flat-image", "warning", "its picture is of one grey level")
        equal[hashes[index]] = [index]  # that flat pictures are equal says nothing
    for group in equal.values():
        firsts = {sound[index].split: index for index in reversed(group)}
        for other in group[1:]:
            across = [index for split, index in firsts.items() if split != sound[other].split]
            yield _twice("exact-duplicate", sound[[*across, group[0]][0]], sound[other])
    for left, right in near_duplicates(images).tolist():
        if equal[hashes[left]][0] == left and equal[hashes[right]][0] == right:
            yield _twice("near-duplicate", sound[left], sound[right])


def _twice(kind: str, first: Sample, second: Sample) -> Finding:
    """The same picture twice: how bad depends on whether a test could meet what was trained on."""
    looks = "is" if kind == "exact-duplicate" else "looks like"
    severity: Severity = "info"
    where = f"both in split '{first.split}'" if first.split else "without splits of their own"
    if first.split != second.split:
        severity = "error" if kind == "exact-duplicate" else "warning"
        where = f"in splits '{first.split}' and '{second.split}'"
    elif first.patient != second.patient or first.patient is None:
        if not first.split:
            severity = "warning"  # whoever divides by patient may part them
        where += ", of different patients" if first.patient and second.patient else ""
    return Finding(
        kind,
        severity,
        second.id,
        _path(second),
        f"Sample '{second.id}' ({_path(second)}) {looks} the same picture as '{first.id}' "
        f"({_path(first)}), {where}.",
    )


def _shortened(findings: Sequence[Finding]) -> Iterator[Finding]:
    """The first `MOST` of each kind and severity, then how many more there are."""
    totals = Counter((finding.kind, finding.severity) for finding in findings)
    listed: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        key = (finding.kind, finding.severity)
        listed[key] += 1
        if listed[key] <= MOST:
            yield finding
        if listed[key] == totals[key] > MOST:
            more = f"And {totals[key] - MOST:,} more of kind {finding.kind}; {MOST:,} are listed."
            yield replace(finding, sample=None, path=None, message=more)


def _about(sample: Sample, kind: str, severity: Severity, what: str) -> Finding:
    path = _path(sample)
    where = f" ({path})" if path else ""
    return Finding(kind, severity, sample.id, path, f"Sample '{sample.id}'{where}: {what}.")


def _path(sample: Sample) -> str | None:
    return str(sample.files[0]) if sample.files else None


def _many(number: int, what: str) -> str:
    return f"1 {what} is" if number == 1 else f"{number:,} {what}s are"
