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
from dataclasses import dataclass
from typing import Annotated, Any, final, get_type_hints

import typer

from midstream.cli import completion
from midstream_partitioner.backends.backend import Backend
from midstream_partitioner.backends.by_name import open_backend
from midstream_partitioner.codec_plugins import load_codecs, plugin_flags

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


Server = Annotated[str, typer.Option("--server", help="Address of the cloud, host:port.")]

Codecs = Annotated[
    str | None,
    typer.Option(
        "--codecs", help="Allowed codecs (half,ec:0.5,jpeg:80). Default: all in budget."
    ),
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


@final
@dataclass(frozen=True, slots=True)
class Execution:
    """The backend that runs the segments, and codecs of a user's own, by name."""

    backend: Annotated[
        str, typer.Option(help="Backend that runs segments: onnxruntime or torch.")
    ] = "onnxruntime"
    provider: Annotated[
        str | None,
        typer.Option(
            help="A provider of onnxruntime: openvino, cuda:device_id=1 (default: cpu)."
        ),
    ] = None
    device: Annotated[str | None, typer.Option(help="Device of torch: cpu, cuda, cuda:1.")] = (
        None
    )
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


takes_execution = takes("execution", Execution)
