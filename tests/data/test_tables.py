"""CSV tables: read as text, and refused by row."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import pytest

from medbench.data.samples import Sample
from medbench.data.tables import (
    find_base,
    in_columns,
    paths_below,
    read_lines,
    read_table,
    read_text,
    repeated,
)
from medbench.errors import DataError

NEEDED = ("id", "x", "y")


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_cells_are_text_as_it_stands(tmp_path: Path) -> None:
    read = read_table(table(tmp_path, "\ufeffid, x,y\r\n007,1.0,None\r\na,,NaN\r\n\r\n"), NEEDED)
    assert read.column("id") == ["007", "a"]
    assert read.column("x") == ["1.0", ""]
    assert read.column("y") == ["None", "NaN"]
    assert read.column("absent") == ["", ""]


def test_quoted_commas_are_part_of_a_cell(tmp_path: Path) -> None:
    read = read_table(table(tmp_path, 'id,x,y\n"a,b",1,2\n'), ("id",), ("x", "y"))
    assert read.column("id") == ["a,b"]
    assert read.together == ["1,2"]


@pytest.mark.parametrize("text", ["id,x,y\na,1,2\nb,,3\n", "y,id,x\n2,a,1\n3,b,\n"])
def test_columns_read_together_are_the_same_wherever_they_stand(tmp_path: Path, text: str) -> None:
    read = read_table(table(tmp_path, text), ("id",), ("x", "y"))
    assert read.together == ["1,2", ",3"]
    assert read.column("id") == ["a", "b"]


def test_a_header_may_have_empty_names_at_its_end(tmp_path: Path) -> None:
    assert read_table(table(tmp_path, "id,x,y,,\na,1,2\nb,3,4,,\n"), NEEDED).column("y") == [
        "2",
        "4",
    ]


def test_gzipped_tables_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"id,x,y\na,1,2\n"))
    assert read_table(path, NEEDED).column("x") == ["1"]
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=r"t\.csv\.gz cannot be read"):
        read_table(path, NEEDED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("id,x,y\n", "no rows below its header"),
        ("id,x\na,1\n", r"no column 'y'; its columns are: id, x\. Needed: id, x, y"),
        ("id;x;y\na;1;2\n", "separated by ';': save it with commas"),
        ("id\tx\ty\na\t1\t2\n", r"separated by '\\t'"),
        ("id,x,y,x\na,1,2,3\n", "more than one column called x"),
        ("id,x,y\na,1,2\nb,1\nc,1,2,3\n", "2 rows have another number of cells than the 3 columns: "
         "row 2 '2 cells'; row 3 '4 cells'"),
    ],
)  # fmt: skip
def test_what_is_no_such_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = table(tmp_path, text)
    for together in ((), ("x", "y")):
        with pytest.raises(DataError, match=message) as caught:
            read_table(path, NEEDED if not together else ("id",), together)
        assert str(path) in str(caught.value)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"id,x\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_text(path)


def test_a_folder_or_a_dangling_link_is_no_table(tmp_path: Path) -> None:
    link = tmp_path / "loop.csv"
    link.symlink_to(link)
    for path in (tmp_path, link, tmp_path / "none.csv"):
        with pytest.raises(DataError, match="cannot be read"):
            read_table(path, NEEDED)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_or_table_without_permission_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "id,x,y\na,1,2\n")
    path.chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_table(path, NEEDED)
    tmp_path.chmod(0)
    try:
        with pytest.raises(DataError, match="Permission denied"):
            find_base(tmp_path, "Some", "'key'", lambda names: "key" in names)
    finally:
        tmp_path.chmod(0o700)


def test_lines_are_stripped_and_empty_ones_dropped(tmp_path: Path) -> None:
    assert read_lines(table(tmp_path, " a \n\nb\r\n")) == ["a", "b"]


def test_repeated_values_are_all_found() -> None:
    assert repeated(["a", "b", "a", "c", "b"]) == [0, 1, 2, 4]
    assert repeated(["a", "b"]) == []


def test_samples_made_in_columns_are_those_made_one_by_one() -> None:
    made = in_columns(2, id=["a", "b"], patient=["p", None], files=iter([(), ()]), age=[1.0, None])
    assert made == [Sample("a", "p", (), age=1.0), Sample("b", None, ())]
    assert repr(made[0]) == repr(Sample("a", "p", (), age=1.0))
    with pytest.raises(AttributeError):
        made[0].id = "c"  # type: ignore[misc]


@pytest.mark.parametrize("root", [Path("/data/some set"), Path("rel"), Path(), Path("/")])
def test_paths_below_a_folder_are_paths_like_any_other(root: Path) -> None:
    (path,) = paths_below(root, [["train", "p1", "view1.jpg"]])
    plain = root / "train" / "p1" / "view1.jpg"
    assert path == plain
    assert (str(path), hash(path), repr(path)) == (str(plain), hash(plain), repr(plain))
    assert (path.parent, path.name, path.suffix, path.parts) == (
        plain.parent, plain.name, plain.suffix, plain.parts,
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(path)) == plain
    assert path.relative_to(root) == plain.relative_to(root)


def test_the_base_is_the_folder_or_the_one_inside(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "key").touch()
    (tmp_path / ".hidden").mkdir()

    def base(root: Path) -> Path:
        return find_base(root, "Some", "'key'", lambda names: "key" in names)

    assert base(inner) == inner
    assert base(tmp_path) == inner
    other = tmp_path / "other"
    other.mkdir()
    (other / "key").touch()
    with pytest.raises(DataError, match="several copies of Some: inner, other"):
        base(tmp_path)


def test_a_root_that_is_not_there_is_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    file = tmp_path / "file"
    file.touch()
    empty = tmp_path / "empty"
    empty.mkdir()
    for root, message in (
        (loop, "a link that leads nowhere"),
        (tmp_path / "none", "does not exist"),
        (file, "is a file"),
        (empty, "is empty"),
        (tmp_path, "is not Some"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            find_base(root, "Some", "'key'", lambda names: "key" in names)
        assert str(root) in str(caught.value)
