"""What honest runs become: packed, verified, without anything that must not be handed on."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medbench.errors import DataError, UsageError, VerificationError
from medbench.evaluation.predictions import sample_key
from medbench.plugins import discover
from medbench.run.reporter import Reporter
from medbench.submission.accept import accept
from medbench.submission.held import Holdings
from medbench.submission.keys import key_id, sample_hmac, secret
from medbench.submission.pack import pack
from submission.bundles import METRICS, TASKS, Desk, desk, edit_json, packed, subgroups, unpacked


def test_honest_runs_are_recomputed(here: Desk, bundle: Path) -> None:
    found = here.verify(bundle)
    assert found.verdict == "recomputed"
    assert [run.verdict for run in found.runs] == ["recomputed"] * 3
    assert not found.kinds


def test_subgroups_are_let_through_as_stated(here: Desk, tmp_path: Path) -> None:
    run = here.run("ours", subgroups=subgroups("auroc"))
    pack([run], tmp_path / "b.zip", TASKS, METRICS, here.holdings)
    found = here.verify(tmp_path / "b.zip")
    assert found.verdict == "recomputed"
    (verdict,) = found.runs
    assert verdict.record is not None
    assert verdict.record.subgroups
    assert "subgroups" not in str(found.document()), "nothing is claimed of them"


@pytest.mark.parametrize(
    ("dataset", "task"),
    [("rsna-pneumonia", "rsna-segmentation"), ("crystal-clean", "crystal-clean-matching"),
     ("rsna-pneumonia", "rsna")],
)  # fmt: skip
def test_every_type_with_predictions_is_recomputed(
    desk_of: Callable[[str], Desk], tmp_path: Path, dataset: str, task: str
) -> None:
    there = desk_of(dataset)
    pack([there.run("ours", task)], tmp_path / "b.zip", TASKS, METRICS, there.holdings)
    assert there.verify(tmp_path / "b.zip").verdict == "recomputed"


def test_a_bundle_holds_no_id_no_label_and_no_patient(here: Desk, bundle: Path) -> None:
    held = here.held(TASKS["covid-ct"])
    files = unpacked(bundle)
    assert {name.rpartition("/")[2] for name in files} == {
        "submission.json", "record.json", "sample_key.npy", "score.npy",
    }  # fmt: skip
    manifest = held.loaded.manifest.sha256
    for data in files.values():
        for name in (*held.ids, *held.patients):
            assert len(name) < 4 or name.encode() not in data
            assert sample_key(manifest, name).encode() not in data


def test_the_same_runs_give_the_same_bytes(here: Desk, bundle: Path, tmp_path: Path) -> None:
    run = here.run("again")
    for name in ("a", "b"):
        pack([run], tmp_path / f"{name}.zip", TASKS, METRICS, here.holdings)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_without_the_data_a_run_is_self_reported(bundle: Path, tmp_path: Path, here: Desk) -> None:
    class Poor(Holdings):
        def _open(self, record: Any, task: Any) -> Any:
            raise DataError("The data are elsewhere.")

    poor = Desk(tmp_path, Poor(discover(third_party=False), {}, Reporter()))
    found = poor.verify(bundle)
    assert found.verdict == "self-reported"
    assert "lacks the data" in found.runs[0].reasons[0]


def test_where_the_data_are_not_a_run_is_self_reported(
    here: Desk, bundle: Path, tmp_path: Path
) -> None:
    bare = desk(tmp_path / "bare", {})

    def real(record: Any) -> None:
        record["data"].update(track="real", renderer=None)

    def published(record: Any) -> None:
        record["model"].update(preset="paper")

    for change, why in ((real, "real data of covid-ct-md"), (published, "at preset paper")):
        files = unpacked(bundle)
        for name in [name for name in files if name.endswith("record.json")]:
            edit_json(files, name, change)
        found = bare.verify(packed(tmp_path / "b.zip", files))
        assert (found.verdict, found.kinds) == ("self-reported", set())
        assert all(why in run.reasons[0] for run in found.runs)


def test_real_data_are_recomputed_by_whoever_has_the_same_files(
    tmp_path: Path, phantoms: Callable[[str], Path]
) -> None:
    """A phantom without its mark is real data to the harness."""
    roots = [tmp_path / name for name in ("mine", "yours", "other")]
    for root in roots:
        ignore = shutil.ignore_patterns("medbench-phantom.json")
        shutil.copytree(phantoms("crystal-clean"), root, ignore=ignore)
    for path in roots[2].rglob("*.jp*g"):
        path.write_bytes(path.read_bytes() + b"\0")
    mine, yours, other = (desk(tmp_path / f"{r.name}-desk", {"crystal-clean": r}) for r in roots)
    mine.track = "real"
    pack([mine.run("ours", "crystal-clean")], tmp_path / "b.zip", TASKS, METRICS, mine.holdings)
    assert yours.verify(tmp_path / "b.zip").verdict == "recomputed"
    found = other.verify(tmp_path / "b.zip")
    assert found.verdict == "self-reported"
    assert "differ from the verifier's copy" in found.runs[0].reasons[0]
    # embeddings of patients stay at home
    run = mine.run("ours", "crystal-clean-matching")
    packing = pack([run], tmp_path / "c.zip", TASKS, METRICS, mine.holdings)
    assert packing.verdict == "self-reported"
    assert not [name for name in unpacked(tmp_path / "c.zip") if name.endswith(".npy")]
    # and of an accepted run the record alone is kept
    folder = accept(
        tmp_path / "b.zip", yours.verify(tmp_path / "b.zip"), tmp_path / "boards", TASKS, METRICS
    )
    assert [path.name for path in folder.rglob("*.*") if path.is_file()] == [
        "verdict.json", "record.json",
    ]  # fmt: skip


def test_generated_reports_and_images_stay_at_home(here: Desk, tmp_path: Path) -> None:
    from leaderboard.runs import write_run
    from leaderboard.typed_tables import metrics_of, table_of

    for kind, name in (
        ("report-generation", "iu-xray-report"),
        ("image-generation", "iu-xray-generation"),
    ):
        run = write_run(
            tmp_path / kind, "ours", spec=TASKS[name], table=table_of(kind, 0.5, 0),
            metrics=metrics_of(kind), adaptation="",
        )  # fmt: skip
        path = tmp_path / f"{kind}.zip"
        found = pack([run], path, TASKS, METRICS, here.holdings)
        assert found.verdict == "self-reported"
        assert "licences" in found.runs[0].reasons[0]
        files = unpacked(path)
        assert sorted(name.rpartition("/")[2] for name in files) == [
            "record.json", "submission.json",
        ]  # fmt: skip
        assert not any(b"SECRET" in data for data in files.values())


def test_a_key_cannot_be_found_by_listing_ids(here: Desk, bundle: Path) -> None:
    """The manifest's hash is public and ids can be listed; both together do not give a key."""
    held = here.held(TASKS["covid-ct"])
    name = next(n for n in unpacked(bundle) if n.endswith("sample_key.npy"))
    keys = set(np.load(io.BytesIO(unpacked(bundle)[name])).tolist())
    public = held.loaded.manifest.sha256
    for salt in (public.encode(), bytes.fromhex(public), b""):
        assert not keys & {sample_hmac(salt, one).encode() for one in held.ids}
    assert keys == {sample_hmac(held.secret, one).encode() for one in held.ids}
    assert held.key_id == key_id(secret(held.loaded))


def test_the_secret_of_real_data_follows_from_its_pixels(here: Desk, tmp_path: Path) -> None:
    """Labels and ids may be guessed from how folders are called; files cannot."""
    from dataclasses import replace

    loaded = here.held(TASKS["covid-ct"]).loaded
    real = replace(loaded, dataset=replace(loaded.dataset, track="real"))
    copies = {}
    for sample in real.samples:
        first = min(sample.files, key=Path.as_posix)
        copies[sample.id] = tmp_path / sample.id / first.name
        copies[sample.id].parent.mkdir(parents=True)
        copies[sample.id].write_bytes(first.read_bytes())
    moved = replace(real, samples=[replace(s, files=(copies[s.id],)) for s in real.samples])
    assert secret(moved) == secret(real) != secret(loaded)
    for path in copies.values():
        path.write_bytes(path.read_bytes() + b"\0")
    assert secret(moved) != secret(real)


def test_limited_or_changed_runs_are_not_packed(here: Desk, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="flagged"):
        pack([here.run("few", flags=("limited",))], tmp_path / "a.zip", TASKS, METRICS,
             here.holdings)  # fmt: skip
    run = here.run("changed")
    other = here.run("other", seed=5)
    (run / "predictions.parquet").write_bytes((other / "predictions.parquet").read_bytes())
    with pytest.raises(VerificationError, match="hash in its record"):
        pack([run], tmp_path / "a.zip", TASKS, METRICS, here.holdings)
    assert not list(tmp_path.iterdir())


def test_runs_on_other_data_or_twice_are_not_packed(here: Desk, tmp_path: Path) -> None:
    run = here.run("twice")
    with pytest.raises(UsageError, match="twice"):
        pack([run, run], tmp_path / "a.zip", TASKS, METRICS, here.holdings)
    text = (run / "record.json").read_text(encoding="utf-8")
    manifest = json.loads(text)["data"]["manifest_sha256"]
    (run / "record.json").write_text(text.replace(manifest, "0" * 64), encoding="utf-8")
    with pytest.raises(DataError, match="other data"):
        pack([run], tmp_path / "a.zip", TASKS, METRICS, here.holdings)
    with pytest.raises(UsageError, match="no folder of a run"):
        pack([tmp_path], tmp_path / "a.zip", TASKS, METRICS, here.holdings)


def test_published_runs_can_be_packed_too(here: Desk, tmp_path: Path) -> None:
    from medbench.leaderboard.build import publish

    folder = publish(here.run("published"), tmp_path / "boards")
    found = pack([folder], tmp_path / "b.zip", TASKS, METRICS, here.holdings)
    assert found.verdict == "recomputed"


def test_another_machine_derives_the_same_keys(
    here: Desk, bundle: Path, tmp_path: Path, phantoms: Callable[[str], Path]
) -> None:
    other = desk(tmp_path / "other", {"covid-ct-md": phantoms("covid-ct-md")})
    assert other.verify(bundle).verdict == "recomputed"
