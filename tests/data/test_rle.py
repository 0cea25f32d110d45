"""Run-length encoded masks: both conventions, there and back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medbench.data import rle
from medbench.errors import DataError
from medbench.phantom.shipped import shipped

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9))


@given(mask=masks, convention=st.sampled_from(["absolute", "relative"]))
def test_what_is_encoded_is_decoded(mask: np.ndarray, convention: rle.Convention) -> None:
    again = rle.decode(rle.encode(mask, convention), mask.shape, convention)
    np.testing.assert_array_equal(again, mask)


@given(mask=masks)
def test_both_conventions_agree_with_counting_pixel_by_pixel(mask: np.ndarray) -> None:
    height, width = mask.shape
    absolute = rle.encode(mask, "absolute").split()
    relative = rle.encode(mask, "relative").split()
    if not mask.any():
        assert absolute == relative == ["-1"]
        return
    seen = np.zeros(height * width, bool)
    for start, length in zip(absolute[::2], absolute[1::2], strict=True):
        for pixel in range(int(start), int(start) + int(length)):
            seen[pixel - 1] = True
    np.testing.assert_array_equal(seen.reshape(width, height).T, mask)
    seen[:] = False
    position = 0
    for start, length in zip(relative[::2], relative[1::2], strict=True):
        position += int(start)
        for _ in range(int(length)):
            seen[position] = True
            position += 1
    np.testing.assert_array_equal(seen.reshape(width, height).T, mask)


def test_runs_go_down_the_columns() -> None:
    expected = np.array([[0, 1, 0], [1, 0, 0]], bool)
    np.testing.assert_array_equal(rle.decode("2 2", (2, 3), "absolute"), expected)
    np.testing.assert_array_equal(rle.decode(" 1 2 ", (2, 3), "relative"), expected)
    # The second run starts one pixel after the first one's end.
    expected[1, 2] = True
    np.testing.assert_array_equal(rle.decode("1 2 2 1", (2, 3), "relative"), expected)
    np.testing.assert_array_equal(rle.decode("2 2 6 1", (2, 3), "absolute"), expected)


@given(one=masks, data=st.data())
def test_masks_of_several_rows_are_joined(one: np.ndarray, data: st.DataObject) -> None:
    other = data.draw(arrays(np.bool_, one.shape))
    runs = [
        rle.runs(rle.encode(mask, "relative"), one.shape, "relative", "x") for mask in (one, other)
    ]
    np.testing.assert_array_equal(rle.fill(runs, one.shape), one | other)


@pytest.mark.parametrize(
    ("text", "convention", "reason"),
    [
        ("1 2 3", "relative", "3 numbers do not make pairs"),
        ("1 -2", "relative", "a start below 0 or a length below 1"),
        ("-1 2", "relative", "a start below 0"),
        ("1 0", "relative", "a length below 1"),
        ("0 2", "absolute", "a start below 1"),
        ("5 2", "relative", "beyond the frame of 3 x 2"),
        ("1 2 1 3", "relative", "beyond the frame"),
        ("6 2", "absolute", "beyond the frame"),
        ("99999999999999999 1", "relative", "beyond the frame"),
        ("9" * 40 + " 1", "relative", "not a list of whole numbers"),
        ("3 2 4 1", "absolute", "overlap or go back"),
        ("4 1 1 1", "absolute", "overlap or go back"),
        ("", "relative", "not a list of whole numbers"),
        ("one 2", "relative", "'one 2' is not a list of whole numbers"),
        ("1.5 2", "absolute", "not a list of whole numbers"),
    ],
)
def test_what_is_no_mask_is_refused_with_its_row(
    text: str, convention: rle.Convention, reason: str
) -> None:
    with pytest.raises(DataError, match=rf"table, row 7: .*{reason}"):
        rle.decode(text, (2, 3), convention, "table, row 7")


def test_a_run_may_end_with_the_frame() -> None:
    assert rle.decode("0 6", (2, 3), "relative").all()
    assert rle.decode("1 6", (2, 3), "absolute").all()


def test_every_real_mask_decodes_and_encodes_to_itself() -> None:
    import pandas as pd

    table = pd.read_csv(shipped("siim-pneumothorax-train-rle.csv.gz"), dtype=str)
    texts = table[" EncodedPixels"].str.strip()
    texts = texts[texts != rle.EMPTY]
    for text in texts:
        rle.runs(text, (1024, 1024), "relative", "x")
    for text in texts[::200]:
        mask = rle.decode(text, (1024, 1024), "relative")
        assert mask.sum() == sum(int(word) for word in text.split()[1::2])
        assert rle.encode(mask, "relative") == text
