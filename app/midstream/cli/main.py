"""The root of the command line: its commands, and how every failure is told."""

from __future__ import annotations

import io
import os
import signal
import sys
from importlib import metadata
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from midstream.cli.command_table import Commands, register
from midstream.cli.output.console import err, say_notes
from midstream_partitioner.lifeline import follow_parent, heeded
from midstream_wire.allocator import keep_freed_memory
from midstream_wire.errors import MidstreamError, UsageError

#: What a shell reports for a command that Ctrl-C ended.
_INTERRUPTED = 130

app = typer.Typer(
    name="midstream",
    cls=Commands,
    help="Cut a neural network in two: its head on the edge, its tail in the cloud.",
    epilog="Start with `midstream demo`, or `midstream plan resnet18 --link lte`. "
    "Exit codes: 0 done, 1 failed, 2 invalid usage, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"midstream {metadata.version('midstream')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_say_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Cut a neural network in two: its head on the edge, its tail in the cloud."""


register(app)


def main() -> None:
    """Run the command line. Exit code 0: done; 1: it failed; 2: it was asked wrongly."""
    follow_parent()
    _accept_any_name()
    for number in heeded():
        signal.signal(number, _interrupt)
    keep_freed_memory()
    try:
        code = app(standalone_mode=False)
        if not code:
            say_notes()
    except UsageError as error:
        _fail(str(error), code=2)
    except MidstreamError as error:
        _fail(str(error), code=1)
    except BrokenPipeError:  # the reader of a pipe has gone: nothing is left to say
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or type(error).__name__
        _fail(f"files must be usable where they are named ({where}{reason})", code=1)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_INTERRUPTED)
    except Exception as error:
        _fail_usage(error)
    sys.exit(code)


def _accept_any_name() -> None:
    """Have names written that the output's encoding lacks, as escapes; a closed output drop
    all. Names of layers are anything, and a terminal may be ASCII.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """End as Ctrl-C does: what was started is torn down on the way out."""
    raise KeyboardInterrupt


def _fail_usage(error: Any) -> NoReturn:
    """Return what typer says of flags and arguments, as one sentence; anything else is our
    fault.

    Its classes for that are click's or its own, as its version has it, so they are known by
    what they can do.
    """
    if not hasattr(error, "format_message"):
        raise error
    said = error.format_message().strip().rstrip(".")
    if not said:  # a group without a command has printed its help
        sys.exit(error.exit_code)
    context = getattr(error, "ctx", None)
    hint = f": see {context.command_path} --help" if context is not None else ""
    _fail(said[0].lower() + said[1:] + hint, code=error.exit_code)


def _fail(sentence: str, *, code: int) -> NoReturn:
    """Say `sentence` in one line, whatever libraries put into it, and end."""
    line = " ".join(sentence.split())
    err.print(f"error: {line}", style="red", soft_wrap=True)
    sys.exit(code)
