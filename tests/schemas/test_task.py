"""Task files: what is wrong is named with its file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import medbench_tasks
from medbench.errors import UsageError
from medbench.schemas.task import line_of, load_task

COVID = Path(medbench_tasks.__file__).parent / "covid-ct.toml"


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = COVID.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "covid-ct.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def line_number(path: Path, start: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.startswith(start))


@pytest.mark.parametrize("path", medbench_tasks.medbench_tasks(), ids=lambda p: p.stem)
def test_every_task_file_is_valid_and_named_after_its_task(path: Path) -> None:
    task = load_task(path)
    assert task.name == path.stem
    assert task.primary in task.metrics
    assert all(r.value is None or r.source for r in task.reference)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("multiclass = true", "multiclas = true", "multiclas"),
        ("folds = 5", "foldz = 5", "protocols.clean.foldz"),
        ('text = "COVID-19 pneumonia"', 'tekst = "COVID-19 pneumonia"', "labels.1.tekst"),
        ("version = 1", 'version = "one"', "version"),
    ],
)
def test_a_wrong_key_is_named_with_file_and_line(
    tmp_path: Path, old: str, new: str, key: str
) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(UsageError) as caught:
        load_task(path)
    number = line_number(path, new.partition(" ")[0])
    assert f"{path}, line {number}" in str(caught.value)
    assert f"'{key}'" in str(caught.value)


def test_the_nearest_key_is_offered(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'folds'"):
        load_task(changed(tmp_path, "folds = 5", "foldz = 5"))


def test_a_primary_metric_must_be_scored(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="primary"):
        load_task(changed(tmp_path, 'primary = "auroc"', 'primary = "auprc"'))


def test_broken_toml_and_missing_files_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not valid TOML"):
        load_task(changed(tmp_path, "folds = 5", "folds = = 5"))
    with pytest.raises(UsageError, match="cannot be read"):
        load_task(tmp_path / "nothing.toml")


def test_comments_do_not_change_the_hash_and_content_does(tmp_path: Path) -> None:
    original = load_task(COVID).sha256
    assert load_task(changed(tmp_path, "# COVID", "# A comment. COVID")).sha256 == original
    assert load_task(changed(tmp_path, "seed = 0", "seed = 1")).sha256 != original


def test_lines_are_found_in_tables_arrays_and_dotted_keys() -> None:
    text = "a = 1\n[t]\nb = 2\n[[r]]\nc = 3\n[[r]]\nc = 4\nd.e = 5\n"
    assert line_of(text, ["a"]) == 1
    assert line_of(text, ["t", "b"]) == 3
    assert line_of(text, ["r", 0, "c"]) == 5
    assert line_of(text, ["r", 1, "c"]) == 7
    assert line_of(text, ["r", 1, "d", "e"]) == 8
    assert line_of(text, ["t", "missing"]) == 2


AUGMENTATION = COVID.parent / "generation-augmentation.toml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("share = 1.0", "share = 0.0", "synthetic.share"),
        ("share = 1.0", "share = 4.1", "synthetic.share"),
        ("share = 1.0", "share = 3.1", "at most 3 beside the real images"),
        (
            'unit = "image"',
            'unit = "image"\ninput = "text"',
            "input 'text' is for the linear probe",
        ),
        ("share = 1.0", "shares = 1.0", "Did you mean 'share'"),
        ('unit = "image"', 'unit = "volume"', "for findings of an image"),
        ('unit = "image"', 'unit = "image"\nadaptations = ["fine-tune"]', r"or \[synthetic\]"),
        ('type = "classification"', 'type = "image-generation"', "is for classification"),
    ],
)
def test_wrong_tasks_of_generated_images_are_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = AUGMENTATION.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "generation-augmentation.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_task(path)


def test_generated_images_change_the_hash_of_a_task_and_no_other() -> None:
    task = load_task(AUGMENTATION)
    assert task.synthetic is not None
    assert task.model_copy(update={"synthetic": None}).sha256 != task.sha256
    more = task.synthetic.model_copy(update={"share": 2.0})
    assert task.model_copy(update={"synthetic": more}).sha256 != task.sha256
    # as it was published
    assert "synthetic" in type(load_task(COVID)).model_fields
    records = Path(__file__).parents[2] / "leaderboards" / "records" / "covid-ct"
    published = {
        json.loads(path.read_text(encoding="utf-8"))["task"]["sha256"]
        for path in records.glob("*/record.json")
    }
    assert published == {load_task(COVID).sha256}
