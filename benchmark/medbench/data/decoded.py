"""Prepared images: every sample decoded once, resized, and mapped into memory after.

Decoding is what training on radiographs waits for: a JPEG of eight million pixels takes a fifth of
a second, its prepared copy some microseconds. So each file is decoded once for each size. The work
is done in chunks, several samples at a time, and a chunk that is finished is kept: a killed pass
goes on where it was. A store is four files::

    slices.bin        the pixels, one sample after the other
    thumbnails.bin    float32 [N, 32, 32], what the pixel baseline and the audit see
    index.json        ids, slices and hashes; written last, without it there is no store
    chunks.jsonl      while it is made: a line for each finished chunk
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medbench.data.images import THUMBNAIL, Bytes, joined, read, resize, thumbnail, to_bytes
from medbench.data.samples import Pixels, Reader, Sample
from medbench.errors import DataError, StorageError

if TYPE_CHECKING:
    import torch

SCHEMA = "medbench.decoded/2"
INDEX = "index.json"
SLICES = "slices.bin"
THUMBNAILS = "thumbnails.bin"
CHUNKS = "chunks.jsonl"

#: A chunk ends at either: it is what a kill can cost.
CHUNK_SAMPLES = 512
CHUNK_BYTES = 64 * 2**20

_THUMBNAIL_BYTES = 4 * THUMBNAIL**2

#: Called with samples done, their total, and how fast it goes.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Damage:
    """A sample that cannot be decoded: its id, its file (or the first of them), what is wrong."""

    sample: str
    path: str
    message: str


class DamagedSamples(DataError):
    """Some samples cannot be decoded.

    Attributes:
        damage: all of them, in the order of the samples.
        sound: all others, decoded. Not a store: it lives until the next pass over these samples.
    """

    def __init__(self, damage: Sequence[Damage], sound: Decoded, total: int) -> None:
        more = f" And {len(damage) - 5:,} more." if len(damage) > 5 else ""
        super().__init__(
            f"{len(damage):,} of {total:,} samples cannot be read. "
            f"{' '.join(d.message for d in damage[:5])}{more}"
        )
        self.damage = tuple(damage)
        self.sound = sound


def decode(
    reader: Reader,
    samples: Sequence[Sample],
    size: int,
    folder: Path,
    advance: Progress | None = None,
    scratch: Path | None = None,
    workers: int | None = None,
) -> None:
    """Decode all samples to squares of ``size``, and thumbnails, and write them into ``folder``.

    As many samples as there are workers are in memory at a time. The pass goes to the end even
    when samples are damaged, so that all of them are reported at once.

    Args:
        reader: decodes the samples; its ``pixels`` is called from several threads.
        samples: pictures or volumes; a picture is a volume of one slice.
        size: side of the squares, in pixels.
        folder: made if needed; files of an earlier store in it are replaced.
        advance: called after each sample.
        scratch: a folder that only passes over just these files at this size use, on the disk of
            ``folder``. What an interrupted pass left there is verified and gone on from.
        workers: threads; by default one for each core, at most 16. Decoders, resampling and
            hashing all release Python's lock.

    Raises:
        DamagedSamples: samples that cannot be read.
        StorageError: the store cannot be written, or there is too little room for it.
    """
    work = folder if scratch is None else scratch
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        chunks = [] if scratch is None else _finished(work, samples, size)
        chunks = _while_damage_stands(chunks, reader, samples)
        _cut(work, size, chunks)
        _require_room(work, samples[_count(chunks) :], size)
        chunks += _remaining(reader, samples, size, work, chunks, advance, workers or _cores())
        damage = [d for chunk in chunks for d in chunk.damage]
        if not damage:
            if folder != work:
                for name in (SLICES, THUMBNAILS):
                    _link(work / name, folder / name)
            _write_atomically(folder / INDEX, json.dumps(_index(size, chunks)))
            if folder == work:
                (work / CHUNKS).unlink()
            return
    except OSError as error:
        raise StorageError(
            f"Decoded samples cannot be written to {folder}: {error.strerror or error}. Free some "
            "space, or choose another folder."
        ) from error
    everything = Decoded(_Files(work, _index(size, chunks)))
    bad = {d.sample for d in damage}
    sound = everything.take([sample for sample in samples if sample.id not in bad])
    raise DamagedSamples(damage, sound, len(samples))


class Decoded:
    """Samples that `decode` wrote, mapped into memory; or some of them (`take`).

    ``decoded[i]`` is uint8 [S, size, size] or [S, size, size, 3], read-only, S = 1 for a picture.

    Attributes:
        folder: where they are.
        size: side of the squares, in pixels.
        ids: of the samples, in order.
    """

    def __init__(self, files: _Files, rows: npt.NDArray[np.int64] | None = None) -> None:
        self._files = files
        self._rows = np.arange(len(files.ids)) if rows is None else rows
        self.folder = files.folder
        self.size = files.size
        self.ids = files.ids if rows is None else [files.ids[row] for row in rows]

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
            decoded = cls(_Files(folder, index))
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

    def take(self, samples: Sequence[Sample]) -> Decoded:
        """Just these samples, in this order: the same files, no copy.

        Raises:
            DataError: one of them is not held.
        """
        wanted = [sample.id for sample in samples]
        if wanted == self.ids:
            return self
        places = dict(zip(self.ids, self._rows.tolist(), strict=True))
        missing = [name for name in wanted if name not in places]
        if missing:
            raise DataError(
                f"The decoded samples in {self.folder} lack {len(missing):,} of {len(wanted):,} "
                f"asked for, such as '{missing[0]}'. Remove the folder; they are made again."
            )
        return Decoded(self._files, np.array([places[name] for name in wanted], np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    def stack(self, rows: Sequence[int]) -> torch.Tensor:
        """Slices of some samples, uint8 [B, S, S], or [B, S, S, 3] where one is in colour; an image
        is one slice. What `medbench.models.prefetch.Pictures` asks for."""
        return joined([self[row] for row in rows])

    def __getitem__(self, index: int) -> Bytes:
        return self._files.pixels(int(self._rows[index]))

    @property
    def thumbnails(self) -> Pixels:
        """float32 [N, 32, 32] in [0, 1]: the mean slice of each sample, for the pixel baseline."""
        found: Pixels = self._files.thumbnails[self._rows]
        return np.asarray(found)

    @property
    def slices(self) -> list[int]:
        """Number of slices of each sample."""
        found: list[int] = self._files.slices[self._rows].tolist()
        return found

    @property
    def source_sha256(self) -> dict[str, str]:
        """Sample id to the hash of its files."""
        hashes = self._files.index["source_sha256"]
        return {name: hashes[row] for name, row in zip(self.ids, self._rows.tolist(), strict=True)}

    @property
    def pixels_sha256(self) -> list[str]:
        """Of each sample: SHA-256 of its pixels at their own size, in 8 bits."""
        hashes = self._files.index["pixels_sha256"]
        return [hashes[row] for row in self._rows.tolist()]

    def verify(self) -> None:
        """Compare the content with its recorded hashes. Reads everything.

        Raises:
            DataError: it has changed since it was written.
        """
        chunks = [
            (int(n), int(size), str(sha256)) for n, size, sha256 in self._files.index["chunks"]
        ]
        if _sound(self._files.folder, chunks) != len(chunks):
            raise DataError(
                f"The decoded samples in {self.folder} have changed since they were written. "
                "Remove the folder; they are made again from the dataset."
            )


class _Files:
    """The mapped files of a store and its index."""

    def __init__(self, folder: Path, index: Mapping[str, Any]) -> None:
        self.folder = folder
        self.index = index
        self.size = int(index["size"])
        self.ids: list[str] = index["ids"]
        self.slices = np.array(index["slices"], np.int64)
        self._channels = np.ones(len(self.ids), np.int64)
        self._channels[np.array(index["colour"], np.int64)] = 3
        ends = np.cumsum(self.slices * self._channels) * self.size**2
        self._starts = np.concatenate([np.zeros(1, np.int64), ends])
        self._data: Bytes = _map(folder / SLICES, np.uint8, (int(self._starts[-1]),))
        self.thumbnails: Pixels = _map(
            folder / THUMBNAILS, np.float32, (len(self.ids), THUMBNAIL, THUMBNAIL)
        )

    def pixels(self, row: int) -> Bytes:
        flat = self._data[self._starts[row] : self._starts[row + 1]]
        shape = (int(self.slices[row]), self.size, self.size)
        return flat.reshape(shape if self._channels[row] == 1 else (*shape, 3))


def _map(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A file as an array. Raises ValueError when its size is another."""
    expected = int(np.prod(shape)) * np.dtype(kind).itemsize
    actual = path.stat().st_size
    if actual != expected:
        raise ValueError(f"{path.name} has {actual:,} bytes, not {expected:,}")
    if not expected:
        return np.zeros(shape, kind)  # an empty file cannot be mapped
    return np.memmap(path, kind, "r", shape=shape)


@dataclass(frozen=True)
class _Prepared:
    """One decoded sample."""

    pixels: Bytes
    thumbnail: Pixels
    source_sha256: str
    pixels_sha256: str


@dataclass
class _Chunk:
    """Samples whose pixels are on disk: a line of ``chunks.jsonl``. A damaged one has 0 slices."""

    ids: list[str] = field(default_factory=list)
    slices: list[int] = field(default_factory=list)
    colour: list[bool] = field(default_factory=list)
    source_sha256: list[str] = field(default_factory=list)
    pixels_sha256: list[str] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    bytes: int = 0
    sha256: str = ""

    def add(self, sample: Sample, result: _Prepared | Damage) -> None:
        self.ids.append(sample.id)
        if isinstance(result, Damage):
            self.damage.append(result)
            self.slices.append(0)
            self.colour.append(False)
            self.source_sha256.append("")
            self.pixels_sha256.append("")
            return
        self.slices.append(len(result.pixels))
        self.colour.append(result.pixels.ndim == 4)
        self.source_sha256.append(result.source_sha256)
        self.pixels_sha256.append(result.pixels_sha256)
        self.bytes += result.pixels.nbytes

    @classmethod
    def parse(cls, line: str) -> _Chunk:
        content = json.loads(line)
        content["damage"] = [Damage(**entry) for entry in content["damage"]]
        return cls(**content)


def _prepare(reader: Reader, sample: Sample, size: int) -> _Prepared | Damage:
    try:
        source = _hash_files(sample)
        full = read(reader, sample)
    except (DataError, OSError) as error:
        message = str(error) if isinstance(error, DataError) else f"Sample '{sample.id}': {error}."
        named = [str(path) for path in sample.files if str(path) in message]
        return Damage(sample.id, (named or [*map(str, sample.files), ""])[0], message)
    small = thumbnail(full)
    whole = to_bytes(full)
    digest = hashlib.sha256(repr(whole.shape).encode())
    digest.update(memoryview(np.ascontiguousarray(whole)).cast("B"))
    pixels = resize(whole, size)
    if sample.kind == "image":
        pixels = pixels[None]
    return _Prepared(np.ascontiguousarray(pixels), small, source, digest.hexdigest())


def _remaining(
    reader: Reader,
    samples: Sequence[Sample],
    size: int,
    work: Path,
    before: Sequence[_Chunk],
    advance: Progress | None,
    workers: int,
) -> list[_Chunk]:
    """Decode what is in no chunk yet, and write it, chunk by chunk."""
    first = done = _count(before)
    chunks: list[_Chunk] = []
    started = time.perf_counter()
    chunk, digest, smalls = _Chunk(), hashlib.sha256(), b""
    if advance is not None and first:
        advance(first, len(samples), "kept from before")
    with (
        (work / SLICES).open("ab") as slices,
        (work / THUMBNAILS).open("ab") as thumbnails,
        (work / CHUNKS).open("a", encoding="utf-8") as journal,
        closing(
            _in_order(lambda sample: _prepare(reader, sample, size), samples[first:], workers)
        ) as results,
    ):
        for sample, result in zip(samples[first:], results, strict=True):
            chunk.add(sample, result)
            small = np.zeros((THUMBNAIL, THUMBNAIL), np.float32)
            if isinstance(result, _Prepared):
                small = result.thumbnail
                data = memoryview(result.pixels).cast("B")
                slices.write(data)
                digest.update(data)
            smalls += small.tobytes()
            done += 1
            full = len(chunk.ids) >= CHUNK_SAMPLES or chunk.bytes >= CHUNK_BYTES
            if full or done == len(samples):
                thumbnails.write(smalls)
                digest.update(smalls)
                chunk.sha256 = digest.hexdigest()
                for file in (slices, thumbnails):
                    file.flush()
                    os.fsync(file.fileno())
                journal.write(json.dumps(asdict(chunk)) + "\n")
                journal.flush()
                chunks.append(chunk)
                chunk, digest, smalls = _Chunk(), hashlib.sha256(), b""
            if advance is not None:
                rate = (done - first) / max(time.perf_counter() - started, 1e-9)
                advance(done, len(samples), f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
    return chunks


def _in_order(
    function: Callable[[Sample], _Prepared | Damage], samples: Iterable[Sample], workers: int
) -> Generator[_Prepared | Damage, None, None]:
    """The results in order, computed by threads, a few ahead of what is asked for."""
    if workers == 1:
        yield from map(function, samples)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[_Prepared | Damage]] = deque()
    try:
        for sample in samples:
            waiting.append(pool.submit(function, sample))
            if len(waiting) > workers + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also after Ctrl-C: what has not begun is dropped
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(work: Path, samples: Sequence[Sample], size: int) -> list[_Chunk]:
    """The chunks that an earlier pass over these samples finished, as far as they are sound."""
    work.mkdir(parents=True, exist_ok=True)
    chunks: list[_Chunk] = []
    try:
        with (work / CHUNKS).open(encoding="utf-8") as journal:
            if next(journal, "") != _header(size):
                return []
            for line in journal:
                chunks.append(_Chunk.parse(line))
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        pass  # a kill cut the last line short; what stands before it counts
    ids = [sample.id for sample in samples]
    if [name for chunk in chunks for name in chunk.ids] != ids[: _count(chunks)]:
        return []
    kept = _sound(work, [(len(chunk.ids), chunk.bytes, chunk.sha256) for chunk in chunks])
    return chunks[:kept]


def _sound(folder: Path, chunks: Sequence[tuple[int, int, str]]) -> int:
    """How many chunks, from the first, are on disk as they were written.

    Args:
        folder: with `SLICES` and `THUMBNAILS`.
        chunks: of each: samples, bytes of pixels, and the hash of pixels and thumbnails.
    """
    try:
        with (folder / SLICES).open("rb") as slices, (folder / THUMBNAILS).open("rb") as small:
            for kept, (count, size, sha256) in enumerate(chunks):
                digest = hashlib.sha256(slices.read(size))
                digest.update(small.read(count * _THUMBNAIL_BYTES))
                if digest.hexdigest() != sha256:
                    return kept
    except OSError:
        return 0
    return len(chunks)


def _while_damage_stands(
    chunks: list[_Chunk], reader: Reader, samples: Sequence[Sample]
) -> list[_Chunk]:
    """The chunks up to the first with a damaged sample that can be read by now.

    So a second look at a damaged dataset takes seconds, and a disk that was away for a moment
    does not stay "damaged".
    """
    by_id = {sample.id: sample for sample in samples} if any(c.damage for c in chunks) else {}
    for kept, chunk in enumerate(chunks):
        for entry in chunk.damage:
            if not isinstance(_prepare(reader, by_id[entry.sample], 1), Damage):
                return chunks[:kept]
    return chunks


def _cut(work: Path, size: int, chunks: Sequence[_Chunk]) -> None:
    """Bring the files in ``work`` to the state after these chunks."""
    lines = [json.dumps(asdict(chunk)) + "\n" for chunk in chunks]
    _write_atomically(work / CHUNKS, "".join([_header(size), *lines]))
    for name, length in (
        (SLICES, sum(chunk.bytes for chunk in chunks)),
        (THUMBNAILS, _count(chunks) * _THUMBNAIL_BYTES),
    ):
        path = work / name
        if path.exists() and path.stat().st_nlink > 1:  # a finished store has it too: leave it that
            copy = path.with_name(f".{name}.{os.getpid()}")
            shutil.copyfile(path, copy)
            copy.replace(path)
        with path.open("ab") as file:
            file.truncate(length)


def _header(size: int) -> str:
    return json.dumps({"schema": SCHEMA, "size": size}) + "\n"


def _count(chunks: Sequence[_Chunk]) -> int:
    return sum(len(chunk.ids) for chunk in chunks)


def _index(size: int, chunks: Sequence[_Chunk]) -> dict[str, Any]:
    def column(name: str) -> list[Any]:
        return [value for chunk in chunks for value in getattr(chunk, name)]

    return {
        "schema": SCHEMA,
        "size": size,
        "ids": column("ids"),
        "slices": column("slices"),
        "colour": [row for row, coloured in enumerate(column("colour")) if coloured],
        "source_sha256": column("source_sha256"),
        "pixels_sha256": column("pixels_sha256"),
        "chunks": [[len(chunk.ids), chunk.bytes, chunk.sha256] for chunk in chunks],
    }


def _require_room(work: Path, samples: Sequence[Sample], size: int) -> None:
    """Refuse before hours of work what the disk cannot hold. Volumes count by their files."""
    slices = sum(len(sample.files) if sample.kind == "volume" else 1 for sample in samples)
    needed = slices * size**2 + len(samples) * _THUMBNAIL_BYTES
    free = shutil.disk_usage(work).free
    if needed > free:
        raise StorageError(
            f"{len(samples):,} samples at {size} px need at least {needed / 1e9:.1f} GB in {work}, "
            f"and {free / 1e9:.1f} GB are free. Free some space, or set MEDBENCH_HOME to another "
            "disk."
        )


def _cores() -> int:
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)


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


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, so that a kill between two of them loses nothing."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
