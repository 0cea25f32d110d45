"""Documentation that cannot fall behind: verbs, hooks, schemas, README."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from medbench import hookspecs
from medbench.cli.reference import reference
from medbench.metrics.cards import CLASSIFICATION
from medbench.schemas.publish import schemas, text_of
from program import Medbench

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_every_hook_is_documented() -> None:
    text = (DOCS / "plugins.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(hookspecs) if name.startswith("medbench_")]
    assert len(hooks) == 6
    for name in hooks:
        assert f"`{name}(" in text, name
        assert getattr(hookspecs, name).__doc__, name


def test_the_command_reference_is_up_to_date() -> None:
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == reference()


@pytest.mark.parametrize("name", sorted(schemas()))
def test_the_published_schemas_are_up_to_date(name: str) -> None:
    assert (DOCS / "schemas" / name).read_text(encoding="utf-8") == text_of(schemas()[name])


def test_every_metric_has_its_place_in_the_docs() -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    for spec in CLASSIFICATION:
        assert f"`{spec.name}`" in text, spec.name


def test_every_task_and_dataset_is_documented(medbench: Medbench) -> None:
    for kind, page in (("tasks", "tasks.md"), ("datasets", "data.md")):
        text = (DOCS / page).read_text(encoding="utf-8")
        for entry in medbench(kind, "list", "--json").json:
            assert f"`{entry['name']}`" in text, entry["name"]


def test_the_readme_shows_the_two_commands_that_ci_and_make_know() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_links_between_pages_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_in_the_docs_are_real(medbench: Medbench) -> None:
    """Every `medbench ...` line of the pages names a verb and options that exist."""
    lines = set()
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        lines |= set(re.findall(r"^    (medbench [a-z].*)$", page.read_text("utf-8"), re.M))
    assert lines
    known = reference()
    for line in lines:
        words = shlex.split(line, comments=True)
        verbs = [w for w in words[:3] if re.fullmatch(r"[a-z]+", w)]
        assert any(f"## `{' '.join(verbs[:n])}`" in known for n in (2, 3)), line
        for word in words:
            if word.startswith("--"):
                assert f"`{word.partition('=')[0]}`" in known, f"{line}: {word}"


def test_every_option_is_an_environment_variable_of_its_name() -> None:
    from typer.main import get_command

    from medbench.cli import ALL, program

    def options(command: object, path: str) -> list[tuple[str, str, object]]:
        found = []
        for parameter in command.params:  # type: ignore[attr-defined]
            names = [name for name in parameter.opts if name.startswith("--")]
            if names and names[0] not in ("--help", "--version") and "completion" not in names[0]:
                found.append((path, names[0], parameter.envvar))
        for name, child in getattr(command, "commands", {}).items():
            found += options(child, f"{path} {name}")
        return found

    found = options(get_command(program(ALL)), "medbench")
    assert len(found) > 20
    for path, option, variable in found:
        wanted = "MEDBENCH_" + option.removeprefix("--").replace("-", "_").upper()
        assert variable == wanted, f"{path} {option}"
