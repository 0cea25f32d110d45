"""What a result was measured on: a portable manifest, and a fingerprint for one machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medbench.data.samples import Sample
from medbench.errors import DataError

SCHEMA = "medbench.manifest/1"


@dataclass(frozen=True)
class Manifest:
    """Binds sample ids, patients, splits, labels, texts, regions and the renderer's version.

    Equal on every machine that holds the same data: no paths, no times, no pixels.
    """

    content: Mapping[str, Any]

    @property
    def json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, ASCII."""
        return json.dumps(self.content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @property
    def sha256(self) -> str:
        """Hash of `json`, hexadecimal."""
        return hashlib.sha256(self.json.encode()).hexdigest()


def build_manifest(
    dataset: str,
    samples: Sequence[Sample],
    *,
    renderer: str | None = None,
    splits: Mapping[str, str | int] | None = None,
) -> Manifest:
    """The manifest of some samples of a dataset. Their order does not matter.

    Args:
        dataset: its name.
        samples: with unique ids.
        renderer: version of the phantom's renderer; None for real data.
        splits: sample id to split or fold, for every sample; the samples' own splits by default.

    Raises:
        DataError: duplicate ids; a sample without an assignment in ``splits``.
    """
    rows: list[dict[str, Any]] = []
    for sample in sorted(samples, key=lambda sample: sample.id):
        if rows and rows[-1]["id"] == sample.id:
            raise DataError(f"Dataset {dataset} has two samples called '{sample.id}'.")
        if splits is not None and sample.id not in splits:
            raise DataError(f"Sample '{sample.id}' of {dataset} is in no split.")
        row: dict[str, Any] = {
            "id": sample.id,
            "patient": sample.patient,
            "kind": sample.kind,
            "split": sample.split if splits is None else splits[sample.id],
            "labels": dict(sample.labels),
            "text_sha256": None if sample.text is None else _sha256(sample.text),
        }
        for name in ("study", "view", "age", "sex", "annotation"):  # where the dataset says
            if (value := getattr(sample, name)) is not None:
                row[name] = value
        rows.append(row)
    return Manifest({"schema": SCHEMA, "dataset": dataset, "renderer": renderer, "samples": rows})


def fingerprint(samples: Iterable[Sample], root: Path) -> str:
    """Hash of name, size and time of change of every file: tells one machine's caches whether the
    data they were made from has changed. Reads no file.

    Raises:
        DataError: a file has gone.
    """
    digest = hashlib.sha256()
    base = os.path.join(root if root.is_dir() else root.parent, "")
    for sample in sorted(samples, key=lambda sample: sample.id):
        digest.update(f"\n{sample.id}\n".encode())
        for name in sorted(map(str, sample.files)):
            try:
                status = os.stat(name)
            except OSError as error:
                raise DataError(
                    f"{name} of sample '{sample.id}' cannot be found: {error.strerror}. Was the "
                    "dataset moved or changed meanwhile?"
                ) from error
            relative = name.removeprefix(base)
            digest.update(f"{relative}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
