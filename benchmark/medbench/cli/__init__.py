"""The command line: one small module per verb, nothing heavy imported before it is needed."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any, cast

import typer

from medbench import __version__
from medbench.errors import MedbenchError

#: What a bad command line raises. Newer versions of typer carry a click of their own, whose classes
#: are reachable on every version only as the ancestors of the public ``typer.BadParameter``.
_BadUsage = cast("type[Exception]", typer.BadParameter.__mro__[2])

ALL = "*"
INTERRUPTED = 130  #: exit code after Ctrl-C, as shells have it

#: Flags of the whole program, accepted anywhere on the line.
_EVERYWHERE = {"--no-plugins": "MEDBENCH_NO_PLUGINS", "--debug": "MEDBENCH_DEBUG"}

#: Verb to the module that has it, as a function or an app of that name, and its line of help.
VERBS = {
    "run": (
        "run",
        "Run models on tasks: train what is missing, evaluate, record.",
    ),
    "sweep": (
        "sweep",
        "Run a matrix of models and tasks by many workers, on this machine or on Ray.",
    ),
    "score": ("score", "Score anybody's predictions: no model needed."),
    "compare": ("compare", "Compare two runs, or two prediction files, in pairs."),
    "models": ("catalogue", "Models that plugins contribute."),
    "tasks": ("catalogue", "Tasks: what is asked of which data, and how it is scored."),
    "datasets": ("catalogue", "Datasets, each with its phantom."),
    "metrics": ("catalogue", "Metrics, each with its identity card."),
    "plugins": ("plugins", "Plugins, and what is wrong with those that fail."),
    "data": ("data", "Datasets on disk, and their phantoms."),
    "leaderboard": ("leaderboard", "Leaderboards: tables made from records alone."),
    "study": ("study", "Studies: claims of papers as comparisons that anybody can run."),
    "submission": ("submission", "Submissions: runs as bundles that anybody can verify."),
    "report": ("report", "Show runs as one HTML page: tables, figures, what to know of them."),
    "export": ("export", "Records for other tools: tidy tables, model-index blocks."),
    "doctor": ("doctor", "Report what this machine has, with a fix for each problem."),
}


def _not_given(path: list[str]) -> dict[str, Any]:
    """False for typer's own flags along this path of verbs.

    Left to themselves they are None, and typer imports pydantic, a third of the whole start-up, to
    learn what a None is.
    """
    flags: dict[str, Any] = {"help": False, "install_completion": False, "show_completion": False}
    return flags | {path[0]: _not_given(path[1:])} if path else flags


def program(verb: str | None) -> typer.Typer:
    """The command line with one verb built in full, or with ``ALL``: the rest costs time."""
    app = typer.Typer(
        name="medbench",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Benchmark radiology vision-language models.\n\n"
        "Start with: [bold]medbench run --model radclip --task covid-ct[/bold]",
        epilog="Every option is also an environment variable MEDBENCH_<OPTION>. Exit codes: 0 "
        "done; 1 a cell failed; 2 bad usage; 3 data or weights missing or invalid; 4 plugin "
        "broken; 5 verification failed.",
    )
    app.callback(invoke_without_command=True)(_program)
    for name in [verb] if verb in VERBS else VERBS:
        where, line = VERBS[name]
        if verb not in (name, ALL):
            app.command(name, help=line)(lambda: None)  # for the list of verbs, its name will do
            continue
        module = import_module(f"medbench.cli.{where}")
        part = getattr(module, name)
        if isinstance(part, typer.Typer):
            app.add_typer(part, name=name, help=line)
        else:
            app.command(name, help=f"{line}\n\n{module.MORE}", epilog=module.EXAMPLES)(part)
    return app


def _program(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    no_plugins: Annotated[
        bool,
        typer.Option(
            "--no-plugins",
            envvar="MEDBENCH_NO_PLUGINS",
            help="Leave out third-party plugins. Works behind any verb too.",
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            envvar="MEDBENCH_DEBUG",
            help="Show the traceback of an error. Works behind any verb too.",
        ),
    ] = False,
) -> None:
    if version:
        print(f"medbench {__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``medbench`` program: run, and turn errors into exit codes."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for flag, variable in _EVERYWHERE.items():
        if flag in given:
            given.remove(flag)
            os.environ[variable] = "1"
    debug = os.environ.get("MEDBENCH_DEBUG", "") not in ("", "0", "false")
    words = [word for word in given if not word.startswith("-")]
    try:
        code = program(words[0] if words else None)(
            args=given,
            prog_name="medbench",
            standalone_mode=False,
            default_map=_not_given(words[:2]),
        )
        if code == INTERRUPTED:  # typer makes this of Ctrl-C inside a command
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except MedbenchError as error:
        _end(str(error), error.exit_code, debug)
    except _BadUsage as error:
        message = error.format_message()  # type: ignore[attr-defined]
        if type(error).__name__ == "NoArgsIsHelpError":
            print(message, file=sys.stderr)
            sys.exit(2)
        _end(message, 2, debug)
    except (KeyboardInterrupt, typer.Abort):
        _end(
            "Interrupted. Finished stages are kept; the same command goes on from there.",
            INTERRUPTED,
        )
    except BrokenPipeError:
        # the reader of our output has gone, as in `medbench models list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        from medbench.run.stores import explain_os_error

        explained = explain_os_error(error)
        if explained is not None:
            _end(str(explained), explained.exit_code, debug)
        _end(
            f"medbench met an error it did not expect: {type(error).__name__}: {error}. Run it "
            "again with --debug for the traceback, and please report it.",
            1,
            debug,
        )


def _end(message: str, code: int, debug: bool = False) -> None:
    if debug and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    print(f"medbench: {message}", file=sys.stderr)
    sys.exit(code)
