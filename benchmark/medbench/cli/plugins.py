"""``medbench plugins list|show|new|check|install``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medbench.cli.catalogue import Json
from medbench.cli.output import print_fields, print_json, print_table
from medbench.cli.registry import registry
from medbench.errors import unknown_name

if TYPE_CHECKING:
    from medbench.plugins import Plugin

plugins = typer.Typer(no_args_is_help=True)


@plugins.command("list", epilog="Example: medbench --no-plugins plugins list")
def list_plugins(json: Json = False) -> None:
    """List plugins and their status: ok, broken, incompatible or disabled."""
    found = registry().plugins
    if json:
        print_json([_document(plugin) for plugin in found])
        return
    print_table(
        ("name", "distribution", "status", "contributes", "error"),
        [
            (
                p.name,
                _distribution(p),
                p.status,
                _contribution(p),
                p.error_text,
            )
            for p in found
        ],
    )


@plugins.command("show", epilog="Example: medbench plugins show medbench-radclip")
def show_plugin(
    name: Annotated[str, typer.Argument(help="Name of the entry point.", show_default=False)],
    json: Json = False,
) -> None:
    """Show one plugin: what it contributes, or the traceback of what broke it."""
    plugins = registry().plugins
    plugin = next((p for p in plugins if p.name == name), None)
    if plugin is None:
        raise unknown_name("plugin", name, [p.name for p in plugins])
    if json:
        print_json({**_document(plugin), "lock": _lock(plugin), "traceback": _traceback(plugin)})
        return
    print_fields(
        [
            ("plugin", plugin.name),
            ("module", plugin.module),
            ("distribution", _distribution(plugin)),
            ("status", plugin.status),
            ("environment", str(plugin.environment or "")),
            ("installed there", _lock(plugin)),
            *((kind, ", ".join(plugin.names(kind))) for kind in plugin.specs),
            ("error", _traceback(plugin).splitlines()),
        ]
    )


@plugins.command(
    "new",
    epilog="Examples:\n\nmedbench plugins new my-model\n\n"
    "medbench plugins new my-model --output plugins/my-model",
)
def new_plugin(
    name: Annotated[
        str,
        typer.Argument(
            help="Of the plugin and its model: lower-case words joined by hyphens.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            envvar="MEDBENCH_OUTPUT",
            metavar="DIR",
            help="Folder to write, new or empty. Default: NAME, here.",
        ),
    ] = None,
) -> None:
    """Write a new plugin: a complete distribution with a small model that works."""
    from medbench.scaffold import write_plugin

    folder = (output or Path(name)).expanduser()
    for path in write_plugin(name, folder, registry().names("models")):
        print(path)
    print(f"Install it with: python -m pip install -e {folder}")


@plugins.command(
    "check",
    epilog="Examples:\n\nmedbench plugins check my-model\n\n"
    "medbench plugins check radclip --model radclip@mean-pooling --json",
)
def check_plugin(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of the entry point; medbench- in front may be left out.", show_default=False
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            envvar="MEDBENCH_MODEL",
            metavar="NAME[@VARIANT]",
            help="The one model to check. Default: all of the plugin, as they are.",
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Hold a plugin against its contract, on synthetic inputs. Exit code 4 when it fails."""
    from dataclasses import asdict

    from medbench.errors import PluginError
    from medbench.testing import Result
    from medbench.testing import check_plugin as climb

    def say(result: Result) -> None:
        what = f"{result.check} {result.model}".strip()
        print(f"  {what}: {result.status} ({result.seconds:.1f} s)", file=sys.stderr, flush=True)

    results = climb(name, model, say=say)
    failed = [result for result in results if result.status == "failed"]
    if json:
        print_json(
            {
                "schema": "medbench.check/1",
                "plugin": name,
                "ok": not failed,
                "checks": [asdict(result) for result in results],
            }
        )
    else:
        print_table(
            ("check", "model", "result", "why, or what was measured"),
            [(r.check, r.model or "-", r.status, r.reason) for r in results],
        )
    if failed:
        for result in failed:
            if result.traceback and os.environ.get("MEDBENCH_DEBUG"):
                print(result.traceback, file=sys.stderr)
        names = ", ".join(dict.fromkeys(result.check for result in failed))
        raise PluginError(
            f"Plugin '{name}' breaks its contract in {len(failed)} of {len(results)} checks: "
            f"{names}. The first: {failed[0].reason}"
        )


@plugins.command(
    "install",
    epilog="Examples:\n\nmedbench plugins install my-model\n\n"
    "medbench plugins install ./my-model --isolated --python python3.12",
)
def install_plugin(
    requirement: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_PATH",
            help="What pip takes: a distribution, a folder, a wheel.",
            show_default=False,
        ),
    ],
    isolated: Annotated[
        bool,
        typer.Option(
            "--isolated",
            envvar="MEDBENCH_ISOLATED",
            help="Into an environment of its own, where its requirements conflict with no other's; "
            "its models run in a process of their own.",
        ),
    ] = False,
    python: Annotated[
        str,
        typer.Option(
            envvar="MEDBENCH_PYTHON",
            metavar="PYTHON",
            help="The Python of that environment, a path or a name. Default: the one that runs "
            "medbench.",
        ),
    ] = "",
) -> None:
    """Install a plugin beside medbench, or isolated from it."""
    from medbench.errors import PluginError, UsageError
    from medbench.isolation.install import install_here, install_isolated

    if not isolated:
        if python:
            raise UsageError("--python is for --isolated: without it, medbench's own is used.")
        install_here(requirement)
        print(f"Installed {requirement}.")
        return
    folder = install_isolated(requirement, python)
    for plugin in (p for p in registry().plugins if p.environment == folder):
        if plugin.error is not None:
            raise PluginError(f"Plugin '{plugin.name}' is {plugin.status}: {plugin.error_text}")
        print(f"Installed {plugin.name} in {folder}: {', '.join(plugin.names('models'))}.")


def _document(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "module": plugin.module,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": plugin.status,
        "error": plugin.error_text or None,
        "isolated": plugin.environment is not None,
        **{kind: plugin.names(kind) for kind in plugin.specs},
    }


def _distribution(plugin: Plugin) -> str:
    isolated = " (isolated)" if plugin.environment is not None else ""
    return f"{plugin.distribution} {plugin.version}{isolated}"


def _lock(plugin: Plugin) -> list[str]:
    """What is installed in the environment of an isolated plugin."""
    if plugin.environment is None or plugin.error is not None:
        return []
    from medbench.isolated import read

    return list(read(plugin.environment).lock)


def _contribution(plugin: Plugin) -> str:
    counts = {kind: len(plugin.names(kind)) for kind in plugin.specs}
    return " ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _traceback(plugin: Plugin) -> str:
    if plugin.error is None:
        return ""
    import traceback

    return "".join(traceback.format_exception(plugin.error)).rstrip()
