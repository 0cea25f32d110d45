"""Prediction files of every type: read back as written, and refused by name when they are wrong."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medbench.errors import DataError
from medbench.evaluation.arrays import write_npz
from medbench.evaluation.files import read_predictions, trivial
from medbench.evaluation.image_predictions import ImagePredictions
from medbench.evaluation.mask_predictions import MaskPredictions
from medbench.evaluation.report_predictions import ReportPredictions
from medbench.evaluation.retrieval_predictions import RetrievalPredictions

RNG = np.random.default_rng(0)
IDS = [f"s{n}" for n in range(6)]
PATIENTS = ["p0", "p0", "p1", "p2", "p3", "p4"]


def reports() -> ReportPredictions:
    texts = ["No effusion.", "None", "NA", 'He said "clear", twice.', "Größe ∅", "a\nb"]
    return ReportPredictions(IDS, PATIENTS, texts, ["", *texts[1:]])


def masks() -> MaskPredictions:
    reference = RNG.random((6, 4, 5)) > 0.5
    return MaskPredictions(IDS, PATIENTS, reference, ~reference, np.full((6, 2), 0.7))


def retrieval() -> RetrievalPredictions:
    groups = np.array([0, 0, 1, 2, 3, 4])
    return RetrievalPredictions(
        RNG.normal(size=(6, 3)), RNG.normal(size=(5, 3)), groups, np.arange(5), PATIENTS
    )


def test_texts_and_images_of_equal_number_belong_to_the_same_patients() -> None:
    table = RetrievalPredictions(
        np.eye(3), np.eye(3), np.zeros(3, int), np.zeros(3, int), list("abc")
    )
    assert table.patients == ["a", "b", "c", "a", "b", "c"]


def images() -> ImagePredictions:
    real, generated = (RNG.integers(0, 256, (n, 8, 8), dtype=np.uint8) for n in (6, 4))
    features = {"inception": (RNG.normal(size=(6, 3)), RNG.normal(size=(4, 3)))}
    return ImagePredictions(real, generated, np.array([0, 0, 1, 1]), features)


@pytest.mark.parametrize(
    ("make", "kind", "name"),
    [
        (reports, "report-generation", "t.parquet"),
        (masks, "segmentation", "t.npz"),
        (images, "image-generation", "t.npz"),
    ],
)
def test_a_table_is_read_back_as_it_was_written(
    make: Callable[[], Any], kind: str, name: str, tmp_path: Path
) -> None:
    table = make()
    path = tmp_path / name
    table.write(path)
    again: Any = read_predictions(path, kind)
    assert again.digest() == table.digest()
    assert list(again.patients) == list(table.patients)
    first = path.read_bytes()
    again.write(path)
    assert path.read_bytes() == first


def test_embeddings_are_read_back_in_single_precision(tmp_path: Path) -> None:
    table = retrieval()
    table.write(tmp_path / "t.npz")
    again = RetrievalPredictions.read(tmp_path / "t.npz")
    assert again.image == pytest.approx(table.image, abs=1e-6)
    assert again.image_group.tolist() == table.image_group.tolist()
    assert again.image_patients == PATIENTS
    assert again.patients[6:] == ["p0", "p1", "p2", "p3", "p4"]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_texts_that_look_like_missing_values_are_texts(name: str, tmp_path: Path) -> None:
    import pandas as pd

    table = reports()
    frame = pd.DataFrame(
        {"sample_id": IDS, "reference": table.references, "prediction": table.predictions}
    )
    path = tmp_path / name
    if name.endswith("csv"):
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    again = ReportPredictions.read(path)
    assert list(again.references) == list(table.references)
    assert list(again.predictions) == list(table.predictions)
    assert list(again.patients) == IDS


@pytest.mark.parametrize("make", [reports, masks])
def test_the_digest_knows_content_and_not_order(make: Callable[[], Any]) -> None:
    table = make()
    assert table.take([3, 1, 0, 2, 5, 4]).digest() == table.digest()
    assert table.take([0, 1, 2, 3, 4]).digest() != table.digest()


class Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("this must never be executed",))


def test_object_arrays_are_refused_unread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.npz"
    array = np.array([Trap()], dtype=object)
    np.savez(path, image=array, text=np.ones((1, 2)))
    with pytest.raises(DataError, match="object array"):
        read_predictions(path, "retrieval")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", pickle.dumps(Trap()))
        archive.writestr("text.npy", pickle.dumps(Trap()))
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        read_predictions(path, "retrieval")
    assert capsys.readouterr().out == ""


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ones((4, 2)), allow_pickle=False)
    path = tmp_path / "t.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", stream.getvalue()[:-8])
        archive.writestr("text.npy", stream.getvalue())
    with pytest.raises(DataError, match="cut short"):
        read_predictions(path, "retrieval")


def arrays(**values: Any) -> dict[str, Any]:
    return values


MASK = np.zeros((2, 3, 3), bool)
BAD = {
    "a missing array": ("segmentation", arrays(reference=MASK), "no array 'sample_id'"),
    "probabilities for masks": (
        "segmentation",
        arrays(sample_id=np.array(["a", "b"]), reference=MASK, prediction=MASK * 0.5),
        "masks are bool",
    ),
    "mismatched shapes": (
        "segmentation",
        arrays(
            sample_id=np.array(["a", "b"]), reference=MASK, prediction=np.zeros((2, 3, 4), bool)
        ),
        "shape",
    ),
    "a duplicate id": (
        "segmentation",
        arrays(sample_id=np.array(["a", "a"]), reference=MASK, prediction=MASK),
        "'a' occurs twice",
    ),
    "a spacing of zero": (
        "segmentation",
        arrays(
            sample_id=np.array(["a", "b"]),
            reference=MASK,
            prediction=MASK,
            spacing=np.zeros((2, 2)),
        ),
        "positive",
    ),
    "NaN": ("retrieval", arrays(image=np.full((2, 2), np.nan), text=np.ones((2, 2))), "NaN"),
    "a zero vector": ("retrieval", arrays(image=np.zeros((2, 2)), text=np.ones((2, 2))), "zero"),
    "no groups": ("retrieval", arrays(image=np.ones((2, 2)), text=np.ones((3, 2))), "no groups"),
    "half of the groups": (
        "retrieval",
        arrays(image=np.ones((2, 2)), text=np.ones((2, 2)), image_group=np.arange(2)),
        "give both or none",
    ),
    "no common group": (
        "retrieval",
        arrays(
            image=np.ones((2, 2)),
            text=np.ones((2, 2)),
            image_group=np.arange(2),
            text_group=np.arange(2) + 5,
        ),
        "share nothing",
    ),
    "floating images": (
        "image-generation",
        arrays(real=np.ones((2, 4, 4)), generated=np.ones((2, 4, 4))),
        "uint8",
    ),
    "features of what": (
        "image-generation",
        arrays(real_features=np.ones((2, 4)), generated_features=np.ones((2, 4))),
        "backbone",
    ),
    "nothing": ("image-generation", arrays(prompt_id=np.arange(2)), "neither"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_arrays_are_named(case: str, tmp_path: Path) -> None:
    kind, content, message = BAD[case]
    path = tmp_path / "bad.npz"
    np.savez(path, **content)
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path, kind)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sample_id,reference,prediction\n\xff\xfe,a,b\n", "cannot be read"),
        (b"sample_id,reference\na,b\n", "no column 'prediction'"),
        (b"sample_id,reference,prediction\na,x,y\na,x,y\n", "occurs twice"),
        (b"sample_id,reference,prediction\na,,y\n", "reference of sample 'a' is empty"),
        (b"", "cannot be read"),
        (b"sample_id,reference,prediction\n", "no samples"),
    ],
)
def test_wrong_tables_of_reports_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path, "report-generation")
    assert str(path) in str(caught.value)


def test_the_most_frequent_report_is_a_reference() -> None:
    table = ReportPredictions(["a", "b", "c"], ["a", "b", "c"], ["x", "y", "x"], ["", "", ""])
    found: Any = trivial(table)["most-frequent-report"]
    assert found.predictions == ["x", "x", "x"]


def test_the_halves_of_the_floor_share_no_image() -> None:
    table = images()
    halves: Any = trivial(table)["real-versus-real"]
    assert halves.reals + halves.count == table.reals
    everyone = [p.tobytes() for p in (*halves.real, *halves.generated)]
    assert sorted(everyone) == sorted(p.tobytes() for p in table.real)


def test_equal_arrays_give_equal_bytes(tmp_path: Path) -> None:
    content = {"b": np.arange(5), "a": np.ones((2, 3))}
    write_npz(tmp_path / "1.npz", content)
    write_npz(tmp_path / "2.npz", dict(reversed(content.items())))
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    with np.load(tmp_path / "1.npz", allow_pickle=False) as loaded:
        assert loaded["a"].tolist() == content["a"].tolist()
