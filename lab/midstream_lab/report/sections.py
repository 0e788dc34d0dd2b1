"""The report's sections, each from the same few things: summary, runs, names, looks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, final

import numpy as np

from midstream_lab.report import charts, tables
from midstream_lab.report.page import Section, card, note
from midstream_lab.report.palette import Look, looks, placement_colours
from midstream_lab.report.timelines import placement_of, placements
from midstream_lab.report.wording import counted, labels_of, policy_words
from midstream_lab.results.bootstrap import BLOCK_S, Floats
from midstream_lab.results.comparison import BEST_FIXED, ORACLE, is_fixed
from midstream_lab.results.rows import RunResult
from midstream_lab.results.summary import Summary
from midstream_partitioner.units import format_duration, format_nbytes, format_rate

#: Where more distributions would be shown, all traces of a model share one picture.
MAX_CDFS = 40


_REGRET = (
    "Regret: how much longer the mean latency is than that of {}. Dot: the mean over traces, "
    "models and seeds; bar: its 95 % interval; diamond: the worst trace. The axis is "
    "stretched near zero."
)
_THE_ORACLE = (
    "the clairvoyant oracle, which knows the trace and picks the best placement for every "
    "request"
)
_NO_ORACLE = "the best policy of each trace, as no oracle ran"
_TIMELINE = (
    "The uplink as it was (over the shaded ground){}, where each request was cut, and how "
    "long it took; the thin line is another policy over the same trace.{} Drag to look "
    "closer, double-click to see all of it."
)
_BELIEVED = " and as the policy believed it to be (blue, with its band)"
_CUT = " Where the ground is red, the link was cut."
_ENERGY = (
    "Mean latency over the energy that the edge spends on a request (from the device's "
    "declared power, not measured). The dashed line is the least latency that mixtures of "
    "fixed placements and racing reach: who lies below it earns the trouble."
)
_PLACEMENTS = (
    "Which placement requests took, from everything on the edge (left) to everything in the "
    "cloud (right)."
)
_FIGURES = (
    "Small figures bound 95 %: a bootstrap over blocks of {:g} s, the same blocks for all "
    "policies, seed {}. It says what other stretches of these traces would have given, and "
    "nothing about other traces. “At equal energy” is the mean latency over that of the best "
    "mixture of fixed placements and racing on no more edge energy."
)
_VALIDITY = (
    "A run is void when the emulated link's round trip or rate is off by more than 5 %, or "
    "when it is late by more than 1 ms at the 99th percentile."
)


@final
class Story:
    """An experiment's runs and figures with the words and colours that all sections share."""

    def __init__(self, results: Sequence[RunResult], summary: Summary, scenario: str) -> None:
        self.results = sorted(results, key=lambda each: each.key)
        self.counted = [each for each in self.results if each.facts.void is None]
        self.summary = summary
        self.scenario = scenario
        self.labels = labels_of(results)
        policies = [each.policy for each in summary.policies]
        ran = dict.fromkeys([*policies, *(each.key.policy for each in self.results)])
        self.names: dict[str, str] = {each: policy_words(each, self.labels) for each in ran}
        self.looks: dict[str, Look] = looks(ran)
        self.placements = placements(self.counted)
        self.models = list(self.placements)

    def colours(self, model: str) -> dict[str, str]:
        return placement_colours(self.placements[model])

    def placement_words(self, placement: str) -> str:
        return self.labels.get(placement, placement)

    def sections(self) -> Iterator[Section]:
        """All of them, in the order of the page."""
        if self.summary.policies:
            yield Section("regret", "Regret", self._regret())
            yield Section("traces", "Trace by trace", self._heat())
            yield Section("latency", "Latencies", self._cdfs())
            yield Section("timeline", "Moment by moment", self._timeline())
            yield Section("energy", "Energy", self._energy())
            yield Section("placements", "Placements", self._shares())
            yield Section("figures", "All figures", self._figures())
        yield Section("validity", "Validity of the link", self._validity())
        yield Section("setting", "Setting", self._setting())

    def _regret(self) -> str:
        oracle = self.summary.reference == ORACLE
        chart = charts.regret_chart(self.summary.policies, self.names, self.looks)
        words = note(_REGRET.format(_THE_ORACLE if oracle else _NO_ORACLE))
        return f'{words}<div class="card">{chart}</div>'

    def _heat(self) -> str:
        parts = []
        for model in self.models:
            title = f"<h3>{escape(model)}</h3>" if len(self.models) > 1 else ""
            parts.append(title + tables.heat_map(self.summary, model, self.names))
        words = note("Regret in per cent, the mean over seeds.")
        return f'{words}<div class="card">{"".join(parts)}</div>'

    def _cdfs(self) -> str:
        # One of many fixed placements, which the best of them stands for, is left out.
        shown = [
            each.policy
            for each in self.summary.policies
            if not each.policy.startswith("fixed:")
        ]
        cells = dict.fromkeys((each.key.model, each.key.trace) for each in self.counted)
        together = len(cells) > MAX_CDFS
        pools: dict[str, dict[str, list[Floats]]] = {}
        choices = {(c.model, c.trace, c.seed): c.policy for c in self.summary.best_fixed}
        for each in self.counted:
            title = each.key.model if together else f"{each.key.model} over {each.key.trace}"
            pool = pools.setdefault(title, {policy: [] for policy in shown})
            latency_s = each.rows["latency_s"][each.rows.answered]
            for policy in (
                each.key.policy,
                *([BEST_FIXED] if choices.get(each.key.cell) == each.key.policy else []),
            ):
                if policy in pool and len(latency_s):
                    pool[policy].append(latency_s)
        drawn = []
        for title, pool in pools.items():
            latencies = {policy: np.concatenate(all_) for policy, all_ in pool.items() if all_}
            if latencies:
                chart = charts.cdf_chart(title, latencies, self.names, self.looks)
                drawn.append(f"<div><h3>{escape(title)}</h3>{chart}</div>")
        keys = charts.legend((self.names[policy], self.looks[policy]) for policy in shown)
        words = note("The share of requests answered within a time.")
        return (
            f'{words}<div class="card">{keys}<div class="grid-3">{"".join(drawn)}</div></div>'
        )

    def _timeline(self) -> str:
        believed = any(np.isfinite(each.rows["belief_bps"]).any() for each in self.counted)
        cut = any(each.facts.cuts for each in self.counted)
        words = _TIMELINE.format(_BELIEVED if believed else "", _CUT if cut else "")
        return (
            note(words) + '<div class="card"><div class="controls">'
            '<label>run<select id="choose-cell"></select></label>'
            '<label>policy<select id="choose-policy"></select></label>'
            '<label>beside it<select id="choose-rival"></select></label>'
            '<button type="button" id="all-of-it">All of it</button></div>'
            '<div class="legend" id="timeline-legend"></div>'
            '<div id="timeline-figure"><div id="tip"></div>'
            "<noscript>The timeline is drawn by the page's script, which is switched off."
            "</noscript></div></div>"
        )

    def _energy(self) -> str:
        drawn = [
            f"<div><h3>{escape(model)}</h3>"
            + charts.energy_chart(
                model,
                [each for each in self.summary.models if each.model == model],
                self.names,
                self.looks,
            )
            + "</div>"
            for model in self.models
        ]
        return note(_ENERGY) + card('<div class="grid-2">', *drawn, "</div>")

    def _shares(self) -> str:
        parts = []
        for model in self.models:
            colours = self.colours(model)
            shares = self._placement_shares(model)
            labels = {each: self.placement_words(each) for each in colours}
            keys = charts.colour_legend(colours, labels)
            chart = charts.shares_chart(model, shares, self.names, colours, labels)
            title = f"<h3>{escape(model)}</h3>" if len(self.models) > 1 else ""
            parts.append(f"{title}{keys}{chart}")
        return note(_PLACEMENTS) + card(*parts)

    def _placement_shares(self, model: str) -> dict[str, dict[str, float]]:
        counts: dict[str, dict[str, int]] = {}
        for each in self.counted:
            if each.key.model == model and not is_fixed(each.key.policy):
                names, numbers = np.unique(placement_of(each.rows), return_counts=True)
                known = counts.setdefault(each.key.policy, {})
                for name, number in zip(names.tolist(), numbers.tolist(), strict=True):
                    known[name] = known.get(name, 0) + number
        order = [each.policy for each in self.summary.policies if each.policy in counts]
        return {
            policy: {
                name: n / sum(counts[policy].values()) for name, n in counts[policy].items()
            }
            for policy in order
        }

    def _figures(self) -> str:
        parts = [tables.figures_tables(self.summary.policies, self.names)]
        for model in self.models if len(self.models) > 1 else ():
            chosen = [each for each in self.summary.models if each.model == model]
            parts.append(f"<h3>{escape(model)}</h3>")
            parts.append(tables.figures_tables(chosen, self.names))
        inner = []
        for place in dict.fromkeys((each.model, each.trace) for each in self.summary.traces):
            chosen = [
                each for each in self.summary.traces if (each.model, each.trace) == place
            ]
            inner.append(f"<h3>{escape(place[0] or '')} over {escape(place[1] or '')}</h3>")
            inner.append(tables.figures_tables(chosen, self.names))
        return (
            f"{note(_FIGURES.format(BLOCK_S, self.summary.bootstrap_seed))}"
            f'<div class="card">{"".join(parts)}<details><summary>Trace by trace</summary>'
            f"{''.join(inner)}</details></div>"
        )

    def _validity(self) -> str:
        if self.summary.kind == "simulated":
            return "<p>These runs are simulated: there was no link to be wrong.</p>"
        void = len(self.summary.void)
        words = f"{counted(len(self.counted), 'run')} kept to what was configured"
        words += f"; {counted(void, 'run')} did not, and count for nothing" if void else ""
        table = tables.validity_table(self.results)
        return (
            f'<p>{words}. {_VALIDITY}</p><div class="card">'
            f"<details{' open' if void else ''}><summary>Run by run</summary>{table}</details>"
            "</div>"
        )

    def _setting(self) -> str:
        menus = {e.key.model: e.facts.menu for e in reversed(self.results) if e.facts.menu}
        profiles = "".join(
            f"<h3>{escape(model)}: what could be chosen, by the profiles</h3>"
            f'<div class="card">{tables.menu_table(menu)}</div>'
            for model, menu in sorted(menus.items())
        )
        title = "The command" if self.summary.kind == "simulated" else "The scenario"
        return (
            f'<div class="card">{tables.definitions(self._settings())}</div>{profiles}'
            f"<h3>{title}</h3><pre>{escape(self.scenario)}</pre>"
        )

    def _settings(self) -> Mapping[str, str]:
        """Return what all runs have in common, and what differs between them."""
        facts = [each.facts for each in self.results]
        seeds = sorted({each.key.seed for each in self.results})
        wanted: dict[str, list[str]] = {
            "edge": [_device(each.edge) for each in facts],
            "cloud": [_device(each.cloud) for each in facts],
            "link": [_link(each.link) for each in facts],
            "link cut": [_cuts(each.cuts) for each in facts],
            "deadline": [
                "" if each.deadline_s is None else format_duration(each.deadline_s)
                for each in facts
            ],
            "run for": [format_duration(each.duration_s) for each in facts],
            "versions": [
                ", ".join(f"{name} {version}" for name, version in each.versions.items())
                for each in facts
            ],
        }
        began = sorted(each.began for each in facts if each.began)
        told = {name: " · ".join(dict.fromkeys(each)) for name, each in wanted.items()}
        told["seeds"] = ", ".join(map(str, seeds))
        if self.summary.kind != "simulated":  # which is of no moment
            told["begun"] = f"{began[0]} to {began[-1]}" if began else "never"
        return {name: words for name, words in told.items() if words}


def _device(device: Mapping[str, Any]) -> str:
    """As everywhere: an emulated device is called so; nothing of one that is not known."""
    if not device:
        return ""
    slowdown = float(device.get("slowdown", 1.0))
    emulated = f", emulated {slowdown:g}x slower" if slowdown > 1 else ""
    threads = int(device.get("threads", 1))
    return f"{device.get('name', 'unknown')}, {counted(threads, 'thread')}{emulated}"


def _cuts(cuts: Sequence[tuple[float, float]]) -> str:
    return ", ".join(
        f"at {format_duration(at_s)} for {format_duration(lasts_s)}" for at_s, lasts_s in cuts
    )


def _link(link: Mapping[str, Any]) -> str:
    words = []
    for name, value in link.items():
        if value in (None, "", 0):
            continue
        said = re.sub(r"_(bps|s|nbytes)$", "", name).replace("_", " ")
        told = str(value)
        if isinstance(value, int) and name.endswith("_nbytes"):
            told = format_nbytes(value)
        if isinstance(value, int | float) and name.endswith("_bps"):
            told = format_rate(value)
        elif isinstance(value, int | float) and name.endswith("_s"):
            told = format_duration(value)
        words.append(f"{said} {told}")
    return ", ".join(words)
