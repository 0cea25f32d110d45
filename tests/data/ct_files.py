"""CT slices and series, written with pydicom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_ct_slice(
    path: Path,
    hounsfield: npt.NDArray[np.int16],
    location: float | None,
    *,
    words: str = "",
    rescale: bool = True,
) -> Path:
    """One uncompressed CT slice; stored values are HU + 1024."""
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
