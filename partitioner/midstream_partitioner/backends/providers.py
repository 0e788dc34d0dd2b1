"""Execution providers of onnxruntime, and what is known of each: docs/explanation/backends.md.

Which of them an installed build has, `runtime` asks onnxruntime itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import final

from midstream_partitioner.compare import EXACT
from midstream_wire.errors import UsageError

Options = tuple[tuple[str, str], ...]

SUFFIX = "ExecutionProvider"
CPU = "cpu"
#: Runs nothing here: it sends what it is given to a service.
_ELSEWHERE = "azure"

#: Sums in float32, in an order and with fusions of its own: measured up to 2e-5 (see
#: docs/explanation/backends.md), with room for deeper networks.
FLOAT32 = 1e-4
#: May compute in TF32, float16 or bfloat16 unless its options forbid it.
REDUCED = 1e-2


@final
@dataclass(frozen=True, slots=True)
class Traits:
    """Known traits of a provider.

    `unit` and `repeats` are as in `Backend`. `memory` is what onnxruntime calls the device
    whose memory values stay in, "" for arrays of this process. `defaults` are options for so
    many threads, which those given replace. `without` names optimisations of onnxruntime's
    own that are left out.
    """

    unit: float = REDUCED
    repeats: bool = False
    memory: str = ""
    without: tuple[str, ...] = ()
    defaults: Callable[[Mapping[str, str], int], Mapping[str, str]] = lambda given, threads: {}


def _openvino(given: Mapping[str, str], threads: int) -> Mapping[str, str]:
    """On its CPU all of float32, which it would leave where the processor has bfloat16."""
    if given.get("device_type", "CPU") != "CPU":
        return {}
    return {"num_of_threads": str(threads), "precision": "FP32"}


def _xnnpack(given: Mapping[str, str], threads: int) -> Mapping[str, str]:
    return {"intra_op_num_threads": str(threads)}


def _cuda(given: Mapping[str, str], threads: int) -> Mapping[str, str]:
    """All of float32: TF32, its default, keeps 10 bits of 23."""
    return {"use_tf32": "0"}


_UNKNOWN = Traits()
_TRAITS: Mapping[str, Traits] = {
    CPU: Traits(EXACT, repeats=True),
    # It cannot read a graph one of whose outputs was folded into a constant, and folds itself.
    "openvino": Traits(
        FLOAT32, repeats=True, without=("ConstantFolding",), defaults=_openvino
    ),
    "xnnpack": Traits(FLOAT32, repeats=True, defaults=_xnnpack),
    "dnnl": Traits(FLOAT32, repeats=True),
    "cuda": Traits(FLOAT32, memory="cuda", defaults=_cuda),
    "tensorrt": Traits(memory="cuda"),
    "nvtensorrtrtx": Traits(memory="cuda"),
}


@final
@dataclass(frozen=True, slots=True)
class Provider:
    """A provider by onnxruntime's `name` (CUDAExecutionProvider), with the options given."""

    name: str
    options: Options = ()

    @property
    def short(self) -> str:
        """Return what flags and profiles call it: cuda."""
        return self.name.removesuffix(SUFFIX).lower()

    @property
    def traits(self) -> Traits:
        return _TRAITS.get(self.short, _UNKNOWN)

    @property
    def unit(self) -> float:
        """As in `Backend`: what options say may be less exact than the defaults."""
        told = {key for key, _ in self.options} - {"device_id"}
        return max(self.traits.unit, REDUCED) if told else self.traits.unit

    @property
    def device_id(self) -> int:
        return int(dict(self.options).get("device_id", "0"))

    def settings(self, threads: int) -> dict[str, str]:
        """All of its options for a session of so many threads."""
        given = dict(self.options)
        return {**self.traits.defaults(given, threads), **given}

    def __str__(self) -> str:
        told = ",".join(f"{key}={value}" for key, value in self.options)
        return f"{self.short}:{told}" if told else self.short


def parse_provider(text: str, known: Iterable[str], held: Iterable[str]) -> Provider:
    """Read NAME or NAME:KEY=VALUE,KEY=VALUE.

    `known` are onnxruntime's names of all providers there are, `held` those of the installed
    build. Raises `UsageError` for one that this build has not, or that runs nothing here, and
    for options that are none.
    """
    short, colon, rest = text.partition(":")
    named = {name.removesuffix(SUFFIX).lower(): name for name in known}
    here = {name.removesuffix(SUFFIX).lower() for name in held} - {_ELSEWHERE}
    if short.lower() not in here:
        what = (
            "is none of onnxruntime's"
            if short.lower() not in named
            else "runs nothing on this machine"
            if short.lower() == _ELSEWHERE
            else "is not in it"
        )
        raise UsageError(
            "--provider must be one that the installed onnxruntime has, "
            f"{', '.join(sorted(here))} ({short!r} {what}): install the build that has it, "
            "such as onnxruntime-gpu or onnxruntime-openvino, instead of onnxruntime"
        )
    options = tuple(_option(text, each) for each in rest.split(",")) if colon else ()
    device_id = dict(options).get("device_id", "0")
    if not device_id.isdecimal():
        raise UsageError(f"a provider's device_id must be a number (not {device_id!r})")
    return Provider(named[short.lower()], options)


def _option(text: str, each: str) -> tuple[str, str]:
    key, equals, value = each.partition("=")
    if not (key.strip() and equals and value.strip()):
        raise UsageError(
            f"--provider must be NAME or NAME:KEY=VALUE,KEY=VALUE (not {text!r}): "
            "cuda:device_id=1"
        )
    return key.strip(), value.strip()
