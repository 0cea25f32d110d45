"""Prepared images: what is kept, what is verified, what a kill costs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from counting_reader import CountingReader, make

from medbench.data import decoded as module
from medbench.data.decoded import DamagedSamples, Decoded, decode
from medbench.data.images import resize, thumbnail, to_tensor
from medbench.data.samples import Pixels, Sample
from medbench.errors import DataError, StorageError


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def chunks_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_SAMPLES", 4)


def test_a_store_gives_back_what_the_readers_gave(tmp_path: Path) -> None:
    reader, samples = make(tmp_path, ["1 3 9 9", "0.2 1 9 9"], "volume")
    colour = Sample("c", None, (tmp_path / "c.txt",))
    colour.files[0].write_text("1 8 8 3")
    steps: list[int] = []
    decode(reader, [*samples, colour], 8, tmp_path / "store", lambda done, *_: steps.append(done))
    store = Decoded.open(tmp_path / "store", [*samples, colour])
    assert [store[i].shape for i in range(len(store))] == [(3, 8, 8), (1, 8, 8), (1, 8, 8, 3)]
    assert store.slices == [3, 1, 1]
    assert steps == [1, 2, 3]
    assert int(store[1][0, 4, 4]) == 51
    assert isinstance(store[0].base, np.memmap)
    assert not store[0].flags.writeable
    assert torch.equal(to_tensor(store[0]), torch.ones(3, 3, 8, 8))
    assert len(set(store.source_sha256.values())) == 3
    assert store.thumbnails.shape == (3, 32, 32)
    np.testing.assert_allclose(store.thumbnails[1], 0.2, atol=1e-6)
    store.verify()
    assert sorted(content(tmp_path / "store")) == ["index.json", "slices.bin", "thumbnails.bin"]


def test_equal_pictures_have_equal_hashes_whatever_their_files(tmp_path: Path) -> None:
    reader, samples = make(tmp_path, ["1 8 8", "1.0 8 8", "1 8 9", "0.9 8 8"])
    decode(reader, samples, 4, tmp_path / "store")
    store = Decoded.open(tmp_path / "store")
    assert store.pixels_sha256[0] == store.pixels_sha256[1]
    assert len(set(store.pixels_sha256)) == 3
    assert len(set(store.source_sha256.values())) == 4


class Noise(CountingReader):
    """Pictures that all differ; the first take longest, so that threads finish out of order."""

    def pixels(self, sample: Sample) -> Pixels:
        number = int(sample.id[1:])
        time.sleep(0.003 * (8 - number % 8))
        self.decoded[sample.id] += 1
        return np.random.default_rng(number).random((40, 30), np.float32)


def test_any_number_of_threads_writes_the_same_bytes(tmp_path: Path, chunks_of_four: None) -> None:
    _, samples = make(tmp_path, ["x"] * 21)
    for workers in (1, 5):
        decode(Noise(tmp_path), samples, 16, tmp_path / str(workers), workers=workers)
    assert content(tmp_path / "1") == content(tmp_path / "5")
    store = Decoded.open(tmp_path / "5")
    full = np.random.default_rng(13).random((40, 30), np.float32)
    np.testing.assert_array_equal(store[13][0], resize(full, 16))
    np.testing.assert_array_equal(store.thumbnails[13], thumbnail(full))


def test_some_samples_are_taken_in_any_order_without_a_copy(tmp_path: Path) -> None:
    _, samples = make(tmp_path, ["x"] * 6)
    decode(Noise(tmp_path), samples, 16, tmp_path / "store")
    store = Decoded.open(tmp_path / "store")
    some = store.take([samples[4], samples[1]])
    assert (len(some), some.ids, some.size, some.slices) == (2, ["s4", "s1"], 16, [1, 1])
    np.testing.assert_array_equal(some[0], store[4])
    assert np.shares_memory(some[0], store[4])
    np.testing.assert_array_equal(some.thumbnails, store.thumbnails[[4, 1]])
    assert some.pixels_sha256 == [store.pixels_sha256[4], store.pixels_sha256[1]]
    assert list(some.source_sha256) == ["s4", "s1"]
    assert some.source_sha256["s1"] == store.source_sha256["s1"]
    again = some.take([samples[1]])
    np.testing.assert_array_equal(again[0], store[1])
    some.verify()
    with pytest.raises(DataError, match="lack 1 of 2 asked for, such as 's0'"):
        some.take([samples[1], samples[0]])


def test_memory_does_not_grow_with_the_number_of_volumes(tmp_path: Path) -> None:
    peaks = []
    for workers, number in ((1, 12), (2, 12), (2, 36)):
        folder = tmp_path / f"{workers}-{number}"
        folder.mkdir()
        reader, samples = make(folder, ["0.5 16 128 128"] * number, "volume")  # 1 MiB as float32
        tracemalloc.start()
        decode(reader, samples, 128, folder / "store", workers=workers)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert peaks[0] < 4
    assert peaks[1] < 10
    assert peaks[2] < 10


def test_all_damaged_samples_are_reported_together(tmp_path: Path) -> None:
    reader, samples = make(tmp_path, ["1 8 8"] + ["damaged"] * 7)
    gone = Sample("gone", None, (tmp_path / "gone.txt",))
    with pytest.raises(
        DamagedSamples, match=r"^8 of 9 samples cannot be read\..*'s5'.*And 3 more\.$"
    ) as caught:
        decode(reader, [*samples, gone], 8, tmp_path / "store")
    assert sum(reader.decoded.values()) == 8  # the pass went on to the end
    assert [entry.sample for entry in caught.value.damage] == [
        *(f"s{n}" for n in range(1, 8)),
        "gone",
    ]
    assert caught.value.damage[-1].path == str(tmp_path / "gone.txt")
    assert caught.value.sound.ids == ["s0"]
    assert int(caught.value.sound[0].max()) == 255
    with pytest.raises(DataError, match="incomplete"):
        Decoded.open(tmp_path / "store")


def test_what_the_system_refuses_is_damage_of_that_sample(tmp_path: Path) -> None:
    class Refused(CountingReader):
        def pixels(self, sample: Sample) -> Pixels:
            raise PermissionError(13, "Permission denied", str(sample.files[0]))

    _, samples = make(tmp_path, ["1 8 8"])
    with pytest.raises(DataError, match=r"Sample 's0': .*Permission denied.*0\.txt"):
        decode(Refused(tmp_path), samples, 8, tmp_path / "store")


def test_an_interrupted_pass_goes_on_from_its_last_chunk(
    tmp_path: Path, chunks_of_four: None
) -> None:
    class Interrupted(Noise):
        def pixels(self, sample: Sample) -> Pixels:
            if sample.id == "s9":
                raise KeyboardInterrupt
            return super().pixels(sample)

    _, samples = make(tmp_path, ["x"] * 14)
    scratch = tmp_path / "scratch"
    threads = threading.active_count()  # other tests may have left some
    with pytest.raises(KeyboardInterrupt):
        decode(Interrupted(tmp_path), samples, 16, tmp_path / "a", scratch=scratch, workers=3)
    assert threading.active_count() == threads
    reader = Noise(tmp_path)
    steps: list[tuple[int, int, str]] = []
    decode(reader, samples, 16, tmp_path / "b", lambda *step: steps.append(step), scratch)
    assert sorted(reader.decoded) == sorted(f"s{n}" for n in range(8, 14))
    assert steps[0] == (8, 14, "kept from before")
    assert steps[-1][:2] == (14, 14)
    assert steps[-1][2].endswith("/s")
    decode(Noise(tmp_path), samples, 16, tmp_path / "unbroken")
    assert content(tmp_path / "b") == content(tmp_path / "unbroken")


@pytest.fixture
def broken_off(tmp_path: Path, chunks_of_four: None) -> tuple[list[Sample], Path]:
    """Fourteen samples, and what a pass over them left that was killed at its very end, in chunks
    of 4, 4, 4 and 2. The store "a" is that of an unbroken one."""
    _, samples = make(tmp_path, ["x"] * 14)
    decode(Noise(tmp_path), samples, 16, tmp_path / "a", scratch=tmp_path / "own")
    shutil.copytree(tmp_path / "own", tmp_path / "scratch")
    return samples, tmp_path / "scratch"


@pytest.mark.parametrize(
    ("harm", "redone"),
    [
        ("nothing", 0),
        ("pixel in the second chunk", 10),
        ("thumbnails cut short", 2),
        ("half a line at the end", 2),
        ("pixels without a line", 2),
        ("no pixels at all", 14),
        ("another size", 14),
    ],
)
def test_only_chunks_that_are_as_they_were_written_are_kept(
    tmp_path: Path, broken_off: tuple[list[Sample], Path], harm: str, redone: int
) -> None:
    samples, scratch = broken_off
    slices, journal = scratch / "slices.bin", scratch / "chunks.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    if harm == "pixel in the second chunk":
        data = bytearray(slices.read_bytes())
        data[5 * 256] ^= 1
        slices.write_bytes(data)
    elif harm == "thumbnails cut short":
        os.truncate(scratch / "thumbnails.bin", 13 * 4096)
    elif harm == "half a line at the end":
        journal.write_text("".join(lines)[:-20])
    elif harm == "pixels without a line":
        journal.write_text("".join(lines[:-1]))
    elif harm == "no pixels at all":
        slices.unlink()
    size = 24 if harm == "another size" else 16
    reader = Noise(tmp_path)
    decode(reader, samples, size, tmp_path / "b", scratch=scratch)
    assert sum(reader.decoded.values()) == redone
    Decoded.open(tmp_path / "b", samples).verify()
    if size == 16:
        assert content(tmp_path / "b") == content(tmp_path / "a")


def test_chunks_of_other_samples_are_not_taken_and_their_store_stays_as_it_is(
    tmp_path: Path, broken_off: tuple[list[Sample], Path]
) -> None:
    samples, _ = broken_off
    reader = Noise(tmp_path)
    decode(reader, samples[::-1], 16, tmp_path / "b", scratch=tmp_path / "own")
    assert sum(reader.decoded.values()) == 14
    Decoded.open(tmp_path / "a", samples).verify()
    np.testing.assert_array_equal(Decoded.open(tmp_path / "b")[13], Decoded.open(tmp_path / "a")[0])


def test_a_second_look_at_damage_reads_the_damaged_alone(
    tmp_path: Path, chunks_of_four: None
) -> None:
    reader, samples = make(tmp_path, ["1 8 8"] * 5 + ["damaged"] + ["1 8 8"] * 8)
    scratch = tmp_path / "scratch"
    for _ in range(2):
        with pytest.raises(DamagedSamples) as caught:
            decode(reader, samples, 8, tmp_path / "store", scratch=scratch)
        assert len(caught.value.sound) == 13
    assert sorted(reader.decoded.values()) == [1] * 13 + [2]
    samples[5].files[0].write_text("1 8 8")
    decode(reader, samples, 8, tmp_path / "store", scratch=scratch)
    assert Decoded.open(tmp_path / "store", samples).slices == [1] * 14
    assert [reader.decoded[f"s{n}"] for n in (0, 3, 4, 5, 13)] == [1, 1, 2, 4, 2]


SLOW = """
import sys, time
from pathlib import Path
import numpy as np
from medbench.data import decoded
from medbench.data.samples import Sample
decoded.CHUNK_SAMPLES = 4
class Slow:
    def pixels(self, sample):
        time.sleep(0.02)
        return np.random.default_rng(int(sample.id)).random((40, 30), np.float32)
root = Path(sys.argv[1])
samples = [Sample(str(n), None, ()) for n in range(120)]
decoded.decode(Slow(), samples[:int(sys.argv[2])], 16, root / sys.argv[3], None, root / "scratch")
"""


def test_a_killed_pass_goes_on_and_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW, str(tmp_path), "120"]
    victim = subprocess.Popen([*command, "a"])
    journal = tmp_path / "scratch" / "chunks.jsonl"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_text().count("\n") > 4):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    kept = [json.loads(line) for line in journal.read_text().splitlines()[1:] if line.endswith("}")]
    assert 4 <= len(kept) < 30
    before = journal.stat().st_size
    subprocess.run([*command, "b"], check=True)
    assert journal.stat().st_size > before
    shutil.rmtree(tmp_path / "scratch")
    subprocess.run([*command, "unbroken"], check=True)
    for name in ("slices.bin", "thumbnails.bin", "index.json"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


def test_a_store_of_other_samples_or_cut_short_is_refused(tmp_path: Path) -> None:
    reader, samples = make(tmp_path, ["1 8 8", "1 8 8"])
    decode(reader, samples, 8, tmp_path / "store")
    with pytest.raises(DataError, match="not those asked for"):
        Decoded.open(tmp_path / "store", samples[::-1])
    slices = tmp_path / "store" / "slices.bin"
    held = slices.read_bytes()
    slices.write_bytes(held[:-1])
    with pytest.raises(DataError, match="127 bytes, not 128"):
        Decoded.open(tmp_path / "store")
    slices.write_bytes(held[:-1] + b"\0")
    with pytest.raises(DataError, match="changed"):
        Decoded.open(tmp_path / "store").verify()


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        decode(*make(tmp_path, ["1 8 8"]), 8, tmp_path / "file" / "store")


def test_a_disk_without_room_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, samples = make(tmp_path, ["1 8 8"] * 3)
    full = shutil.disk_usage(tmp_path)._replace(free=3 * (64 + 4096) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(StorageError, match=r"3 samples at 8 px need at least .* MEDBENCH_HOME"):
        decode(reader, samples, 8, tmp_path / "store")
    assert not reader.decoded


def test_an_empty_store_can_be_opened(tmp_path: Path) -> None:
    decode(CountingReader(tmp_path), [], 8, tmp_path / "store")
    store = Decoded.open(tmp_path / "store")
    assert (len(store), store.ids, store.thumbnails.shape) == (0, [], (0, 32, 32))
    store.verify()
