"""`midstream simulate`: policies on a link in virtual time."""

from __future__ import annotations

import json as jsons
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from midstream.cli import completion
from midstream.cli.flags.applicable import SCENARIO, check_simulated
from midstream.cli.flags.common import CodecPlugins, Json, Size
from midstream.cli.flags.destinations import reportable, writable
from midstream.cli.flags.feed import takes_feed
from midstream.cli.flags.planning import Devices, Planning, takes_devices, takes_planning
from midstream.cli.flags.simulation import Sweep, Trial, takes_sweep, takes_trial
from midstream.cli.output import console
from midstream.cli.output.simulated import ANSWERED, LEGEND, chosen_most, remarks, who_answered
from midstream.cli.runs.fleet import run_scenario
from midstream.cli.runs.menu import check_output, measure_model, write_menu
from midstream.cli.runs.sweep import check_sweep, run_sweep
from midstream.feeding import Feeding
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.registry import POLICIES
from midstream_lab.simulation.menu_file import SUFFIX, UNKNOWN, MeasuredModel, read_menu
from midstream_lab.simulation.model.machine import Machine
from midstream_lab.simulation.output.request_table import rows
from midstream_lab.simulation.output.statistics import Figures, figures
from midstream_lab.simulation.pair.pair import Outcome, Setting, simulate_pair
from midstream_lab.simulation.pair.report import write_report
from midstream_partitioner.units import format_nbytes, format_rate

ORACLE = "oracle"


@takes_feed
@takes_planning
@takes_trial
@takes_devices
@takes_sweep
def simulate(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=completion.simulated,
            help="An ONNX file, a partition's folder, a built-in model, a menu (.json), or "
            "the scenario of a fleet (.toml).",
        ),
    ],
    feed: Feeding,
    planning: Planning,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            autocompletion=completion.policies,
            help=f"Policy; repeatable: {', '.join(POLICIES)}.",
        ),
    ] = None,
    *,
    codec_plugin: CodecPlugins = None,  # loaded as it is read
    size: Size = None,
    trial: Trial,
    devices: Devices,
    sweep: Sweep,
    menu_output: Annotated[
        Path | None,
        typer.Option(
            callback=writable,
            help="File for the measured placements (.json), usable as MODEL.",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            callback=writable,
            help="File for one JSON line a request.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            callback=reportable,
            help="File for the report (FILE.html), or folder for report, figures and rows.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run policies over a link in virtual time: one edge, one cloud.

    The policies are the very code that `edge run --adaptive` runs; link, processors and server
    are modelled (docs/explanation/simulation.md). The same menu, seed and flags give the same
    figures. The oracle runs beside the policies asked for, and regret is the mean latency over
    its.

    A scenario (.toml) describes many edges that share a cloud; beside it only --log, --report
    and --json can be given. A menu (.json) was made with its model's flags, which cannot be
    given again.
    """
    check_simulated(model, context)
    if Path(model).suffix == SCENARIO:
        run_scenario(Path(model), log=log, report=report, as_json=json)
        return
    deadline_s = planning.constraints.deadline_s
    _check(trial, sweep, menu_output, deadline_s)
    if Path(model).suffix == SUFFIX:
        measured = read_menu(Path(model))
    else:
        measured = measure_model(
            model, feed, size, planning=planning, devices=devices, policies=policy or ()
        )
    if menu_output is not None:
        write_menu(measured, menu_output)
    machine = Machine(sigma=measured.scatter)
    if sweep.axes:
        run_sweep(measured, machine, sweep, page=report, seed=trial.seed, as_json=json)
    else:
        setting = trial.setting(measured.device, machine, deadline_s=deadline_s)
        _run_trial(measured, setting, policy, log=log, report=report, as_json=json)


def _check(
    trial: Trial, sweep: Sweep, menu_output: Path | None, deadline_s: float | None
) -> None:
    """Raise what the flags are wrong in, before anything is measured for them."""
    check_output(menu_output)
    if sweep.axes:
        check_sweep(sweep)
    else:
        trial.setting(UNKNOWN, Machine(), deadline_s=deadline_s)


def _run_trial(
    measured: MeasuredModel,
    setting: Setting,
    policies: Sequence[str] | None,
    *,
    log: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Run each of `policies`, and the oracle, and tell how they fared."""
    asked = policies or ["adaptive"]
    began_s = time.perf_counter()
    ran = {
        name: simulate_pair(measured.menu, name, setting)
        for name in dict.fromkeys([*asked, ORACLE])
    }
    took_s = time.perf_counter() - began_s
    if log is not None:
        _write_log(log, {name: ran[name] for name in asked}, measured.menu)
    if report is not None:
        write_report(list(ran.values()), measured, setting, place=report, command=_command())
    found = {name: _figures(ran[name], measured, setting) for name in ran}
    if as_json:
        console.print_json(_document(measured, setting, ran, found, asked))
        return
    _print(measured, setting, ran, found, asked)
    speed = len(ran) * setting.duration_s / took_s
    console.say(f"{speed:.0f} times faster than real time", to=console.err)


def _figures(outcome: Outcome, measured: MeasuredModel, setting: Setting) -> Figures:
    return figures(
        outcome.table,
        measured.menu.placements,
        measured.device,
        deadline_s=setting.deadline_s,
    )


def _command() -> str:
    return f"midstream {shlex.join(sys.argv[1:])}"


def _regret(found: Figures, oracle: Figures) -> float | None:
    if found.mean_s is None or not oracle.mean_s:
        return None
    return found.mean_s / oracle.mean_s - 1


def _document(
    measured: MeasuredModel,
    setting: Setting,
    ran: Mapping[str, Outcome],
    found: Mapping[str, Figures],
    asked: Sequence[str],
) -> dict[str, Any]:
    network = setting.network
    return measured.to_dict() | {
        "network": {
            "uplink": network.uplink.name,
            "uplink_bps": network.payload_up.mean_bps,
            "downlink": network.downlink.name,
            "downlink_bps": network.payload_down.mean_bps,
            "rtt_s": network.rtt_s,
            "jitter_s": network.jitter_s,
            "loss": network.loss,
        },
        "duration_s": setting.duration_s,
        "seed": setting.seed,
        "policies": [
            {
                "policy": name,
                "figures": found[name].to_dict(),
                "regret": _regret(found[name], found[ORACLE]),
                "hedges": ran[name].hedges,
                "probe_nbytes": ran[name].probe_nbytes,
                "probe_share": ran[name].probe_share,
                "downlink_nbytes": ran[name].downlink_nbytes,
            }
            for name in _listed(ran, asked)
        ],
    }


def _listed(ran: Mapping[str, Outcome], asked: Sequence[str]) -> list[str]:
    """The policies that were asked for; the oracle last where it was not."""
    return [*dict.fromkeys(asked), *(name for name in ran if name not in asked)]


def _write_log(path: Path, ran: Mapping[str, Outcome], menu: Menu) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for name, outcome in ran.items():
            for row in rows(outcome.table, menu.placements):
                file.write(jsons.dumps({"policy": name, **row}) + "\n")


def _print(
    measured: MeasuredModel,
    setting: Setting,
    ran: Mapping[str, Outcome],
    found: Mapping[str, Figures],
    asked: Sequence[str],
) -> None:
    network = setting.network
    edge = "" if measured.device == UNKNOWN else f", edge {measured.device.label()}"
    title = f"{measured.name}{edge}, simulated for {setting.duration_s:g} s"
    table = console.table(
        f"{title}: {network.uplink.name}, {format_rate(network.payload_up.mean_bps)} up, "
        f"RTT {network.rtt_s * 1e3:g} ms",
        *("policy", "requests", "mean ms", "p50", "p95", "p99", "regret", "missed"),
        *(*ANSWERED, "hedges", "switches", "payloads", "probes", "J a request", "chosen most"),
        left=("policy", "chosen most"),
    )
    for name in _listed(ran, asked):
        table.add_row(name, *_cells(found[name], ran[name], found[ORACLE]))
    console.show(table)
    console.say(
        f"{LEGEND}; regret: how much longer the mean is than that of the oracle, which knows "
        "the uplink's future"
    )
    for sentence in remarks({name: ran[name].table for name in _listed(ran, asked)}):
        console.say(sentence)


def _cells(found: Figures, ran: Outcome, oracle: Figures) -> list[str]:
    times = (found.mean_s, found.p50_s, found.p95_s, found.p99_s)
    regret = _regret(found, oracle)
    return [
        str(found.requests),
        *("" if each is None else console.ms(each) for each in times),
        "" if regret is None else f"{regret:.1%}",
        "" if found.missed is None else f"{found.missed:.1%}",
        *who_answered(found),
        str(ran.hedges),
        str(found.switches),
        format_nbytes(found.uplink_nbytes),
        format_nbytes(ran.probe_nbytes),
        "" if found.energy_j is None else f"{found.energy_j:.3g}",
        chosen_most(found),
    ]
