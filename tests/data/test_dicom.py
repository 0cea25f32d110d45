"""Reading DICOM, on real files of pydicom and pydicom-data."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_files import write_ct_slice, write_radiograph
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGLosslessSV1, RLELossless

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


@pytest.mark.parametrize("coding", ["I", "R"])
def test_a_radiograph_in_jpeg_2000_equals_its_uncompressed_copy(coding: str) -> None:
    """Irreversible (I) and reversible (R) coding, each with its decoded copy (UNC)."""
    compressed = read_image(real(f"RG1_J2K{coding}.dcm"))
    np.testing.assert_array_equal(compressed, read_image(real(f"RG1_UNC{coding}.dcm")))


def test_irreversible_coding_loses_less_than_two_percent_of_the_window() -> None:
    difference = np.abs(read_image(real("RG1_J2KI.dcm")) - read_image(real("RG1_J2KR.dcm")))
    assert 0 < difference.max() < 0.02
    assert difference.mean() < 0.003


def test_a_radiograph_encoded_again_as_rle_is_the_same(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(real("RG1_UNCI.dcm"))
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(
        read_image(tmp_path / "rle.dcm"), read_image(real("RG1_UNCI.dcm"))
    )


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("JPEG-LL.dcm", 0, 278),  # JPEG lossless, signed, 16 bits
        ("JPGLosslessP14SV1_1s_1f_8b.dcm", 0, 255),  # JPEG lossless, 8 bits
        ("JPGExtended.dcm", 0, 264),  # JPEG extended, 12 bits
    ],
)
def test_other_jpegs_of_a_scanner_are_decoded(name: str, least: int, most: int) -> None:
    path = real(name)
    stored = pydicom.dcmread(path).pixel_array
    assert (stored.min(), stored.max()) == (least, most)
    image = read_image(path)
    assert image.shape == stored.shape
    sample = (slice(None, None, 7), slice(None, None, 7))
    order = np.argsort(stored[sample], axis=None)
    assert (np.diff(image[sample].ravel()[order]) >= 0).all()


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"])
def test_lossless_codecs_give_the_plain_picture(name: str) -> None:
    np.testing.assert_array_equal(read_image(real(name)), read_image(real("MR_small.dcm")))


@pytest.mark.filterwarnings("ignore:End of file")
def test_jpeg_baseline_of_eight_bits_is_close_to_what_was_encoded(tmp_path: Path) -> None:
    pixels = np.add.outer(np.arange(64), 2 * np.arange(64)).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    path = write_radiograph(tmp_path / "a.dcm", pixels)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.save_as(path)
    expected = (pixels - pixels.min()) / np.ptp(pixels)
    np.testing.assert_allclose(read_image(path), expected, atol=0.03)
    content = path.read_bytes()
    for length in range(len(content) - 8, 600, -97):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"a\.dcm"):
            read_image(path)


def test_jpeg_2000_without_its_decoder_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(get_decoder(JPEG2000), "_available", {})
    with pytest.raises(DataError, match=r"RG1_J2KI\.dcm.*JPEG 2000.*pip install.*openjpeg"):
        read_image(real("RG1_J2KI.dcm"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["RG1_J2KR.dcm", "MR_small_RLE.dcm"])
def test_a_compressed_file_cut_short_is_refused(name: str, tmp_path: Path) -> None:
    content = real(name).read_bytes()
    path = tmp_path / "cut.dcm"
    for share in (0, 0.1, 0.5, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataError, match=r"cut\.dcm"):
            read_image(path)


@pytest.mark.parametrize(
    "name", ["JPGExtended.dcm", "JPEG-LL.dcm", "MR_small_jpeg_ls_lossless.dcm", "693_J2KR.dcm"]
)
def test_a_picture_cut_short_in_a_whole_file_is_refused(name: str, tmp_path: Path) -> None:
    """As when a transfer was broken before the file was made: the container is in order."""
    dataset = pydicom.dcmread(real(name))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) * 9 // 10]])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(tmp_path / "cut.dcm")
    with pytest.raises(DataError, match=r"cut\.dcm"):
        read_image(tmp_path / "cut.dcm")


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").touch()
    with pytest.raises(DataError, match=r"a\.dcm is empty \(0 bytes\)"):
        read_image(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16), (np.int16, 16)]
)
def test_any_depth_without_a_window_fills_the_range(
    tmp_path: Path, dtype: type[np.integer], bits: int
) -> None:
    low = -(2 ** (bits - 1)) if np.issubdtype(dtype, np.signedinteger) else 0
    values = np.linspace(low, low + 2**bits - 1, 16).astype(dtype).reshape(4, 4)
    image = read_image(write_radiograph(tmp_path / "a.dcm", values, bits))
    expected = (values.astype(float) - low) / (2**bits - 1)
    np.testing.assert_allclose(image, expected, atol=1e-6)


def test_monochrome1_is_turned_so_that_bone_is_bright(tmp_path: Path) -> None:
    values = np.arange(16, dtype=np.uint8).reshape(4, 4)
    plain = read_image(write_radiograph(tmp_path / "a.dcm", values))
    turned = read_image(
        write_radiograph(tmp_path / "b.dcm", values, PhotometricInterpretation="MONOCHROME1")
    )
    np.testing.assert_allclose(turned, 1 - plain, atol=1e-6)


def test_the_first_of_several_windows_is_used(tmp_path: Path) -> None:
    values = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    one = write_radiograph(tmp_path / "a.dcm", values, WindowCenter=100, WindowWidth=50)
    two = write_radiograph(tmp_path / "b.dcm", values, WindowCenter=[100, 30], WindowWidth=[50, 10])
    np.testing.assert_array_equal(read_image(two), read_image(one))
    assert 0 < (read_image(one) > 0.01).mean() < 1


def look_up(first: int, entries: list[int], bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


def test_a_table_of_values_of_interest_goes_before_the_window(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2, 3], [4, 5, 900, 7]], np.uint16)
    path = write_radiograph(
        tmp_path / "a.dcm", values, 12,
        VOILUTSequence=[look_up(1, [0, 51, 102, 255], 8), look_up(0, [7], 8)],
        WindowCenter=2, WindowWidth=2,
    )  # fmt: skip
    # Below the first mapped value its entry is used, above the last one the last.
    expected = np.array([[0, 0, 51, 102], [255, 255, 255, 255]]) / 255
    np.testing.assert_allclose(read_image(path), expected, atol=1e-6)


def test_a_table_declared_deeper_than_its_entries_is_not_dark(tmp_path: Path) -> None:
    values = np.arange(4, dtype=np.uint16).reshape(2, 2)
    path = write_radiograph(
        tmp_path / "a.dcm", values, 12, VOILUTSequence=[look_up(0, [0, 1000, 2000, 4095], 16)]
    )
    assert read_image(path).max() == 1


def test_a_real_table_of_values_of_interest_is_applied() -> None:
    path = real("vlut_04.dcm")
    dataset = pydicom.dcmread(path)
    table = np.asarray(dataset.VOILUTSequence[0].LUTData)
    np.testing.assert_allclose(read_image(path), table[dataset.pixel_array] / 65535, atol=1e-6)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    item = look_up(0, [1, 2], 8)
    item.add_new("LUTDescriptor", "US", [300, 0, 8])
    path = write_radiograph(tmp_path / "a.dcm", np.zeros((2, 2), np.uint8), VOILUTSequence=[item])
    with pytest.raises(DataError, match=r"a\.dcm has a damaged look-up table: 2 entries"):
        read_image(path)


@pytest.mark.parametrize("name", ["MR_small_bigendian.dcm", "MR_small_RLE.dcm"])
def test_other_transfer_syntaxes_give_the_same_picture(name: str) -> None:
    np.testing.assert_array_equal(read_image(real(name)), read_image(real("MR_small.dcm")))


def test_a_codec_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
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


#: Cosines of an axial slice whose rows are tilted by 30 degrees, and of a sagittal one.
TILTED = [1, 0, 0, 0, math.cos(math.pi / 6), math.sin(math.pi / 6)]
SAGITTAL = [0, 1, 0, 0, 0, -1]


def placed(path: Path, level: int, position: list[float], cosines: list[float]) -> Path:
    return write_ct_slice(
        path, np.full((4, 4), level, np.int16), None,
        ImagePositionPatient=position, ImageOrientationPatient=cosines,
    )  # fmt: skip


def test_without_slice_location_the_position_along_the_normal_gives_the_order(
    tmp_path: Path,
) -> None:
    normal = np.cross(TILTED[:3], TILTED[3:])
    paths = [
        # Shifts within the slice plane do not change the order.
        placed(
            tmp_path / f"{n}.dcm", level,
            (normal * height + 9 * n * np.array(TILTED[3:])).round(6).tolist(), TILTED,
        )
        for n, (level, height) in enumerate([(10, 5.0), (20, -7.5), (30, 0.0)])
    ]  # fmt: skip
    assert read_series(paths)[:, 0, 0].tolist() == [20, 30, 10]
    assert read_ct_slice(paths[0])[1] == pytest.approx(5.0, abs=1e-4)


def test_positions_of_different_orientations_have_no_order(tmp_path: Path) -> None:
    paths = [
        placed(tmp_path / "a.dcm", 1, [0, 0, 1], TILTED),
        placed(tmp_path / "b.dcm", 2, [0, 0, 2], SAGITTAL),
    ]
    with pytest.raises(DataError, match=r"b\.dcm and a\.dcm are cut in different orientations"):
        read_series(paths)


def test_a_series_of_which_some_slices_lack_their_location_is_refused(tmp_path: Path) -> None:
    paths = [
        write_ct_slice(tmp_path / "a.dcm", np.zeros((4, 4), np.int16), 1.0),
        placed(tmp_path / "b.dcm", 2, [0, 0, 2], TILTED),
    ]
    for order in (paths, paths[::-1]):
        with pytest.raises(DataError, match=r"b\.dcm has no SliceLocation.*but a\.dcm"):
            read_series(order)


def test_an_orientation_that_is_none_is_no_orientation(tmp_path: Path) -> None:
    path = placed(tmp_path / "a.dcm", 1, [0, 0, 1], [1, 0, 0, 1, 0, 0])
    with pytest.raises(DataError, match="no SliceLocation"):
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
