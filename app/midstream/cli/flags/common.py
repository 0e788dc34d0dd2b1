"""Options that several commands share, each described once.

Flags that belong together reach a command as one value: where it takes a `feed`, say, it is
wrapped by `takes_feed`, which puts the flags in its place and hands the finished value over.
Such a group is the parameters of a function or the fields of a dataclass; the flags have their
names, texts and defaults.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, final, get_type_hints

import typer

from midstream.cli import completion
from midstream.feeding import Feeding
from midstream_lab.traces.conditions import condition
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.backends.by_name import open_backend
from midstream_partitioner.codec_plugins import load_codecs, plugin_flags
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.planning.constraints import UNCONSTRAINED, Constraints
from midstream_partitioner.planning.plan import OBJECTIVES
from midstream_partitioner.units import (
    parse_duration,
    parse_nbytes,
    parse_points,
    parse_rate,
    parse_share,
)
from midstream_wire.errors import UsageError
from midstream_wire.text import read_text

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        autocompletion=completion.models,
        help="An ONNX file, a partition's folder, or a reference model (midstream models).",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]
Threads = Annotated[
    int, typer.Option("--threads", min=1, help="Number of threads of onnxruntime.")
]
Slowdown = Annotated[
    float,
    typer.Option(
        "--slowdown", min=1.0, help="Factor by which the emulated device is slower (8)."
    ),
]
Runs = Annotated[int, typer.Option("--runs", min=3, help="Number of timed runs.")]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="Inputs: a picture, a folder of pictures, an .npz or .npy file. Default: random.",
    ),
]
Size = Annotated[
    list[str] | None,
    typer.Option(
        "--size",
        metavar="NAME=N",
        help="Size of an open dimension that figures are for (height=480,width=640); may be "
        "given repeatedly. Default: as in --input, else 256 pixels or 1.",
    ),
]


def _load_plugins(context: typer.Context, names: list[str] | None) -> list[str] | None:
    """Load them before any flag is read that may name their codecs."""
    if not context.resilient_parsing:  # a shell asks what may come next
        load_codecs(names or ())
    return names


CodecPlugins = Annotated[
    list[str] | None,
    typer.Option(
        "--codec-plugin",
        metavar="NAME",
        is_eager=True,
        callback=_load_plugins,
        help="A codec of your own (python:MODULE:NAME, or the name that an installed package "
        "announces); may be given repeatedly.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of random inputs.")]


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
Server = Annotated[str, typer.Option("--server", help="Address of the cloud, host:port.")]

Private = Annotated[
    bool,
    typer.Option(
        "--private",
        help="Send no secret input itself, only what lossy layers made of it. No proof of "
        "privacy: activations reveal much of the input. How much is not measured yet "
        "(docs/explanation/planning.md).",
    ),
]
Codecs = Annotated[
    str | None,
    typer.Option(
        "--codecs", help="Allowed codecs (half,ec:0.5,jpeg:80). Default: all in budget."
    ),
]
Lossless = Annotated[bool, typer.Option("--lossless", help="Allow lossless codecs only.")]
_Text = str | None
MaxLoss = Annotated[
    _Text, typer.Option("--max-loss", help="Maximum top-1 loss of a lossy codec (0.5pt).")
]
MinAgreement = Annotated[
    _Text, typer.Option("--min-agreement", help="Minimum share of unchanged answers (99%).")
]
MaxError = Annotated[
    float | None,
    typer.Option("--max-error", help="Maximum relative L2 error of any sample (1e-2)."),
]
TargetPayload = Annotated[
    _Text, typer.Option("--target-payload", help="Maximum payload of a request (16KB).")
]

Command = Callable[..., None]


def takes(name: str, make: Callable[..., object]) -> Callable[[Command], Command]:
    """Return what gives a command the flags that are the parameters of `make`, for its
    `name`.
    """
    flags = get_type_hints(make, include_extras=True)
    flags.pop("return", None)
    return functools.partial(with_flags, name=name, flags=flags, make=make)


def with_flags(
    command: Command, name: str, flags: Mapping[str, Any], make: Callable[..., object]
) -> Command:
    """`command` with `flags` in its signature instead of the parameter `name`.

    They stand in its place if it is keyword-only, else behind all others; their defaults are
    those of `make`.
    """
    signature = inspect.signature(command, eval_str=True)
    made_of = inspect.signature(make).parameters

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> None:
        given = {flag: arguments.pop(flag) for flag in flags}
        command(**arguments, **{name: make(**given)})

    by_name = inspect.Parameter.KEYWORD_ONLY
    added = [made_of[flag].replace(kind=by_name, annotation=flags[flag]) for flag in flags]
    kept = [each for each in signature.parameters.values() if each.name != name]
    in_place = signature.parameters[name].kind is by_name
    at = list(signature.parameters).index(name) if in_place else len(kept)
    parameters = [*kept[:at], *added, *kept[at:]]
    # typer reads both; functools.wraps would let it see the command's own.
    wrapped.__dict__["__signature__"] = signature.replace(parameters=parameters)
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    del wrapped.__dict__["__wrapped__"]
    return wrapped


def _feed(
    feed_file: Annotated[
        Path | None,
        typer.Option("--feed", help="File that describes the model's feed (TOML)."),
    ] = None,
    *,
    kind: Annotated[_Text, typer.Option(help="Kind of input: image or array.")] = None,
    feed_input: Annotated[
        _Text, typer.Option(help="Name of the model's input that is fed.")
    ] = None,
    layout: Annotated[_Text, typer.Option(help="Layout: NCHW or NHWC.")] = None,
    height: Annotated[
        int | None,
        typer.Option(help="Height of pictures, where the model leaves it open (480)."),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(help="Width of pictures, where the model leaves it open (640)."),
    ] = None,
    resize: Annotated[
        _Text, typer.Option(help="Resizing of pictures: stretch, crop, pad or keep.")
    ] = None,
    color: Annotated[
        _Text, typer.Option(help="Channels of pictures: RGB, BGR or GRAY.")
    ] = None,
    scale: Annotated[_Text, typer.Option(help="Factor on pixel values (1/255).")] = None,
    mean: Annotated[
        _Text, typer.Option(help="Mean to subtract after scaling (0.485,0.456,0.406).")
    ] = None,
    std: Annotated[
        _Text,
        typer.Option(help="Standard deviation to divide by, after the mean (0.23,0.22,0.23)."),
    ] = None,
    feed_labels: Annotated[
        Path | None, typer.Option(help="File with the names of the classes, one a line.")
    ] = None,
    public: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of an input that is no secret, such as a mask: --private and "
            "--min-depth let it cross. Repeatable.",
        ),
    ] = None,
) -> Feeding:
    return Feeding.of(
        feed_file,
        {
            "kind": kind,
            "input": feed_input,
            "layout": layout,
            "height": height,
            "width": width,
            "resize": resize,
            "color": color,
            "scale": scale,
            "mean": _numbers(mean, "--mean"),
            "std": _numbers(std, "--std"),
            "labels": feed_labels and read_text(feed_labels, "a list of labels").splitlines(),
            "public": public,
        },
    )


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
    link: Annotated[
        _Text,
        typer.Option(
            autocompletion=completion.links,
            help="3g, lte, wifi, 5g, broadband, satellite, or RATE:RTT such as 8Mbit:40ms.",
        ),
    ] = None,
    uplink: Annotated[_Text, typer.Option(help="Uplink rate (8Mbit).")] = None,
    downlink: Annotated[
        _Text, typer.Option(help="Downlink rate (20Mbit). Default: the uplink's.")
    ] = None,
    rtt: Annotated[_Text, typer.Option(help="Round-trip time (40ms).")] = None,
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
    deadline: Annotated[_Text, typer.Option(help="Maximum latency (100ms).")] = None,
    max_edge_memory: Annotated[
        _Text, typer.Option(help="Maximum memory of segments on the edge (64MiB).")
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


@final
@dataclass(frozen=True, slots=True)
class Execution:
    """The backend that runs the segments, and codecs of a user's own, by name."""

    backend: Annotated[
        str, typer.Option(help="Backend that runs segments: onnxruntime or torch.")
    ] = "onnxruntime"
    provider: Annotated[
        _Text,
        typer.Option(
            help="A provider of onnxruntime: openvino, cuda:device_id=1 (default: cpu)."
        ),
    ] = None
    device: Annotated[_Text, typer.Option(help="Device of torch: cpu, cuda, cuda:1.")] = None
    codec_plugin: CodecPlugins = None

    def open(self) -> Backend:
        """The backend; `UsageError` for what is not installed here."""
        return open_backend(self.backend, provider=self.provider, device=self.device)

    def flags(self) -> list[str]:
        """As another process takes them."""
        named = {"--backend": self.backend, "--provider": self.provider}
        named |= {"--device": self.device}
        flags = [word for flag, value in named.items() if value for word in (flag, value)]
        return flags + plugin_flags(self.codec_plugin or ())


takes_feed = takes("feed", _feed)
takes_execution = takes("execution", Execution)
takes_link = takes("link", _link)
takes_planning = takes("planning", _planning)
takes_devices = takes("devices", Devices)
