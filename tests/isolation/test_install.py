"""Installing, listing and mending isolated plugins, and whole runs with them."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import environments
import pytest

from medbench import isolated as installations
from medbench.errors import PluginError, UsageError
from medbench.isolation.description import lock
from medbench.isolation.install import install_here, install_isolated, name_of
from medbench.plugins import discover
from program import Medbench


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and wheels, offline."""
    environments.offline(monkeypatch, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("My_Model", "my-model"),
        ("my-model[gpu] >= 1.2", "my-model"),
        ("dist/my_model-1.0-py3-none-any.whl", "my-model"),
        ("my-model @ git+https://example.org/x.git", "my-model"),
    ],
)
def test_a_plugin_is_called_by_its_distribution(requirement: str, name: str) -> None:
    assert name_of(requirement) == name


@pytest.mark.parametrize("requirement", ["", "..", "git+https://example.org/x.git", "-r x", "/"])
def test_what_names_no_distribution_is_refused(requirement: str) -> None:
    with pytest.raises(UsageError):
        name_of(requirement)


def test_the_description_has_specs_settings_and_the_lock(installed: Path) -> None:
    found = installations.read(installed)
    assert {plugin["name"] for plugin in found.plugins} == {"edge-cases", "toy-model", "able-model"}
    assert [s["key"] for s in found.settings("edge")] == ["size", "deed"]
    assert "conflict-lib==2.0" in found.lock
    assert "edge-cases==1.0" in found.lock
    assert not any("/" in line for line in found.lock), "a path of this machine"
    text = "".join(f"{line}\n" for line in found.lock)
    assert found.lock_sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_a_lock_tells_the_commit_and_neither_password_nor_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "from_git-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: From_Git\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    origin = {"url": "https://me:secret@example.org/x.git", "vcs_info": {"commit_id": "abc"}}
    (info / "direct_url.json").write_text(json.dumps(origin))
    assert "from-git==1.0  # git+https://example.org/x.git@abc" in lock()
    (info / "direct_url.json").write_text(json.dumps({**origin, "url": f"file://{tmp_path}"}))
    assert "from-git==1.0  # commit abc" in lock()


def test_listing_starts_no_process_and_imports_no_torch(home: Path) -> None:
    import subprocess

    code = (
        "import sys, subprocess\n"
        "subprocess.Popen = None\n"
        "from medbench.cli import main\n"
        "try: main(['models', 'list'])\n"
        "except SystemExit: pass\n"
        "print('HEAVY', [m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "edge" in done.stdout
    assert done.stdout.strip().endswith("HEAVY []")


def test_a_conflict_is_refused_beside_us_and_not_in_isolation(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = elsewhere / "wheels"
    needs = ("conflict-lib>=2",)
    code = (environments.PACKAGES / "able_model.py").read_text(encoding="utf-8")
    environments.wheel(wheels, "wants-two", "1.0", code, needs)
    environments.wheel(wheels, "conflict-lib", "2.0", "VERSION = 2\n")
    info = elsewhere / "site" / "conflict_lib-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: conflict-lib\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.setenv("PIP_DRY_RUN", "1")  # should it fail to refuse, we stay as we are
    with pytest.raises(PluginError, match=r"conflict.*plugins install wants-two --isolated"):
        install_here("wants-two")


def test_without_a_conflict_it_is_installed_beside_us(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (environments.PACKAGES / "able_model.py").read_text(encoding="utf-8")
    path = environments.wheel(elsewhere / "wheels", "able-here", "1.0", code)
    monkeypatch.setenv("PIP_TARGET", str(elsewhere / "target"))
    install_here(str(path))
    assert (elsewhere / "target" / "able_here.py").is_file()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("X = 1\n", "registers nothing under the entry-point group"),
        ("def medbench_models(: pass\n", "is broken in its environment: .*SyntaxError"),
        (
            "from medbench import ModelSpec, hookimpl\n\n\n@hookimpl\ndef medbench_models():\n"
            "    return [ModelSpec(name='m', title='', description='', cls='not_there:M')]\n",
            "names a class in 'not_there', which is not a package",
        ),
        (
            "from medbench import DatasetSpec, hookimpl\n\n\n@hookimpl\ndef medbench_datasets():\n"
            "    return [DatasetSpec(name='d', title='', description='', reader='a:B')]\n\n"
            "# medbench_models\n",
            "contributes d: datasets and metrics run in medbench's own process",
        ),
    ],
)
def test_what_is_no_plugin_leaves_nothing_behind(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    monkeypatch.setattr("medbench.isolation.install.NEEDS", ())  # it does not come to that
    path = environments.wheel(elsewhere / "wheels", "no-plugin", "1.0", code)
    with pytest.raises(PluginError, match=words):
        install_isolated(str(path), str(environments.python(elsewhere)))
    assert not (elsewhere / "home" / "plugins" / "no-plugin").exists()


def test_what_cannot_be_installed_says_what_pip_said(elsewhere: Path) -> None:
    with pytest.raises(PluginError, match=r"installing nowhere-to-be-found: .*No matching"):
        install_isolated("nowhere-to-be-found", str(environments.python(elsewhere)))
    with pytest.raises(UsageError, match="no-such-python cannot be run"):
        install_isolated("nowhere-to-be-found", str(elsewhere / "no-such-python"))
    plugins = elsewhere / "home" / "plugins"
    assert not [path for path in plugins.iterdir() if path.name[0] != "."]  # a lock's file stays


def test_an_update_that_fails_leaves_what_was_there(
    elsewhere: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = elsewhere / "home" / "plugins" / "edge-cases"
    (folder / "env" / "bin").mkdir(parents=True)
    (folder / "env" / "bin" / "python").symlink_to(sys.executable)
    shutil.copy(installed / "plugin.json", folder)
    with pytest.raises(PluginError, match="No matching"):
        install_isolated("edge-cases==99", str(environments.python(elsewhere)))
    installations.read.cache_clear()
    assert "edge" in discover().names("models")
    assert [p.name for p in folder.parent.iterdir() if p.is_dir()] == ["edge-cases"]


def _without_description(folder: Path) -> None:
    (folder / "plugin.json").unlink()


def _of_another_version(folder: Path) -> None:
    (folder / "plugin.json").write_text('{"schema": "medbench.isolated/9"}')


def _half_written(folder: Path) -> None:
    (folder / "plugin.json").write_text('{"schema": "medbe')


def _without_a_module(folder: Path) -> None:
    content = json.loads((folder / "plugin.json").read_text())
    content["plugins"] = [{"name": "x"}]
    (folder / "plugin.json").write_text(json.dumps(content))


def _without_python(folder: Path) -> None:
    (folder / "env" / "bin" / "python").unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_without_description, "was never finished"),
        (_of_another_version, "was installed by another version of medbench"),
        (_half_written, "is damaged"),
        (_without_a_module, "is damaged"),
        (_without_python, "has no Python any more"),
    ],
)
def test_a_broken_installation_is_named_and_harms_no_other(
    elsewhere: Path, installed: Path, harm: Callable[[Path], None], words: str
) -> None:
    folder = elsewhere / "home" / "plugins" / "edge-cases"
    (folder / "env" / "bin").mkdir(parents=True)
    (folder / "env" / "bin" / "python").symlink_to(sys.executable)
    shutil.copy(installed / "plugin.json", folder)
    assert "edge" in discover().names("models")
    harm(folder)
    installations.read.cache_clear()
    registry = discover()
    assert "radclip" in registry.names("models")
    broken = next(plugin for plugin in registry.plugins if plugin.environment is not None)
    assert broken.status == "broken"
    with pytest.raises(PluginError, match=words) as caught:
        registry.model("edge-cases")
    assert str(folder) in str(caught.value)


def test_a_name_that_is_taken_is_quarantined(elsewhere: Path, installed: Path) -> None:
    folder = elsewhere / "home" / "plugins" / "edge-cases"
    (folder / "env" / "bin").mkdir(parents=True)
    (folder / "env" / "bin" / "python").symlink_to(sys.executable)
    content = json.loads((installed / "plugin.json").read_text())
    content["plugins"][0]["models"][0]["name"] = "radclip"
    (folder / "plugin.json").write_text(json.dumps(content))
    registry = discover()
    assert registry.owner("models", "radclip").first_party
    assert "already contributed by plugin 'medbench-radclip'" in " ".join(
        plugin.error_text for plugin in registry.plugins
    )


def test_plugins_list_and_show_tell_isolated_ones(program: Medbench) -> None:
    rows = {row["name"]: row for row in program("plugins", "list", "--json").json}
    assert rows["edge-cases"]["isolated"]
    assert not rows["medbench-core"]["isolated"]
    shown = program("plugins", "show", "edge-cases").out
    assert "edge-cases 1.0 (isolated)" in shown
    assert "conflict-lib==2.0" in shown
    settings = program("models", "show", "edge", "--json").json["settings"]
    assert settings[0] == {"key": "size", "default": 8, "assumed": False, "source": ""}
    off = {row["name"]: row for row in program("--no-plugins", "plugins", "list", "--json").json}
    assert off["edge-cases"]["status"] == "disabled"
