"""Simulated runs as an experiment's report tells them: the same rows, figures and page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from midstream_edge.session.answers import FALLBACK
from midstream_lab.report.page import is_page
from midstream_lab.report.report import write_outcome, write_page
from midstream_lab.results.rows import COLUMNS, Facts, Rows, RunKey, RunResult, rows_of
from midstream_lab.results.run_files import save_run
from midstream_lab.simulation.menu_file import MeasuredModel
from midstream_lab.simulation.output.request_table import ENDS
from midstream_lab.simulation.pair.pair import Outcome, Setting
from midstream_lab.traces.trace import Trace
from midstream_partitioner.costs.timings import FIELDS

#: The tenth and the ninetieth percentile lie so many deviations off, as in a session's log.
_BAND = NormalDist().inv_cdf(0.9)
#: What a report shows of a placement.
_SHOWN = (
    "cut", "codec", "k", "label", "remote", "head_s", "encode_s", "decode_s", "tail_s",
    "payload_nbytes", "reply_nbytes", "rest_s",
)  # fmt: skip
#: A run's rates as a report shows them.
MOST_STEPS, LEAST_STEP_S = 1200, 0.1


def write_report(
    outcomes: Sequence[Outcome],
    measured: MeasuredModel,
    setting: Setting,
    *,
    place: Path,
    command: str,
) -> None:
    """A file a run, their table, `summary.json` and `report.html` into `place`; the report
    alone where that is an .html. `command` is what somebody gives to have the same again."""
    results = [result_of(each, measured, setting) for each in outcomes]
    title = f"{measured.name} over {setting.network.uplink.name}, simulated"
    if is_page(place):
        write_page(results, place, title=title, scenario=command)
        return
    for each in results:
        save_run(each, place / "runs")
    write_outcome(results, place, title=title, scenario=command)


def result_of(outcome: Outcome, measured: MeasuredModel, setting: Setting) -> RunResult:
    """One simulated pair as a finished run."""
    network, table = setting.network, outcome.table
    key = RunKey(measured.name, network.uplink.name, outcome.policy, setting.seed)
    answered = int(np.count_nonzero(table.how != ENDS.index("failed")))
    facts = Facts(
        kind="simulated",
        began="",
        duration_s=setting.duration_s,
        requests=len(table),
        answered=answered,
        lost=len(table) - answered,
        duplicated=0,
        local=int(np.count_nonzero(table.how == ENDS.index(FALLBACK))),
        hedges=outcome.hedges,
        switches=outcome.switches,
        reconnects=outcome.reconnects,
        probe_nbytes=outcome.probe_nbytes,
        uplink_nbytes=outcome.uplink_nbytes,
        downlink_nbytes=outcome.downlink_nbytes,
        probe_share=outcome.probe_share,
        edge=measured.device.to_dict(),
        cloud={},
        link={
            "rtt_s": network.rtt_s,
            "downlink_bps": network.downlink.mean_bps,
            "jitter_s": network.jitter_s,
            "loss": network.loss,
            "queue_nbytes": network.queue_nbytes,
            "congestion": network.congestion,
        },
        versions={name: metadata.version(name) for name in ("midstream", "numpy")},
        settings={},
        labels={f"{each.cut} {each.codec}": each.label for each in measured.menu.placements},
        menu=tuple(
            {name: getattr(placement, name) for name in _SHOWN}
            for placement in measured.menu.placements
        ),
        bandwidth=_bandwidth(network.uplink, setting.duration_s),
        deadline_s=setting.deadline_s,
        cuts=tuple((cut.at_s, cut.lasts_s) for cut in setting.cuts),
    )
    return RunResult(key, facts, _rows(outcome, measured, network.uplink))


def _bandwidth(uplink: Trace, duration_s: float) -> tuple[tuple[float, float], ...]:
    step_s = max(LEAST_STEP_S, duration_s / MOST_STEPS)
    steps = uplink.looped(duration_s).resampled(step_s)
    return tuple(zip(steps.times_s[:-1].tolist(), steps.rates_bps.tolist(), strict=True))


def _rows(outcome: Outcome, measured: MeasuredModel, uplink: Trace) -> Rows:
    """In the order in which requests were due. What a simulation does not know is empty."""
    table, placements = outcome.table, measured.menu.placements
    order = np.argsort(table.due_s, kind="stable")
    how, due_s = table.how[order], table.due_s[order]
    failed = how == ENDS.index("failed")
    placement = table.placement[order]
    empty = rows_of([{}]).columns
    found: dict[str, np.ndarray[Any, Any]] = {
        column.name: np.repeat(empty[column.name], len(table)) for column in COLUMNS
    }
    replies = np.array([each.reply_nbytes for each in placements])
    found |= {
        "at_s": due_s,
        "trace_s": due_s,
        "latency_s": np.where(failed, np.nan, table.latency_s[order].astype(np.float64)),
        "where": np.where(failed, "", np.array(ENDS)[how]),
        "hedged": table.hedged[order].astype(np.bool_),
        "switched": table.switched[order].astype(np.bool_),
        "k": np.array([each.k for each in placements])[placement],
        "cut": np.array([each.cut for each in placements])[placement],
        "codec": np.array([each.codec for each in placements])[placement],
        "payload_nbytes": table.payload_nbytes[order].astype(np.int64),
        "reply_nbytes": np.where(how == 0, replies[placement], 0),
        "uplink_bps": np.array([uplink.rate_at(at_s) for at_s in due_s.tolist()]),
        "edge_busy_s": table.busy_s[order].astype(np.float64),
        "energy_j": table.energy_j(measured.device)[order].astype(np.float64),
        "failed": np.where(failed, "nobody answered", ""),
    }
    found |= {name: table.stages_s[order, at] for at, name in enumerate(FIELDS)}
    rate_bps, spread, rtt_s = outcome.beliefs[order].T
    found |= {
        "belief_bps": rate_bps,
        "belief_low_bps": rate_bps * np.exp(-_BAND * spread),
        "belief_high_bps": rate_bps * np.exp(_BAND * spread),
        "belief_rtt_s": rtt_s,
    }
    return Rows(found)
