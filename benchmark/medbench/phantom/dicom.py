"""Phantom CT series and radiographs as DICOM files: a header is encoded once and patched.

Encoding a data set costs pydicom about a millisecond; headers of a series, or of a dataset's
radiographs, differ in a few values only, so they are written once with fixed-width placeholders and
the values put in their place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from medbench.phantom.scanner import CTScanner, XRayUnit
from medbench.phantom.tissue import SHIFT_Y
from medbench.phantom.version import RENDERER_VERSION

#: Stored value = HU + 1024, as most scanners do.
INTERCEPT = -1024
_UID_PLACE = "2.25." + "1" * 38
_NUMBER_PLACE = "7777"
_LOCATION_PLACE = "88888.88"
_POSITION_PLACE = "\\".join(["99999.99", "99999.99", "66666.66"])
_STUDY_PLACE = "2.25." + "2" * 38
_SERIES_PLACE = "2.25." + "3" * 38
_ID_PLACE = "I" * 64
_AGE_PLACE = "444Y"
_SPACING_PLACE = "\\".join(["5555.555", "5555.555"])
#: Element (7FE0,0010), OB of undefined length, before the encapsulated frames; and what ends it.
_PIXELS_START = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"
_PIXELS_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def uid(*parts: object) -> str:
    """A UID under the 2.25 root, from a hash of its parts: always 43 characters."""
    text = "|".join([RENDERER_VERSION, *map(str, parts)])
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
    # 2.25 takes a 128-bit UUID; within it, keep to 38 digits with no leading zero.
    return f"2.25.{10**37 + number % (9 * 10**37)}"


@dataclass(frozen=True)
class Series:
    """What one series says about itself: ids, the patient, the scanner, pixel size and spacing."""

    dataset: str
    subject: str
    female: bool
    age: int
    scanner: CTScanner
    size: int
    spacing: float


def _header(series: Series) -> bytes:
    pixel = series.scanner.field_of_view / series.size
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(_UID_PLACE)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(uid("medbench"))
    data: Dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "PHANTOM"]
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = _UID_PLACE
    data.Modality = "CT"
    data.Manufacturer = "medbench PHANTOM"
    data.ManufacturerModelName = series.scanner.name
    data.SeriesDescription = "PHANTOM chest CT, rendered"
    data.PatientName = f"PHANTOM^{series.subject}"
    data.PatientID = series.subject
    data.PatientSex = "F" if series.female else "M"
    data.PatientAge = f"{series.age:03d}Y"
    data.BodyPartExamined = "CHEST"
    data.SliceThickness = f"{series.scanner.thickness:g}"
    data.KVP = f"{series.scanner.kvp}"
    data.SpacingBetweenSlices = f"{series.spacing:.2f}"
    data.Exposure = f"{series.scanner.exposure}"
    data.PatientPosition = "HFS"
    data.StudyInstanceUID = uid(series.dataset, series.subject, "study")
    data.SeriesInstanceUID = uid(series.dataset, series.subject, "series")
    data.SeriesNumber = "2"
    data.InstanceNumber = _NUMBER_PLACE
    data.ImagePositionPatient = _POSITION_PLACE.split("\\")
    data.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    data.FrameOfReferenceUID = uid(series.dataset, series.subject, "frame")
    data.SliceLocation = _LOCATION_PLACE
    data.ImageComments = f"PHANTOM medbench renderer {RENDERER_VERSION}: not a patient"
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows = data.Columns = series.size
    data.PixelSpacing = [f"{pixel:.4f}", f"{pixel:.4f}"]
    data.BitsAllocated = 16
    data.BitsStored = 12
    data.HighBit = 11
    data.PixelRepresentation = 0
    data.WindowCenter = "-600"
    data.WindowWidth = "1500"
    data.RescaleIntercept = f"{INTERCEPT}"
    data.RescaleSlope = "1"
    data.PixelData = b"\0" * (2 * series.size * series.size)
    buffer = BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()[: -2 * series.size * series.size]


def write_series(
    series: Series,
    folder: Path,
    names: Sequence[str],
    heights: Sequence[float],
    hu: npt.NDArray[np.float32],
) -> None:
    """Write one series.

    Args:
        series: what its headers say.
        folder: an existing folder.
        names: file name of each slice.
        heights: z of each slice in mm.
        hu: [S, size, size] in HU.
    """
    header = bytearray(_header(series))
    stored = np.clip(np.rint(hu) - INTERCEPT, 0, 4095).astype("<u2")
    half = series.scanner.field_of_view / 2
    left, front = f"{-half:.2f}".ljust(8), f"{SHIFT_Y - half:.2f}".ljust(8)
    places = {
        text: _positions(header, text.encode())
        for text in (_UID_PLACE, _NUMBER_PLACE, _LOCATION_PLACE, _POSITION_PLACE)
    }
    for index, (name, height) in enumerate(zip(names, heights, strict=True)):
        value = f"{height:.2f}".ljust(8)
        texts = {
            _UID_PLACE: uid(series.dataset, series.subject, index),
            _NUMBER_PLACE: f"{index + 1}".ljust(4),
            _LOCATION_PLACE: value,
            _POSITION_PLACE: "\\".join([left, front, value]),
        }
        for place, text in texts.items():
            for start in places[place]:
                header[start : start + len(place)] = text.encode()
        (folder / name).write_bytes(bytes(header) + stored[index].tobytes())


def _positions(data: bytes | bytearray, text: bytes) -> list[int]:
    found, start = [], data.find(text)
    while start >= 0:
        found.append(start)
        start = data.find(text, start + 1)
    return found


@dataclass(frozen=True)
class Radiograph:
    """What a radiograph's header says.

    Attributes:
        dataset: name of the dataset, part of the UIDs.
        image: identifier of the image, at most 64 characters: PatientID, and part of the UIDs.
        unit: names the model of the device.
        female: PatientSex.
        age: PatientAge as the dataset writes it, at most 4 characters.
        view: ViewPosition.
        spacing: PixelSpacing in mm, of the pixels as they are stored.
    """

    dataset: str
    image: str
    unit: XRayUnit
    female: bool
    age: str
    view: Literal["PA", "AP"]
    spacing: float


def write_radiograph(
    radiograph: Radiograph, path: Path, pixels: npt.NDArray[np.uint8], quality: int = 92
) -> int:
    """Write one 8-bit radiograph as JPEG baseline, as the public challenges' files are coded.

    Args:
        radiograph: what its header says.
        path: the file; its folder exists.
        pixels: [H, W], bone bright.
        quality: of the JPEG, 1 to 95.

    Returns:
        Size of the file in bytes.
    """
    picture = BytesIO()
    Image.fromarray(pixels).save(picture, "JPEG", quality=quality)
    height, width = pixels.shape
    header = bytearray(
        _radiograph_header(radiograph.unit.name, radiograph.female, radiograph.view, height, width)
    )
    key = (radiograph.dataset, radiograph.image)
    spacing = f"{radiograph.spacing:.6g}"[:8]
    texts = {
        _UID_PLACE: uid(*key, "image"),
        _STUDY_PLACE: study_uid(*key),
        _SERIES_PLACE: series_uid(*key),
        _ID_PLACE: radiograph.image,
        _AGE_PLACE: radiograph.age,
        _SPACING_PLACE: f"{spacing}\\{spacing}",
    }
    for place, text in texts.items():
        if len(text) > len(place):
            raise ValueError(f"{text!r} is longer than {len(place)} characters")
        for start in _positions(header, place.encode()):
            header[start : start + len(place)] = text.ljust(len(place)).encode()
    content = bytes(header) + _PIXELS_START + encapsulate([picture.getvalue()]) + _PIXELS_END
    path.write_bytes(content)
    return len(content)


def study_uid(dataset: str, image: str) -> str:
    """StudyInstanceUID of a radiograph."""
    return uid(dataset, image, "study")


def series_uid(dataset: str, image: str) -> str:
    """SeriesInstanceUID of a radiograph."""
    return uid(dataset, image, "series")


@lru_cache(maxsize=64)
def _radiograph_header(unit: str, female: bool, view: str, height: int, width: int) -> bytes:
    """A radiograph's file up to its pixels, with placeholders."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID(_UID_PLACE)
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    meta.ImplementationClassUID = UID(uid("medbench"))
    data: Dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImageType = ["DERIVED", "SECONDARY", "PHANTOM"]
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = _UID_PLACE
    data.Modality = "CR"
    data.ConversionType = "WSD"
    data.Manufacturer = "medbench PHANTOM"
    data.ManufacturerModelName = unit
    data.SeriesDescription = f"PHANTOM chest radiograph, rendered, view: {view}"
    data.PatientName = "PHANTOM"
    data.PatientID = _ID_PLACE
    data.PatientSex = "F" if female else "M"
    data.PatientAge = _AGE_PLACE
    data.BodyPartExamined = "CHEST"
    data.ViewPosition = view
    data.StudyInstanceUID = _STUDY_PLACE
    data.SeriesInstanceUID = _SERIES_PLACE
    data.SeriesNumber = "1"
    data.InstanceNumber = "1"
    data.ImageComments = f"PHANTOM medbench renderer {RENDERER_VERSION}: not a patient"
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = height, width
    data.PixelSpacing = _SPACING_PLACE.split("\\")
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.PixelRepresentation = 0
    data.LossyImageCompression = "01"
    data.LossyImageCompressionMethod = "ISO_10918_1"
    buffer = BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
