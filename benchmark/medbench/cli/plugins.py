"""``medbench plugins list|show``."""

from __future__ import annotations

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
                f"{p.distribution} {p.version}",
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
        print_json({**_document(plugin), "traceback": _traceback(plugin)})
        return
    print_fields(
        [
            ("plugin", plugin.name),
            ("module", plugin.module),
            ("distribution", f"{plugin.distribution} {plugin.version}"),
            ("status", plugin.status),
            *((kind, ", ".join(plugin.names(kind))) for kind in plugin.specs),
            ("error", _traceback(plugin).splitlines()),
        ]
    )


def _document(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "module": plugin.module,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": plugin.status,
        "error": plugin.error_text or None,
        **{kind: plugin.names(kind) for kind in plugin.specs},
    }


def _contribution(plugin: Plugin) -> str:
    counts = {kind: len(plugin.names(kind)) for kind in plugin.specs}
    return " ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def _traceback(plugin: Plugin) -> str:
    if plugin.error is None:
        return ""
    import traceback

    return "".join(traceback.format_exception(plugin.error)).rstrip()
