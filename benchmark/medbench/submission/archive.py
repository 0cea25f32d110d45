"""A stranger's zip file, read as bytes in memory and never unpacked to disk.

Everything that the directory of the archive says is held against limits before an entry is read,
and the directory itself before `zipfile` parses it.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from types import TracebackType

from medbench.submission.problems import RefusedError

#: Bytes of the archive, of one entry, and of all entries unpacked.
MOST_PACKED, MOST_ENTRY, MOST_UNPACKED = 256 * 2**20, 128 * 2**20, 512 * 2**20
#: Entries: a hundred runs have about five files each.
MOST_ENTRIES = 1_000
#: How many times its packed size an entry may unpack to. JSON packs about 5 times.
MOST_RATIO = 100

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}(/[A-Za-z0-9][A-Za-z0-9._-]{0,199})*\Z")
_END = struct.Struct("<4s4H2LH")


class Archive:
    """The entries of a zip file that passed every limit.

    Raises RefusedError (kinds not-a-zip, truncated, too-large, too-many-entries, encrypted,
    compression, path, link, duplicate-entry, bomb) before anything is unpacked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._check_end()
        try:
            self._zip = zipfile.ZipFile(path)
        # zipfile decodes and seeks by what the file says, and may raise anything on the way
        except Exception as error:
            raise RefusedError("truncated", f"{path.name} cannot be read: {error}.") from error
        try:
            self._check_entries()
        except RefusedError:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        return self._zip.namelist()

    def read(self, name: str) -> bytes:
        """The bytes of an entry. Raises RefusedError (damaged)."""
        size = self._zip.getinfo(name).file_size
        try:
            with self._zip.open(name) as stream:
                data = stream.read(size + 1)
        except Exception as error:
            raise RefusedError("damaged", f"Entry '{name}' cannot be unpacked: {error}.") from error
        if len(data) != size:
            raise RefusedError("damaged", f"Entry '{name}' is not of the size that it states.")
        return data

    def _check_end(self) -> None:
        """The last 22 bytes: how many entries there are, and that nothing else is in the file."""
        size, name = self.path.stat().st_size, self.path.name
        if size > MOST_PACKED:
            raise RefusedError("too-large", f"{name} has {size:,} bytes; {MOST_PACKED:,} are read.")
        with self.path.open("rb") as stream:
            head = stream.read(4)
            stream.seek(max(0, size - _END.size))
            tail = stream.read()
        if head not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise RefusedError("not-a-zip", f"{name} is not a zip archive.")
        if len(tail) != _END.size or tail[:4] != b"PK\x05\x06":
            raise RefusedError(
                "truncated", f"{name} does not end as a zip archive does: it is cut short."
            )
        _, disk, first, here, entries, directory, offset, _ = _END.unpack(tail)
        if entries > MOST_ENTRIES:
            raise RefusedError(
                "too-many-entries", f"{name} has {entries:,} entries; {MOST_ENTRIES:,} are read."
            )
        if disk or first or here != entries or offset + directory + _END.size != size:
            raise RefusedError(
                "truncated", f"The directory of {name} does not fit the file: part is missing."
            )
        if directory > MOST_ENTRIES * 1024:
            raise RefusedError("too-large", f"The directory of {name} has {directory:,} bytes.")
        self._entries = entries

    def _check_entries(self) -> None:
        infos, size = self._zip.infolist(), self.path.stat().st_size
        if len(infos) != self._entries:
            raise RefusedError(
                "truncated", f"{self.path.name} lists {len(infos)} of {self._entries} entries."
            )
        for info in infos:
            _check_entry(info)
        twice = [name for name, count in Counter(i.filename for i in infos).items() if count > 1]
        if twice:
            raise RefusedError("duplicate-entry", f"Entry '{twice[0]}' occurs more than once.")
        total = sum(info.file_size for info in infos)
        if total > MOST_UNPACKED:
            raise RefusedError(
                "too-large", f"Unpacked there are {total:,} bytes; {MOST_UNPACKED:,} are read."
            )
        if sum(info.compress_size for info in infos) > size:
            raise RefusedError("bomb", "Entries overlap: together they are larger than the file.")


def _check_entry(info: zipfile.ZipInfo) -> None:
    name = info.filename
    # orig_filename: zipfile cuts names at a zero byte
    if not _NAME.match(name) or name != info.orig_filename:
        raise RefusedError(
            "path",
            f"Entry {info.orig_filename!r} has no plain relative name (letters, digits, '.', '_' "
            "and '-', folders parted by '/').",
        )
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or info.is_dir():
        raise RefusedError("link", f"Entry '{name}' is no regular file.")
    if info.flag_bits & 0x41:
        raise RefusedError("encrypted", f"Entry '{name}' is encrypted.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RefusedError(
            "compression", f"Entry '{name}' is neither stored nor deflated: {info.compress_type}."
        )
    if info.file_size > MOST_RATIO * max(1, info.compress_size):
        raise RefusedError(
            "bomb",
            f"Entry '{name}' unpacks from {info.compress_size:,} to {info.file_size:,} bytes, more "
            f"than {MOST_RATIO} times.",
        )
    if info.file_size > MOST_ENTRY:
        raise RefusedError(
            "too-large", f"Entry '{name}' has {info.file_size:,} bytes; {MOST_ENTRY:,} are read."
        )


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    """Write entries in the order of their names; equal files give equal bytes. What packs more
    than `MOST_RATIO` times, such as empty masks, is stored as it is."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            data = files[name]
            # a fixed date and mode: zip files carry both
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            tight = len(zlib.compress(data, 6)) * MOST_RATIO <= 2 * len(data)
            info.compress_type = zipfile.ZIP_STORED if tight else zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
