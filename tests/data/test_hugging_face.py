"""Folders in the layouts of Hugging Face's `datasets` are image-text pairs."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medbench.data.image_text_pairs import ImageTextPairs
from medbench.errors import DataError


def picture(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 5), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def shard(path: Path, rows: list[dict[str, object]], group: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def row(value: int, text: str = "a caption", **more: object) -> dict[str, object]:
    return {"image": {"bytes": picture(value), "path": f"{value}.png"}, "caption": text, **more}


def test_an_image_folder_with_a_table_for_each_split(tmp_path: Path) -> None:
    for split, number in (("train", 2), ("validation", 1)):
        folder = tmp_path / split
        folder.mkdir()
        lines = []
        for k in range(number):
            (folder / f"{k}.png").write_bytes(picture(10 * k))
            lines.append({"file_name": f"{k}.png", "text": f"{split} {k}", "patient": k})
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    reader = ImageTextPairs(tmp_path)
    found = [(s.id, s.text, s.split, s.patient) for s in reader.samples()]
    assert found == [
        ("train/0.png", "train 0", "train", "0"),
        ("train/1.png", "train 1", "train", "1"),
        ("validation/0.png", "validation 0", "val", "0"),
    ]
    assert reader.pixels(reader.samples()[1]).mean() == pytest.approx(10 / 255)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.parquet"])
def test_one_table_at_the_top_tells_splits_by_folders(tmp_path: Path, name: str) -> None:
    (tmp_path / "data" / "test").mkdir(parents=True)
    (tmp_path / "data" / "test" / "a.png").write_bytes(picture(1))
    columns = {"file_name": ["data/test/a.png"], "report": ["None"]}
    if name.endswith("csv"):
        (tmp_path / name).write_text("file_name,report\ndata/test/a.png,None\n", encoding="utf-8")
    else:
        pq.write_table(pa.table(columns), tmp_path / name)
    (sample,) = ImageTextPairs(tmp_path).samples()
    assert (sample.id, sample.text, sample.split) == ("data/test/a.png", "None", "test")


def test_a_table_of_our_own_may_be_called_metadata(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "metadata.csv").write_text("image,text\na.png,x\n", encoding="utf-8")
    assert ImageTextPairs(tmp_path).samples()[0].id == "a.png"


def test_a_picture_s_own_name_tells_no_split(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "test-strip.png").write_bytes(picture(1))
    (tmp_path / "metadata.csv").write_text(
        "file_name,text\ntrain/test-strip.png,x\n", encoding="utf-8"
    )
    assert ImageTextPairs(tmp_path).samples()[0].split == "train"


def test_shards_go_to_other_processes_and_hold_no_postscript(tmp_path: Path) -> None:
    script = {**row(1), "image": {"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}}
    shard(tmp_path / "train.parquet", [row(7), script])
    reader = ImageTextPairs(tmp_path)
    samples = reader.samples()
    reader.pixels(samples[0])
    there = pickle.loads(pickle.dumps(reader))  # ours, as `--devices` does it
    assert there.pixels(samples[0]).mean() == pytest.approx(7 / 255)
    with pytest.raises(DataError, match=r"train\.parquet") as told:
        reader.pixels(samples[1])
    assert "Ghostscript" not in str(told.value)


def test_shards_hold_their_images(tmp_path: Path) -> None:
    shard(tmp_path / "data" / "train-00000-of-00002.parquet", [row(v) for v in range(5)])
    shard(tmp_path / "data" / "train-00001-of-00002.parquet", [row(9, patient="p7")])
    shard(tmp_path / "data" / "validation-00000-of-00001.parquet", [row(20, "other")])
    (tmp_path / "README.md").write_text("a dataset card", encoding="utf-8")
    reader = ImageTextPairs(tmp_path)
    samples = reader.samples()
    assert [s.split for s in samples] == ["train"] * 6 + ["val"]
    assert [s.patient for s in samples] == [None] * 5 + ["p7", None]
    assert samples[6].text == "other"
    order = [3, 0, 6, 5, 1, 4, 2]  # any order, over row groups and shards
    seen = [round(float(reader.pixels(samples[k]).mean()) * 255) for k in order]
    assert seen == [3, 0, 20, 9, 1, 4, 2]
    one = ImageTextPairs(tmp_path / "data" / "validation-00000-of-00001.parquet")
    assert len(one.samples()) == 1


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    bad = {**row(1), "image": {"bytes": b"not a picture", "path": "x.png"}}
    empty = {**row(1), "image": {"bytes": None, "path": "x.png"}}
    shard(tmp_path / "a" / "train.parquet", [row(1), bad, empty])
    reader = ImageTextPairs(tmp_path / "a")
    with pytest.raises(DataError, match=r"train\.parquet"):
        reader.pixels(reader.samples()[1])
    with pytest.raises(DataError, match="row 3 holds no image"):
        reader.pixels(reader.samples()[2])
    shard(tmp_path / "b" / "train.parquet", [{"image": row(1)["image"], "label": 3}])
    with pytest.raises(DataError, match=r"no column with a text.*text, caption, report"):
        ImageTextPairs(tmp_path / "b")
    shard(tmp_path / "c" / "train.parquet", [row(1), row(2, " ")])
    with pytest.raises(DataError, match="1 row has no text: row 2"):
        ImageTextPairs(tmp_path / "c").samples()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "metadata.csv").write_text("file_name,text\n../x.png,t\n", encoding="utf-8")
    with pytest.raises(DataError, match="outside the table's folder"):
        ImageTextPairs(tmp_path / "d").samples()
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "metadata.jsonl").write_text('{"file_name": \n', encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read as a table"):
        ImageTextPairs(tmp_path / "e")
