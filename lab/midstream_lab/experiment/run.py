"""One run: a link, a cloud and an edge as real processes, and what they leave as rows."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, cast

from pydantic import JsonValue

from midstream_edge.workload.load_generator import DRAIN_S
from midstream_lab.emulation.emulate import emulate
from midstream_lab.emulation.model.spec import GOODPUT_SHARE, LinkSpec, Loss
from midstream_lab.experiment.prepare import Prepared, digest_of
from midstream_lab.experiment.scenario import Experiment, TraceTable
from midstream_lab.processes.pair import CloudSetting, Drive, EdgeSetting, Say, run_policy
from midstream_lab.results.comparison import ORACLE
from midstream_lab.results.rows import Curve, Facts, RunKey, RunResult, read_log, rows_of
from midstream_lab.traces.generators import generate
from midstream_lab.traces.parsing import load_trace
from midstream_lab.traces.trace import Trace
from midstream_lab.traces.writing import write_trace
from midstream_partitioner.codec_plugins import plugin_flags
from midstream_partitioner.scratch import scratch_folder
from midstream_wire.codecs.plugins import loaded_names
from midstream_wire.errors import MidstreamError, UsageError

#: Different inputs, sent in turn.
INPUTS = 16
#: A run's rates as a report shows them.
MOST_STEPS = 1200
LEAST_STEP_S = 0.1

#: Figures that the edge's document and a run's facts call alike.
_COUNTS = (
    "requests", "answered", "duplicated", "local", "hedges", "switches", "reconnects",
    "policy_errors", "probe_nbytes", "uplink_nbytes", "downlink_nbytes", "probe_share",
)  # fmt: skip
_PACKAGES = ("midstream", "onnxruntime", "grpcio", "numpy")


def uplink_of(table: TraceTable, *, seed: int, duration_s: float) -> Trace:
    """The uplink that a scenario's trace means, at least as long as a run where it is made."""
    if table.rate_bps is not None:
        found = Trace(table.name, (0.0, duration_s), (table.rate_bps,), "constant")
    elif table.generate is not None:
        found = generate(table.generate, seed=seed, duration_s=table.start_s + duration_s)
    else:
        assert table.file is not None
        found = load_trace(table.file)
    if table.start_s >= found.duration_s:
        raise UsageError(
            f"traces: the start of {table.name} must lie within its {found.duration_s:g} s "
            f"(not at {table.start_s:g} s)"
        )
    if table.start_s > 0:
        found = found.cut(table.start_s, found.duration_s)
    return found if table.scale == 1 else found.scaled(table.scale)


#: Fields of a side that say what runs its segments.
_BACKENDS = ("backend", "provider", "device")


def link_of(experiment: Experiment, key: RunKey) -> LinkSpec:
    """The emulated link of a run. Raises `UsageError` for what cannot be emulated."""
    link, table = experiment.scenario.link, experiment.trace(key.trace)
    uplink = uplink_of(table, seed=key.seed, duration_s=experiment.scenario.duration_s)
    downlink_bps = table.downlink_bps or link.downlink_bps
    spec = LinkSpec(
        uplink,
        uplink if downlink_bps is None else downlink_bps,
        delay_s=(link.rtt_s if table.rtt_s is None else table.rtt_s) / 2,
        jitter_s=link.jitter_s,
        loss=Loss.random(link.loss) if link.loss else None,
        seed=key.seed,
    )
    if link.queue_nbytes is not None:
        spec = replace(spec, queue_nbytes=link.queue_nbytes)
    return spec if link.congestion is None else replace(spec, congestion=link.congestion)


def settings_of(
    experiment: Experiment, key: RunKey, prepared: Prepared
) -> dict[str, JsonValue]:
    """All that the outcome of a run depends on, by the scenario's names."""
    scenario = experiment.scenario
    settings: dict[str, JsonValue] = {
        "duration": scenario.duration_s,
        "load.every": scenario.load.every_s,
        "planning": " ".join(scenario.planning.flags()),
        "models": prepared.digest,
    }
    if scenario.codec_plugins:
        settings["codec_plugins"] = [f"{each.name} {each.version}" for each in loaded_names()]
    tables: dict[str, Any] = {
        "link": scenario.link, "edge": scenario.edge, "cloud": scenario.cloud
    }  # fmt: skip
    for name, table in tables.items():
        # What is not said is no setting, so that runs of before such fields still count.
        fields = asdict(table).items()
        said = [each for each in fields if each[0] not in _BACKENDS or each[1] is not None]
        settings |= {f"{name}.{field}": value for field, value in said}
    trace = experiment.trace(key.trace)
    where = {"name": None, "file": None}  # what is in the file counts, not where it lies
    settings |= {f"traces.{field}": value for field, value in (asdict(trace) | where).items()}
    uplink = uplink_of(trace, seed=key.seed, duration_s=scenario.duration_s)
    rates = digest_of(uplink.times_s.tobytes(), uplink.rates_bps.tobytes())
    return settings | {"traces.rates": rates}


def run_once(
    experiment: Experiment, key: RunKey, prepared: Prepared, *, say: Say
) -> RunResult:
    """Run it. The link, both processes and all temporary files are gone afterwards.

    Raises `MidstreamError` for a run that a signal cut short: its edge ends in good order,
    with the figures of the part that it ran.
    """
    began = datetime.now(UTC)
    scenario = experiment.scenario
    spec = link_of(experiment, key)
    uplink = spec.uplink
    assert isinstance(uplink, Trace)
    plugins = plugin_flags(scenario.codec_plugins)
    edge = EdgeSetting(
        scenario.edge.threads,
        scenario.edge.slowdown,
        INPUTS,
        prepared.table.input,
        key.seed,
        ("--profile", str(prepared.edge_profile), *scenario.planning.flags()),
        run_by=(*scenario.edge.run_by(), *plugins),
    )
    cloud = CloudSetting(
        scenario.cloud.threads,
        scenario.cloud.slowdown,
        prepared.cloud_profile,
        (*scenario.cloud.run_by(), *plugins),
    )
    with scratch_folder("midstream-experiment-") as temporary:
        log, trace = temporary / "log.jsonl", temporary / "uplink.csv"
        # What the oracle knows is what a payload meets, headers taken off.
        write_trace(uplink.scaled(GOODPUT_SHARE), trace)
        drive = Drive(
            key.policy,
            scenario.duration_s,
            scenario.load.every_s,
            log,
            str(trace) if key.policy == ORACLE else None,
        )
        with emulate(spec, backend=scenario.link.backend) as link:
            document = run_policy(
                prepared.folder, link, drive, cloud=cloud, edge=edge, say=say
            )
        if document["interrupted"]:
            raise MidstreamError(
                f"a run must last its {scenario.duration_s:g} s, and a signal ended this one "
                "before: give the command again to repeat it"
            )
        bandwidth = _bandwidth(uplink, scenario.duration_s + DRAIN_S)
        origin_s = document["trace_origin_s"]
        rows = rows_of(read_log(log, origin_s=origin_s, uplink=bandwidth))
    facts = _facts(document, bandwidth=bandwidth, duration_s=scenario.duration_s)
    settings = settings_of(experiment, key, prepared)
    facts = replace(facts, began=began.isoformat(timespec="seconds"), settings=settings)
    return RunResult(key, facts, rows)


def _bandwidth(uplink: Trace, duration_s: float) -> Curve:
    step_s = max(LEAST_STEP_S, duration_s / MOST_STEPS)
    steps = uplink.looped(duration_s).resampled(step_s)
    return tuple(zip(steps.times_s[:-1].tolist(), steps.rates_bps.tolist(), strict=True))


def _facts(document: Mapping[str, Any], *, bandwidth: Curve, duration_s: float) -> Facts:
    """Return what `midstream edge run` and the emulation say of the run."""
    validity = document["emulation"]["validity"]
    return Facts(
        kind="measured",
        began="",
        duration_s=duration_s,
        # A request that ended with an error has no answer either.
        lost=document["lost"] + document["failed"],
        **{name: document[name] for name in _COUNTS},
        edge=document["edge_profile"]["device"],
        cloud=document["cloud_profile"]["device"],
        link=_link(document["emulation"]),
        versions=_versions(),
        settings={},
        validity=_flat(validity),
        void=None if validity["valid"] else "; ".join(validity["why"]),
        labels={f"{each['cut']} {each['codec']}": each["label"] for each in document["menu"]},
        menu=tuple(document["menu"]),
        bandwidth=bandwidth,
    )


def _link(emulation: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return what all runs over such a link have in common."""
    spec, validity = emulation["spec"], emulation["validity"]
    downlink = spec["downlink"]
    return {
        "backend": emulation["backend"],
        "rtt_s": 2 * spec["delay_s"],
        "downlink_bps": downlink if isinstance(downlink, float | int) else None,
        "jitter_s": spec["jitter_s"],
        "loss": spec["loss"]["good_share"] if spec["loss"] else None,
        "queue_nbytes": validity["queue_nbytes"],
        "congestion": validity["congestion"],
    }


def _flat(validity: Mapping[str, Any]) -> dict[str, JsonValue]:
    """The emulation's word on itself, its calibration beside the rest."""
    found = dict(validity)
    calibration = found.pop("calibration") or {}
    why = "; ".join(found.pop("why"))
    return cast(dict[str, JsonValue], {**found, "why": why or None, **calibration})


def _versions() -> dict[str, str]:
    found = {name: metadata.version(name) for name in _PACKAGES}
    return found | {"Python": platform.python_version(), "kernel": platform.release()}
