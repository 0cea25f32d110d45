"""Installing a plugin: into our own environment, or into one that is its alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import medbench
from medbench.errors import PluginError, UsageError
from medbench.isolated import (
    DESCRIPTION,
    ENVIRONMENT,
    SCHEMA,
    executable,
    plugins_folder,
    read,
)
from medbench.plugins import FIRST_PARTY, GROUP
from medbench.schemas.specs import NAME

#: What medbench's own code needs in a worker, in whatever version the plugin's requirements allow.
NEEDS = ("numpy", "pillow", "pluggy", "pydantic", "safetensors", "torch")


def install_isolated(requirement: str, python: str = "") -> Path:
    """Make an environment for a plugin, install it there, and note what it contributes.

    Args:
        requirement: what pip takes: a name with or without a version, a folder, a wheel, a
            repository's address.
        python: the Python to make the environment with, a path or a name; empty: this one.

    Returns:
        The plugin's folder.

    Raises:
        UsageError: no name can be seen in ``requirement``, or the folder cannot be written.
        PluginError: it cannot be installed, or contributes nothing that can be isolated. What was
            there before is there again then.
    """
    from filelock import FileLock

    from medbench.isolation.process import Process
    from medbench.run.stores import write_atomically, writing

    folder = plugins_folder() / name_of(requirement)
    before = folder.with_name(f".{folder.name}.before")
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    # hidden, so that discovery takes neither for a plugin
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        with writing(folder):
            if folder.exists():
                print(f"medbench: replacing the installation in {folder}", file=sys.stderr)
                shutil.rmtree(before, ignore_errors=True)  # left by a kill
                folder.rename(before)
            folder.mkdir()
        read.cache_clear()
        try:
            _make(folder / ENVIRONMENT, python)
            _link(executable(folder))
            _install(executable(folder), [*NEEDS, _absolute(requirement)])
            process = Process(folder, executable(folder))
            try:
                told = process.ask("describe")
            finally:
                process.end()
            _refuse_unusable(requirement, told["plugins"], told["packages"])
            document = {"schema": SCHEMA, "medbench": medbench.__version__, **told}
            write_atomically(folder / DESCRIPTION, json.dumps(document, indent=1) + "\n")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            if before.exists():
                before.rename(folder)
            raise
        shutil.rmtree(before, ignore_errors=True)
    return folder


def install_here(requirement: str) -> None:
    """Install a plugin into the environment that medbench runs in.

    No distribution that is there is changed: a plugin that asks for another version of one is
    refused. Raises UsageError for what is no requirement, PluginError where pip fails.
    """
    name_of(requirement)
    plugins = {p.dist.name for p in metadata.entry_points(group=GROUP) if p.dist is not None}
    held = {
        f"{found.metadata['Name']}=={found.version}"
        for found in metadata.distributions()
        if found.metadata["Name"] not in plugins - {FIRST_PARTY}
    }
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(sorted(held)), encoding="utf-8")
        try:
            _install(Path(sys.executable), ["-c", str(constraints), _absolute(requirement)])
        except PluginError as error:
            raise PluginError(
                f"{error} Nothing that medbench runs with was changed; what asks for other "
                f"versions goes into an environment of its own: medbench plugins install "
                f"{requirement} --isolated."
            ) from error


def name_of(requirement: str) -> str:
    """The name that a plugin's folder has.

    >>> name_of("My_Model==1.2"), name_of("dist/my_model-1.2-py3-none-any.whl")
    ('my-model', 'my-model')
    """
    path = Path(requirement)
    name = ""
    if _is_path(requirement) and path.is_dir():
        import tomllib

        try:
            content = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))
            name = content["project"]["name"]
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(
                f"{path} has no pyproject.toml with the name of a project ({error}). `medbench "
                "plugins new` writes one that has."
            ) from error
    elif path.suffix in (".whl", ".gz", ".zip"):
        name = path.name.partition("-")[0]
    elif "://" in requirement:
        name, at, _ = requirement.partition("@")
        if not at or "://" in name:
            raise UsageError(f"Put the plugin's name before an address: NAME @ {requirement}.")
    else:
        name = re.split(r"[\s\[<>=!~;@]", requirement.strip(), maxsplit=1)[0]
    name = re.sub(r"[-_.]+", "-", name.strip()).lower()
    if not NAME.match(name):
        raise UsageError(
            f"'{requirement}' is neither a folder, nor a wheel, nor the name of a distribution."
        )
    return name


def _make(environment: Path, python: str) -> None:
    """A virtual environment: by uv where it is on the path, else by venv."""
    uv = shutil.which("uv")
    if uv:
        command = [uv, "venv", "--quiet", str(environment)]
        command += ["--python", python or sys.executable]
    else:
        command = [python or sys.executable, "-m", "venv", str(environment)]
    _run(command, f"making an environment with {python or sys.executable}")


def _link(python: Path) -> None:
    """Put this very medbench into an environment, without anything that it depends on.

    A link and not a copy: the worker always runs the code of the harness that started it. With the
    metadata beside it, a plugin's requirement of medbench is met.
    """
    code = (
        "import sys, sysconfig; print(sysconfig.get_path('purelib'), sys.version_info >= (3, 11))"
    )
    where, new = _run([str(python), "-c", code], "looking into it").rsplit(maxsplit=1)
    if new != "True":
        raise UsageError("A worker needs Python 3.11 or newer: name one with --python.")
    site = Path(where)
    (site / "medbench").symlink_to(Path(medbench.__file__).parent, target_is_directory=True)
    info = site / f"medbench-{medbench.__version__}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: medbench\nVersion: {medbench.__version__}\n",
        encoding="utf-8",
    )
    (info / "INSTALLER").write_text("medbench\n", encoding="utf-8")


def _install(python: Path, what: Sequence[str]) -> None:
    uv = shutil.which("uv")
    program = [uv, "pip"] if uv else [str(python), "-m", "pip"]
    command = [*program, "install", *what]
    if uv:
        command += ["--python", str(python)]
    print(_run(command, f"installing {what[-1]}"), end="", file=sys.stderr)


def _run(command: Sequence[str], doing: str) -> str:
    """Run a command, showing what it complains of; what it wrote to stdout."""
    from medbench.isolation.process import clean_environment

    environment = {**clean_environment(), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be run while {doing} ({error.strerror}).") from error
    print(done.stderr, end="", file=sys.stderr)
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise PluginError(
            f"{Path(command[0]).name} failed with code {done.returncode} while {doing}: "
            f"{' | '.join(said[-3:])[:600]}."
        )
    return done.stdout


def _absolute(requirement: str) -> str:
    return os.path.abspath(requirement) if _is_path(requirement) else requirement


def _is_path(requirement: str) -> bool:
    """As pip tells a path from a name: a folder ``my-model`` is asked for as ``./my-model``."""
    named = "/" in requirement or requirement.startswith(".") or requirement.endswith(".whl")
    return named and "://" not in requirement and Path(requirement).exists()


def _refuse_unusable(
    requirement: str, plugins: Sequence[dict[str, object]], packages: Mapping[str, str]
) -> None:
    """Raises PluginError unless there are models, working, and nothing but models and tasks."""
    missing = [name for name, file in packages.items() if not file]
    if missing:
        raise PluginError(
            f"A model of {requirement} names a class in '{missing[0]}', which is not a package or "
            "module with a file in its environment."
        )
    if not plugins:
        raise PluginError(
            f"{requirement} registers nothing under the entry-point group '{GROUP}': it is no "
            "plugin of medbench, or not installed by the name given."
        )
    for plugin in plugins:
        if plugin["error"]:
            raise PluginError(
                f"Plugin '{plugin['name']}' is {plugin['status']} in its environment: "
                f"{plugin['error']}"
            )
        if plugin["in_process_only"] or not plugin["models"]:
            alone = ", ".join(plugin["in_process_only"])  # type: ignore[arg-type]
            raise PluginError(
                f"Plugin '{plugin['name']}' contributes {alone or 'no model'}: datasets and "
                "metrics run in medbench's own process, and only models can be isolated. Put them "
                "into a distribution of their own."
            )
