"""Image-text pairs: any CSV or Parquet table of images and their texts.

Columns: ``image`` (a path relative to the table's folder) and ``text``; optional ``patient``,
``split`` and ``id``. This is how users bring their own training corpus. A folder as Hugging Face's
``datasets`` lays it out is read too (`medbench.data.hugging_face`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medbench.data import dicom, hugging_face, pictures
from medbench.data.samples import Pixels, Sample
from medbench.errors import DataError
from medbench.phantom.hounsfield import LUNG_WINDOW

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".csv", ".parquet", ".pq")
COLUMNS = ("image", "text")
OPTIONAL = ("patient", "split", "id")

#: A volume with values below this is CT in Hounsfield units (air is -1000). Other modalities are
#: not negative, or a little so after resampling or standardisation.
HOUNSFIELD_BELOW = -200.0


class ImageTextPairs:
    """Reader of a table of image-text pairs.

    ``root`` is the table, or a folder that holds exactly one, or a folder of Hugging Face's:
    images with a metadata file, or Parquet shards with the images inside. Pictures are PNG or JPEG
    (8 or 16 bit grey, or colour) and DICOM files; volumes are NIfTI files and folders of DICOM
    files.
    """

    def __init__(self, root: Path) -> None:
        root = Path(root)
        self._metadata = hugging_face.metadata_of(root)
        self._shards: hugging_face.Shards | None = None
        if self._metadata:
            self.table, self.root = self._metadata[0], root
        elif shards := hugging_face.shards_of(root):
            self._shards = hugging_face.Shards(root, shards)
            self.table, self.root = shards[0], self._shards.root
        else:
            self.table = _table(root)
            self.root = self.table.parent
        self._samples: tuple[Sample, ...] | None = None

    def samples(self) -> Sequence[Sample]:
        """One sample per row, in the table's order. The id defaults to the image path.

        Raises:
            DataError: missing columns, empty texts, paths that leave the folder or do not exist,
                duplicate ids; with row numbers, counted from 1 below the header.
        """
        if self._samples is None:
            self._samples = tuple(self._list())
        return self._samples

    def pixels(self, sample: Sample) -> Pixels:
        """float32 in [0, 1]: [H, W] or [H, W, 3] for a picture, [S, H, W] for a volume.

        Pictures are scaled by their bit depth, DICOM as `medbench.data.dicom.read_image` says.
        Volumes that hold values below -200 are taken for Hounsfield units and shown in the lung
        window; others are scaled from their lowest value, or 0 if that is lower, to their highest.

        Raises:
            DataError: the file is damaged or of an unknown kind.
        """
        first = sample.files[0]
        if self._shards is not None:
            content = self._shards.content(self._inside_shard[sample.id])
            return pictures.read_picture(first, colour=True, content=content)
        if sample.kind == "image":
            if dicom.is_dicom(first):
                return dicom.read_image(first)
            return pictures.read_picture(first, colour=True)
        if dicom.is_dicom(first):
            values = dicom.read_series(sample.files, hounsfield=False)
        else:
            values = pictures.read_nifti(first)
        return _scale_volume(values)

    def _list(self) -> Iterable[Sample]:
        if self._shards is not None:
            columns = _columns(self._shards.columns, self.table)
        elif self._metadata:
            columns = _columns(hugging_face.read_metadata(self.root, self._metadata), self.table)
        else:
            columns = _read_columns(self.table)
        paths, texts = columns["image"], columns["text"]
        if not paths:
            raise DataError(f"{self.table} has no rows. Each row is an image and its text.")
        self._refuse("no image path", [n for n, path in enumerate(paths) if not path])
        self._refuse("no text", [n for n, text in enumerate(texts) if not text])
        if self._shards is not None:
            return self._of_shards(self._shards, columns)
        relative = [_inside(self.root, path) for path in paths]
        self._refuse(
            "an image path outside the table's folder (.. or absolute)",
            [n for n, path in enumerate(relative) if path is None],
            paths,
        )
        inside = [path for path in relative if path is not None]
        folders = _Folders(self.root)
        files, kinds = folders.files, folders.kind
        self._refuse(
            "a missing image file", [n for n, path in enumerate(inside) if not kinds(path)], paths
        )
        self._refuse(
            "an image of unknown kind (known: png, jpg, dcm, nii, nii.gz, a folder of dcm)",
            [n for n, path in enumerate(inside) if kinds(path) == "unknown"],
            paths,
        )
        ids = [given or path for given, path in zip(columns["id"], inside, strict=True)]
        counts = Counter(ids)
        self._refuse(
            "an id that another row has too (without a column 'id' it is the image path)",
            [n for n, name in enumerate(ids) if counts[name] > 1],
            ids,
        )
        return [
            Sample(
                id=ids[n],
                patient=columns["patient"][n] or None,
                files=files(path),
                text=texts[n],
                split=columns["split"][n] or None,
                kind="volume" if kinds(path) == "volume" else "image",
            )
            for n, path in enumerate(inside)
        ]

    def _of_shards(
        self, shards: hugging_face.Shards, columns: dict[str, list[str]]
    ) -> list[Sample]:
        images = columns["image"]
        ids = [given or image for given, image in zip(columns["id"], images, strict=True)]
        counts = Counter(ids)
        doubled = [n for n, name in enumerate(ids) if counts[name] > 1]
        self._refuse("an id that another row has too", doubled, ids)
        self._inside_shard = dict(zip(ids, images, strict=True))
        return [
            Sample(
                id=ids[n],
                patient=columns["patient"][n] or None,
                files=(shards.path(image),),
                text=columns["text"][n],
                split=columns["split"][n] or None,
            )
            for n, image in enumerate(images)
        ]

    def _refuse(self, what: str, rows: list[int], values: Sequence[str] | None = None) -> None:
        if not rows:
            return
        named = "; ".join(
            f"row {row + 1}" + (f" '{values[row]}'" if values is not None else "")
            for row in rows[:5]
        )
        more = f"; and {len(rows) - 5:,} more" if len(rows) > 5 else ""
        count = "1 row has" if len(rows) == 1 else f"{len(rows):,} rows have"
        raise DataError(
            f"{self.table}: {count} {what}: {named}{more} (rows counted from 1 below the header). "
            "Correct or remove them."
        )


class _Folders:
    """What the named paths are, from one listing per folder instead of one stat per row."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, dict[str, bool]] = {}

    def kind(self, path: str) -> Literal["", "image", "volume", "unknown"]:
        """``path`` is relative and normal; "" when it does not exist."""
        folder, _, name = path.rpartition("/")
        is_folder = self._list(folder).get(name)
        if is_folder is None:
            return ""
        if is_folder:
            return "volume" if self.files(path) else "unknown"
        lower = name.lower()
        if lower.endswith(pictures.VOLUMES):
            return "volume"
        return "image" if lower.endswith((*pictures.SUFFIXES, *dicom.SUFFIXES)) else "unknown"

    def files(self, path: str) -> tuple[Path, ...]:
        """The file itself, or the DICOM files of a folder, by name."""
        folder, _, name = path.rpartition("/")
        if not self._list(folder).get(name):
            return (self.root / path,)
        return tuple(
            self.root / path / entry
            for entry, is_folder in sorted(self._list(path).items())
            if not is_folder
            and entry.lower().endswith(dicom.SUFFIXES)
            and not entry.startswith(".")  # droppings of file managers
        )

    def _list(self, folder: str) -> dict[str, bool]:
        """Names in a folder, and whether each is a folder itself; empty when it does not exist."""
        known = self._listed.get(folder)
        if known is None:
            try:
                with os.scandir(self.root / folder) as entries:
                    known = {entry.name: entry.is_dir() for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                known = {}
            except OSError as error:
                raise DataError(
                    f"{self.root / folder} cannot be listed: {error.strerror}."
                ) from error
            self._listed[folder] = known
        return known


def _table(root: Path) -> Path:
    if not root.exists():
        raise DataError(
            f"{root} does not exist. Give a CSV or Parquet file with columns image and text, or "
            "the folder that holds it."
        )
    if root.is_file():
        if root.suffix.lower() not in TABLES:
            raise DataError(f"{root} is neither a CSV nor a Parquet file.")
        return root
    found = sorted(
        path
        for path in root.iterdir()
        if path.suffix.lower() in TABLES and path.is_file() and not path.name.startswith(".")
    )
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:5]) or "none"
        raise DataError(
            f"{root} must hold exactly one CSV or Parquet file; found: {names}. Give the path of "
            "the table itself."
        )
    return found[0]


def _read_columns(table: Path) -> dict[str, list[str]]:
    """Known columns as stripped strings; missing values and missing optional columns as ""."""
    import pandas as pd

    wanted = (*COLUMNS, *OPTIONAL)
    try:
        if table.suffix.lower() == ".csv":
            # As text: an id 007 keeps its zeros, and a report that reads "None" is not missing.
            frame = pd.read_csv(
                table,
                dtype=str,
                keep_default_na=False,
                usecols=lambda name: name.strip().lower() in wanted,
                encoding="utf-8-sig",
            )
        else:
            frame = pd.read_parquet(table)
    # pandas and pyarrow raise many types for damaged tables.
    except Exception as error:
        raise DataError(f"{table} cannot be read as a table: {error}.") from error
    return _columns(frame.rename(columns=lambda name: str(name).strip().lower()), table)


def _columns(frame: pd.DataFrame, table: Path) -> dict[str, list[str]]:
    """Known columns of a table with lower-case names, as `_read_columns` gives them."""
    wanted = (*COLUMNS, *OPTIONAL)
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(
            f"{table} has no column {' and no column '.join(missing)}. Needed: image, text; "
            "optional: patient, split, id."
        )
    doubled = [name for name in wanted if list(frame.columns).count(name) > 1]
    if doubled:
        raise DataError(f"{table} has more than one column called {', '.join(doubled)}.")
    return {
        name: _strings(frame[name]) if name in frame.columns else [""] * len(frame)
        for name in wanted
    }


def _strings(column: pd.Series[Any]) -> list[str]:
    if column.dtype.kind == "f":
        # Parquet turns whole numbers with gaps into floats: patient 12.0 is patient 12.
        return ["" if v != v else str(int(v)) if v == int(v) else str(v) for v in column.tolist()]
    gaps = column.isna().tolist()
    return [
        "" if gap else str(value).strip() for value, gap in zip(column.tolist(), gaps, strict=True)
    ]


def _inside(root: Path, path: str) -> str | None:
    """``path`` as a normal path relative to ``root``; None when it leaves it.

    Judged by its words alone: a link that the owner of the folder put there is followed.
    """
    if "\0" in path:
        return None
    if path.startswith("/") or os.path.isabs(path):
        path = os.path.relpath(path, os.path.abspath(root))
    elif path[0] != "." and "/." not in path and "//" not in path:
        return path.rstrip("/")  # the common case, already normal
    normal = os.path.normpath(path)
    return None if normal in (".", "..") or normal.startswith("../") else normal


def _scale_volume(values: Pixels) -> Pixels:
    low, high = float(values.min()), float(values.max())
    if low < HOUNSFIELD_BELOW:
        return dicom.to_window(values, LUNG_WINDOW)
    low = min(low, 0.0)
    return dicom.to_window(values, (low, high)) if high > low else np.zeros_like(values)
