"""What an environment holds, as JSON: its plugins' specs, their settings, and its lock."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from medbench.plugins import Plugin, discover, load_reference
from medbench.schemas.specs import ModelSpec


def describe() -> dict[str, Any]:
    """Asked of a worker, once, when a plugin is installed.

    Returns:
        ``python``; ``lock``: every distribution of the environment, as pip takes them;
        ``plugins``: what discovery makes of each; ``packages``: top-level package of a model's
        class to the file that it is imported from, empty where there is none.
    """
    found = [p for p in discover(isolated=False).plugins if not p.first_party]
    roots = {spec.cls.partition(".")[0].partition(":")[0] for p in found for spec in _models(p)}
    origins = {root: find_spec(root) for root in sorted(roots)}
    return {
        "python": platform.python_version(),
        "lock": lock(),
        "plugins": [_plugin(plugin) for plugin in found],
        "packages": {root: (spec and spec.origin) or "" for root, spec in origins.items()},
    }


def _models(plugin: Plugin) -> list[ModelSpec]:
    return plugin.specs["models"]


def _plugin(plugin: Plugin) -> dict[str, Any]:
    from medbench.run.settings import describe

    return {
        "name": plugin.name,
        "module": plugin.module,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": plugin.status,
        "error": plugin.error_text,
        "claimed": sorted(plugin.claimed),
        "models": [asdict(spec) for spec in _models(plugin)],
        "tasks": [str(path) for path in plugin.specs["tasks"]],
        "in_process_only": plugin.names("datasets") + plugin.names("metrics"),
        "settings": {
            spec.name: describe(load_reference(spec.config, plugin)) if spec.config else []
            for spec in _models(plugin)
        },
    }


def lock() -> list[str]:
    """Name and version of every distribution that can be imported here, sorted.

    One that came from a repository has its address and commit. Paths of this machine are left out,
    since a record carries these lines to others.
    """
    lines: dict[str, str] = {}
    for found in metadata.distributions():
        name = found.metadata["Name"].lower().replace("_", "-")
        lines.setdefault(name, f"{name}=={found.version}{_origin(found)}")
    return [lines[name] for name in sorted(lines)]


def _origin(found: metadata.Distribution) -> str:
    text = found.read_text("direct_url.json")
    told = json.loads(text) if text else {}
    commit = told.get("vcs_info", {}).get("commit_id", "")
    if not commit:
        return ""
    scheme, _, rest = str(told["url"]).partition("://")
    address = f"{scheme}://{rest.rpartition('@')[2]}"  # without a user's name and password
    return f"  # git+{address}@{commit}" if scheme != "file" else f"  # commit {commit}"
