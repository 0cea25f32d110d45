"""Isolated plugins that are installed: a folder each under ``MEDBENCH_HOME/plugins``.

A folder holds ``env``, the plugin's own Python environment, and ``plugin.json``, what the plugin
said of itself when it was installed. Listing reads that file alone: no process is started.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from medbench.errors import PluginError
from medbench.home import home
from medbench.schemas.specs import ModelSpec, Variant

SCHEMA = "medbench.isolated/1"
DESCRIPTION = "plugin.json"
ENVIRONMENT = "env"

_Spec = TypeVar("_Spec", bound=ModelSpec)


@dataclass(frozen=True, kw_only=True)
class IsolatedSpec(ModelSpec):
    """The spec of a model whose class is imported in an environment of its own.

    ``environment`` is the folder of the plugin, as text.
    """

    environment: str


@dataclass(frozen=True)
class Installed:
    """What ``plugin.json`` says, and where.

    Attributes:
        folder: of the plugin.
        python: version of its Python.
        lock: a line for each distribution in its environment.
        plugins: of each entry point what discovery made of it there.
        packages: top-level package of a model's class to the file that it is imported from.
    """

    folder: Path
    python: str
    lock: Sequence[str]
    plugins: Sequence[Mapping[str, Any]]
    packages: Mapping[str, str]

    @property
    def executable(self) -> Path:
        """Its Python."""
        return executable(self.folder)

    @property
    def lock_sha256(self) -> str:
        """SHA-256 of the lines of the lock, each ended by a newline."""
        return hashlib.sha256("".join(f"{line}\n" for line in self.lock).encode()).hexdigest()

    def settings(self, model: str) -> list[dict[str, Any]]:
        """The settings of a model, as `medbench.run.settings.describe` gave them there."""
        of_all = {name: found for told in self.plugins for name, found in told["settings"].items()}
        settings: list[dict[str, Any]] = of_all[model]
        return settings

    def specs(self, plugin: Mapping[str, Any]) -> list[IsolatedSpec]:
        """The models of one of its plugins."""
        where = {"environment": str(self.folder)}
        return [model_spec({**document, **where}, IsolatedSpec) for document in plugin["models"]]


def _check(told: Mapping[str, Any]) -> None:
    """Raises KeyError or TypeError for an entry that has not what discovery asks of it."""
    for key in ("name", "module", "distribution", "version"):
        if not isinstance(told[key], str):
            raise TypeError(f"'{key}' is no text")
    for key in ("claimed", "models", "tasks"):
        if not isinstance(told[key], list):
            raise TypeError(f"'{key}' is no list")
    if not isinstance(told["settings"], dict):
        raise TypeError("'settings' is no table")


def executable(folder: Path) -> Path:
    """The Python of a plugin's environment."""
    return folder / ENVIRONMENT / "bin" / "python"


def plugins_folder() -> Path:
    """Where isolated plugins are: ``plugins`` under ``MEDBENCH_HOME``."""
    return home().absolute() / "plugins"


def folders() -> Iterator[Path]:
    """The folders of isolated plugins, by name."""
    try:
        yield from sorted(
            path for path in plugins_folder().iterdir() if path.is_dir() and path.name[0] != "."
        )
    except OSError:  # there are none
        return


@cache
def read(folder: Path) -> Installed:
    """What is installed in a folder. Raises PluginError where that is broken."""
    mend = (
        f"Install it again with `medbench plugins install {folder.name} --isolated` (or the path "
        f"that it came from), or remove {folder}."
    )
    try:
        content = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise PluginError(
                f"Isolated plugin '{folder.name}' was installed by another version of medbench "
                f"({content['schema']}; this one reads {SCHEMA}). {mend}"
            )
        keys = ("python", "lock", "plugins", "packages")
        found = Installed(folder, *(content[key] for key in keys))
        for told in found.plugins:
            _check(told)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PluginError(
            f"The installation of isolated plugin '{folder.name}' is damaged or was never finished "
            f"({DESCRIPTION}: {type(error).__name__}). {mend}"
        ) from error
    if not found.executable.exists():  # also False where it points to a Python that has gone
        raise PluginError(
            f"The environment of isolated plugin '{folder.name}' has no Python any more "
            f"({found.executable}). {mend}"
        )
    return found


def isolated_names() -> Iterator[str]:
    """Names of the entry points of isolated plugins; of a broken one the name of its folder."""
    for folder in folders():
        try:
            yield from (told["name"] for told in read(folder).plugins)
        except PluginError:
            yield folder.name


def environment_part(spec: ModelSpec) -> dict[str, Any]:
    """What a record's ``environment`` says of a model's own environment; nothing without one."""
    if not isinstance(spec, IsolatedSpec):
        return {}
    found = read(Path(spec.environment))
    return {
        "isolated": {
            "python": found.python,
            "lock_sha256": found.lock_sha256,
            "lock": list(found.lock),
        }
    }


def model_spec(document: Mapping[str, Any], cls: type[_Spec]) -> _Spec:
    """A spec from its document, as `ModelSpec` or a class derived from it."""
    values = _tuples(document, cls)
    values["variants"] = tuple(Variant(**_tuples(v, Variant)) for v in document["variants"])
    return cls(**values)


def _tuples(document: Mapping[str, Any], cls: type[Any]) -> dict[str, Any]:
    """JSON has lists where these dataclasses have tuples."""
    known = {field.name for field in fields(cls)}
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in document.items()
        if key in known
    }
