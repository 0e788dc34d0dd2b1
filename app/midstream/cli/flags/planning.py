"""Flags of a plan: the link, the objective and its limits, both devices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, final

import typer

from midstream.cli import completion
from midstream.cli.flags.common import Codecs, Runs, Threads, takes
from midstream_lab.traces.conditions import condition
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.planning.constraints import UNCONSTRAINED, Constraints
from midstream_partitioner.planning.planner import OBJECTIVES
from midstream_partitioner.units import (
    parse_duration,
    parse_nbytes,
    parse_points,
    parse_rate,
    parse_share,
)
from midstream_wire.errors import UsageError


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
        help=f"Objective of the plan: {', '.join(OBJECTIVES)}.",
    ),
]


Private = Annotated[
    bool,
    typer.Option(
        "--private",
        help="Send no secret input itself, only what lossy layers made of it. No proof of "
        "privacy: activations reveal much of the input. How much is not measured yet "
        "(docs/explanation/planning.md).",
    ),
]


Lossless = Annotated[bool, typer.Option("--lossless", help="Allow lossless codecs only.")]


MaxLoss = Annotated[
    str | None, typer.Option("--max-loss", help="Maximum top-1 loss of a lossy codec (0.5pt).")
]


MinAgreement = Annotated[
    str | None,
    typer.Option("--min-agreement", help="Minimum share of unchanged answers (99%)."),
]


MaxError = Annotated[
    float | None,
    typer.Option("--max-error", help="Maximum relative L2 error of any sample (1e-2)."),
]


TargetPayload = Annotated[
    str | None, typer.Option("--target-payload", help="Maximum payload of a request (16KB).")
]


def _link(
    link: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.links,
            help="3g, lte, wifi, 5g, broadband, satellite, or RATE:RTT such as 8Mbit:40ms.",
        ),
    ] = None,
    uplink: Annotated[str | None, typer.Option(help="Uplink rate (8Mbit).")] = None,
    downlink: Annotated[
        str | None, typer.Option(help="Downlink rate (20Mbit). Default: the uplink's.")
    ] = None,
    rtt: Annotated[str | None, typer.Option(help="Round-trip time (40ms).")] = None,
) -> Link | None:
    """Make the named link, with single figures replaced where they are given."""
    if link is uplink is downlink is rtt is None:
        return None
    if link is None and uplink is None:
        raise UsageError("a link needs a rate: give --uplink 8Mbit, or --link lte")
    rate_bps = parse_rate(uplink) if uplink is not None else 0.0
    named = condition(link).link if link is not None else Link(rate_bps, rate_bps, 0.0)
    return replace(
        named,
        uplink_bps=rate_bps or named.uplink_bps,
        downlink_bps=parse_rate(downlink) if downlink is not None else named.downlink_bps,
        rtt_s=parse_duration(rtt) if rtt is not None else named.rtt_s,
    )


@final
@dataclass(frozen=True, slots=True)
class Planning:
    """A plan's objective and its constraints."""

    objective: str = "latency"
    constraints: Constraints = UNCONSTRAINED


def _planning(
    objective: Objective = "latency",
    *,
    private: Private = False,
    min_depth: Annotated[
        int, typer.Option(min=0, help="Minimum number of lossy layers in front of the cut.")
    ] = 0,
    lossless: Lossless = False,
    codecs: Codecs = None,
    max_loss: MaxLoss = None,
    min_agreement: MinAgreement = None,
    max_error: MaxError = None,
    target_payload: TargetPayload = None,
    forbid: Annotated[
        list[str] | None,
        typer.Option(help="Forbidden cuts, by id, label or tensor (shell pattern)."),
    ] = None,
    deadline: Annotated[str | None, typer.Option(help="Maximum latency (100ms).")] = None,
    max_edge_memory: Annotated[
        str | None, typer.Option(help="Maximum memory of segments on the edge (64MiB).")
    ] = None,
) -> Planning:
    return Planning(
        objective,
        Constraints(
            max_edge_nbytes=parse_nbytes(max_edge_memory) if max_edge_memory else None,
            min_depth=max(min_depth, int(private)),
            forbidden=frozenset(forbid or ()),
            deadline_s=_deadline(deadline),
            codecs=tuple(codecs.split(",")) if codecs else None,
            lossless=lossless,
            max_payload_nbytes=parse_nbytes(target_payload) if target_payload else None,
            max_loss=parse_points(max_loss) if max_loss is not None else None,
            min_agreement=parse_share(min_agreement) if min_agreement is not None else None,
            max_error=max_error,
        ),
    )


def _deadline(text: str | None) -> float | None:
    if text is None:
        return None
    deadline_s = parse_duration(text)
    if deadline_s <= 0:
        raise UsageError(f"--deadline must be above zero (not {text!r}): write 100ms")
    return deadline_s


@final
@dataclass(frozen=True, slots=True)
class Devices:
    """Sources of both sides' profiles: files, or this machine for both."""

    edge: Annotated[
        Path | None, typer.Option(help="Profile of the edge (midstream profile -o).")
    ] = None
    cloud: Annotated[Path | None, typer.Option(help="Profile of the cloud.")] = None
    edge_slowdown: Annotated[
        float,
        typer.Option(
            min=1.0,
            help="Factor by which the edge is slower than this machine (8), without --edge.",
        ),
    ] = 8.0
    threads: Threads = 1
    runs: Runs = 20
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of tails that the cloud runs at a time, for --objective throughput. "
            "Default: its profile's, or 1 if measured here.",
        ),
    ] = None

    def serving(self, cloud: Profile) -> Profile:
        """The cloud's profile, with as many workers as were asked for."""
        if self.workers is None:
            return cloud
        return replace(cloud, device=replace(cloud.device, workers=self.workers))


takes_link = takes("link", _link)


takes_planning = takes("planning", _planning)


takes_devices = takes("devices", Devices)
