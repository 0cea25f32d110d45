"""The structure that docs/architecture.md promises."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HARNESS = ROOT / "benchmark" / "medbench"

#: Each package may import those of its own rank or below.
RANKS = (
    ("cli",),
    ("site",),
    ("leaderboard", "report", "study", "submission", "sweep", "testing", "scaffold"),
    # The isolated half of `run`: a worker does what `run` does, beyond a pipe.
    ("run", "isolation"),
    ("evaluation", "builtin"),
    # A layout writer is its reader turned round: they share column names and codings.
    ("data", "phantom", "models", "metrics", "statistics"),
    ("schemas", "hookspecs", "plugins", "errors", "isolated", "home"),
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}


def imports(path: Path) -> set[str]:
    """Modules imported anywhere in a file, but for the type checker."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize(
    "path", sorted(HARNESS.rglob("*.py")), ids=lambda p: p.relative_to(HARNESS).as_posix()
)
def test_imports_point_down(path: Path) -> None:
    part = path.relative_to(HARNESS).parts[0].removesuffix(".py")
    if part not in RANK:
        return
    for module in imports(path):
        names = module.split(".")
        if names[0] == "medbench" and len(names) > 1 and names[1] in RANK:
            assert RANK[names[1]] >= RANK[part], f"{path} imports {module}"


def test_the_harness_names_no_plugin() -> None:
    plugins = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}
    for path in HARNESS.rglob("*.py"):
        roots = {module.partition(".")[0] for module in imports(path)}
        assert not roots & plugins, path


def test_plugins_do_not_import_each_other() -> None:
    plugins = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}
    for name in plugins:
        for path in (ROOT / "plugins" / name).rglob("*.py"):
            roots = {module.partition(".")[0] for module in imports(path)}
            assert not roots & (plugins - {name}), path


@pytest.mark.parametrize("arguments", [["--help"], ["models", "list"], ["run", "--help"]])
def test_listing_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["medbench", *{arguments!r}]
from medbench.cli import main
try:
    main()
except SystemExit:
    pass
heavy = {{"torch", "pandas", "transformers", "open_clip", "sklearn", "scipy", "numpy", "pydicom"}}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "HEAVY []"


def test_no_file_carries_a_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    # split, so that this file does not find itself
    banned = ["/ro" + "ot/", "/ho" + "me/", "pyp" + "i.org", "pythonho" + "sted"]
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", ".yml", ".json", ".cff", ""):
            text = path.read_text(encoding="utf-8", errors="replace")
            for word in banned:
                assert word not in text, f"{name} has {word}"


def test_no_two_files_of_tests_share_a_name() -> None:
    """They are imported by name, and of two of one name pytest collects one."""
    names = [path.name for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    assert sorted({name for name in names if names.count(name) > 1}) == []
