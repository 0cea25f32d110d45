"""Folders of images and captions as Hugging Face's ``datasets`` lays them out.

Two layouts: images beside a ``metadata.csv``, ``.jsonl`` or ``.parquet`` with a column
``file_name`` (an "image folder"), at the top or in a folder for each split; and Parquet shards that
hold the images themselves, a column ``image`` of structs with ``bytes``. Splits are told by the
names of folders or shards. Nothing of ``datasets`` is needed, and no file is copied or converted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from medbench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
#: Names of a column with the text, the first that is there.
TEXTS = ("text", "caption", "report")
SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "val",
    "valid": "val",
    "val": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
#: Row groups of shards that are held at once; images are read in order.
HELD = 4


def metadata_of(root: Path) -> list[Path]:
    """The metadata files of an image folder: at the top, or up to two folders below; else none."""
    if not root.is_dir():
        return []
    for depth in _depths(root):
        found = [path for name in METADATA for path in sorted(root.glob(depth + name))]
        found = [path for path in found if "file_name" in _frame(path, rows=1).columns]
        if found:
            return found
    return []


def shards_of(root: Path) -> list[Path]:
    """The Parquet files with images inside: ``root`` itself, or those of a folder at the top or up
    to two folders below; else none."""
    if root.is_file():
        return [root] if root.suffix == ".parquet" and _holds_images(root) else []
    for depth in _depths(root):
        found = [path for path in sorted(root.glob(depth + "*.parquet")) if _holds_images(path)]
        if found:
            return found
    return []


def _depths(root: Path) -> tuple[str, ...]:
    """Where to look: below the top only when no table is there, as there may be a folder for each
    of many patients."""
    if not root.is_dir():
        return ()
    tables = any(path.suffix.lower() in (".csv", ".parquet", ".pq") for path in root.iterdir())
    return ("",) if tables else ("", "*/", "*/*/")


def split_of(root: Path, path: Path) -> str:
    """What the nearest folder or file name says of the split; "" when none does."""
    for name in reversed(path.relative_to(root).parts):
        word = name.lower().split(".")[0].split("-")[0]
        if word in SPLITS:
            return SPLITS[word]
    return ""


def read_metadata(root: Path, tables: Sequence[Path]) -> pd.DataFrame:
    """Columns image (relative to ``root``), text and what else there is, of all tables.

    Raises:
        DataError: a table is damaged, or has no column with a text.
    """
    import pandas as pd

    frames = []
    for table in tables:
        frame = _named(_frame(table), table)
        folder = table.parent.relative_to(root)
        missing = frame["file_name"].isna()
        frame["image"] = [
            "" if gap else (folder / str(name).strip()).as_posix()
            for name, gap in zip(frame["file_name"], missing, strict=True)
        ]
        if "split" not in frame.columns:
            frame["split"] = split_of(root, table) or [
                split_of(root, (root / path).parent) for path in frame["image"]
            ]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


class Shards:
    """Parquet files with images inside; ``columns`` has what is beside the images, and for each row
    its ``image``: "shard#row", which `content` takes."""

    def __init__(self, root: Path, shards: Sequence[Path]) -> None:
        import pandas as pd

        self.root = root if root.is_dir() else root.parent
        frames = []
        for shard in shards:
            frame = _named(_frame(shard, but="image"), shard)
            name = shard.relative_to(self.root).as_posix()
            frame["image"] = [f"{name}#{row}" for row in range(len(frame))]
            if "split" not in frame.columns:
                frame["split"] = split_of(self.root, shard)
            frames.append(frame)
        self.columns = pd.concat(frames, ignore_index=True)
        self._groups: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        """For another process: what is open or held stays here."""
        return {"root": self.root, "columns": self.columns}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _groups=OrderedDict(), _lock=Lock())

    def path(self, image: str) -> Path:
        """The shard that holds an image."""
        return self.root / image.rpartition("#")[0]

    def content(self, image: str) -> bytes:
        """The bytes of an image's file. Raises DataError where they are missing or damaged."""
        import pyarrow.parquet as pq

        name, _, number = image.rpartition("#")
        try:
            with self._lock, pq.ParquetFile(self.root / name) as shard:
                row = int(number)
                group = 0
                while row >= (rows := shard.metadata.row_group(group).num_rows):
                    row, group = row - rows, group + 1
                held = self._groups.pop((name, group), None)
                if held is None:
                    held = shard.read_row_group(group, columns=["image"])["image"]
                self._groups[name, group] = held
                while len(self._groups) > HELD:
                    self._groups.popitem(last=False)
            value = held[row].as_py()
        # pyarrow raises many types for damaged files
        except Exception as error:
            raise DataError(f"{self.root / name} cannot be read: {error}.") from error
        content = (value or {}).get("bytes")
        if not content:
            raise DataError(
                f"{self.root / name}: row {int(number) + 1} holds no image. A shard that names "
                "files elsewhere is not read: save the dataset with its images inside."
            )
        return bytes(content)


def _named(frame: pd.DataFrame, table: Path) -> pd.DataFrame:
    """The frame with lower-case names, and its text under ``text``."""
    frame = frame.rename(columns=lambda name: str(name).strip().lower())
    found = [name for name in TEXTS if name in frame.columns]
    if not found:
        raise DataError(
            f"{table} has no column with a text. One of these is needed: {', '.join(TEXTS)}."
        )
    return frame.rename(columns={found[0]: "text"})


def _frame(table: Path, rows: int | None = None, but: str = "") -> pd.DataFrame:
    """A table, or its first rows, text as it stands. ``but``: a column that is left out."""
    import pandas as pd

    try:
        if table.suffix == ".csv":
            read: pd.DataFrame = pd.read_csv(
                table, dtype=str, keep_default_na=False, nrows=rows, encoding="utf-8-sig"
            )
            return read
        if table.suffix == ".jsonl":
            # a chunk of the file is enough for its first rows
            return pd.read_json(table, lines=True, nrows=rows, dtype=False)
        import pyarrow.parquet as pq

        shard = pq.ParquetFile(table)
        names = [name for name in shard.schema_arrow.names if name != but]
        found = shard.schema_arrow.empty_table() if rows else shard.read(columns=names)
        frame: pd.DataFrame = found.to_pandas()
        return frame
    # pandas and pyarrow raise many types for damaged tables
    except Exception as error:
        raise DataError(f"{table} cannot be read as a table: {error}.") from error


def _holds_images(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return False  # another reader says what is wrong with it
    if "image" not in schema.names:
        return False
    kind = schema.field("image").type
    return pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]
