"""`midstream pair`, `link`: trials with real processes on one machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast, final

import typer

from midstream.cli import completion
from midstream.cli.flags.common import (
    Codecs,
    Execution,
    Input,
    Json,
    Model,
    Seed,
    Size,
    Threads,
    takes,
    takes_execution,
)
from midstream.cli.flags.destinations import writable
from midstream.cli.flags.feed import takes_feed
from midstream.cli.flags.planning import (
    Lossless,
    MaxError,
    MaxLoss,
    MinAgreement,
    Objective,
    Private,
    TargetPayload,
)
from midstream.cli.opening import opened_partition
from midstream.cli.output import console
from midstream.cli.output.outcomes import outcome_table, verdict
from midstream.feeding import Feeding
from midstream.loaders import model_name
from midstream_edge.policies.probe_budget import parse_budget
from midstream_lab.emulation.emulate import Backend, emulate
from midstream_lab.emulation.model.spec import LinkSpec
from midstream_lab.emulation.proxy import proxy
from midstream_lab.processes.pair import CloudSetting, Drive, EdgeSetting, run_pair, run_policy
from midstream_lab.traces.conditions import Condition, condition
from midstream_lab.traces.parsing import open_trace
from midstream_partitioner.partition.folder import SUFFIX, is_partition, save_partition
from midstream_partitioner.scratch import scratch_folder
from midstream_partitioner.units import format_duration, parse_duration


def tell(what: str) -> None:
    """Say what goes on, on standard error."""
    console.say(what, to=console.err, style="dim")


@contextmanager
def partition_folder(
    model: str, feed: Feeding, *, size: Sequence[str] | None, like: str | None
) -> Iterator[Path]:
    """The folder of `model`'s partition; a temporary one unless it is that already."""
    if is_partition(Path(model)) and feed.is_silent and not size:
        yield Path(model)
        return
    with scratch_folder("midstream-") as folder:
        path = folder / f"{model_name(model)}{SUFFIX}"
        part = opened_partition(model, feed=feed, size=size, like=like)
        save_partition(part, path)
        yield path


@final
@dataclass(frozen=True, slots=True)
class Goal:
    """The objective and the limits that the edge of a pair plans for."""

    private: Private = False
    codecs: Codecs = None
    lossless: Lossless = False
    max_loss: MaxLoss = None
    min_agreement: MinAgreement = None
    max_error: MaxError = None
    target_payload: TargetPayload = None
    objective: Objective = "latency"

    def flags(self) -> tuple[str, ...]:
        """As `midstream edge run` takes them."""
        flags: list[str] = []
        for name, value in asdict(self).items():
            flag = f"--{name.replace('_', '-')}"
            for each in value if isinstance(value, list) else [value]:
                if each is not None and each is not False:
                    flags += [flag] if each is True else [flag, str(each)]
        return tuple(flags)


@final
@dataclass(frozen=True, slots=True)
class Following:
    """The policy that chooses for every request, if any, and the link that it meets."""

    policy: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.policies,
            help="Policy that chooses for every request (adaptive).",
        ),
    ] = None
    trace: Annotated[
        str | None,
        typer.Option(help="Trace that the uplink follows: a file, or a kind (lte:7)."),
    ] = None
    duration: Annotated[
        str, typer.Option(help="With a policy: duration of the run (60s).")
    ] = "30s"
    every: Annotated[
        str | None, typer.Option(help="With a policy: interval between requests (200ms).")
    ] = None
    emulator: Annotated[
        str,
        typer.Option(help="With a policy: link emulator, one of auto, tun, kernel, proxy."),
    ] = "auto"
    log: Annotated[
        Path | None,
        typer.Option(
            callback=writable,
            help="With a policy: file for one JSON line a request.",
        ),
    ] = None
    probe_budget: Annotated[
        str | None,
        typer.Option(help="With a policy: maximum volume of probes (50MB/day, or 0)."),
    ] = None

    def drive(self) -> Drive | None:
        """Return how the edge runs under a policy, None if it runs every placement in turn."""
        if self.policy is None and self.trace is None:
            return None
        if self.probe_budget is not None:
            parse_budget(self.probe_budget)  # raises before anything is started
        return Drive(
            self.policy or "adaptive",
            parse_duration(self.duration),
            parse_duration(self.every) if self.every is not None else None,
            self.log,
            self.trace,
            self.probe_budget,
        )


@takes_feed
@takes("goal", Goal)
@takes("following", Following)
@takes_execution
def pair(
    model: Model,
    feed: Feeding,
    link: Annotated[
        str,
        typer.Option(
            autocompletion=completion.links,
            help="3g, lte, wifi, 5g, broadband, satellite, or 8Mbit:40ms.",
        ),
    ] = "lte",
    requests: Annotated[int, typer.Option(min=1, help="Requests under each placement.")] = 20,
    edge_slowdown: Annotated[
        float, typer.Option(min=1.0, help="Factor by which the emulated edge is slower (8).")
    ] = 1.0,
    cloud_slowdown: Annotated[
        float, typer.Option(min=1.0, help="Factor by which the emulated cloud is slower.")
    ] = 1.0,
    *,
    goal: Goal,
    input: Input = None,
    size: Size = None,
    seed: Seed = 0,
    threads: Threads = 1,
    following: Following,
    execution: Execution,
    json: Json = False,
) -> None:
    """Start cloud, emulated link and edge as three processes; run requests through them.

    Edge-only, cloud-only with the raw and the compressed input, and the best cut are run in
    turn; predicted and measured times stand side by side, and every answer is checked against
    the unsplit model. With --policy or --trace, a policy chooses for every request instead,
    over an emulated link with real TCP where that can be had. Everything is torn down at the
    end, also when interrupted.
    """
    where = condition(link)
    execution.open()  # raises before anything is started
    run_by = tuple(execution.flags())
    edge = EdgeSetting(
        threads, edge_slowdown, requests, input, seed, goal.flags(), run_by=run_by
    )
    cloud = CloudSetting(threads, cloud_slowdown, run_by=run_by)
    drive = following.drive()
    with partition_folder(model, feed, size=size, like=input) as folder:
        if drive is not None:
            document = _follow(
                folder, where, following.emulator, cloud=cloud, edge=edge, drive=drive
            )
        else:
            document = run_pair(folder, where, cloud=cloud, edge=edge, say=tell)
    if json:
        console.print_json(document)
    elif drive is not None:
        _print_followed(document)
    else:
        speed = f"emulated {edge_slowdown:g}x slower" if edge_slowdown > 1 else "real"
        title = f"{document['model']}, {where}, edge {speed}"
        console.show(outcome_table(document, title))
        console.say(verdict(document))


def _follow(
    folder: Path,
    where: Condition,
    emulator: str,
    *,
    cloud: CloudSetting,
    edge: EdgeSetting,
    drive: Drive,
) -> dict[str, Any]:
    """A run under a policy; the trace, where there is one, stands in for the uplink's rate."""
    spec = LinkSpec.of(where)
    if drive.trace is not None:
        spec = replace(spec, uplink=open_trace(drive.trace))
    with ExitStack() as stack:
        tell("setting the link up and measuring it")
        link = stack.enter_context(emulate(spec, backend=cast(Backend, emulator)))
        for better, why in link.passed_over.items():
            tell(f"the link is emulated by {link.backend}, not {better}: {why}")
        return run_policy(folder, link, drive, cloud=cloud, edge=edge, say=tell)


def _print_followed(document: dict[str, Any]) -> None:
    validity = document["emulation"]["validity"]
    console.say(
        f"{document['model']} under {document['policy']} over {validity['backend']}: "
        f"{document['answered']} of {document['requests']} answered, p50 "
        f"{format_duration(document['p50_s'])}, p99 {format_duration(document['p99_s'])}; "
        f"{document['hedges']} hedged, {document['switches']} switches, "
        f"{document['probe_share']:.1%} of the traffic were probes"
    )
    if not validity["valid"]:
        console.say(f"the emulation is void: {'; '.join(validity['why'])}", style="bold")


def link(
    target: Annotated[str, typer.Argument(help="Address to connect to, host:port.")],
    listen: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1:0",
    link: Annotated[
        str,
        typer.Option(
            autocompletion=completion.links,
            help="3g, lte, wifi, 5g, broadband, satellite, or 8Mbit:40ms.",
        ),
    ] = "lte",
) -> None:
    """Emulate a link: a TCP proxy with a rate and a delay. Ctrl-C ends it."""
    flags = ["--listen", listen, "--target", target, "--link", link]
    raise typer.Exit(proxy.main(flags))
