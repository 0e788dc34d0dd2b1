"""The flags that have a policy choose for every request, as one value."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, final

import typer

from midstream.cli import completion
from midstream.cli.flags.common import Command, with_flags
from midstream.cli.flags.destinations import writable
from midstream.cli.output import console
from midstream_edge.policies.oracle import Curve
from midstream_edge.policies.probe_budget import DAY_NBYTES, parse_budget
from midstream_edge.policies.registry import POLICIES
from midstream_edge.workload.load_generator import Schedule
from midstream_lab.traces.parsing import open_trace
from midstream_lab.traces.trace import Trace
from midstream_partitioner.units import parse_duration
from midstream_wire.address import Address, parse_address
from midstream_wire.errors import UsageError

_FLAGS: dict[str, Any] = {
    "adaptive": Annotated[
        bool,
        typer.Option(
            "--adaptive", help="Choose cut and codec for every request, by a policy."
        ),
    ],
    "policy": Annotated[
        str | None,
        typer.Option(
            "--policy",
            autocompletion=completion.policies,
            help=f"Policy of --adaptive: {', '.join(POLICIES)}.",
        ),
    ],
    "every": Annotated[
        str | None,
        typer.Option(
            "--every", help="Interval between requests (200ms). Default: back to back."
        ),
    ],
    "duration": Annotated[
        str | None,
        typer.Option("--duration", help="Duration of the run (60s), instead of --requests."),
    ],
    "log": Annotated[
        Path | None,
        typer.Option(
            "--log",
            callback=writable,
            help="File for one JSON line a request.",
        ),
    ],
    "probe_budget": Annotated[
        str | None,
        typer.Option(
            "--probe-budget",
            help="Maximum volume of probes on a silent link (50MB/day, or 0 for none).",
        ),
    ],
    "metrics": Annotated[
        str | None,
        typer.Option("--metrics", help="Address for Prometheus metrics (127.0.0.1:9100)."),
    ],
    "metrics_insecure": Annotated[
        bool,
        typer.Option("--metrics-insecure", help="Allow plaintext metrics beyond loopback."),
    ],
    "trace": Annotated[
        str | None,
        typer.Option("--trace", help="Trace of the true uplink, for the policy oracle."),
    ],
    "trace_origin": Annotated[
        float | None,
        typer.Option("--trace-origin", help="Start of the trace, in monotonic seconds."),
    ],
    "repartition": Annotated[
        bool,
        typer.Option(
            "--repartition",
            help="Repartition the model on both sides when other cuts have become better.",
        ),
    ],
    "gate": Annotated[
        bool,
        typer.Option(
            "--gate",
            hidden=True,
            help="Print a line once all is ready, then wait on standard input for the "
            "monotonic second at which the trace began.",
        ),
    ],
}


@final
@dataclass(frozen=True, slots=True)
class Driving:
    """The policy that chooses, the times of requests, and the files for their records."""

    policy: str
    every_s: float | None = None
    duration_s: float | None = None
    log: Path | None = None
    probes_day_nbytes: float = DAY_NBYTES
    metrics: Address | None = None
    metrics_insecure: bool = False
    trace: Trace | None = None
    origin_s: float | None = None
    repartition: bool = False
    gate: bool = False

    def begin(self) -> Curve | None:
        """Wait at the gate, if there is one; what the policy may know of the future."""
        origin_s = self.origin_s
        if self.gate:
            console.print_json_line({"ready": True})
            origin_s = _moment(sys.stdin.readline())
        if self.trace is None or origin_s is None:
            return None
        return Curve(self.trace.times_s, self.trace.rates_bps, origin_s)

    def schedule(self, requests: int) -> Schedule:
        """`requests` of them, or as many as the duration has room for."""
        if self.duration_s is not None:
            return Schedule(every_s=self.every_s, duration_s=self.duration_s)
        return Schedule(requests=requests, every_s=self.every_s)


def takes_driving(command: Command) -> Command:
    """Give `command` the flags that make its parameter `driving`, None without --adaptive."""
    return with_flags(command, "driving", _FLAGS, _driving)


def _driving(
    adaptive: bool = False,
    policy: str | None = None,
    *,
    every: str | None = None,
    duration: str | None = None,
    log: Path | None = None,
    probe_budget: str | None = None,
    metrics: str | None = None,
    metrics_insecure: bool = False,
    trace: str | None = None,
    trace_origin: float | None = None,
    repartition: bool = False,
    gate: bool = False,
) -> Driving | None:
    if not adaptive:
        return None
    return Driving(
        policy=policy or "adaptive",
        every_s=_seconds(every, "--every"),
        duration_s=_seconds(duration, "--duration"),
        log=log,
        probes_day_nbytes=DAY_NBYTES if probe_budget is None else parse_budget(probe_budget),
        metrics=None if metrics is None else parse_address(metrics),
        metrics_insecure=metrics_insecure,
        trace=_trace(trace, policy, known=gate or trace_origin is not None),
        origin_s=trace_origin,
        repartition=repartition,
        gate=gate,
    )


def _seconds(text: str | None, flag: str) -> float | None:
    if text is None:
        return None
    seconds = parse_duration(text)
    if not seconds > 0:
        raise UsageError(f"{flag} must be more than 0s (not {text!r})")
    return seconds


def _trace(text: str | None, policy: str | None, *, known: bool) -> Trace | None:
    if text is None:
        return None
    if policy != "oracle":
        raise UsageError(
            "--trace is the future that the policy oracle knows (not "
            f"{policy or 'adaptive'}): leave it out"
        )
    if not known:
        raise UsageError("--trace needs --trace-origin: when the emulated link began with it")
    return open_trace(text)


def _moment(line: str) -> float:
    try:
        return float(line)
    except ValueError:
        raise UsageError(
            "--gate reads the monotonic second at which the trace began "
            f"(not {line.strip()[:80]!r})"
        ) from None
