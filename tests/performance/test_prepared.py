"""Reading prepared images against decoding and resizing the files they come from."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from medbench.data.decoded import Decoded, decode
from medbench.data.dicom import read_image
from medbench.data.images import load
from medbench.data.samples import Pixels, Sample

IMAGES, SIDE, SIZE = 48, 1024, 256


class Radiographs:
    """DICOM files of 1024 x 1024 pixels, 12 bits in 16, uncompressed."""

    def __init__(self, root: Path) -> None:
        self.paths = [root / f"{number}.dcm" for number in range(IMAGES)]
        draws = np.random.default_rng(0)
        for path in self.paths:
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
            meta.MediaStorageSOPInstanceUID = generate_uid()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
            file.Modality, file.PhotometricInterpretation = "DX", "MONOCHROME2"
            file.Rows = file.Columns = SIDE
            file.SamplesPerPixel, file.PixelRepresentation = 1, 0
            file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
            file.PixelData = draws.integers(0, 4096, (SIDE, SIDE), np.uint16).tobytes()
            file.save_as(path)

    def samples(self) -> list[Sample]:
        return [Sample(path.stem, None, (path,)) for path in self.paths]

    def pixels(self, sample: Sample) -> Pixels:
        return read_image(sample.files[0])


@pytest.mark.performance
def test_prepared_images_are_read_50_times_faster_than_dicom_files(tmp_path: Path) -> None:
    reader = Radiographs(tmp_path)
    samples = reader.samples()
    decode(reader, samples, SIZE, tmp_path / "store")
    prepared = Decoded.open(tmp_path / "store", samples)
    into = np.empty((SIZE, SIZE), np.uint8)

    def from_files() -> float:
        start = time.perf_counter()
        for sample in samples:
            load(reader, sample, SIZE)
        return time.perf_counter() - start

    def from_store() -> float:
        start = time.perf_counter()
        for index in range(IMAGES):
            np.copyto(into, prepared[index][0])  # every byte is read
        return time.perf_counter() - start

    from_files(), from_store()
    ratios = [from_files() / from_store() for _ in range(7)]
    ratio = statistics.median(ratios)
    print(f"\nprepared images are read {ratio:.0f} times faster (median of 7)")
    np.testing.assert_array_equal(into, load(reader, samples[-1], SIZE))
    assert ratio >= 50
