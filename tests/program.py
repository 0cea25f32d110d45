"""The program in a subprocess, with a home folder and plugins of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = Path(__file__).parent / "plugin_packages"


@dataclass
class Ran:
    """What a run of the program gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Medbench:
    """The installed program in a subprocess, with a home folder and plugins of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.site = home / "site"
        self.site.mkdir(parents=True, exist_ok=True)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MEDBENCH_")
        } | {
            "MEDBENCH_HOME": str(home),
            "MEDBENCH_CONFIG": str(home / "config.toml"),
            "PYTHONPATH": str(self.site),
            "COLUMNS": "200",
            "NO_COLOR": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def install(self, package: str, **replacements: str) -> None:
        """Put a plugin package of tests/plugin_packages on the path, as pip would install it."""
        source = (PACKAGES / f"{package}.py").read_text(encoding="utf-8")
        for old, new in replacements.items():
            source = source.replace(old, new)
        (self.site / f"{package}.py").write_text(source, encoding="utf-8")
        info = self.site / f"{package}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[medbench]\n{package} = {package}\n")

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(Path(sys.executable).parent / "medbench"), *map(str, arguments)]

    def __call__(self, *arguments: str | Path, timeout: float = 300, **environment: str) -> Ran:
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment | environment,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Ran(done.returncode, done.stdout, done.stderr)
