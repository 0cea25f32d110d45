"""PNG, JPEG and NIfTI files, for every reader that meets them.

Everything a file can get wrong ends in a `DataError` that names the file. Pillow and nibabel are
imported on use, because listing datasets must not cost their import.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from medbench.data.samples import Pixels
from medbench.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg")
VOLUMES = (".nii", ".nii.gz")
#: What Pillow may take a picture for, whatever it is called: some of its decoders run other
#: programs.
FORMATS = ("PNG", "JPEG", "TIFF")

#: More pixels than this are taken for a decompression bomb: a few kilobytes that unpack to
#: gigabytes. The largest radiographs have about 30 million.
MOST_PIXELS = 80_000_000


def read_picture(path: Path, *, colour: bool = False, content: bytes | None = None) -> Pixels:
    """One PNG or JPEG picture: grey of 8 or 16 bits, palette, or colour.

    An alpha channel is dropped, and the orientation that EXIF asks for is not applied: annotations
    count rows and columns of the file as it is stored.

    Args:
        path: the file.
        colour: keep colour where there is any. Otherwise colour becomes grey (ITU-R BT.601).
        content: the bytes of the picture, where they lie inside ``path``, which errors then name.

    Returns:
        float32 in [0, 1], stored values divided by the largest one of their depth. [H, W]; with
        ``colour`` [H, W, 3] for pictures whose channels differ.

    Raises:
        DataError: the file is missing, empty, cut short, not a picture, larger than
            ``MOST_PIXELS``, or holds values beyond 16 bits.
    """
    from PIL import Image

    try:
        with Image.open(path if content is None else BytesIO(content), formats=FORMATS) as picture:
            pixels = picture.width * picture.height
            if pixels > MOST_PIXELS:
                raise Image.DecompressionBombError(
                    f"it unpacks to {picture.width:,} x {picture.height:,} pixels, more than any "
                    "radiograph has"
                )
            mode = picture.mode
            if mode == "F":
                raise DataError(
                    f"{path} holds floating-point values. Save it as 8- or 16-bit grey."
                )
            if mode.startswith("I"):
                values = np.asarray(picture)
            elif mode in ("1", "L", "LA", "La"):
                values = np.asarray(picture.convert("L"))
            else:
                values = np.asarray(picture.convert("RGB"))
                first = values[..., 0]
                if (first == values[..., 1]).all() and (first == values[..., 2]).all():
                    values = first
                elif not colour:
                    values = np.asarray(picture.convert("L"))
    except DataError:
        raise
    # Besides OSError, decoders raise SyntaxError, ValueError and their own types.
    except Exception as error:
        raise _unreadable(path, error, "an image") from error
    peak = 65535 if mode.startswith("I") else 255
    if mode.startswith("I") and (values.min() < 0 or values.max() > peak):
        raise DataError(f"{path} holds values outside 16 bits. Save it as 8- or 16-bit grey.")
    return values.astype(np.float32) / np.float32(peak)


def read_nifti(path: Path) -> Pixels:
    """One volume as an axial DICOM series shows it, in the file's own units.

    Returns:
        float32 [S, H, W]: slices from feet to head, rows from front to back, columns from the
        patient's right to the left.

    Raises:
        DataError: the file is missing, damaged or cut short, has not three axes, or holds NaN or
            infinite values.
    """
    import nibabel

    try:
        canonical: Any = nibabel.funcs.as_closest_canonical  # nibabel types few functions
        image = canonical(nibabel.load(path))
        values = np.asarray(image.dataobj, np.float32)
    # nibabel, zlib and numpy each have their own types for a damaged file.
    except Exception as error:
        raise _unreadable(path, error, "NIfTI") from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or 0 in values.shape:
        raise DataError(f"{path} has shape {values.shape}; a volume has three axes.")
    if not np.isfinite(values).all():
        raise DataError(f"{path} holds NaN or infinite values. Replace them and save it again.")
    # Canonical axes run to the right, the front and the head: x and y are turned.
    return np.ascontiguousarray(values.transpose(2, 1, 0)[:, ::-1, ::-1])


def _unreadable(path: Path, error: Exception, kind: str) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist. Check the table, or copy the file.")
    try:
        empty = path.stat().st_size == 0
    except OSError:
        empty = False
    if empty:
        return DataError(f"{path} is empty (0 bytes). Copy it again from its source.")
    detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DataError(f"{path} cannot be read as {kind}: {detail}. Copy it again from its source.")
