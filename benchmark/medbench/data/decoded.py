"""A store of decoded samples: read once from the dataset's files, mapped into memory after."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medbench.data.images import THUMBNAIL, Advance, Bytes, read, resize, thumbnail
from medbench.data.samples import Pixels, Reader, Sample
from medbench.errors import DataError, StorageError

SCHEMA = "medbench.decoded/1"
INDEX = "index.json"
SLICES = "slices.bin"
THUMBNAILS = "thumbnails.npy"


def decode(
    reader: Reader,
    samples: Sequence[Sample],
    size: int,
    folder: Path,
    advance: Advance | None = None,
) -> None:
    """Decode all samples to squares of ``size``, and thumbnails, and write them into ``folder``.

    One sample is in memory at a time. The pass goes to the end even when samples are damaged, so
    that all of them are reported at once. ``index.json`` is written last: a folder without it
    holds nothing.

    Args:
        reader: decodes the samples.
        samples: pictures or volumes; a picture is a volume of one slice.
        size: side of the squares, in pixels.
        folder: made if needed; files of an earlier store in it are replaced.
        advance: called with samples done and their total.

    Raises:
        DataError: damaged samples, counted, the first five named.
        StorageError: the store cannot be written.
    """
    rows: list[dict[str, Any]] = []
    damaged: list[str] = []
    offset = 0
    digest = hashlib.sha256()
    thumbnails = np.zeros((len(samples), THUMBNAIL, THUMBNAIL), np.float32)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        with (folder / SLICES).open("wb") as file:
            for done, sample in enumerate(samples, start=1):
                try:
                    source = _hash_files(sample)
                    full = read(reader, sample)
                    thumbnails[done - 1] = thumbnail(full)
                    pixels = resize(full, size)
                except DataError as error:
                    damaged.append(str(error))
                else:
                    if sample.kind == "image":
                        pixels = pixels[None]
                    if not damaged:
                        data = memoryview(np.ascontiguousarray(pixels)).cast("B")
                        file.write(data)
                        digest.update(data)
                    rows.append(
                        {
                            "id": sample.id,
                            "offset": offset,
                            "shape": list(pixels.shape),
                            "source_sha256": source,
                        }
                    )
                    offset += pixels.nbytes
                if advance is not None:
                    advance(done, len(samples))
        if damaged:
            (folder / SLICES).unlink()
        else:
            np.save(folder / THUMBNAILS, thumbnails)
            _write_index(folder, size, offset, digest.hexdigest(), rows)
    except OSError as error:
        raise StorageError(
            f"Decoded samples cannot be written to {folder}: {error.strerror or error}. Free some "
            "space, or choose another folder."
        ) from error
    if damaged:
        more = f" And {len(damaged) - 5:,} more." if len(damaged) > 5 else ""
        raise DataError(
            f"{len(damaged):,} of {len(samples):,} samples cannot be read. "
            f"{' '.join(damaged[:5])}{more}"
        )


class Decoded:
    """Samples that `decode` wrote, mapped into memory.

    ``decoded[i]`` is uint8 [S, size, size] or [S, size, size, 3], read-only, S = 1 for a picture.
    """

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder = folder
        self.size = int(index["size"])
        self.ids: list[str] = [row["id"] for row in index["samples"]]
        self.source_sha256: dict[str, str] = {
            row["id"]: row["source_sha256"] for row in index["samples"]
        }
        self._sha256 = str(index["sha256"])
        self._places = [(int(r["offset"]), tuple(r["shape"])) for r in index["samples"]]
        self._data: Bytes = (
            np.memmap(folder / SLICES, np.uint8, "r")
            if index["bytes"]
            else np.zeros(0, np.uint8)  # an empty file cannot be mapped
        )

    @classmethod
    def open(cls, folder: Path, samples: Sequence[Sample] | None = None) -> Decoded:
        """Open a store.

        Args:
            folder: what `decode` wrote.
            samples: if given, the store must hold just these, in this order.

        Raises:
            DataError: incomplete or damaged, or of other samples. Decode again.
        """
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if index["schema"] != SCHEMA:
                raise ValueError(f"schema {index['schema']}")
            actual = (folder / SLICES).stat().st_size
            if actual != index["bytes"]:
                raise ValueError(f"{SLICES} has {actual:,} bytes, not {index['bytes']:,}")
            decoded = cls(folder, index)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"The decoded samples in {folder} are incomplete or damaged: {error}. Remove the "
                "folder; they are made again from the dataset."
            ) from error
        if samples is not None and decoded.ids != [sample.id for sample in samples]:
            raise DataError(
                f"The decoded samples in {folder} are not those asked for ({len(decoded.ids):,} "
                f"held, {len(samples):,} wanted). Remove the folder; they are made again."
            )
        return decoded

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Bytes:
        offset, shape = self._places[index]
        return self._data[offset : offset + int(np.prod(shape))].reshape(shape)

    @property
    def thumbnails(self) -> Pixels:
        """float32 [N, 32, 32] in [0, 1]: the mean slice of each sample, for the pixel baseline."""
        found: Pixels = np.load(self.folder / THUMBNAILS, allow_pickle=False)
        return found

    @property
    def slices(self) -> list[int]:
        """Number of slices of each sample."""
        return [shape[0] for _, shape in self._places]

    def verify(self) -> None:
        """Compare the content with its recorded hash. Reads everything.

        Raises:
            DataError: it has changed since it was written.
        """
        digest = hashlib.sha256()
        step = 2**24
        for start in range(0, len(self._data), step):
            digest.update(memoryview(self._data[start : start + step]))
        if digest.hexdigest() != self._sha256:
            raise DataError(
                f"The decoded samples in {self.folder} have changed since they were written. "
                "Remove the folder; they are made again from the dataset."
            )


def _hash_files(sample: Sample) -> str:
    """Hash of names, sizes and bytes of a sample's files."""
    digest = hashlib.sha256()
    for path in sorted(sample.files):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"Sample '{sample.id}': {path} cannot be read: {error.strerror}."
            ) from error
        digest.update(f"{path.name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def _write_index(
    folder: Path, size: int, total: int, sha256: str, rows: list[dict[str, Any]]
) -> None:
    content = {
        "schema": SCHEMA,
        "size": size,
        "bytes": total,
        "sha256": sha256,
        "samples": rows,
    }
    temporary = folder / f".{INDEX}.{os.getpid()}"
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(folder / INDEX)
