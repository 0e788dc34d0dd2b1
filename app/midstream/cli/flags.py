"""Which flags mean something where: what `midstream simulate` would pass over, it refuses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import typer

from midstream.cli.trials import Sweep, Trial
from midstream_lab.simulation.menus import SUFFIX
from midstream_wire.errors import UsageError

#: What a scenario's name ends in.
SCENARIO = ".toml"

# Flags by the names of their parameters.
_OF_A_SCENARIO = {"log", "report", "json"}
_OF_A_SWEEP = {each.name for each in fields(Sweep)} - {"axes"}
_OF_A_TRIAL = {each.name for each in fields(Trial)}
_OF_A_MENU = {"axes", "policy", "deadline", "menu_output"}
_OF_A_MENU |= _OF_A_SCENARIO | _OF_A_SWEEP | _OF_A_TRIAL
_NOT_OF_A_SWEEP = (_OF_A_TRIAL - {"seed"}) | {"policy", "deadline", "log", "report"}


def check_flags(model: str, context: typer.Context) -> None:
    """That every flag typed means something where `model` is simulated.

    Raises `UsageError`, naming those that do not.
    """
    name, suffix = Path(model).name, Path(model).suffix
    flags = _typed(context)
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
            f" ({name} has what was decided), or simulate the network again",
        )
    if "axes" in flags:
        _refuse(
            _spelled(flags, _NOT_OF_A_SWEEP),
            "must not be given with --sweep, which runs every option on links of its own and "
            "writes its report to --output",
        )
    else:
        _refuse(_spelled(flags, _OF_A_SWEEP), "must be given with --sweep")
    if {"edge", "edge_slowdown"} <= flags.keys():
        _refuse(["--edge-slowdown"], "must be given without --edge, a profile")


def _typed(context: typer.Context) -> dict[str, str]:
    """Parameters that the command line gives, and how their flags are spelled."""
    found = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name != "model" and source is not None and source.name == "COMMANDLINE":
            found[name] = max(parameter.opts, key=len)
    return found


def _spelled(flags: Mapping[str, str], names: Collection[str]) -> list[str]:
    return [flag for name, flag in flags.items() if name in names]


def _refuse(flags: Sequence[str], why: str, instead: str = "") -> None:
    if flags:
        *most, last = flags
        names = f"{', '.join(most)} and {last}" if most else last
        raise UsageError(f"{names} {why}: leave {'them' if most else 'it'} out{instead}")
