"""The 5x200 rule, over CheXpert and over MIMIC-CXR."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_chexpert import row, write

from medbench.data.chexpert_5x200 import LIST, CheXpert5x200
from medbench.data.five_by_200 import CLASSES, by_rule, choose, class_of, only_positive
from medbench.data.mimic_5x200 import Mimic5x200
from medbench.data.mimic_cxr import LABELS as MIMIC_LABELS
from medbench.data.samples import Sample
from medbench.errors import DataError
from medbench.phantom.write import MARKER


def sample(name: str, view: str = "AP", **labels: int | None) -> Sample:
    named = {key.replace("_", "-"): value for key, value in labels.items()}
    return Sample(name, name, (), labels=named, view=view)  # type: ignore[arg-type]


def path(number: int, patient: int | None = None) -> str:
    return f"train/patient{patient or number:05d}/study{number}/view1_frontal.jpg"


def candidates(each: int) -> list[list[str]]:
    """Rows of ``each`` candidates of every class, and some that the rule excludes."""
    rows = [
        row(path(1 + k * each + n), **{name.replace("-", "_"): "1.0"})
        for k, name in enumerate(CLASSES)
        for n in range(each)
    ]
    return [
        *rows,
        row(path(9001), edema="1.0", atelectasis="1.0"),
        row(path(9002), edema="1.0", atelectasis="-1.0"),
        row(path(9003), fracture="1.0"),
        row(path(9004).replace("frontal", "lateral"), side="Lateral", way="", edema="1.0"),
    ]


def test_exactly_one_is_positive_and_the_others_are_absent_or_not_mentioned() -> None:
    assert class_of(sample("a", edema=1)) == "edema"
    assert class_of(sample("a", edema=1, atelectasis=0, consolidation=None)) == "edema"
    assert class_of(sample("a", pleural_effusion=1, no_finding=1, pneumonia=1)) == (
        "pleural-effusion"
    )
    assert class_of(sample("a", edema=1, atelectasis=-1)) is None
    assert class_of(sample("a", edema=1, atelectasis=1)) is None
    assert class_of(sample("a", edema=-1)) is None
    assert class_of(sample("a", pneumonia=1)) is None
    assert class_of(sample("a", "lateral", edema=1)) is None
    assert class_of(sample("a", "frontal", edema=1)) == "edema"


@given(st.lists(st.sampled_from([1, 0, -1, None]), min_size=5, max_size=5))
def test_the_rule_agrees_with_its_definition(values: list[int | None]) -> None:
    labels = dict(zip(CLASSES, values, strict=True))
    found = only_positive(labels)
    blank_is_zero = [value or 0 for value in values]
    wanted = [
        name for k, name in enumerate(CLASSES)
        if blank_is_zero == [int(k == other) for other in range(5)]
    ]  # fmt: skip
    assert found == (wanted[0] if wanted else None)


def test_the_choice_does_not_depend_on_the_order_of_rows_and_is_nested() -> None:
    everyone = [sample(f"s{n}", **{CLASSES[n % 5].replace("-", "_"): 1}) for n in range(100)]
    chosen = choose(everyone, 7)
    assert {name: len(found) for name, found in chosen.items()} == dict.fromkeys(CLASSES, 7)
    assert choose(everyone[::-1], 7) == chosen
    assert all(found == choose(everyone, 9)[name][:7] for name, found in chosen.items())
    assert [s.id for s in chosen["edema"]] != sorted(s.id for s in chosen["edema"])


def test_a_complete_folder_gives_200_of_each(tmp_path: Path) -> None:
    root = write(tmp_path / "a", candidates(205), images=False)
    for number in range(1, 9005):
        (root / f"train/patient{number:05d}").mkdir(parents=True)
    samples = CheXpert5x200(root).samples()
    assert len(samples) == 1000
    assert {s.split for s in samples} == {"test"}
    assert all(list(s.labels) == list(CLASSES) for s in samples)
    counts = {name: sum(s.labels[name] == 1 for s in samples) for name in CLASSES}
    assert counts == dict.fromkeys(CLASSES, 200)
    assert all(sum(map(bool, s.labels.values())) == 1 for s in samples)


def test_a_real_folder_with_too_few_is_refused_with_the_numbers(tmp_path: Path) -> None:
    root = write(tmp_path / "a", candidates(2))
    with pytest.raises(DataError, match=r"atelectasis 2, cardiomegaly 2.*200 of each are needed"):
        CheXpert5x200(root).samples()


def test_in_a_phantom_there_are_as_many_of_each_as_there_can_be(tmp_path: Path) -> None:
    rows = candidates(3)
    root = write(tmp_path / "a", [*rows[:2], *rows[3:]])  # one atelectasis less
    (root / MARKER).write_text("{}")
    samples = CheXpert5x200(root).samples()
    assert len(samples) == 10
    with pytest.raises(DataError, match="cardiomegaly 0"):
        by_rule([sample("a", edema=1)], root)


def test_a_list_decides(tmp_path: Path) -> None:
    rows = candidates(3)
    root = write(tmp_path / "CheXpert-v1.0-small", rows)
    wanted = [rows[14][0], rows[0][0], rows[4][0], rows[6][0], rows[10][0], rows[1][0]]
    # As its authors wrote it: their own folder, and columns besides.
    listed = ["n,Path,Edema", *(f"{n},/data/{p},0.0" for n, p in enumerate(wanted))]
    (root / LIST).write_text("\n".join(listed) + "\n")
    ids = [p.partition("/")[2] for p in wanted]
    assert [s.id for s in CheXpert5x200(root.parent).samples()] == ids
    (root / LIST).unlink()
    (root / "ids.txt").write_text("\n".join(ids))
    samples = CheXpert5x200(root).samples()
    assert [s.id for s in samples] == ids
    assert samples[0].labels["pleural-effusion"] == 1
    assert CheXpert5x200(root).pixels(samples[0]).shape == (6, 5)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([0, 0], "an image that another row has too: row 1"),
        ([0, 15], "not frontal and positive for exactly one"),
        ([0, 18], "not frontal and positive for exactly one"),
        ([0, 1], "lists no image of cardiomegaly, consolidation, edema, pleural-effusion"),
    ],
)
def test_a_list_that_breaks_the_rule_is_refused(
    tmp_path: Path, listed: list[int], message: str
) -> None:
    rows = candidates(3)
    root = write(tmp_path / "a", rows)
    (root / LIST).write_text("\n".join(["Path", *(rows[n][0] for n in listed)]))
    with pytest.raises(DataError, match=message) as caught:
        CheXpert5x200(root).samples()
    assert LIST in str(caught.value)


def test_a_list_of_images_that_are_not_there_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "a", candidates(3))
    (root / LIST).write_text(f"Path\n{path(8000)}\n")
    with pytest.raises(DataError, match="the dataset's tables do not have: row 1"):
        CheXpert5x200(root).samples()
    (root / LIST).write_text(f"path\n{path(1)}\n")
    with pytest.raises(DataError, match="no column 'Path'"):
        CheXpert5x200(root).samples()


def test_the_rule_reads_mimic_cxr_too(tmp_path: Path) -> None:
    columns = {name: name.replace("-", " ").title() for name in CLASSES}
    splits = ["dicom_id,study_id,subject_id,split"]
    metadata = ["dicom_id,subject_id,study_id,ViewPosition,Rows,Columns"]
    labels = [",".join(["subject_id", "study_id", *MIMIC_LABELS])]
    for k, name in enumerate(CLASSES):
        for n in range(2):
            subject, study, dicom = 10_000_000 + k, 50_000_000 + 2 * k + n, f"d{k}{n}"
            folder = tmp_path / f"files/p10/p{subject}/s{study}"
            folder.mkdir(parents=True)
            (folder / f"{dicom}.jpg").touch()
            splits.append(f"{dicom},{study},{subject},train")
            metadata.append(f"{dicom},{subject},{study},{'AP' if n else 'PA'},6,5")
            cells = ["1.0" if label == columns[name] else "" for label in MIMIC_LABELS]
            labels.append(",".join([str(subject), str(study), *cells]))
    for kind, rows in (("split", splits), ("metadata", metadata), ("chexpert", labels)):
        table = gzip.compress("\n".join([*rows, ""]).encode())
        (tmp_path / f"mimic-cxr-2.0.0-{kind}.csv.gz").write_bytes(table)
    with pytest.raises(DataError, match="200 of each are needed"):
        Mimic5x200(tmp_path).samples()
    (tmp_path / "mimic_5x200.csv").write_text("dicom_id\nd11\nd00\nd20\nd30\nd40\n")
    samples = Mimic5x200(tmp_path).samples()
    assert [s.id for s in samples] == ["d11", "d00", "d20", "d30", "d40"]
    assert samples[0].labels == {name: int(name == "cardiomegaly") for name in CLASSES}
    assert {s.split for s in samples} == {"test"}
    (tmp_path / "mimic_5x200.csv").unlink()
    (tmp_path / MARKER).write_text("{}")
    assert len(Mimic5x200(tmp_path).samples()) == 10
