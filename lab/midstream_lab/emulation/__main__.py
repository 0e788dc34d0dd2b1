"""Emulated links from a shell.

    python -m midstream_lab.emulation backends
    python -m midstream_lab.emulation up --uplink 10Mbit --downlink drive.csv --delay 20ms

The first line says what is up: backend, prefixes, addresses, validity, as JSON. Then each line
on standard input is a command, answered by a line of JSON: `stats`, `validity`, `start` (the
traces), `cut black-hole`, `cut reset`, `cut refuse`, `restore`, `reach HOST:PORT`, and
`set --uplink 2Mbit ...`. The link goes when standard input ends.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from midstream_lab.emulation.emulate import BACKENDS, Emulation, emulate, why_not
from midstream_lab.emulation.model.outages import Cut
from midstream_lab.emulation.model.spec import QUEUE_NBYTES, LinkSpec, Loss, Rate
from midstream_lab.traces.parsing import load_trace
from midstream_partitioner.units import (
    parse_duration,
    parse_nbytes,
    parse_rate,
    parse_share,
)
from midstream_wire.errors import MidstreamError, UsageError


class _Parser(argparse.ArgumentParser):
    """One that raises: a mistyped command must not take the link down."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def rate(text: str) -> Rate:
    """A rate such as "10Mbit", or the trace in the file of that name."""
    return load_trace(Path(text)) if Path(text).is_file() else parse_rate(text)


def parser() -> argparse.ArgumentParser:
    """Return what `up` and `set` take, one option per field of a `LinkSpec`."""
    link = _Parser(prog="up", description="One emulated link.")
    add: Callable[..., Any] = link.add_argument
    add("--uplink", type=rate, help="a rate such as 10Mbit, or a file with a trace")
    add("--downlink", type=rate, help="as --uplink")
    add("--delay", type=parse_duration, help="one way, such as 20ms")
    add("--jitter", type=parse_duration, help="at most, to either side")
    add("--loss", type=parse_share, help="share of packets lost, such as 1%%")
    add("--bursts", type=float, help="mean length of a run of lost packets")
    add("--queue", type=parse_nbytes, help="in front of the line, such as 256KiB")
    add("--congestion", help="TCP's congestion control, such as cubic")
    add("--seed", type=int, help="what losses and jitter are drawn from")
    return link


def specification(options: argparse.Namespace, before: LinkSpec) -> LinkSpec:
    """`before` with what the options say otherwise."""
    given = {
        "uplink": options.uplink,
        "downlink": options.downlink,
        "delay_s": options.delay,
        "jitter_s": options.jitter,
        "queue_nbytes": options.queue,
        "congestion": options.congestion,
        "seed": options.seed,
    }
    if options.loss is not None:
        bursts = options.bursts
        given["loss"] = Loss.bursts(options.loss, bursts) if bursts else Loss(options.loss)
    elif options.bursts is not None:
        raise UsageError("--bursts must come with --loss: say how many packets are lost")
    changed = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(before, **changed)


def obey(link: Emulation, words: Sequence[str]) -> dict[str, Any]:
    """Do one command; returns what is answered. Raises `UsageError` for an unknown one."""
    match list(words):
        case ["stats"]:
            return dataclasses.asdict(link.stats())
        case ["validity"]:
            return link.validity().to_document()
        case ["start"]:
            return {"at_s": link.start_trace()}
        case ["restore"]:
            return {"at_s": link.restore()}
        case ["cut", kind]:
            return {"at_s": link.cut(cast(Cut, kind))}
        case ["reach", address]:
            return {"address": link.reach(address)}
        case ["set", *options]:
            return {"at_s": link.set(specification(parser().parse_args(options), link.spec))}
        case _:
            raise UsageError(
                "a command must be stats, validity, start, restore, cut KIND, reach "
                f"HOST:PORT or set OPTIONS (not {' '.join(words)!r})"
            )


def serve(link: Emulation, lines: Iterable[str]) -> None:
    """Answer commands until there are no more."""
    _say(
        {
            **link.describe(),
            "edge_prefix": link.edge_prefix,
            "cloud_prefix": link.cloud_prefix,
            "cloud_listen": link.cloud_listen,
            "capabilities": dataclasses.asdict(link.capabilities),
        }
    )
    for line in lines:
        try:
            words = shlex.split(line)
            if words:
                _say(obey(link, words))
        except (MidstreamError, ValueError) as error:
            _say({"error": str(error)})


def main(arguments: Sequence[str] | None = None) -> int:
    top = argparse.ArgumentParser(prog="python -m midstream_lab.emulation")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("backends", help="which can be had here, and why not the others")
    up = commands.add_parser(
        "up", help="one emulated link", parents=[parser()], add_help=False
    )
    up.add_argument("--backend", default="auto", choices=("auto", *BACKENDS))
    up.add_argument("--uncalibrated", action="store_true", help="do not measure it first")
    try:
        options = top.parse_args(arguments)
        if options.command == "backends":
            _say({name: why_not(name) or "can be had" for name in BACKENDS})
            return 0
        if None in (options.uplink, options.downlink, options.delay):
            raise UsageError(
                "a link must have --uplink, --downlink and --delay: give all three"
            )
        bare = LinkSpec(1e6, 1e6, options.delay, queue_nbytes=QUEUE_NBYTES)
        spec = specification(options, bare)
        calibrated = not options.uncalibrated
        with emulate(spec, backend=options.backend, calibrated=calibrated) as link:
            serve(link, sys.stdin)
    except MidstreamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    sys.exit(main())
