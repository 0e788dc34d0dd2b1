"""The root of the command line: its commands, and how every failure is told."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from midstream.cli import cloud, edge, lab, models, plan
from midstream.cli.console import err
from midstream_wire.allocator import keep_freed_memory
from midstream_wire.errors import MidstreamError, UsageError

app = typer.Typer(
    name="midstream",
    help="Cut a neural network in two: its head on the edge, its tail in the cloud.",
    epilog="Start with `midstream demo`, or `midstream plan resnet18 --network lte`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(models.profile)
app.command()(plan.plan)
app.command("partition")(models.cut)
app.command()(lab.verify)
app.add_typer(cloud.app, name="cloud")
app.add_typer(edge.app, name="edge")
app.command()(lab.pair)
app.command()(lab.link)
app.command()(lab.demo)
app.command()(models.models)


def main() -> None:
    """Run the command line. Exit code 0: done; 1: it failed; 2: it was asked wrongly."""
    signal.signal(signal.SIGTERM, _interrupt)
    keep_freed_memory()
    try:
        app()
    except UsageError as error:
        _fail(error, code=2)
    except MidstreamError as error:
        _fail(error, code=1)
    except BrokenPipeError:  # the reader of a pipe has gone: nothing is left to say
        sys.stderr.close()
        sys.exit(1)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Being told to end is like Ctrl-C: what was started is torn down on the way out."""
    raise KeyboardInterrupt


def _fail(error: Exception, *, code: int) -> NoReturn:
    err.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
    sys.exit(code)
