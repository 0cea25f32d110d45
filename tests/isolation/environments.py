"""A real second environment, made offline: wheels that are zipped here, and a Python whose
environments see our libraries behind their own, as a real one sees those that it has downloaded."""

from __future__ import annotations

import os
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[1] / "plugin_packages"


def wheel(folder: Path, name: str, version: str, code: str, requires: Sequence[str] = ()) -> Path:
    """A wheel of one module; one that begins with a hook registers itself as a plugin."""
    package = name.replace("-", "_")
    info = f"{package}-{version}.dist-info"
    path = folder / f"{package}-{version}-py3-none-any.whl"
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    files = {
        f"{package}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    if "medbench_models" in code:
        files[f"{info}/entry_points.txt"] = f"[medbench]\n{name} = {package}\n"
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def python(folder: Path) -> Path:
    """A Python as ``--python`` takes it, whose environments find our libraries behind their own."""
    path = folder / "python-with-ours"
    ours = sysconfig.get_path("purelib")
    path.write_text(
        f"""#!/bin/sh
[ "$2" = venv ] || exec {sys.executable} "$@"
{sys.executable} -m venv --without-pip "$3" || exit 1
for site in "$3"/lib/python*/site-packages
do echo "import site; site.addsitedir({ours!r})" > "$site/ours.pth"; done
"""
    )
    path.chmod(0o755)
    return path


def offline(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A home in ``folder``, wheels in ``folder/wheels``, and nothing from a network or by uv."""
    monkeypatch.setenv("MEDBENCH_HOME", str(folder / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder / "wheels"))
    monkeypatch.setenv("PIP_QUIET", "1")
    path = [p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "uv").exists()]
    monkeypatch.setenv("PATH", os.pathsep.join(path))
