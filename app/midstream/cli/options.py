"""Options that several commands share, each described once.

A command that takes a `feed`, a `link` or a `planning` is wrapped by `takes_feed`,
`takes_link` or `takes_planning`, which put the flags in its place and hand the finished value
over.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, final

import typer

from midstream.sources import merged_feed
from midstream_lab.conditions import condition
from midstream_partitioner.feed import Feed
from midstream_partitioner.link import Link
from midstream_partitioner.plan import OBJECTIVES, UNCONSTRAINED, Constraints
from midstream_partitioner.units import (
    parse_duration,
    parse_nbytes,
    parse_points,
    parse_rate,
    parse_share,
)
from midstream_wire.errors import UsageError

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An ONNX file, a partition's folder, or a reference network (midstream models).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, nothing else.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of onnxruntime.")]
Slowdown = Annotated[
    float,
    typer.Option("--slowdown", min=1.0, help="Emulate a device this many times slower."),
]
Runs = Annotated[int, typer.Option("--runs", min=3, help="Runs that are timed.")]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="A picture, a folder of pictures, an .npz or .npy file; else random.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of random inputs.")]


def _checked_objective(name: str) -> str:
    """Before anything is measured for it."""
    if name not in OBJECTIVES:
        raise UsageError(f"--objective must be {', '.join(OBJECTIVES)} (not {name!r})")
    return name


Objective = Annotated[
    str,
    typer.Option(
        "--objective",
        callback=_checked_objective,
        help=f"What to make small: {', '.join(OBJECTIVES)}.",
    ),
]
Server = Annotated[str, typer.Option("--server", help="The cloud's address, host:port.")]

_Text = str | None
MaxLoss = Annotated[
    _Text, typer.Option("--max-loss", help="Most top-1 lost by a lossy codec: 0.5pt.")
]
MinAgreement = Annotated[
    _Text, typer.Option("--min-agreement", help="Least share of answers unchanged: 99%.")
]
MaxError = Annotated[
    float | None,
    typer.Option("--max-error", help="Largest relative L2 error of any sample: 1e-2."),
]
TargetPayload = Annotated[
    _Text, typer.Option("--target-payload", help="Most bytes sent per request: 16KB.")
]
_FEED_FLAGS: dict[str, Any] = {
    "feed_file": Annotated[
        Path | None,
        typer.Option("--feed", help="TOML file that says what feeds the network."),
    ],
    "kind": Annotated[_Text, typer.Option("--kind", help="What feeds it: image or array.")],
    "layout": Annotated[_Text, typer.Option("--layout", help="Layout: NCHW or NHWC.")],
    "resize": Annotated[
        _Text,
        typer.Option("--resize", help="How pictures get their size: stretch, crop, pad."),
    ],
    "scale": Annotated[_Text, typer.Option("--scale", help="Factor on pixels: 1/255.")],
    "mean": Annotated[
        _Text, typer.Option("--mean", help="Subtracted after scaling: 0.485,0.456,0.406.")
    ],
    "std": Annotated[_Text, typer.Option("--std", help="Divided by at last: 0.23,0.22,0.23.")],
}
_LINK_FLAGS: dict[str, Any] = {
    "network": Annotated[
        _Text,
        typer.Option(
            "--network",
            help="3g, lte, wifi, 5g, broadband, satellite, or RATE:RTT such as 8Mbit:40ms.",
        ),
    ],
    "uplink": Annotated[_Text, typer.Option("--uplink", help="Uplink rate: 8Mbit.")],
    "downlink": Annotated[
        _Text, typer.Option("--downlink", help="Downlink rate; as the uplink if not given.")
    ],
    "rtt": Annotated[_Text, typer.Option("--rtt", help="Round-trip time: 40ms.")],
}

_PLANNING_FLAGS: dict[str, Any] = {
    "objective": Objective,
    "private": Annotated[
        bool, typer.Option("--private", help="The input may not leave the edge in any form.")
    ],
    "min_depth": Annotated[
        int, typer.Option("--min-depth", min=0, help="No cut before this many layers.")
    ],
    "lossless": Annotated[
        bool, typer.Option("--lossless", help="Only codecs that change nothing.")
    ],
    "codecs": Annotated[
        _Text, typer.Option("--codecs", help="The only codecs allowed: half,ec:0.5,jpeg:80.")
    ],
    "max_loss": MaxLoss,
    "min_agreement": MinAgreement,
    "max_error": MaxError,
    "target_payload": TargetPayload,
    "forbid": Annotated[
        list[str] | None,
        typer.Option("--forbid", help="No cut of this id, label or tensor (shell pattern)."),
    ],
    "deadline": Annotated[_Text, typer.Option("--deadline", help="Longest latency: 100ms.")],
    "max_edge_memory": Annotated[
        _Text, typer.Option("--max-edge-memory", help="Most weights on the edge: 64MiB.")
    ],
}
_DEFAULTS = {
    "objective": "latency", "private": False, "min_depth": 0, "lossless": False,
    "adaptive": False, "gate": False,
}  # fmt: skip


@final
@dataclass(frozen=True, slots=True)
class Planning:
    """What a plan is to make small, and what it must keep to."""

    objective: str = "latency"
    constraints: Constraints = UNCONSTRAINED


Command = Callable[..., None]


def takes_feed(command: Command) -> Command:
    """Give `command` the flags that make its parameter `feed`."""
    return with_flags(command, "feed", _FEED_FLAGS, _feed)


def takes_link(command: Command) -> Command:
    """Give `command` the flags that make its parameter `link`."""
    return with_flags(command, "link", _LINK_FLAGS, _link)


def takes_planning(command: Command) -> Command:
    """Give `command` the flags that make its parameter `planning`."""
    return with_flags(command, "planning", _PLANNING_FLAGS, _planning)


def with_flags(
    command: Command, name: str, flags: dict[str, Any], make: Callable[..., object]
) -> Command:
    """`command` with `flags` in its signature instead of the parameter `name`."""
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> None:
        given = {flag: arguments.pop(flag) for flag in flags}
        command(**arguments, **{name: make(**given)})

    kept = [each for each in signature.parameters.values() if each.name != name]
    added = [
        inspect.Parameter(
            flag,
            inspect.Parameter.KEYWORD_ONLY,
            default=_DEFAULTS.get(flag),
            annotation=kind,
        )
        for flag, kind in flags.items()
    ]
    kept = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in kept]
    parameters = [*kept, *added]
    # typer reads both; functools.wraps would let it see the command's own.
    wrapped.__dict__["__signature__"] = signature.replace(parameters=parameters)
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    del wrapped.__dict__["__wrapped__"]
    return wrapped


def _feed(feed_file: Path | None, **fields: str | None) -> Feed | None:
    values: dict[str, object] = {**fields}
    for name in ("mean", "std"):
        values[name] = _numbers(fields[name], f"--{name}")
    return merged_feed(feed_file, **values)


def _numbers(text: str | None, flag: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{flag} must be numbers with commas between them (not {text!r}): 0.5,0.5,0.5"
        ) from None


def _link(
    network: str | None, uplink: str | None, downlink: str | None, rtt: str | None
) -> Link | None:
    """A named network, with single figures replaced where they are given."""
    if network is uplink is downlink is rtt is None:
        return None
    if network is None and uplink is None:
        raise UsageError("a link needs a rate: give --uplink 8Mbit, or --network lte")
    rate_bps = parse_rate(uplink) if uplink is not None else 0.0
    link = condition(network).link if network is not None else Link(rate_bps, rate_bps, 0.0)
    return replace(
        link,
        uplink_bps=rate_bps or link.uplink_bps,
        downlink_bps=parse_rate(downlink) if downlink is not None else link.downlink_bps,
        rtt_s=parse_duration(rtt) if rtt is not None else link.rtt_s,
    )


def _planning(
    objective: str,
    private: bool,
    min_depth: int,
    lossless: bool,
    *,
    codecs: str | None,
    forbid: list[str] | None,
    deadline: str | None,
    max_edge_memory: str | None,
    max_loss: str | None,
    min_agreement: str | None,
    max_error: float | None,
    target_payload: str | None,
) -> Planning:
    return Planning(
        objective,
        Constraints(
            max_edge_nbytes=parse_nbytes(max_edge_memory) if max_edge_memory else None,
            min_depth=max(min_depth, int(private)),
            forbidden=frozenset(forbid or ()),
            deadline_s=parse_duration(deadline) if deadline else None,
            codecs=tuple(codecs.split(",")) if codecs else None,
            lossless=lossless,
            max_payload_nbytes=parse_nbytes(target_payload) if target_payload else None,
            max_loss=parse_points(max_loss) if max_loss is not None else None,
            min_agreement=parse_share(min_agreement) if min_agreement is not None else None,
            max_error=max_error,
        ),
    )
