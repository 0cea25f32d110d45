"""Opening a dataset: find its reader, list its samples, say whether it is real or a phantom."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

from medbench.data import dicom
from medbench.data.manifest import Manifest, build_manifest, fingerprint
from medbench.data.samples import Corpus, Reader, Sample
from medbench.errors import DataError, MedbenchError, PluginError
from medbench.schemas.specs import DatasetSpec

#: Lies in the root of every phantom dataset.
PHANTOM_FILE = "medbench-phantom.json"

_SAMPLED = 8


@dataclass(frozen=True, eq=False)
class OpenDataset:
    """A dataset that has been found, listed and recognised.

    Attributes:
        spec: what its plugin says about it.
        root: as given.
        reader: decodes its samples.
        samples: all of them.
        track: "phantom" if any evidence says that pixels were rendered.
        renderer: version and preset of the phantom's renderer, where they are known.
        limited: a phantom that was written with fewer samples than its preset has.
    """

    spec: DatasetSpec
    root: Path
    reader: Reader
    samples: Sequence[Sample]
    track: Literal["real", "phantom"]
    renderer: str | None
    limited: bool = False

    @cached_property
    def manifest(self) -> Manifest:
        """Over all samples with their own splits. Portable."""
        return build_manifest(self.spec.name, self.samples, renderer=self.renderer)

    @cached_property
    def fingerprint(self) -> str:
        """State of the files on this machine, for caches."""
        return fingerprint(self.samples, self.root)

    @property
    def patients(self) -> int:
        """Number of patients; a sample without one counts as its own."""
        return len({s.patient for s in self.samples if s.patient}) + sum(
            not s.patient for s in self.samples
        )

    def corpus(self, samples: Sequence[Sample] | None = None) -> Corpus:
        """The dataset, or some of its samples, as a training corpus."""
        if samples is None:
            samples, manifest = self.samples, self.manifest
        else:
            manifest = build_manifest(self.spec.name, samples, renderer=self.renderer)
        return Corpus(self.spec.name, samples, self.reader, manifest.sha256, self.track)


def open_dataset(spec: DatasetSpec, root: Path) -> OpenDataset:
    """Open the dataset at ``root`` with its spec's reader.

    Raises:
        DataError: the folder is missing, empty or not in the dataset's layout; no samples;
            duplicate sample ids.
        PluginError: the reader cannot be imported, or fails with anything but a DataError.
    """
    root = Path(root)
    reader_class = _reader_class(spec)
    try:
        reader = reader_class(root)
        samples = tuple(reader.samples())
    except (MedbenchError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        raise PluginError(
            f"The reader of dataset '{spec.name}' ({spec.reader}) failed on {root}: "
            f"{type(error).__name__}: {error}."
        ) from error
    if not samples:
        raise DataError(f"{root} holds no samples of dataset '{spec.name}'.")
    doubled = [name for name, count in Counter(s.id for s in samples).items() if count > 1]
    if doubled:
        raise DataError(
            f"{root}: {len(doubled):,} sample ids occur more than once, such as '{doubled[0]}'. "
            "Ids are unique in a dataset."
        )
    track, renderer, limited = _track(root, samples)
    return OpenDataset(spec, root, reader, samples, track, renderer, limited)


def _reader_class(spec: DatasetSpec) -> type[Reader]:
    module, _, name = spec.reader.partition(":")
    try:
        return cast("type[Reader]", getattr(importlib.import_module(module), name))
    # A plugin's module may raise anything while it is imported.
    except Exception as error:
        raise PluginError(
            f"The reader of dataset '{spec.name}' ({spec.reader}) cannot be imported: {error}."
        ) from error


def _track(
    root: Path, samples: Sequence[Sample]
) -> tuple[Literal["real", "phantom"], str | None, bool]:
    """By the phantom file, else by the headers of a few DICOM files, so that phantoms that were
    copied out of their folder are still not taken for patients."""
    for folder in _around(root, samples):
        path = folder / PHANTOM_FILE
        if path.is_file():
            return "phantom", *_marker(path)
    step = max(1, len(samples) // _SAMPLED)
    for sample in (*samples[::step], samples[-1]):
        first = sample.files[0] if sample.files else None
        if first is not None and dicom.is_dicom(first) and dicom.says_phantom(first):
            return "phantom", None, False
    return "real", None, False


def _around(root: Path, samples: Sequence[Sample]) -> list[Path]:
    """``root`` and the folders from it down to the first sample's file."""
    folder = root if root.is_dir() else root.parent
    folders = [folder]
    if samples[0].files:
        try:
            parts = samples[0].files[0].parent.relative_to(folder).parts
        except ValueError:
            parts = ()
        for part in parts:
            folders.append(folders[-1] / part)
    return folders


def _marker(path: Path) -> tuple[str | None, bool]:
    """Renderer as ``version/preset``, and whether fewer samples than the preset's were written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Write the phantom again with `medbench data phantom`."
        ) from error
    if not isinstance(content, dict) or "renderer" not in content:
        return None, False
    parts = [str(content[key]) for key in ("renderer", "preset") if key in content]
    return "/".join(parts), content.get("limit") is not None
