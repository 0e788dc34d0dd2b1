"""Rules about flags: a command refuses by name each flag that would have no effect."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

import typer

from midstream.cli.flags.common import Command
from midstream.cli.flags.simulation import Sweep, Trial
from midstream_lab.simulation.menu_file import SUFFIX
from midstream_wire.errors import UsageError

#: What a scenario's name ends in.
SCENARIO = ".toml"


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """Flags that have no effect beside all of `beside`, or without one of `needs`.

    Flags are called by the names of their parameters. `why` is told in brackets.
    """

    flags: tuple[str, ...]
    beside: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    why: str = ""

    def check(self, typed: Collection[str], spelled: Mapping[str, str]) -> None:
        """Raise `UsageError` where some of the flags were typed for nothing."""
        if self.beside and set(self.beside) <= set(typed):
            others = " and ".join(spelled[each] for each in self.beside)
            demand = f"must not be given with {others}"
        elif self.needs and not set(self.needs) & set(typed):
            others = " or ".join(spelled[each] for each in self.needs)
            demand = f"must be given with {others}"
        else:
            return
        reason = f" ({self.why})" if self.why else ""
        _refuse([spelled[each] for each in self.flags if each in typed], demand + reason)


_PLANNING = (
    "objective", "private", "min_depth", "lossless", "codecs", "max_loss",
    "min_agreement", "max_error", "target_payload", "forbid", "deadline", "max_edge_memory",
)  # fmt: skip
_LINK = ("link", "uplink", "downlink", "rtt")
_TLS = ("ca", "cert", "key")
_POLICY = (
    "policy", "every", "duration", "log", "probe_budget", "metrics",
    "metrics_insecure", "trace", "trace_origin",
    "repartition", "gate",
)  # fmt: skip

_PUBLIC = Rule(("public",), needs=("private", "min_depth"), why="else all may be sent")
_SEED = Rule(("seed",), beside=("input",), why="only random inputs have a seed")
_DATA = (
    Rule(("seed",), beside=("data",), why="only generated inputs have a seed"),
    Rule(("labels", "metric"), needs=("data",), why="generated inputs have no right answers"),
)
_PROFILES = (
    Rule(("edge_slowdown",), beside=("edge",), why="the profile says how fast the edge is"),
    Rule(("threads", "runs"), beside=("edge", "cloud"), why="then nothing is measured"),
)
_NETWORK = Rule(("link",), beside=("uplink", "downlink", "rtt"), why="they say all of it")
_SHUT = tuple(Rule(("insecure",), beside=(each,), why="TLS is not plaintext") for each in _TLS)
_MEASURED = Rule(("runs",), beside=("profile",), why="then nothing is measured")

#: Command -> what has no effect there.
RULES: dict[str, tuple[Rule, ...]] = {
    "profile": (_SEED,),
    "plan": (
        *_PROFILES,
        Rule(
            ("input", "backend", "provider", "device"),
            beside=("edge", "cloud"),
            why="then nothing is measured",
        ),
        _NETWORK,
        _PUBLIC,
    ),
    "partition": (
        Rule(("max_cuts", "measure"), beside=("at",), why="it says where to cut"),
    ),
    "verify": (_SEED,),
    "calibrate": _DATA,
    "codecs": _DATA,
    "cloud serve": (
        _MEASURED,
        Rule(("insecure",), beside=("cert",), why="TLS it is"),
        Rule(("metrics_insecure",), needs=("metrics",)),
    ),
    "cloud describe": _SHUT,
    "cloud health": _SHUT,
    "edge run": (
        Rule(
            (
                *_PLANNING, *_LINK, *_TLS, "token_file", "insecure", "name", "profile", "runs",
                "segments", "fuse", "fuse_after", "adaptive", "cut", "codec", "codec_plugin",
                "timeout",
                "compare", "require_cloud",
            ),
            needs=("server",),
            why="without one everything runs here, and nothing is planned",
        ),
        Rule(_POLICY, needs=("adaptive",), why="they are for requests under a policy"),
        Rule(
            ("cut", "compare", "timeout"),
            beside=("adaptive",),
            why="a policy chooses for every request; one may be fixed:CUT:CODEC",
        ),
        Rule(_PLANNING, beside=("cut",), why="it replaces the plan"),
        Rule(("codec",), needs=("cut",), why="a plan chooses its codec, from --codecs"),
        Rule(("timeout",), beside=("compare",), why="each placement has its own"),
        Rule(
            ("segments",),
            beside=("compare",),
            why="to run every placement the edge must hold all segments",
        ),
        Rule(("trace_origin",), needs=("trace",)),
        Rule(("metrics_insecure",), needs=("metrics",)),
        Rule(("postprocess",), needs=("output",), why="its results are written there"),
        Rule(("output",), beside=("compare",), why="every placement answers the same inputs"),
        _MEASURED,
        _NETWORK,
        _PUBLIC,
        _SEED,
        *_SHUT,
    ),
    "pair": (
        Rule(
            ("duration", "every", "emulator", "log", "probe_budget"),
            needs=("policy", "trace"),
            why="they are for requests under a policy",
        ),
        Rule(("requests",), beside=("policy",), why="--duration says how long they come"),
        Rule(("requests",), beside=("trace",), why="--duration says how long they come"),
        Rule(("public",), needs=("private",), why="else all may be sent"),
        _SEED,
    ),
    "simulate": (
        *_PROFILES,
        Rule(("jobs",), beside=("address",), why="the cluster has its own processors"),
        Rule(("address",), needs=("engine",), why="it is a Ray cluster's"),
        _PUBLIC,
    ),
    "experiment": (
        Rule(("jobs", "fresh"), beside=("report_only",), why="then nothing is run"),
    ),
}  # fmt: skip


def effective(name: str, command: Command) -> Command:
    """Return `command`, called `name`, with the check that every flag typed has an effect."""
    rules = RULES.get(name, ())
    if not rules:
        return command
    signature = inspect.signature(command, eval_str=True)
    own = any(each.annotation is typer.Context for each in signature.parameters.values())

    @functools.wraps(command)
    def wrapped(context: typer.Context, **arguments: Any) -> None:
        flags, typed = spellings(context), typed_flags(context)
        for rule in rules:
            rule.check(typed, flags)
        command(**({"context": context} if own else {}), **arguments)

    others = [each for each in signature.parameters.values() if each.name != "context"]
    context = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    parameters = [context, *others]
    # typer reads both; functools.wraps would let it see the command's own.
    wrapped.__dict__["__signature__"] = signature.replace(parameters=parameters)
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    del wrapped.__dict__["__wrapped__"]
    return wrapped


def spellings(context: typer.Context) -> dict[str, str]:
    """Return how the flags of a command are spelled, by the names of their parameters."""
    return {
        each.name or "": max(each.opts, key=len)
        for each in context.command.params
        if any(opt.startswith("-") for opt in each.opts)
    }


def typed_flags(context: typer.Context) -> list[str]:
    """Names of the parameters whose flags the command line gives."""
    sources = {name: context.get_parameter_source(name) for name in spellings(context)}
    return [name for name, each in sources.items() if each and each.name == "COMMANDLINE"]


# What `midstream simulate` takes beside each kind of MODEL.
_OF_A_SCENARIO = {"log", "report", "json"}
_OF_A_SWEEP = {each.name for each in fields(Sweep)} - {"axes"}
_OF_A_TRIAL = {each.name for each in fields(Trial)}
_OF_A_MENU = {"axes", "policy", "deadline", "menu_output"}
_OF_A_MENU |= _OF_A_SCENARIO | _OF_A_SWEEP | _OF_A_TRIAL
_NOT_OF_A_SWEEP = (_OF_A_TRIAL - {"seed"}) | {"policy", "deadline", "log"}


def check_simulated(model: str, context: typer.Context) -> None:
    """Raise `UsageError` for a flag that has no effect where `model` is simulated.

    Raises `UsageError`, naming those that do not.
    """
    name, suffix = Path(model).name, Path(model).suffix
    spelled = spellings(context)
    flags = {each: spelled[each] for each in typed_flags(context)}
    if suffix == SCENARIO:
        _refuse(
            _spelled(flags, flags.keys() - _OF_A_SCENARIO),
            "must not be given with a scenario, which says all but --log, --report and --json "
            "itself",
            f", or edit {name}",
        )
    if suffix == SUFFIX:
        _refuse(
            _spelled(flags, flags.keys() - _OF_A_MENU),
            "must be given when a menu is made, not when it is used",
            f" ({name} has what was decided), or simulate the model again",
        )
    if "axes" in flags:
        _refuse(
            _spelled(flags, _NOT_OF_A_SWEEP),
            "must not be given with --sweep, which runs every placement on links of its own",
        )
    else:
        _refuse(_spelled(flags, _OF_A_SWEEP), "must be given with --sweep")


def _spelled(flags: Mapping[str, str], names: Collection[str]) -> list[str]:
    return [flag for name, flag in flags.items() if name in names]


def _refuse(flags: Sequence[str], why: str, instead: str = "") -> None:
    if flags:
        *most, last = flags
        names = f"{', '.join(most)} and {last}" if most else last
        raise UsageError(f"{names} {why}: leave {'them' if most else 'it'} out{instead}")
