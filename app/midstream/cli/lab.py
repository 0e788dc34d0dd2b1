"""`midstream pair`, `link`, `verify`, `demo`: trials with real processes on one machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast, final

import typer

from midstream import demo as demonstration
from midstream.cli import completion, console
from midstream.cli.opened import opened_network, opened_partition
from midstream.cli.options import (
    Execution,
    Input,
    Json,
    Lossless,
    MaxError,
    MaxLoss,
    MinAgreement,
    Model,
    Objective,
    Private,
    Seed,
    Size,
    TargetPayload,
    Threads,
    takes,
    takes_execution,
    takes_feed,
)
from midstream.cli.outcomes import outcome_table, verdict
from midstream.cli.places import writable
from midstream.documents import candidate_document
from midstream.feeding import Feeding
from midstream.sources import (
    model_name,
    open_inputs,
)
from midstream_edge.probing import parse_budget
from midstream_lab import proxy
from midstream_lab.conditions import Condition, condition
from midstream_lab.draw import check_picture, draw_outcomes, network_title
from midstream_lab.emulation import Backend, LinkSpec, emulate
from midstream_lab.pair import CloudSetting, Drive, EdgeSetting, run_pair, run_policy
from midstream_lab.traces import open_trace
from midstream_lab.verify import Verification, verify_cuts, verify_partition
from midstream_partitioner.artefact import SUFFIX, is_partition, save_partition
from midstream_partitioner.cuts import position_cuts
from midstream_partitioner.partition import partition
from midstream_partitioner.scratch import scratch_folder
from midstream_partitioner.units import format_duration, format_nbytes, parse_duration
from midstream_wire.errors import MidstreamError, UsageError


def _tell(what: str) -> None:
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
    """What the edge of a pair is to plan for."""

    private: Private = False
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
    """Which policy chooses for every request, if one is to, and over what link."""

    policy: Annotated[
        str | None,
        typer.Option(
            autocompletion=completion.policies,
            help="Have a policy choose for every request, such as adaptive.",
        ),
    ] = None
    trace: Annotated[
        str | None,
        typer.Option(help="The uplink follows a trace (a file, or a kind such as lte:7)."),
    ] = None
    duration: Annotated[str, typer.Option(help="With a policy: for how long.")] = "30s"
    every: Annotated[
        str | None, typer.Option(help="With a policy: a request every 200ms.")
    ] = None
    emulator: Annotated[
        str, typer.Option(help="With a policy: auto, tun, kernel or proxy emulates the link.")
    ] = "auto"
    log: Annotated[
        Path | None,
        typer.Option(
            callback=writable,
            help="With a policy: a JSON line for every request.",
        ),
    ] = None
    probe_budget: Annotated[
        str | None,
        typer.Option(help="With a policy: most sent to ask a silent link, 50MB/day or 0."),
    ] = None

    def drive(self) -> Drive | None:
        """How the edge runs under a policy, None if it runs every strategy in turn."""
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
    network: Annotated[
        str,
        typer.Option(
            autocompletion=completion.networks,
            help="3g, lte, wifi, 5g, broadband, satellite, or 8Mbit:40ms.",
        ),
    ] = "lte",
    requests: Annotated[int, typer.Option(min=1, help="Requests under each strategy.")] = 20,
    edge_slowdown: Annotated[
        float, typer.Option(min=1.0, help="Emulate an edge this many times slower.")
    ] = 1.0,
    cloud_slowdown: Annotated[
        float, typer.Option(min=1.0, help="The same for the cloud.")
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
    the unsplit network. With --policy or --trace, a policy chooses for every request instead,
    over an emulated link with real TCP where that can be had. Everything is torn down at the
    end, also when interrupted.
    """
    where = condition(network)
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
            document = run_pair(folder, where, cloud=cloud, edge=edge, say=_tell)
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
        _tell("setting the link up and measuring it")
        link = stack.enter_context(emulate(spec, backend=cast(Backend, emulator)))
        for better, why in link.passed_over.items():
            _tell(f"the link is emulated by {link.backend}, not {better}: {why}")
        return run_policy(folder, link, drive, cloud=cloud, edge=edge, say=_tell)


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
    target: Annotated[str, typer.Argument(help="Where to connect to, host:port.")],
    listen: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1:0",
    network: Annotated[
        str,
        typer.Option(
            autocompletion=completion.networks,
            help="3g, lte, wifi, 5g, broadband, satellite, or 8Mbit:40ms.",
        ),
    ] = "lte",
) -> None:
    """Emulate a network: a TCP proxy with a rate and a delay. Ctrl-C ends it."""
    flags = ["--listen", listen, "--target", target, "--network", network]
    raise typer.Exit(proxy.main(flags))


@takes_feed
@takes_execution
def verify(
    model: Model,
    feed: Feeding,
    cuts: Annotated[
        str, typer.Option(help="Which cuts: those of the partition, or all positions.")
    ] = "partition",
    codec: Annotated[str, typer.Option(help="Codec of what crosses.")] = "raw",
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Maximum error of an output, relative to its largest value (0.01). Default: "
            "1e-5 (float16: 1e-3; other backends: docs/backends.md), or 4 times the "
            "network's own rounding if that is more.",
        ),
    ] = None,
    input: Input = None,
    size: Size = None,
    samples: Annotated[int, typer.Option(min=1, help="Inputs to try.")] = 1,
    seed: Seed = 0,
    threads: Threads = 1,
    *,
    execution: Execution,
    json: Json = False,
) -> None:
    """Check that head, codec and tail give the whole network's answer, cut by cut."""
    if cuts not in ("partition", "all"):
        raise UsageError(f"--cuts must be partition or all (not {cuts!r})")
    backend = execution.open()
    if cuts == "partition":
        part = opened_partition(model, feed=feed, size=size, like=input)
        inputs = open_inputs(part, input, count=samples, seed=seed)
        with console.progress(f"verifying {part.name}") as tick:
            found = verify_partition(part, codec=codec, inputs=inputs, threads=threads,
                                     tolerance=tolerance, backend=backend,
                                     progress=tick)  # fmt: skip
    else:
        network = opened_network(model, feed=feed, size=size, like=input)
        part = partition(network, [])
        inputs = open_inputs(part, input, count=samples, seed=seed)
        with console.progress(f"verifying {network.name}") as tick:
            found = verify_cuts(network, cuts=position_cuts(network.graph), codec=codec,
                                inputs=inputs, threads=threads, tolerance=tolerance,
                                backend=backend, progress=tick)  # fmt: skip
    if json:
        console.print_json({"model": part.name, **found.to_dict()})
    else:
        _print_checks(found)
    if found.interrupted:
        raise typer.Abort
    told = random_sentence(found)
    if found.failures:
        failed = f"{len(found.failures)} of {found.checked} cuts failed"
        raise MidstreamError(f"{failed}; {told}" if told else failed)
    if told:
        console.note(told)


def random_sentence(found: Verification) -> str:
    """Tell of a network that draws random numbers; "" of any other."""
    if not found.random_operators:
        return ""
    return (
        f"the network draws random numbers ({', '.join(found.random_operators)}), so that two "
        "runs of it may differ by themselves: compare answers that do not depend on them"
    )


def _print_checks(found: Verification) -> None:
    of_all = f" of {found.planned}: interrupted" if found.interrupted else ""
    rows = console.table(
        f"{found.checked}{of_all} cuts, codec {found.codec}",
        *("cut", "where", "raw", "payload", "relative error", "absolute", "argmax", "verdict"),
        left=("cut", "where", "verdict"),
    )
    for row in found.rows:
        rows.add_row(
            row.cut,
            console.elided(row.label),
            format_nbytes(row.raw_nbytes),
            format_nbytes(row.payload_nbytes),
            f"{row.relative_error:.1e}",
            f"{row.absolute_error:.1e}",
            "equal" if row.argmax_equal else "differs",
            row.failure or "ok",
        )
    console.show(rows)
    console.say(
        f"largest relative error {found.max_relative_error:.1e}, argmax "
        f"{'equal everywhere' if found.argmax_equal else 'differs'}, "
        f"{len(found.failures)} of {found.checked} cuts fail"
    )
    if found.own_rounding is not None:
        console.say(
            f"The unsplit network's own rounding moves its answer by {found.own_rounding:.1e} "
            "(each node on its own, rounded to its type, or in another number of threads), so "
            f"up to {found.tolerance:.1e} passes."
        )
    if found.silent:
        console.say(
            f"Not compared, because empty or NaN on these inputs: {', '.join(found.silent)}. "
            "Give others with --input."
        )


def demo(
    requests: Annotated[int, typer.Option(min=1, help="Requests under each strategy.")] = 6,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", callback=writable, help="Picture to write (.png or .svg)."
        ),
    ] = Path("out/demo.png"),
    json: Json = False,
) -> None:
    """Run the main job on embedded defaults: a photo through ResNet-18 cut in two.

    The edge is this machine, emulated 8 times slower; the links are emulated 3G, LTE and
    Wi-Fi. At the end the trained digits network shows its accuracy whole and split.
    """
    check_picture(output)
    documents = demonstration.run_networks(requests=requests, say=_tell)
    lesson = demonstration.lesson(documents)
    joint = demonstration.joint_plans(say=_tell)
    accuracies = demonstration.digits_accuracy()
    draw_outcomes(documents, output, title="ResNet-18, a photo, an edge emulated 8x slower")
    if json:
        console.print_json(
            {
                "networks": documents,
                "lesson": lesson,
                "joint": [_joint_document(each) for each in joint],
                "digits": [asdict(each) for each in accuracies],
                "picture": str(output),
            }
        )
        return
    for document in documents:
        console.show(outcome_table(document, network_title(document["network"])))
        console.say(verdict(document) + "\n")
    console.say(lesson, style="bold")
    _print_joint(joint)
    for each in accuracies:
        console.say(
            f"digits, {each.pictures} pictures never trained on: {each.whole:.1%} whole, "
            f"{each.split:.1%} split {each.cut} with {each.codec}"
        )
    console.say(f"picture: {output}")


def _joint_document(each: demonstration.Joint) -> dict[str, Any]:
    return {
        "network": each.network,
        "first_rung": candidate_document(each.plain),
        "joint": candidate_document(each.joint),
        "saving": each.saving,
    }


def _print_joint(joint: Sequence[demonstration.Joint]) -> None:
    """What the best cut inside the network sends, with and without entropy-coded codecs."""
    rows = console.table(
        "best cut inside, private, answers moved by 0.1 at most (random weights; predicted)",
        *("network", "raw to int8", "payload", "total ms"),
        *("cut and codec together", "payload", "total ms", "payload saved"),
        left=("network", "raw to int8", "cut and codec together"),
    )
    for each in joint:
        rows.add_row(
            each.network,
            console.elided(each.plain.label),
            format_nbytes(each.plain.payload_nbytes),
            console.ms(each.plain.latency_s),
            console.elided(each.joint.label),
            format_nbytes(each.joint.payload_nbytes),
            console.ms(each.joint.latency_s),
            f"{each.saving:.1f} times",
        )
    console.show(rows)
