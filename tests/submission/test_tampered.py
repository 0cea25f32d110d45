"""Tampered bundles: each is found, under a kind of its own, and does nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medbench.errors import VerificationError
from medbench.submission import archive
from medbench.submission.pack import pack
from medbench.submission.problems import KINDS
from submission.bundles import (
    METRICS,
    TASKS,
    Desk,
    edit_array,
    edit_json,
    made,
    packed,
    skilled,
    subgroups,
    unpacked,
)

Files = dict[str, bytes]
INDEX = "submission.json"


def first(files: Files, name: str = "record.json", model: str = "ours") -> str:
    """A file of the first run of a model."""
    return min(n for n in files if n.startswith(model) and n.endswith(name))


def in_record(change: Callable[[Any], object]) -> Callable[[Files], object]:
    return lambda files: edit_json(files, first(files), change)


def in_array(name: str, change: Callable[[Any], Any]) -> Callable[[Files], object]:
    return lambda files: edit_array(files, first(files, f"{name}.npy"), change)


def put(name: str, data: bytes) -> Callable[[Files], object]:
    """Another file beside the first record, or at a path of its own."""
    return lambda files: files.update(
        {name if "/" in name else first(files).replace("record.json", name): data}
    )


class Trap:
    """Leaves a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return (os.mkdir, ("/tmp/medbench-was-here",))


PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
TRAP = pickle.dumps(Trap())


def swap(files: Files) -> None:
    """The better model's predictions in the worse one's run."""
    files[first(files, "score.npy", "theirs")] = files[first(files, "score.npy", "ours")]
    files[first(files, "sample_key.npy", "theirs")] = files[first(files, "sample_key.npy")]


def fewer(files: Files) -> None:
    """Half the samples, and a record that says so."""
    for name in ("score.npy", "sample_key.npy"):
        edit_array(files, first(files, name), lambda array: array[::2])
    count = len(np.load(io.BytesIO(files[first(files, "score.npy")])))
    edit_json(files, first(files), lambda r: r["data"]["samples"].update(test=count))


def renamed(files: Files) -> None:
    """The right number of samples, under keys that nothing gives."""
    keys = [f"{i:032x}".encode() for i in range(1, 1000)]
    edit_array(files, first(files, "sample_key.npy"), lambda a: np.array(keys[: len(a)]))


def clear(files: Files) -> None:
    edit_array(
        files, first(files, "sample_key.npy"),
        lambda a: np.array([f"patient-{i:04d}".encode() for i in range(len(a))], "S32"),
    )  # fmt: skip


def nan_metric(files: Files) -> None:
    name = first(files)
    text = files[name].decode()
    value = json.dumps(json.loads(text)["metrics"]["auroc"]["value"])
    files[name] = text.replace(value, "NaN", 1).encode()


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else []


def twice(text: bytes, key: bytes) -> bytes:
    """A JSON object with one key twice."""
    return text.rstrip()[:-1] + b', "' + key + b'": 1}'


#: What is done to the files of a bundle, whose hashes are then written anew; and its kind.
FORGED: list[tuple[str, str, Callable[[Files], object]]] = [
    ("metric changed", "metric", in_record(lambda r: r["metrics"]["auroc"].update(value=0.99))),
    ("last digits changed", "metric", in_record(
        lambda r: r["metrics"]["auroc"].update(value=r["metrics"]["auroc"]["value"] + 1e-8))),
    ("interval changed", "metric", in_record(
        lambda r: r["metrics"]["auroc"].update(ci95=[0.98, 0.99]))),
    ("count changed", "metric", in_record(lambda r: r["metrics"]["auroc"].update(n=10_000))),
    ("per-label value changed", "metric", in_record(
        lambda r: r["metrics"]["auroc"]["per_label"]["cap"].update(value=0.99))),
    ("metric left out", "metric", in_record(lambda r: r["metrics"].pop("auroc"))),
    ("metric of another task", "metric", in_record(
        lambda r: r["metrics"].update(dice=r["metrics"]["auroc"]))),
    ("metric of another card", "metric", in_record(
        lambda r: r["metrics"]["auroc"].update(card_sha256="0" * 64))),
    ("subgroups of another metric", "metric", in_record(
        lambda r: r.update(subgroups=subgroups("accuracy")))),
    ("a subgroup of its own name", "record", in_record(lambda r: r.update(subgroups=subgroups(
        "auroc", "[best](x)")))),
    ("baseline changed", "metric", in_record(
        lambda r: r["baselines"]["prior"]["auroc"].update(value=0.1, ci95=[0.1, 0.1]))),
    ("prediction changed", "predictions", in_array("score", lambda a: a[:, ::-1].copy())),
    ("predictions of another run", "predictions", swap),
    ("predictions' hash changed", "predictions", in_record(
        lambda r: r["hashes"].update(predictions="0" * 64))),
    ("missing samples", "missing-samples", fewer),
    ("fewer samples than stated", "missing-samples", lambda files: [
        edit_array(files, first(files, n), lambda a: a[:-1]) for n in ("score.npy", "key.npy")]),
    ("samples of other data", "unknown-samples", renamed),
    ("a sample twice", "duplicate-sample", in_array(
        "sample_key", lambda a: np.concatenate([a[:-1], a[:1]]))),
    ("clear patient ids", "clear-ids", clear),
    ("scores as float32", "array", in_array("score", lambda a: a.astype("<f4"))),
    ("scores of another shape", "array", in_array("score", lambda a: a[:, :2].copy())),
    ("scores in one dimension", "array", in_array("score", lambda a: a[:, 0].copy())),
    ("labels given as scores", "array", in_array("score", lambda a: (a > 0.5))),
    ("an infinite score", "nan", in_array("score", lambda a: np.where(a == a.max(), np.inf, a))),
    ("a NaN score", "nan", in_array("score", lambda a: np.where(a == a.max(), np.nan, a))),
    ("a NaN metric", "nan", nan_metric),
    ("an infinite setting", "nan", lambda files: files.update(
        {first(files): files[first(files)].replace(b'"width": 16', b'"width": 1e999')})),
    ("an object array", "pickle", in_array("score", lambda a: np.array([Trap()] * 3, object))),
    ("a pickle for an array", "pickle", put("score.npy", TRAP)),
    ("a pickle", "pickle", put("model.pkl", TRAP)),
    ("a pickle under a plain name", "pickle", put("notes.txt", TRAP)),
    ("a checkpoint", "pickle", put("model.pth", b"PK")),
    ("weights", "weights", put("model.safetensors", bytes(64))),
    ("an image", "image", put("case.png", PNG)),
    ("an image for an array", "image", put("score.npy", PNG)),
    ("a DICOM file", "image", put("case", bytes(128) + b"DICM" + bytes(64))),
    ("references", "reference", put("label.npy", b"\x93NUMPY")),
    ("an extra file", "extra-file", put("readme.txt", b"Hello")),
    ("a file beside the runs", "extra-file", put("other/record.json", b"{}")),
    ("an array of another type", "extra-file", put("prediction.npy", b"\x93NUMPY")),
    ("a program", "extra-file", put("plugin.py", b"import os")),
    ("a missing record", "missing-file", lambda files: files.pop(first(files))),
    ("missing predictions", "missing-file", lambda files: files.pop(first(files, "score.npy"))),
    ("another task's name", "task", in_record(lambda r: r["task"].update(name="covidx"))),
    ("an unknown task", "task", in_record(lambda r: r["task"].update(name="mine"))),
    ("another task file", "task", in_record(lambda r: r["task"].update(sha256="0" * 64))),
    ("another record's run id", "record", in_record(lambda r: r.update(run_id="best"))),
    ("a record of an unknown version", "record", in_record(
        lambda r: r.update(schema="medbench.record/2"))),
    ("an unknown field", "record", in_record(lambda r: r.update(surprise=1))),
    ("a key twice", "record", lambda files: files.update(
        {first(files): twice(files[first(files)], b"seed")})),
    ("no record at all", "record", put("record.json", b"[1, 2")),
    ("a record nested without end", "record", put("record.json", b"[" * 100_000)),
    ("a setting nested deep", "record", in_record(
        lambda r: r["model"]["config"].update(width=deep(100)))),
    ("an impossible fraction", "record", in_record(lambda r: r.update(fraction=7.0))),
    ("an unknown preset", "record", in_record(lambda r: r["model"].update(preset="huge"))),
    ("a limited run", "incomplete", in_record(lambda r: r["flags"].append("limited"))),
    ("a partial run", "incomplete", in_record(lambda r: r.update(status="partial"))),
    ("failed samples", "incomplete", in_record(lambda r: r["counts"].update(failed=3))),
    ("a link in a name", "text", in_record(
        lambda r: r["model"].update(name="[best](http://example.org)"))),
    ("an element in a setting", "text", in_record(
        lambda r: r["model"]["config"].update(width="<script>"))),
    ("a line break in a flag", "text", in_record(lambda r: r["flags"].append("a\n# b"))),
    ("another manifest", "data", in_record(
        lambda r: r["data"].update(manifest_sha256="0" * 64))),
    ("other patients", "data", in_record(lambda r: r["data"]["patients"].update(test=3))),
    ("keys of another secret", "keys", lambda files: edit_json(
        files, INDEX, lambda i: i["runs"][0].update(key_id="0" * 32))),
    ("another version of the bundle", "schema", lambda files: edit_json(
        files, INDEX, lambda i: i.update(schema="medbench.submission/2"))),
    ("an unknown field of the bundle", "schema", lambda files: edit_json(
        files, INDEX, lambda i: i.update(badge="re-run"))),
    ("a run named twice", "schema", lambda files: edit_json(
        files, INDEX, lambda i: i["runs"].append(i["runs"][0]))),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change"), [case[1:] for case in FORGED],
                         ids=[case[0] for case in FORGED])  # fmt: skip
def test_a_forged_bundle_is_named(
    here: Desk, bundle: Path, tmp_path: Path, kind: str, change: Callable[[Files], object]
) -> None:
    files = unpacked(bundle)
    change(files)
    path = packed(tmp_path / "forged.zip", files)
    found = here.verify(path)
    assert found.verdict == "failed"
    assert found.kinds == {kind} | ({"metric"} & found.kinds)
    json.dumps(found.document(), allow_nan=False)
    assert list(tmp_path.iterdir()) == [path]
    assert not Path("/tmp/medbench-was-here").exists()


def test_a_forger_who_leaves_the_other_runs_alone_does_not_harm_them(
    here: Desk, bundle: Path, tmp_path: Path
) -> None:
    files = unpacked(bundle)
    in_record(lambda r: r["metrics"]["auroc"].update(value=0.99))(files)
    found = here.verify(packed(tmp_path / "forged.zip", files))
    assert sorted(run.verdict for run in found.runs) == ["failed", "recomputed", "recomputed"]


def test_a_changed_file_without_a_new_hash_is_named(
    here: Desk, bundle: Path, tmp_path: Path
) -> None:
    files = unpacked(bundle)
    in_record(lambda r: r.update(seed=7))(files)
    assert here.verify(packed(tmp_path / "f.zip", files, sealed=False)).kinds == {"hash"}
    files = unpacked(bundle)
    put("readme.txt", b"Hello")(files)
    assert here.verify(packed(tmp_path / "g.zip", files, sealed=False)).kinds == {"extra-file"}


def test_what_a_stranger_wrote_does_not_reach_the_terminal(
    here: Desk, bundle: Path, tmp_path: Path
) -> None:
    for change in (
        in_record(lambda r: r["task"].update(name="\x1b]0;evil\x07" + "x" * 10_000)),
        in_record(lambda r: r.update({"\x1b[2J": 1})),
        in_record(lambda r: r.update(run_id="\u202egnp.a")),
    ):
        files = unpacked(bundle)
        change(files)
        found = here.verify(packed(tmp_path / "f.zip", files))
        (problem,) = [p for run in found.runs for p in run.problems]
        assert problem.message.isprintable()
        assert len(problem.message) <= 500


def test_references_altered_before_scoring_are_named(here: Desk, tmp_path: Path) -> None:
    """A run that scored itself on labels of its own is whole in itself, and does not hold."""
    task = TASKS["covid-ct"]
    honest = here.held(task).references
    altered = replace(honest, y=np.roll(honest.y, 1, axis=1))
    run = here.run("altered", table=skilled(altered, 3.0, 0))
    with pytest.raises(VerificationError, match="true references"):
        pack([run], tmp_path / "b.zip", TASKS, METRICS, here.holdings)


def test_ids_in_the_texts_of_a_record_are_named(here: Desk, bundle: Path, tmp_path: Path) -> None:
    loaded = here.held(TASKS["covid-ct"]).loaded
    patient = next(s.patient for s in loaded.samples if s.patient and len(s.patient) >= 5)
    files = unpacked(bundle)
    in_record(lambda r: r["notes"].append(f"left out, such as {patient}."))(files)
    assert here.verify(packed(tmp_path / "f.zip", files)).kinds == {"clear-ids"}


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = mode << 16
    return info


LINK = stat.S_IFLNK | 0o777
#: Entries that are added to an honest bundle, and the kind of the problem.
ENTRIES: list[tuple[str, str, list[tuple[zipfile.ZipInfo, bytes]]]] = [
    ("zip-slip", "path", [(entry("../../evil"), b"x")]),
    ("zip-slip in the middle", "path", [(entry("a/../../evil"), b"x")]),
    ("an absolute path", "path", [(entry("/tmp/evil"), b"x")]),
    ("a drive", "path", [(entry("C:/evil"), b"x")]),
    ("a backslash", "path", [(entry("a\\..\\evil"), b"x")]),
    ("a hidden name", "path", [(entry(".git/hooks"), b"x")]),
    ("a name that prints nothing", "path", [(entry("a\x1b[2Jb"), b"x")]),
    ("a symlink", "link", [(entry("ours", LINK), b"/etc/passwd")]),
    ("a device", "link", [(entry("zero", stat.S_IFCHR | 0o666), b"")]),
    ("a folder", "path", [(entry("folder/", stat.S_IFDIR | 0o755), b"")]),
    ("too many entries", "too-many-entries", [(entry(f"n{i}"), b"") for i in range(1001)]),
    ("a duplicate entry", "duplicate-entry", [(entry(INDEX), b"{}")]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("kind", "more"), [case[1:] for case in ENTRIES],
                         ids=[case[0] for case in ENTRIES])  # fmt: skip
def test_an_entry_that_should_not_be_is_named(
    here: Desk, bundle: Path, tmp_path: Path, kind: str, more: list[tuple[zipfile.ZipInfo, bytes]]
) -> None:
    honest = [(entry(name), data) for name, data in unpacked(bundle).items()]
    path = made(tmp_path / "forged.zip", [*honest, *more])
    assert here.verify(path).kinds == {kind}
    assert list(tmp_path.iterdir()) == [path]


def test_a_bomb_is_not_unpacked(here: Desk, tmp_path: Path) -> None:
    zeros = bytes(8 * 2**20)
    info = entry(INDEX)
    info.compress_type = zipfile.ZIP_DEFLATED
    path = made(tmp_path / "bomb.zip", [(info, zeros)])
    assert path.stat().st_size < 20_000
    assert here.verify(path).kinds == {"bomb"}


def test_more_than_is_read_is_refused(
    here: Desk, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("MOST_PACKED", "MOST_ENTRY", "MOST_UNPACKED"):
        with monkeypatch.context() as patch:
            patch.setattr(archive, limit, 1000)
            assert here.verify(bundle).kinds == {"too-large"}
    assert here.verify(bundle, seconds=-1).kinds == {"time"}


def test_other_ways_of_packing_are_refused(here: Desk, bundle: Path, tmp_path: Path) -> None:
    files = unpacked(bundle)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = made(tmp_path / "b.zip", list(files.items()), compression=method)
        assert here.verify(path).kinds == {"compression"}


def patched(path: Path, old: bytes, new: bytes, target: Path) -> Path:
    content = path.read_bytes()
    assert old in content
    target.write_bytes(content.replace(old, new))
    return target


def test_a_damaged_archive_is_named(here: Desk, bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    other = tmp_path / "other.zip"
    cases = {
        "truncated": [content[: len(content) // 2], content[:-1], content + b"more", content[:4]],
        "not-a-zip": [b"", b"%PDF-1.7", bytes(1000), b"MZ" + content],
    }
    for kind, variants in cases.items():
        for variant in variants:
            other.write_bytes(variant)
            assert here.verify(other).kinds == {kind}, variant[:10]


def test_a_wrong_checksum_is_named(here: Desk, bundle: Path, tmp_path: Path) -> None:
    files = unpacked(bundle)
    path = made(tmp_path / "plain.zip", list(files.items()))
    name = first(files)
    other = patched(path, files[name], files[name].replace(b'"seed": 0', b'"seed": 1'),
                    tmp_path / "other.zip")  # fmt: skip
    assert here.verify(other).kinds == {"damaged"}


def test_an_encrypted_entry_is_named(here: Desk, bundle: Path, tmp_path: Path) -> None:
    content = bytearray(bundle.read_bytes())
    with zipfile.ZipFile(bundle) as opened:
        start = opened.start_dir
    content[start + 8] |= 1  # general purpose flags of the first entry in the directory
    (tmp_path / "b.zip").write_bytes(content)
    assert here.verify(tmp_path / "b.zip").kinds == {"encrypted"}


def test_an_array_that_says_it_is_larger_than_it_is_is_not_made(
    here: Desk, bundle: Path, tmp_path: Path
) -> None:
    files = unpacked(bundle)
    name = first(files, "score.npy")
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 3), }"
    head = head.ljust(117) + b"\n"
    files[name] = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(24)
    assert here.verify(packed(tmp_path / "b.zip", files)).kinds == {"array"}


@pytest.mark.parametrize("turn", range(4))
def test_whatever_is_done_to_its_bytes_a_bundle_is_judged(
    here: Desk, bundle: Path, tmp_path: Path, turn: int
) -> None:
    """Bytes overwritten, cut out and put in at random: an answer, never an exception."""
    rng = random.Random(turn)
    honest = bundle.read_bytes()
    for _ in range(60):
        content = bytearray(honest)
        for _ in range(rng.choice((1, 1, 4, 40))):
            # half of the changes in the directory, at the end, which is what a forger works on
            place = rng.randrange(len(content) - rng.choice((0, len(content) * 9 // 10)))
            place = len(content) - 1 - place if rng.random() < 0.5 else place
            content[place : place + rng.choice((0, 1, 4))] = rng.randbytes(rng.choice((0, 1, 4)))
        path = tmp_path / "b.zip"
        path.write_bytes(content)
        found = here.verify(path)
        json.dumps(found.document(), allow_nan=False)
        assert found.verdict == "failed" or unpacked(path) == unpacked(bundle)


def test_embeddings_of_patients_are_refused(desk_of: Callable[[str], Desk], tmp_path: Path) -> None:
    there = desk_of("crystal-clean")
    pack([there.run("ours", "crystal-clean-matching")], tmp_path / "a.zip", TASKS, METRICS,
         there.holdings)  # fmt: skip
    files = unpacked(tmp_path / "a.zip")
    in_record(lambda r: r["data"].update(track="real"))(files)
    assert there.verify(packed(tmp_path / "b.zip", files)).kinds == {"extra-file"}


def test_every_kind_of_problem_is_documented_and_met_here() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "submissions.md").read_text(encoding="utf-8")
    assert [
        kind for kind, meaning in KINDS.items() if f"| `{kind}` | {meaning} |" not in page
    ] == []
    text = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []
