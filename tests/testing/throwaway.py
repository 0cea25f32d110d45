"""A virtual environment of its own that sees what ours has: no network is needed."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

#: Everything that pip would fetch is in our environment, the builder too.
OFFLINE = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")


class Throwaway:
    """A virtual environment; what is installed into it goes with its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
        self.bin = folder / "env" / "bin"
        (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
        ours = sysconfig.get_path("purelib")
        assert Path(ours) in map(Path, site.getsitepackages())
        (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        program = self.bin / "medbench"
        program.write_text(f"#!{self.bin / 'python'}\nfrom medbench.cli import main\n\nmain()\n")
        program.chmod(0o755)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MEDBENCH_", "PYTHON"))}
        self.environment = kept | {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "MEDBENCH_HOME": str(folder / "home"),
            "MEDBENCH_CONFIG": str(folder / "config.toml"),
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "HF_HUB_OFFLINE": "1",
        }

    def run(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Run a command of the environment; its output, both streams."""
        words = [str(self.bin / command[0]), *map(str, command[1:])]
        done = subprocess.run(
            words, cwd=cwd or self.folder, env=self.environment, capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr
