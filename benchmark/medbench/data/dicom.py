"""DICOM files: one slice in Hounsfield units, a series in order, a radiograph in [0, 1].

Everything a file can get wrong ends in a `DataError` that names the file. pydicom is imported on
use, because listing datasets must not cost its import.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from medbench.data.samples import Pixels
from medbench.errors import DataError
from medbench.phantom.hounsfield import LUNG_WINDOW

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.tag import BaseTag

SUFFIXES = (".dcm", ".dicom")

#: Only these are parsed: a CT header holds a hundred elements, and most of the time goes there.
_TAGS = (
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "HighBit",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "Modality",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelData",
    "PixelRepresentation",
    "PlanarConfiguration",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
    "SliceLocation",
    "VOILUTFunction",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
)

_PHANTOM_TAGS = (
    "ImageComments",
    "ImageType",
    "Manufacturer",
    "PatientComments",
    "PatientName",
    "SeriesDescription",
    "StudyDescription",
)


#: What to install for compressed files: all four are dependencies, but an environment may lack one.
CODECS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg pylibjpeg-rle"

#: Transfer syntaxes of JPEG (baseline, extended, lossless) and JPEG-LS.
_JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81))

#: Two slices have one orientation when the cosines of their normals differ by less than this.
_SAME_NORMAL = 1e-3


def read_ct_slice(path: Path) -> tuple[Pixels, float]:
    """One CT slice and where it lies.

    Returns:
        Hounsfield units, float32 [H, W] (stored values times RescaleSlope plus
        RescaleIntercept); SliceLocation (0020,1041) in mm, or where the file lacks it,
        ImagePositionPatient (0020,0032) projected on the normal of ImageOrientationPatient
        (0020,0037), which for axial slices is the same quantity.

    Raises:
        DataError: not DICOM, truncated, without pixel data, rescale or location, or compressed
            with a codec that is not installed.
    """
    values, place = _slice(path, hounsfield=True)
    return values, place.location


@dataclass(frozen=True)
class _Place:
    """Where a slice lies along its series, in mm; its normal if that is a projection."""

    location: float
    normal: npt.NDArray[np.float64] | None = None


def _slice(path: Path, *, hounsfield: bool) -> tuple[Pixels, _Place]:
    dataset = _read(path)
    if hounsfield and (
        dataset.get("RescaleSlope") is None or dataset.get("RescaleIntercept") is None
    ):
        raise DataError(
            f"{path} has no RescaleSlope or RescaleIntercept, so its values are not Hounsfield "
            "units. Export the series again as CT Image Storage, or remove it from the dataset."
        )
    place = _place(dataset, path)
    return _rescaled(dataset, _stored(dataset, path), path), place


def read_series(paths: Sequence[Path], *, hounsfield: bool = True) -> Pixels:
    """One volume, its slices by ascending SliceLocation, whatever the files are called.

    A series without SliceLocation is ordered by ImagePositionPatient along the slices' common
    normal. One in which only some slices have SliceLocation, or whose normals differ, is refused:
    the two measures need not share their origin.

    Args:
        paths: the files of one series, in any order.
        hounsfield: refuse slices without rescale values; False for other modalities.

    Returns:
        float32 [S, H, W]; Hounsfield units if ``hounsfield``.

    Raises:
        DataError: as `read_ct_slice`; two slices at one location; slices of different sizes or
            orientations.
    """
    if not paths:
        raise DataError("A series without files cannot be read; check the dataset folder.")
    slices: list[Pixels | None] = []
    locations: list[float] = []
    reference: _Place | None = None
    for path in paths:
        values, place = _slice(path, hounsfield=hounsfield)
        reference = reference or place
        _refuse_other_frame(place, path, reference, paths[0])
        slices.append(values)
        locations.append(place.location)
        first = slices[0]
        if first is not None and values.shape != first.shape:
            raise DataError(
                f"{path} is {_size(values)} and {paths[0]} is {_size(first)}, in one series. "
                "Remove the file that does not belong (often a scout view)."
            )
    order = sorted(range(len(paths)), key=lambda i: locations[i])
    for before, after in pairwise(order):
        if locations[before] == locations[after]:
            raise DataError(
                f"{paths[before]} and {paths[after].name} both lie at SliceLocation "
                f"{locations[before]:g} mm, so the order of slices is undefined. Remove the "
                "duplicate, or keep one series per folder."
            )
    head = slices[0]
    assert head is not None
    volume = np.empty((len(paths), *head.shape), np.float32)
    for position, index in enumerate(order):
        volume[position] = slices[index]
        slices[index] = None  # freed at once: a volume is not held twice
    return volume


def read_image(path: Path) -> Pixels:
    """One grey or colour picture, such as a radiograph (CR, DX).

    Contrast, in this order: the file's own look-up table of values of interest, the first of
    several; its window (centre, width, function), the first of several; the lung window for CT;
    else from the lowest to the highest value. MONOCHROME1 is inverted, so that bone is bright.
    Read are 8 to 16 bits, signed or not, plain, deflated, RLE, JPEG (baseline, extended,
    lossless), JPEG-LS and JPEG 2000.

    Returns:
        float32 in [0, 1], [H, W] or [H, W, 3].

    Raises:
        DataError: as `read_ct_slice`, but neither rescale nor SliceLocation is needed.
    """
    dataset = _read(path)
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DataError(
            f"{path} holds {dataset.NumberOfFrames} frames where one picture is expected. Export "
            "one file per picture."
        )
    meaning = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2")
    if not meaning.startswith(("MONOCHROME", "RGB", "YBR")):
        raise DataError(
            f"{path} is coded as {meaning}, which is not read. Save it as MONOCHROME2 or RGB."
        )
    stored = _stored(dataset, path)
    if stored.ndim == 3:
        bits = int(dataset.get("BitsStored") or 8)
        return to_window(stored.astype(np.float32), (0.0, float(2**bits - 1)))
    values = _rescaled(dataset, stored, path)
    centre, width = _window(dataset)
    if dataset.get("VOILUTSequence"):
        image, peak = _looked_up(values, dataset.VOILUTSequence, path)
        image = image / np.float32(peak)
    elif centre is not None and width is not None:
        image = _windowed(values, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    elif dataset.get("Modality") == "CT" and dataset.get("RescaleIntercept") is not None:
        image = to_window(values, LUNG_WINDOW)
    else:
        low, high = float(values.min()), float(values.max())
        image = (values - np.float32(low)) / np.float32(max(high - low, 1e-12))
    if meaning == "MONOCHROME1":
        image = np.float32(1) - image
    return image


def to_window(values: Pixels, window: tuple[float, float]) -> Pixels:
    """Map ``window`` (low, high) linearly to [0, 1] and clip. Works in place on ``values``."""
    low, high = window
    values -= np.float32(low)
    values *= np.float32(1 / (high - low))
    return np.clip(values, 0, 1, out=values)


def says_phantom(path: Path) -> bool:
    """Whether the header of a DICOM file declares rendered pixels.

    Raises:
        DataError: the file is not DICOM.
    """
    import pydicom

    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_PHANTOM_TAGS))
        words = " ".join(str(dataset.get(tag, "")) for tag in _PHANTOM_TAGS)
    except Exception as error:
        raise _unreadable(path, error) from error
    return "PHANTOM" in words.upper()


def is_dicom(path: Path) -> bool:
    """By name alone."""
    return path.suffix.lower() in SUFFIXES


def _read(path: Path) -> Dataset:
    import pydicom

    try:
        dataset = pydicom.dcmread(path, specific_tags=list(_numbers().values()))
    # A damaged header surfaces as any of a dozen exception types from pydicom's parser.
    except Exception as error:
        raise _unreadable(path, error) from error
    if "PixelData" not in dataset:
        raise DataError(
            f"{path} has no pixel data: the file is cut short or holds no image. Copy it again "
            "from its source."
        )
    return dataset


@cache
def _numbers() -> dict[str, BaseTag]:
    """`_TAGS` with their numbers: pydicom would look every name up again for every file."""
    from pydicom.tag import Tag

    return {name: Tag(name) for name in _TAGS}


def _unreadable(path: Path, error: Exception) -> DataError:
    from pydicom.errors import InvalidDicomError

    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} does not exist. Check the dataset folder, or copy it again.")
    with suppress(OSError):
        if path.stat().st_size == 0:
            return DataError(f"{path} is empty (0 bytes). Copy it again from its source.")
    if isinstance(error, InvalidDicomError):
        return DataError(
            f"{path} is not a DICOM file (no DICM prefix): it is damaged or something else. Copy "
            "it again from its source, or remove it."
        )
    detail = getattr(error, "strerror", None) or _one_line(error)
    return DataError(f"{path} cannot be read as DICOM: {detail}. Copy it again from its source.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _place(dataset: Dataset, path: Path) -> _Place:
    try:
        location = float(dataset.SliceLocation)
    except (AttributeError, TypeError, ValueError):
        location = math.nan
    if math.isfinite(location):
        return _Place(location)
    try:
        position = np.array([float(v) for v in dataset.ImagePositionPatient])
        cosines = np.array([float(v) for v in dataset.ImageOrientationPatient]).reshape(2, 3)
        normal = np.cross(cosines[0], cosines[1])
        location = float(position @ normal)
        # Rows and columns are unit vectors at right angles, or the header is damaged.
        sound = bool(abs(np.linalg.norm(normal) - 1) < 0.01)
    except (AttributeError, TypeError, ValueError):
        sound = False
    if not (sound and math.isfinite(location)):
        raise DataError(
            f"{path} has no SliceLocation (0020,1041), no ImagePositionPatient (0020,0032) with "
            "ImageOrientationPatient (0020,0037) to compute it from, and file names do not give "
            "the order of slices. Restore the element, or remove the series."
        )
    return _Place(location, normal)


def _refuse_other_frame(place: _Place, path: Path, first: _Place, first_path: Path) -> None:
    """Locations are compared only when they mean the same thing."""
    if (place.normal is None) != (first.normal is None):
        without, having = (path, first_path) if first.normal is None else (first_path, path)
        raise DataError(
            f"{without} has no SliceLocation (0020,1041), but {having.name} of the same series "
            "has: their order would be a guess. Restore the element, or remove it from all slices "
            "that have ImagePositionPatient."
        )
    if place.normal is not None and first.normal is not None:
        cosine = float(place.normal @ first.normal)
        if cosine < 1 - _SAME_NORMAL:
            raise DataError(
                f"{path} and {first_path.name} are cut in different orientations, so they have no "
                "order, and they lack SliceLocation (0020,1041). Keep one series per folder."
            )


def _stored(dataset: Dataset, path: Path) -> npt.NDArray[Any]:
    """Stored values, [H, W] (or [H, W, 3]), of the file's integer type."""
    rows, columns = _word(dataset, "Rows"), _word(dataset, "Columns")
    allocated = _word(dataset, "BitsAllocated")
    if rows is None or columns is None or allocated is None:
        raise DataError(
            f"{path} does not say the size of its pixels: its header is damaged. Copy it again "
            "from its source."
        )
    stored = _word(dataset, "BitsStored") or allocated
    high = _word(dataset, "HighBit")
    high = stored - 1 if high is None else high
    signed = _word(dataset, "PixelRepresentation") == 1
    samples = _word(dataset, "SamplesPerPixel") or 1
    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    compressed = syntax is not None and bool(syntax.is_compressed)
    plain = (
        not compressed
        and dataset.original_encoding[1] is not False
        and allocated in (8, 16)
        and samples == 1
        and int(dataset.get("NumberOfFrames") or 1) == 1
        and stored <= allocated
        and stored - 1 <= high < allocated
    )
    if not plain:
        return _decoded(dataset, path, compressed)
    data = dataset.PixelData
    needed = rows * columns * allocated // 8
    if needed == 0 or len(data) < needed:
        raise DataError(
            f"{path} is cut short: {len(data):,} bytes of pixels where {rows} x {columns} need "
            f"{needed:,}. Copy it again from its source."
        )
    values = np.frombuffer(data, f"<{'i' if signed else 'u'}{allocated // 8}", rows * columns)
    if stored < allocated:
        # Shifting up and down drops what lies above HighBit and extends the sign.
        values = (values << (allocated - 1 - high)) >> (allocated - stored)
    return values.reshape(rows, columns)


def _word(dataset: Dataset, name: str) -> int | None:
    """A 16-bit element (VR US), or None.

    Taken from the bytes that pydicom has read but not yet converted: converting the seven
    elements that describe the pixels is a third of the time of reading a small slice.
    """
    element = dataset.get_item(_numbers()[name])
    value = None if element is None else element.value
    if isinstance(value, bytes) and element is not None:
        order: Literal["little", "big"] = (
            "little" if getattr(element, "is_little_endian", True) else "big"
        )
        return int.from_bytes(value, order) if len(value) == 2 else None
    return value if isinstance(value, int) else None


def _decoded(dataset: Dataset, path: Path, compressed: bool) -> npt.NDArray[Any]:
    """Stored values through pydicom's decoders."""
    from pydicom.pixels.decoders.base import get_decoder

    if compressed:
        syntax = dataset.file_meta.TransferSyntaxUID
        try:
            available = bool(get_decoder(syntax).is_available)
        except NotImplementedError:
            available = False
        if not available:
            raise DataError(
                f"{path} is compressed ({syntax.name}) and no decoder for it is installed. Run "
                f"`{CODECS}`, or decompress the files."
            )
        if str(syntax) in _JPEG and not _ends(dataset):
            raise DataError(
                f"{path} is cut short: its {syntax.name} picture has no end marker. Copy it again "
                "from its source."
            )
    try:
        return np.asarray(dataset.pixel_array)
    # Codecs raise whatever they like on damaged streams.
    except Exception as error:
        raise DataError(
            f"{path}: its pixels cannot be decoded: {_one_line(error)}. Copy it again from its "
            "source."
        ) from error


def _ends(dataset: Dataset) -> bool:
    """Whether a JPEG picture ends as one does: decoders fill up what is missing without a word."""
    from pydicom.encaps import get_frame

    try:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    except (ValueError, struct.error):  # not encapsulated as it should be: the decoder says how
        return True
    return frame.rstrip(b"\0\xff").endswith(b"\xff\xd9")  # padding follows


def _rescaled(dataset: Dataset, stored: npt.NDArray[Any], path: Path) -> Pixels:
    """Stored values times slope plus intercept, float32; unchanged without them."""
    if stored.ndim != 2:
        raise DataError(f"{path} holds an array of shape {stored.shape}, not one grey picture.")
    if dataset.get("ModalityLUTSequence"):
        return _looked_up(stored, dataset.ModalityLUTSequence, path)[0]
    try:
        slope = float(dataset.get("RescaleSlope") or 1)
        intercept = float(dataset.get("RescaleIntercept") or 0)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} has rescale values that are not numbers: {error}.") from error
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise DataError(f"{path} has rescale values that are not finite: {slope}, {intercept}.")
    values = stored.astype(np.float32)
    if slope != 1:
        values *= np.float32(slope)
    if intercept != 0:
        values += np.float32(intercept)
    return values


def _looked_up(
    values: npt.NDArray[Any], sequence: Sequence[Dataset], path: Path
) -> tuple[Pixels, float]:
    """The first look-up table of a sequence, applied (DICOM PS3.3 C.11.1.1 and C.11.2.1.1).

    pydicom's own function wraps round where a table of 8-bit entries meets values above 255.

    Returns:
        float32 of the shape of ``values``; the largest value that its entries can have. Some
        writers declare 16 bits for entries of 12: bits that no entry uses are not counted.
    """
    try:
        item = sequence[0]
        count, first, bits = (int(v) for v in item.LUTDescriptor)
        count = count or 2**16
        data = item.LUTData
        if isinstance(data, bytes):  # OW; 8-bit entries may be packed, two to a word
            table = np.frombuffer(data, np.uint8 if len(data) < 2 * count else "<u2")
        else:
            table = np.atleast_1d(np.asarray(data)).astype(np.int64) & 0xFFFF
        if not 8 <= bits <= 16 or len(table) < count:
            raise ValueError(f"{len(table)} entries of {bits} bits where {count} are declared")
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{path} has a damaged look-up table: {error}. Copy it again from its source."
        ) from error
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, count - 1)
    used = min(bits, max(8, int(table[:count].max()).bit_length()))
    return table[:count].astype(np.float32)[index], float(2**used - 1)


def _window(dataset: Dataset) -> tuple[float | None, float | None]:
    """The first window of the file, or Nones."""
    try:
        centre, width = (
            float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)
            for value in (dataset.WindowCenter, dataset.WindowWidth)
        )
    except (AttributeError, TypeError, ValueError, IndexError):
        return None, None
    return (centre, width) if math.isfinite(centre) and width >= 1 else (None, None)


def _windowed(values: Pixels, centre: float, width: float, function: str) -> Pixels:
    """DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3, to [0, 1]."""
    if function == "SIGMOID":
        argument = np.clip(-4 * (values - centre) / width, -80, 80)
        return np.asarray(1 / (1 + np.exp(argument)), np.float32)
    if function == "LINEAR_EXACT":
        return to_window(values, (centre - width / 2, centre + width / 2))
    if width == 1:  # a threshold; the linear formula would divide by zero
        return (values > centre - 0.5).astype(np.float32)
    middle = centre - 0.5
    return to_window(values, (middle - (width - 1) / 2, middle + (width - 1) / 2))


def _size(values: Pixels) -> str:
    return " x ".join(str(side) for side in values.shape)
