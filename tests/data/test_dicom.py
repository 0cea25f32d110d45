"""Reading DICOM, on real files of pydicom and pydicom-data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_files import write_ct_slice
from pydicom.data import get_testdata_file

from medbench.data.dicom import read_ct_slice, read_image, read_series, says_phantom
from medbench.errors import DataError


def real(name: str) -> Path:
    found = get_testdata_file(name)
    assert found is not None, f"{name} is not among pydicom's test files"
    return Path(str(found))


def test_a_real_ct_slice_comes_in_hounsfield_units_as_pydicom_computes_them() -> None:
    path = real("CT_small.dcm")
    hounsfield, location = read_ct_slice(path)
    dataset = pydicom.dcmread(path)
    expected = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    assert hounsfield.dtype == np.float32
    np.testing.assert_array_equal(hounsfield, expected)
    assert location == pytest.approx(-77.2040634155)


@pytest.mark.parametrize("name", ["RG1_UNCI.dcm", "RG3_UNCI.dcm"])
def test_a_real_radiograph_has_bright_bone_and_fills_the_range(name: str) -> None:
    image = read_image(real(name))
    dataset = pydicom.dcmread(real(name))
    assert dataset.PhotometricInterpretation == "MONOCHROME1"
    assert image.dtype == np.float32
    assert image.shape == (dataset.Rows, dataset.Columns)
    assert 0 <= image.min() < 0.2
    assert 0.9 < image.max() <= 1
    stored = dataset.pixel_array.astype(float)
    sample = (slice(None, None, 20), slice(None, None, 20))
    assert np.corrcoef(image[sample].ravel(), stored[sample].ravel())[0, 1] < -0.9


def test_the_window_of_a_radiograph_follows_the_dicom_formula() -> None:
    path = real("RG1_UNCI.dcm")
    dataset = pydicom.dcmread(path)
    centre, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
    linear = (dataset.pixel_array - (centre - 0.5)) / (width - 1) + 0.5
    np.testing.assert_allclose(read_image(path), 1 - np.clip(linear, 0, 1), atol=1e-5)


def test_a_losslessly_compressed_radiograph_equals_the_uncompressed_one() -> None:
    try:
        compressed = read_image(real("RG1_J2KI.dcm"))
    except DataError as error:  # Pillow was built without OpenJPEG
        assert "pip install" in str(error)  # noqa: PT017
        pytest.skip("no JPEG 2000 decoder here")
    plain = read_image(real("RG1_UNCI.dcm"))
    assert compressed.shape == plain.shape
    assert np.abs(compressed - plain).mean() < 0.01


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "MR_small_RLE.dcm"])
def test_other_transfer_syntaxes_give_the_same_picture(name: str) -> None:
    np.testing.assert_array_equal(read_image(real(name)), read_image(real("MR_small.dcm")))


def test_a_codec_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEGLosslessSV1

    monkeypatch.setattr(get_decoder(JPEGLosslessSV1), "_available", {})
    with pytest.raises(DataError, match=r"pip install pylibjpeg"):
        read_image(real("JPEG-LL.dcm"))


@pytest.mark.filterwarnings("ignore")
def test_a_file_cut_anywhere_is_refused_and_named(tmp_path: Path) -> None:
    content = real("CT_small.dcm").read_bytes()
    pixels_end = 6300 + 128 * 128 * 2 - 50  # the file ends in padding, whose loss loses nothing
    path = tmp_path / "cut.dcm"
    for length in [0, 1, 131, 132, 140, 400, 1000, *range(1500, pixels_end, 3001), pixels_end]:
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"cut\.dcm") as caught:
            read_ct_slice(path)
        assert "\n" not in str(caught.value)


def test_a_file_without_an_image_is_refused() -> None:
    with pytest.raises(DataError, match="no pixel data"):
        read_ct_slice(real("rtplan.dcm"))


def test_a_file_that_is_not_dicom_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("not DICOM")
    with pytest.raises(DataError, match="not a DICOM file"):
        read_ct_slice(tmp_path / "a.dcm")
    with pytest.raises(DataError, match="does not exist"):
        read_image(tmp_path / "b.dcm")


def test_a_missing_slice_location_is_refused(tmp_path: Path) -> None:
    path = write_ct_slice(tmp_path / "a.dcm", np.zeros((4, 4), np.int16), None)
    with pytest.raises(DataError, match=r"no SliceLocation \(0020,1041\)"):
        read_ct_slice(path)


def test_a_slice_without_rescale_is_not_taken_for_hounsfield(tmp_path: Path) -> None:
    path = write_ct_slice(tmp_path / "a.dcm", np.zeros((4, 4), np.int16), 1.0, rescale=False)
    with pytest.raises(DataError, match="RescaleSlope"):
        read_ct_slice(path)
    assert read_series([path], hounsfield=False).shape == (1, 4, 4)


def test_bits_above_the_stored_ones_are_dropped_and_the_sign_extended(tmp_path: Path) -> None:
    path = write_ct_slice(tmp_path / "a.dcm", np.zeros((2, 2), np.int16), 0.0)
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 12, 11
    # -1, -2048, 5 and 2047 in 12 bits, with rubbish above them in the second half
    dataset.PixelData = np.array([0x0FFF, 0x0800, 0xF005, 0x77FF], "<u2").tobytes()
    dataset.save_as(path)
    hounsfield, _ = read_ct_slice(path)
    np.testing.assert_array_equal(hounsfield.ravel() + 1024, [-1, -2048, 5, 2047])


def test_a_series_is_ordered_by_location_and_not_by_name(tmp_path: Path) -> None:
    paths = [
        write_ct_slice(tmp_path / f"IM{i}.dcm", np.full((4, 4), level, np.int16), location)
        for i, (level, location) in enumerate([(10, 5.0), (20, -7.5), (30, 0.0)])
    ]
    assert read_series(paths)[:, 0, 0].tolist() == [20, 30, 10]
    assert read_series(paths[::-1])[:, 0, 0].tolist() == [20, 30, 10]


def test_two_slices_at_one_location_are_refused(tmp_path: Path) -> None:
    paths = [
        write_ct_slice(tmp_path / f"{name}.dcm", np.zeros((4, 4), np.int16), 1.0) for name in "ab"
    ]
    with pytest.raises(DataError, match="both lie at SliceLocation 1 mm"):
        read_series(paths)


def test_slices_of_different_sizes_are_refused(tmp_path: Path) -> None:
    paths = [
        write_ct_slice(tmp_path / f"{n}.dcm", np.zeros((n, 4), np.int16), float(n)) for n in (4, 5)
    ]
    with pytest.raises(DataError, match="scout"):
        read_series(paths)


def test_pictures_with_frames_or_a_palette_are_refused() -> None:
    with pytest.raises(DataError, match="3 frames"):
        read_image(real("liver.dcm"))
    with pytest.raises(DataError, match="PALETTE COLOR"):
        read_image(real("examples_palette.dcm"))


def test_a_header_that_says_phantom_is_recognised(tmp_path: Path) -> None:
    zeros = np.zeros((2, 2), np.int16)
    phantom = write_ct_slice(tmp_path / "a.dcm", zeros, 0.0, words="medbench PHANTOM")
    assert says_phantom(phantom)
    assert not says_phantom(real("CT_small.dcm"))
