"""A new plugin: a complete distribution with a small working model, filled in from templates."""

from __future__ import annotations

import sys
from collections.abc import Collection
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path

from medbench import __version__
from medbench.errors import UsageError
from medbench.schemas.specs import NAME

TEMPLATES = Path(__file__).parent / "templates"

#: Template to the file that it fills, below the plugin's folder. ``package`` stands for its name.
FILES = {
    "pyproject.toml.jinja": "pyproject.toml",
    "README.md.jinja": "README.md",
    "gitignore.jinja": ".gitignore",
    "workflow.yml.jinja": ".github/workflows/test.yml",
    "package/__init__.py.jinja": "package/__init__.py",
    "package/config.py.jinja": "package/config.py",
    "package/model.py.jinja": "package/model.py",
    "tests/test_conformance.py.jinja": "tests/test_conformance.py",
    "tests/test_model.py.jinja": "tests/test_model.py",
}


def write_plugin(name: str, folder: Path, taken: Collection[str] = ()) -> list[Path]:
    """Write the distribution of a plugin called ``name`` into ``folder``.

    Args:
        name: of the model, the entry point and the distribution: lower-case words joined by
            hyphens. The package has underscores instead.
        folder: what is written into; it must not exist, or be empty.
        taken: names of models that there are already.

    Returns:
        The files written.

    Raises:
        UsageError: the name is malformed or taken, the folder holds something or cannot be
            written.
    """
    import jinja2

    package = _package(name, taken)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(
            f"{folder} exists already, and nothing in it is overwritten. Name another folder with "
            "--output."
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
        # GitHub's workflows have the usual braces for themselves
        variable_start_string="<<",
        variable_end_string=">>",
    )
    camel = "".join(part.capitalize() for part in name.split("-"))
    values = {"name": name, "package": package, "cls": camel, "version": __version__}
    written = []
    for template, target in FILES.items():
        path = folder / target.replace("package/", f"{package}/", 1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(environment.get_template(template).render(values), encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written ({error.strerror}). Name another folder with --output."
            ) from error
        written.append(path)
    return written


def _package(name: str, taken: Collection[str]) -> str:
    """The name of the package. Raises UsageError."""
    if not NAME.match(name):
        raise UsageError(
            f"'{name}' is no name for a plugin: lower-case letters and digits, words joined by "
            "hyphens, such as my-model."
        )
    if name in taken:
        raise UsageError(f"There is a model called '{name}' already. Choose another name.")
    package = name.replace("-", "_")
    if package[0].isdigit() or iskeyword(package) or package in sys.builtin_module_names:
        raise UsageError(f"Python cannot import a package called '{package}'. Choose another name.")
    if find_spec(package) is not None:
        raise UsageError(
            f"A package called '{package}' is installed already, and a plugin of that name would "
            "hide it. Choose another name."
        )
    return package
