"""The flags of `midstream simulate` that describe a trial, or a sweep, as one value each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar, final

import typer

from midstream.cli import completion
from midstream.cli.flags.common import Seed, takes
from midstream_lab.simulation.model.arrivals import Arrivals, Closed, Every, Poisson
from midstream_lab.simulation.model.link_spec import Network
from midstream_lab.simulation.model.machine import Machine
from midstream_lab.simulation.model.workload import Cut
from midstream_lab.simulation.pair.pair import Setting
from midstream_lab.traces.conditions import condition
from midstream_lab.traces.parsing import open_trace
from midstream_partitioner.costs.device import Device
from midstream_partitioner.units import parse_duration, parse_share
from midstream_wire.errors import UsageError

#: Rows of a trial are kept with all their times: two gigabytes.
MOST_REQUESTS = 10_000_000

T = TypeVar("T")
A = TypeVar("A")

_TRACE = "A file, or a kind of link to make one up: lte, lte:7 with seed 7."


@final
@dataclass(frozen=True, slots=True)
class Trial:
    """The conditions of a trial: a link, requests, a load, and a seed."""

    link: Annotated[
        str,
        typer.Option(
            autocompletion=completion.links,
            help="3g, lte, wifi, 5g, broadband, satellite, or 8Mbit:40ms.",
        ),
    ] = "lte"
    trace: Annotated[
        str | None, typer.Option(help=f"Trace that the uplink follows. {_TRACE}")
    ] = None
    down_trace: Annotated[
        str | None, typer.Option(help=f"Trace that the downlink follows. {_TRACE}")
    ] = None
    duration: Annotated[str, typer.Option(help="Duration of the requests (60s).")] = "60s"
    every: Annotated[
        str | None,
        typer.Option(help="Interval between requests (200ms). Default: back to back."),
    ] = None
    poisson: Annotated[
        float | None,
        typer.Option(help="Mean rate of random requests, per second, instead of --every."),
    ] = None
    loss: Annotated[str, typer.Option(help="Share of lost packets (1%).")] = "0%"
    jitter: Annotated[str, typer.Option(help="Mean jitter of the delay (2ms).")] = "0ms"
    cut_link: Annotated[
        list[str] | None,
        typer.Option(help="Outage of the link, START:DURATION (10s:2s). Repeatable."),
    ] = None
    load: Annotated[
        str, typer.Option(help="Share of the cloud's time that others use (50%).")
    ] = "0%"
    seed: Seed = 0

    def setting(
        self, device: Device, machine: Machine, *, deadline_s: float | None
    ) -> Setting:
        """All of it for one pair, whose edge is `device` and varies as `machine` says."""
        duration_s = _read("--duration", parse_duration, self.duration)
        cuts = tuple(_read("--cut-link", _cut, text) for text in self.cut_link or ())
        arrivals = _arrivals(self.every, self.poisson)
        _check_end(duration_s, cuts, arrivals)
        return Setting(
            network=self._network(),
            device=device,
            arrivals=arrivals,
            duration_s=duration_s,
            seed=self.seed,
            machine=machine,
            deadline_s=deadline_s,
            cuts=cuts,
            load=_read("--load", parse_share, self.load),
        )

    def _network(self) -> Network:
        up, down, loss = self.trace, self.down_trace, _read("--loss", parse_share, self.loss)
        if loss >= 1:
            raise UsageError("--loss must be below 100%, or nothing would ever arrive")
        return Network.of(
            _read("--link", condition, self.link),
            uplink=None if up is None else _read("--trace", open_trace, up),
            downlink=None if down is None else _read("--down-trace", open_trace, down),
            jitter_s=_read("--jitter", parse_duration, self.jitter),
            loss=loss,
        )


@final
@dataclass(frozen=True, slots=True)
class Sweep:
    """The axes of a sweep, if there is to be one; where it runs, and where it is kept."""

    axes: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            help="Maps of what wins, instead of a trial: default, or values of an axis among"
            " uplink, rtt, slowdown and load (uplink=1Mbit:100Mbit:9, rtt=5ms,50ms).",
        ),
    ] = None
    folder: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder of a sweep; an interrupted sweep resumes there."
        ),
    ] = Path("out/sweep")
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of processes of a sweep. Default: all processors."),
    ] = None
    engine: Annotated[str, typer.Option(help="Executor of a sweep: local or ray.")] = "local"
    address: Annotated[
        str | None,
        typer.Option(
            "--ray-address", help="Address of a Ray cluster. Default: Ray starts here."
        ),
    ] = None


def _read(flag: str, parse: Callable[[A], T], given: A) -> T:
    """Return what `parse` makes of a flag's value; what it objects to is told of the flag."""
    try:
        return parse(given)
    except UsageError as error:
        raise UsageError(f"{flag}: {error}") from None


def _arrivals(every: str | None, poisson: float | None) -> Arrivals:
    if every is not None and poisson is not None:
        raise UsageError(
            "requests come --every so often or --poisson, not both: leave one out"
        )
    if poisson is not None:
        return _read("--poisson", Poisson, poisson)
    if every is None:
        return Closed()
    return _read("--every", lambda text: Every(parse_duration(text)), every)


def _check_end(duration_s: float, cuts: Sequence[Cut], arrivals: Arrivals) -> None:
    """Raise `UsageError` for a trial that is too long, or a cut after its end."""
    late = [cut.at_s for cut in cuts if cut.at_s >= duration_s]
    if late:
        raise UsageError(
            f"--cut-link must begin before the end at {duration_s:g} s (not {late[0]:g} s): "
            "take a longer --duration"
        )
    count = 0.0 if isinstance(arrivals, Closed) else arrivals.mean_hz * duration_s
    if count > MOST_REQUESTS:
        raise UsageError(
            f"a trial must have at most {MOST_REQUESTS:,} requests (about {count:,.0f} would "
            "come): take a shorter --duration, or fewer requests"
        )


def _cut(text: str) -> Cut:
    at, colon, lasts = text.partition(":")
    if not colon:
        raise UsageError(f"a cut of the link must be MOMENT:LENGTH (not {text!r}): 10s:2s")
    return Cut(parse_duration(at), parse_duration(lasts))


takes_trial = takes("trial", Trial)
takes_sweep = takes("sweep", Sweep)
