"""Guarded discovery of plugins, and quarantine of those that break.

Every distribution may register modules under the entry-point group ``medbench``. Each is imported,
asked for its specs and validated on its own, so that one broken plugin never hides another. A
plugin that fails is kept with its original error: it is listed, and asking for its model raises
that error again.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

import pluggy

from medbench import API_VERSION, hookspecs
from medbench.errors import PluginError, unknown_name
from medbench.schemas.specs import DatasetSpec, MetricSpec, ModelSpec

GROUP = "medbench"
FIRST_PARTY = "medbench"

_SPEC_TYPES: dict[str, type[Any]] = {
    "models": ModelSpec,
    "datasets": DatasetSpec,
    "metrics": MetricSpec,
    "tasks": Path,
}


@dataclass
class Plugin:
    """One entry point, and what became of it."""

    name: str
    module: str
    distribution: str
    version: str
    status: Literal["ok", "broken", "incompatible", "disabled"] = "ok"
    error: BaseException | None = None
    specs: dict[str, list[Any]] = field(default_factory=lambda: {k: [] for k in _SPEC_TYPES})
    claimed: set[str] = field(default_factory=set)  # names it would have contributed
    environment: Path | None = None  # folder of an isolated plugin; None: it runs in this process

    @property
    def first_party(self) -> bool:
        return self.distribution == FIRST_PARTY

    @property
    def error_text(self) -> str:
        """The original error on one line; empty when there is none."""
        if self.error is None:
            return ""
        import traceback

        text = "".join(traceback.format_exception_only(self.error)).strip()
        return " ".join(text.split())

    def names(self, kind: str) -> list[str]:
        return [spec.stem if isinstance(spec, Path) else spec.name for spec in self.specs[kind]]

    def quarantine(self, status: Literal["broken", "incompatible"], error: BaseException) -> None:
        self.status, self.error = status, error
        self.claimed.update(name for kind in self.specs for name in self.names(kind))
        self.specs = {kind: [] for kind in _SPEC_TYPES}


class IncompatiblePluginError(Exception):
    """A spec supports other plugin-API versions than this harness speaks."""


class Registry:
    """All specs of all working plugins, by name, and the plugins that do not work."""

    def __init__(self, plugins: Sequence[Plugin], manager: pluggy.PluginManager) -> None:
        self.plugins = list(plugins)
        self._manager = manager
        self._owners: dict[str, dict[str, tuple[Any, Plugin]]] = {kind: {} for kind in _SPEC_TYPES}
        for plugin in self.plugins:
            for kind in _SPEC_TYPES:
                for name, spec in zip(plugin.names(kind), plugin.specs[kind], strict=True):
                    self._owners[kind][name] = (spec, plugin)

    def names(self, kind: str) -> list[str]:
        return sorted(self._owners[kind])

    def owner(self, kind: str, name: str) -> Plugin:
        return self._get(kind, name)[1]

    def model(self, name: str) -> ModelSpec:
        spec: ModelSpec = self._get("models", name)[0]
        return spec

    def dataset(self, name: str) -> DatasetSpec:
        spec: DatasetSpec = self._get("datasets", name)[0]
        return spec

    def metric(self, name: str) -> MetricSpec:
        spec: MetricSpec = self._get("metrics", name)[0]
        return spec

    def task_file(self, name: str) -> Path:
        path: Path = self._get("tasks", name)[0]
        return path

    def _get(self, kind: str, name: str) -> tuple[Any, Plugin]:
        if name in self._owners[kind]:
            return self._owners[kind][name]
        for plugin in self.plugins:
            if plugin.error is not None and name in plugin.claimed:
                raise PluginError(
                    f"'{name}' comes from plugin '{plugin.name}' ({plugin.distribution} "
                    f"{plugin.version}), which is {plugin.status}: {plugin.error_text} "
                    f"See `medbench plugins show {plugin.name}`."
                ) from plugin.error
        error = unknown_name(kind.removesuffix("s"), name, self.names(kind))
        bad = [p.name for p in self.plugins if p.error is not None]
        if bad:
            error.args = (f"{error} Plugins that do not work here: {', '.join(bad)}.",)
        raise error

    def notify(self, hook: str, **values: Any) -> list[str]:
        """Call an observing hook on every plugin; an observer that raises is named, not fatal."""
        complaints = []
        for module in list(self._manager.get_plugins()):
            others = [m for m in self._manager.get_plugins() if m is not module]
            name = self._manager.get_name(module)
            try:
                with diverted(f"plugin '{name}'"):
                    self._manager.subset_hook_caller(hook, remove_plugins=others)(**values)
            except (Exception, SystemExit) as error:
                complaints.append(f"plugin '{name}' raised in {hook}: {error!r}")
        return complaints


def load_reference(reference: str, plugin: Plugin | None = None) -> Any:
    """Import ``package.module:Name``. Raises PluginError naming the plugin when that fails."""
    module, _, name = reference.partition(":")
    owner = f"plugin '{plugin.name}'" if plugin else "medbench"
    try:
        with diverted(f"'{module}'"):
            return getattr(import_module(module), name)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{owner} names '{reference}', which cannot be imported: "
            f"{type(error).__name__}: {error}."
        ) from error


class _Named(io.TextIOBase):
    """Writes lines to stderr, each with the name of who printed it."""

    encoding: str = "utf-8"

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            print(f"medbench: {self._owner} printed: {line}", file=sys.stderr)
        return len(text)

    def fileno(self) -> int:
        return 2

    def finish(self) -> None:
        """Write a line that has no end yet."""
        if self._line:
            self.write("\n")


@contextmanager
def diverted(owner: str) -> Iterator[None]:
    """What a plugin prints inside goes to stderr: stdout is for results, such as ``--json``.

    Lines that Python prints carry the name of ``owner``; what is written to the file descriptor
    itself, by a library in C or a child process, goes to stderr as it is.
    """
    named = _Named(owner)
    try:
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError):  # stdout or stderr is closed: there is nothing to keep clean
        kept = -1
    try:
        with redirect_stdout(named):
            yield
    finally:
        named.finish()
        if kept >= 0:
            with suppress(OSError, ValueError):
                sys.stdout.flush()  # what was printed to it under another name
            os.dup2(kept, 1)
            os.close(kept)


def discover(third_party: bool = True, only: str | None = None, isolated: bool = True) -> Registry:
    """Import every plugin's specs. First-party plugins come first and keep their names; isolated
    ones, whose specs are read from their folders, come last. ``isolated=False`` leaves these out.

    ``only`` names the one plugin of third parties that is imported beside the first-party ones; the
    others are disabled, so that what they do cannot be mistaken for its doing.
    """
    manager = pluggy.PluginManager("medbench")
    manager.add_hookspecs(hookspecs)
    found = [(point, *_distribution(point)) for point in entry_points(group=GROUP)]
    found.sort(key=lambda item: (item[1] != FIRST_PARTY, item[0].name))
    plugins: list[Plugin] = []
    taken: dict[tuple[str, str], str] = {}
    for point, distribution, version in found:
        plugin = Plugin(point.name, point.value, distribution, version, claimed={point.name})
        plugin.claimed.add(point.name.removeprefix("medbench-"))
        plugins.append(plugin)
        asked = third_party and only in (None, plugin.name)
        if not plugin.first_party and not asked:
            plugin.status = "disabled"
            continue
        try:
            with diverted(f"plugin '{plugin.name}'"):
                module = point.load()
                _ask(manager, module, plugin)
            _check(plugin, taken)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # a plugin may even call sys.exit() when imported
            if manager.has_plugin(plugin.name):
                manager.unregister(name=plugin.name)
            _quarantined(plugin, error)
            continue
        for kind in _SPEC_TYPES:
            taken.update({(kind, name): plugin.name for name in plugin.names(kind)})
    if isolated:
        plugins += _isolated(third_party, only, taken)
    return Registry(plugins, manager)


def _isolated(
    third_party: bool, only: str | None, taken: dict[tuple[str, str], str]
) -> Iterator[Plugin]:
    """Plugins in environments of their own, as they said of themselves when installed."""
    from medbench.isolated import folders, read

    for folder in folders():
        try:
            found = read(folder)
        except PluginError as error:
            plugin = Plugin(folder.name, "", folder.name, "unknown", environment=folder)
            plugin.claimed.add(folder.name)
            yield _quarantined(plugin, error)
            continue
        for told in found.plugins:
            names = (told["name"], told["module"], told["distribution"], told["version"])
            plugin = Plugin(*names, claimed=set(told["claimed"]), environment=folder)
            if not third_party or only not in (None, plugin.name):
                plugin.status = "disabled"
                yield plugin
                continue
            try:
                plugin.specs["models"] = found.specs(told)
                plugin.specs["tasks"] = [Path(path) for path in told["tasks"]]
                _check(plugin, taken)
            except (ValueError, TypeError, KeyError, OSError, IncompatiblePluginError) as error:
                yield _quarantined(plugin, error)
                continue
            for kind in _SPEC_TYPES:
                taken.update({(kind, name): plugin.name for name in plugin.names(kind)})
            yield plugin


def _quarantined(plugin: Plugin, error: BaseException) -> Plugin:
    incompatible = isinstance(error, IncompatiblePluginError)
    plugin.quarantine("incompatible" if incompatible else "broken", error)
    print(
        f"medbench: plugin '{plugin.name}' is {plugin.status} and left out: {plugin.error_text}",
        file=sys.stderr,
    )
    return plugin


def _distribution(point: EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return ("unknown", "0")
    metadata = point.dist.metadata  # read once: name and version would each parse the file anew
    return (metadata["Name"], metadata["Version"])


def _ask(manager: pluggy.PluginManager, module: Any, plugin: Plugin) -> None:
    """Register the module and collect its specs, through this plugin's hooks alone."""
    manager.register(module, name=plugin.name)
    callers = manager.get_hookcallers(module) or []
    unknown = [caller.name for caller in callers if not caller.has_spec()]
    if unknown:
        raise ValueError(f"implements hooks that medbench does not have: {', '.join(unknown)}")
    others = [other for other in manager.get_plugins() if other is not module]
    for kind, expected in _SPEC_TYPES.items():
        hook = manager.subset_hook_caller(f"medbench_{kind}", remove_plugins=others)
        for specs in hook():
            if isinstance(specs, str | Path) or not isinstance(specs, Sequence):
                raise TypeError(f"medbench_{kind} returned {type(specs).__name__}, not a list")
            for spec in specs:
                if not isinstance(spec, expected):
                    raise TypeError(
                        f"medbench_{kind} returned a {type(spec).__name__}, "
                        f"not a {expected.__name__}"
                    )
                plugin.specs[kind].append(spec)


def _check(plugin: Plugin, taken: dict[tuple[str, str], str]) -> None:
    for kind in _SPEC_TYPES:
        for name, spec in zip(plugin.names(kind), plugin.specs[kind], strict=True):
            if isinstance(spec, Path):
                if not spec.is_file():
                    raise FileNotFoundError(f"task file {spec} does not exist")
            elif API_VERSION not in spec.api:
                supported = ", ".join(str(v) for v in spec.api)
                raise IncompatiblePluginError(
                    f"{kind.removesuffix('s')} '{name}' supports plugin API {supported}; "
                    f"this medbench speaks {API_VERSION}"
                )
            if (kind, name) in taken:
                raise ValueError(
                    f"{kind.removesuffix('s')} '{name}' is already contributed by plugin "
                    f"'{taken[kind, name]}'"
                )
        if len(set(plugin.names(kind))) != len(plugin.names(kind)):
            raise ValueError(f"medbench_{kind} returned the same name twice")
