"""Labels, scores and judges of generated images in prediction files: kept, and refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medbench.errors import DataError
from medbench.evaluation.image_predictions import ImagePredictions

NAMES = ("cardiomegaly", "edema")


def judged() -> ImagePredictions:
    rng = np.random.default_rng(0)
    real, generated = (rng.integers(0, 256, (n, 8, 8), dtype=np.uint8) for n in (5, 6))
    labels = np.array([[0, 1], [0, 1], [1, np.nan], [1, np.nan], [0, 0], [0, 0]], float)
    scores = rng.normal(size=(6, 2))
    scores[:, 1] = np.nan
    return ImagePredictions(
        real,
        generated,
        np.array([0, 0, 1, 1, 2, 2]),
        {"phantom": (rng.normal(size=(5, 3)), rng.normal(size=(6, 3)))},
        ["a", "a", "b", "c", "d"],
        label_names=NAMES,
        labels=labels,
        real_labels=np.array([[0, 1], [1, 0], [np.nan, 0], [1, 1], [0, 0]], float),
        scores=scores,
        judge_images=rng.normal(size=(6, 4)),
        judge_texts=rng.normal(size=(4, 4)),
        judge_real=rng.normal(size=(5, 4)),
        real_prompts=np.array([0, 1, 2, 2, -1]),
        prompt_texts=["edema", "large heart", "no edema", "never drawn from"],
        train_distances=rng.random(6),
        real_train_distances=rng.random(5),
        reports=["Edema.", "", "Large heart.", "No edema.", "Naïve: “clear”.", "Edema."],
        prompt_reports=["Edema is seen.", "Large heart.", "", "Nothing."],
    )


#: Arrays of numbers beyond pixels and features, and lists of texts.
ARRAYS = (
    "labels", "real_labels", "scores", "judge_images", "judge_texts", "judge_real",
    "train_distances", "real_train_distances",
)  # fmt: skip
TEXTS = ("prompt_texts", "reports", "prompt_reports")


def test_labels_scores_and_judges_are_read_back_as_written(tmp_path: Path) -> None:
    table, path = judged(), tmp_path / "t.npz"
    table.write(path)
    again = ImagePredictions.read(path)
    assert again.digest() == table.digest()
    assert np.array_equal(again.content, table.content)
    assert again.label_names == NAMES
    for name in (*ARRAYS, "real_prompts"):
        assert np.array_equal(getattr(again, name), getattr(table, name), equal_nan=True), name
    for name in TEXTS:
        assert getattr(again, name) == getattr(table, name), name
    with np.load(path, allow_pickle=False) as found:
        assert "score:cardiomegaly" in found
        assert "score:edema" not in found  # a finding that the classifier does not know
    first = path.read_bytes()
    again.write(path)
    assert path.read_bytes() == first


def test_a_file_without_them_reads_as_before(tmp_path: Path) -> None:
    images = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "t.npz", real=images, generated=images)
    found = ImagePredictions.read(tmp_path / "t.npz")
    assert found.label_names == ()
    assert found.labels is None
    assert found.judge_texts is None


def other(held: Any) -> Any:
    if isinstance(held, list):
        return ["another", *held[1:]]
    changed = held.copy()
    changed.flat[0] = 1 - changed.flat[0]
    return changed


@pytest.mark.parametrize("name", [*ARRAYS, *TEXTS, "real_prompts"])
def test_the_digest_knows_each_of_them(name: str) -> None:
    table = judged()
    changed: Any = {name: other(getattr(table, name))}
    assert replace(table, **changed).digest() != table.digest()
    assert replace(table, label_names=("cardiomegaly", "fracture")).digest() != table.digest()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unequal numbers of labels": ({"label:edema": np.zeros(5)}, "unequal lengths"),
    "labels of other images": (
        {"label:edema": np.zeros(9), "label:cardiomegaly": np.zeros(9)},
        r"labels of the prompts have shape \(9, 2\), not \(6, 2\)",
    ),
    "a finding on one side only": ({"label:mass": np.zeros(6)}, "'mass' is not among both"),
    "a score without a label": ({"score:mass": np.zeros(6)}, "'mass' is not among both"),
    "a score that is NaN": (
        {"score:edema": np.array([0, np.nan, 0, 0, 0, 0])},
        "'score:edema' holds 1 values that are NaN",
    ),
    "a score that is infinite": (
        {"score:edema": np.array([0, np.inf, 0, 0, 0, 0])},
        "1 of 6 generated images have a score",
    ),
    "a label that is neither": ({"label:edema": np.full(6, 0.5)}, "1, 0, or NaN"),
    "labels as words": ({"label:edema": np.array(["yes"] * 6)}, "one number for each image"),
    "a prompt without text": ({"judge_texts": np.zeros((4, 4))}, "Prompt 0 has no text"),
    "too few prompts": ({"judge_texts": np.ones((2, 4))}, "there are 2 prompts"),
    "another space": ({"judge_texts": np.ones((4, 3))}, "in no common space"),
    "images missing from the space": ({"judge_images": np.ones((5, 4))}, "have 5 rows"),
    "NaN in the space": ({"judge_images": np.full((6, 4), np.nan)}, "NaN"),
    "real images missing from the space": ({"judge_real": np.ones((4, 4))}, "are not in the space"),
    "real images without their prompts": (
        {"real_prompt_id": np.array([0, 1])},
        "5 real images have 2 prompts",
    ),
    "unequal numbers of prompts": (
        {"prompt_text": np.array(list("abcde"))},
        "unequal numbers of prompts: 4 prompts in the space, 5 texts of prompts",
    ),
    "a blank prompt": ({"prompt_text": np.array(["edema", " ", "a", "b"])}, "Prompt 1 has no text"),
    "texts as numbers": ({"report": np.zeros(6)}, "6 unicode strings are expected"),
    "reports missing": ({"report": np.array(["a", "b"])}, "6 generated images have 2 reports"),
    "distances missing": ({"train_distance": np.ones(5)}, "6 generated images have distances"),
    "a negative distance": (
        {"real_train_distance": np.array([1, 2, -1, -2, 0.5])},
        "2 of 5 real images have a distance",
    ),
    "a distance that is NaN": ({"train_distance": np.full(6, np.nan)}, "6 values that are NaN"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_named_with_its_file(case: str, tmp_path: Path) -> None:
    content, message = BAD[case]
    path = tmp_path / "bad.npz"
    judged().write(path)
    with np.load(path, allow_pickle=False) as found:
        arrays = dict(found)
    np.savez(path, **(arrays | content))
    with pytest.raises(DataError, match=message) as caught:
        ImagePredictions.read(path)
    assert str(path) in str(caught.value)


def test_half_of_a_space_and_labels_out_of_order_are_refused() -> None:
    table = judged()
    with pytest.raises(DataError, match="needs the generated images, the prompts"):
        replace(table, judge_images=None)
    with pytest.raises(DataError, match="needs the generated images, the prompts"):
        replace(table, prompts=None)
    with pytest.raises(DataError, match="needs the generated images, the prompts"):
        replace(table, judge_images=None, judge_texts=None)
    with pytest.raises(DataError, match="nothing says which image was generated from which"):
        replace(table, prompts=None, judge_images=None, judge_texts=None, judge_real=None)
    with pytest.raises(DataError, match="of the generated and of the real images"):
        replace(table, train_distances=None)
    with pytest.raises(DataError, match="Reports of images need those of their prompts"):
        replace(table, prompt_reports=None)
    with pytest.raises(DataError, match="is of a prompt that is not among 4"):
        replace(table, real_prompts=np.array([0, 1, 2, 3, 4]))
    with pytest.raises(DataError, match="alphabet"):
        replace(table, label_names=NAMES[::-1])
    with pytest.raises(DataError, match="no labels to hold them against"):
        replace(table, labels=None)


def test_halves_keep_patients_whole_and_carry_what_belongs_to_them() -> None:
    rng = np.random.default_rng(1)
    owners = [f"p{n}" for n in np.repeat(np.arange(20), rng.integers(1, 5, 20))]
    count = len(owners)
    pixels = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)
    y = rng.integers(0, 2, (count, 2)).astype(float)
    x = rng.normal(size=(count, 3))
    near = rng.random(count)
    table = ImagePredictions(
        pixels, pixels[:3], None, {"phantom": (x, x[:3])}, owners, NAMES, y[:3], y,
        train_distances=near[:3], real_train_distances=near,
    )  # fmt: skip
    halves = table.halves()
    assert halves.real is not None
    assert halves.generated is not None
    assert abs(halves.reals - halves.count) <= 4
    of = {p.tobytes(): i for i, p in enumerate(pixels)}
    first, second = ([of[p.tobytes()] for p in side] for side in (halves.real, halves.generated))
    assert sorted([*first, *second]) == list(range(count))
    assert not {owners[i] for i in first} & {owners[i] for i in second}
    assert np.array_equal(halves.given["phantom"][1], x[second])
    assert np.array_equal(np.asarray(halves.labels), y[second])
    assert np.array_equal(np.asarray(halves.real_labels), y[first])
    assert np.array_equal(np.asarray(halves.train_distances), near[second])
    assert np.array_equal(np.asarray(halves.real_train_distances), near[first])
    # one cluster for each patient of the second half
    assert len(set(halves.patients[len(first) :])) == len({owners[i] for i in second})
    moved = rng.permutation(count)
    again = replace(
        table,
        real=pixels[moved],
        given={"phantom": (x[moved], x[:3])},
        real_patients=[owners[i] for i in moved],
        real_labels=y[moved],
        real_train_distances=near[moved],
    )
    for side in ("real", "generated"):
        images = [sorted(p.tobytes() for p in getattr(t, side)) for t in (again.halves(), halves)]
        assert images[0] == images[1]
    with pytest.raises(DataError, match="1 patient"):
        replace(table, real_patients=["p"] * count).halves()
