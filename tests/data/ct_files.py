"""CT slices, series and radiographs, written with pydicom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_ct_slice(
    path: Path,
    hounsfield: npt.NDArray[np.int16],
    location: float | None,
    *,
    words: str = "",
    rescale: bool = True,
    **elements: object,
) -> Path:
    """One uncompressed CT slice; stored values are HU + 1024. Elements are added by keyword."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "CT"
    dataset.PatientName = "Anonymous"
    dataset.SeriesDescription = words
    if location is not None:
        dataset.SliceLocation = location
    dataset.Rows, dataset.Columns = hounsfield.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    if rescale:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = (hounsfield + 1024).astype("<i2").tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path)
    return path


def write_subject(
    folder: Path, levels: Sequence[int], locations: Sequence[float] | None = None, size: int = 8
) -> None:
    """A series of constant slices; file i holds ``levels[i]`` HU at ``locations[i]``."""
    for index, level in enumerate(levels):
        location = locations[index] if locations is not None else float(index)
        write_ct_slice(
            folder / f"IM{index:04d}.dcm", np.full((size, size), level, np.int16), location
        )


def write_radiograph(
    path: Path, pixels: npt.NDArray[np.integer], bits: int | None = None, **elements: object
) -> Path:
    """One uncompressed radiograph [H, W], MONOCHROME2 of the array's type."""
    write_ct_slice(path, np.zeros((1, 1), np.int16), None, rescale=False)
    dataset = dcmread(path)
    allocated = pixels.dtype.itemsize * 8
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = allocated
    dataset.BitsStored = bits or allocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path
