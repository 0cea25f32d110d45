"""Writing: determinism, the marker, interruption, limits."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from phantom_writers import LIMITS, WRITERS, spec, write

from medbench.phantom import write as writing
from medbench.phantom.version import RENDERER_VERSION
from medbench.phantom.write import MARKER, read_marker, write_phantom
from medbench.schemas.specs import DatasetSpec


def digest(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", WRITERS)
def test_a_phantom_is_the_same_byte_for_byte(
    name: str, phantoms: dict[str, Path], tmp_path: Path
) -> None:
    assert digest(phantoms[name]) == digest(write(name, tmp_path / "again"))


def test_a_subject_does_not_depend_on_the_limit(phantoms: dict[str, Path], tmp_path: Path) -> None:
    fewer = digest(write("covid-ct-md", tmp_path / "fewer", 3))
    more = digest(phantoms["covid-ct-md"])
    images = [path for path in fewer if path.endswith(".dcm")]
    assert images
    assert all(more[path] == fewer[path] for path in images)


@pytest.mark.parametrize("name", WRITERS)
def test_the_marker_tells_what_was_written(name: str, phantoms: dict[str, Path]) -> None:
    marker = read_marker(phantoms[name])
    assert marker is not None
    assert marker["schema"] == "medbench.phantom/1"
    assert (marker["dataset"], marker["preset"], marker["limit"]) == (name, "tiny", LIMITS[name])
    assert marker["renderer"] == marker["facts"]["renderer"] == RENDERER_VERSION
    text = (phantoms[name] / MARKER).read_text(encoding="utf-8")
    assert text == json.dumps(marker, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_an_interrupted_phantom_has_no_marker(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(spec("scenes"), tmp_path, preset="tiny", limit=30, advance=stop)
    assert read_marker(tmp_path) is None
    assert not (tmp_path / MARKER).exists()


def test_the_marker_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def writer(root: Path, **_: object) -> dict[str, object]:
        seen.append((root / MARKER).exists())
        return {}

    monkeypatch.setattr(writing, "import_module", lambda name: type("M", (), {"write": writer}))
    write_phantom(spec("scenes"), tmp_path, preset="tiny")
    assert seen == [False]
    assert read_marker(tmp_path) is not None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"schema": "other/1"}'])
def test_a_damaged_marker_is_no_marker(content: str, tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(content)
    assert read_marker(tmp_path) is None


def test_a_dataset_without_a_phantom_is_refused(tmp_path: Path) -> None:
    bare = DatasetSpec(name="x", title="x", description="x", reader="unused:Reader")
    with pytest.raises(ValueError, match="no phantom"):
        write_phantom(bare, tmp_path, preset="tiny")


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_phantom(
        spec("scenes"), tmp_path, preset="tiny", limit=30, advance=lambda *a: calls.append(a)
    )
    assert calls[-1] == (30, 30)
    assert calls == sorted(calls)


def test_importing_the_package_and_reading_a_marker_needs_no_torch() -> None:
    code = "import sys, medbench.phantom, medbench.phantom.write; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
