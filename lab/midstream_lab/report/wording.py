"""Names and figures as a reader sees them, and the verdict of an experiment in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from midstream_lab.results.comparison import BEST_FIXED, ORACLE, RACE, is_fixed
from midstream_lab.results.rows import RunResult
from midstream_lab.results.summary import Figures, Summary
from midstream_partitioner.units import format_duration

#: No number.
NONE = "–"

_POLICIES: Mapping[str, str] = {
    ORACLE: "oracle (clairvoyant)",
    BEST_FIXED: "best fixed in hindsight",
    RACE: "cloud-only, racing edge-only",
    "adaptive": "adaptive",
    "adaptive-nohedge": "adaptive, no hedging",
    "adaptive-race": "adaptive, racing",
    "cloud-only": "cloud-only, raw",
    "ewma": "EWMA",
    "harmonic": "harmonic mean (RobustMPC)",
    "linucb": "LinUCB bandit (ANS)",
}
#: Who answered, by `where` of an answer.
ANSWERS: Mapping[str, str] = {
    "cloud": "from the cloud",
    "edge": "edge-only",
    "edge-before-cloud": "the edge was first",
    "edge-after-cloud-failed": "finished on the edge",
}
#: Below this share of its requests the oracle does not really cut inside a network.
NEVER = 0.01


def policy_words(policy: str, labels: Mapping[str, str]) -> str:
    """A policy's name for people; `labels` are of placements, by "cut codec"."""
    kind, _, rest = policy.partition(":")
    if policy in _POLICIES:
        return _POLICIES[policy]
    if kind == "fixed":
        placement = rest.replace(":", " ", 1)
        return f"fixed: {labels.get(placement, placement)}"
    if kind == "cloud-only":
        return f"cloud-only, {rest}"
    if kind == "periodic":
        return f"re-plan every {rest} (Neurosurgeon)"
    return policy


def labels_of(results: Iterable[RunResult]) -> dict[str, str]:
    """All placements that any run knew, by "cut codec"."""
    found: dict[str, str] = {}
    for each in results:
        found |= each.facts.labels
    return found


def percent(share: float | None, *, sign: bool = False) -> str:
    """ "1.8 %": two figures where it is small, none behind the point where it is large."""
    if share is None:
        return NONE
    value = share * 100
    digits = 0 if abs(value) >= 99.5 else 1 if abs(value) >= 0.95 or value == 0 else 2
    text = f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")
    return f"{text} %"


def span(low: float | None, high: float | None) -> str:
    """ "0.2 to 0.5 %"; nothing where nothing bounds it."""
    if low is None or high is None:
        return NONE
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    value = seconds * 1e3
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def joules(energy_j: float | None) -> str:
    return NONE if energy_j is None else f"{energy_j:.3g}"


def counted(number: int, noun: str) -> str:
    """ "1 run", "2 runs", "4,210 requests"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def chief_of(summary: Summary) -> Figures | None:
    """Whom the report is about: adaptive, or else the best that is no reference."""
    found = summary.find("adaptive")
    if found is not None:
        return found
    ranked = [each for each in summary.policies if each.policy not in (ORACLE, BEST_FIXED)]
    thinking = [each for each in ranked if not is_fixed(each.policy) and each.policy != RACE]
    return next(iter([*thinking, *ranked]), None)


def verdict(summary: Summary, labels: Mapping[str, str]) -> list[str]:
    """Return what came out, in sentences, the most important first."""
    chief = chief_of(summary)
    if chief is None:
        return [_nothing(summary)]
    name = policy_words(chief.policy, labels)
    return [
        *_against_reference(summary, chief, name),
        *_against_rivals(summary, chief, labels),
        *_in_time(summary, chief, name),
        _answers(summary),
        *_policy_errors(summary, labels),
        *_where_splitting_wins(summary),
    ]


def _against_reference(summary: Summary, chief: Figures, name: str) -> list[str]:
    if chief.regret_mean is None:
        return []
    reference = "a clairvoyant oracle" if summary.reference == ORACLE else "the best policy"
    traces = len({(each.model, each.trace) for each in summary.traces})
    models = len({each.model for each in summary.models})
    over = counted(traces // max(models, 1), "trace")
    over += f" and {counted(models, 'network')}" if models > 1 else ""
    regret = chief.regret_mean
    behind = (
        f"takes {percent(regret)} longer than {reference}"
        if regret >= 0
        else f"takes {percent(-regret)} less than {reference}, which trusts its profiles,"
    )
    interval = span(chief.regret_mean_low, chief.regret_mean_high)
    interval = f" (95 %: {interval})" if chief.regret_mean_low is not None else ""
    worst = f"; on the worst trace, {chief.regret_worst_at}, {percent(chief.regret_worst)}"
    return [
        f"{name[0].upper()}{name[1:]} {behind} on average over {over}{interval}"
        f"{worst if traces > 1 else ''}."
    ]


def _against_rivals(
    summary: Summary, chief: Figures, labels: Mapping[str, str]
) -> Iterable[str]:
    rivals = []
    for policy in (BEST_FIXED, RACE):
        found = summary.find(policy)
        if found is None or found.regret_mean is None or policy == chief.policy:
            continue
        words = f"{policy_words(policy, labels)}: {percent(found.regret_mean, sign=True)}"
        if policy == RACE and found.energy_j and chief.energy_j:
            words += f" at {found.energy_j / chief.energy_j:.2g} times the edge's energy"
        rivals.append(words)
    if rivals:
        yield f"Beside it, {'; '.join(rivals)}."
    if chief.behind_equal_energy_mean is not None and rivals:
        behind = chief.behind_equal_energy_mean
        word = "behind" if behind > 0 else "ahead of"
        yield (
            f"On no more energy it is {percent(abs(behind))} {word} the best mixture of fixed "
            "placements and racing."
        )


def _nothing(summary: Summary) -> str:
    if not summary.runs:
        return "No run counts yet: there is nothing to say."
    if not summary.requests:
        return "No request came: there is nothing to compare. Longer runs may have some."
    return (
        f"None of {counted(summary.requests, 'request')} was answered: there is nothing to "
        "compare."
    )


def _in_time(summary: Summary, chief: Figures, name: str) -> Iterable[str]:
    if chief.missed is None or summary.deadline_s is None:
        return
    beside = summary.find(ORACLE)
    oracle = ""
    if beside is not None and beside.missed is not None and beside is not chief:
        oracle = f", {policy_words(ORACLE, {})} {percent(beside.missed)}"
    yield (
        f"Over the deadline of {format_duration(summary.deadline_s)}, or without an answer: "
        f"{name} {percent(chief.missed)} of its requests{oracle}."
    )


def _answers(summary: Summary) -> str:
    lost, doubled = summary.lost, summary.duplicated
    if not lost and not doubled:
        return f"All {counted(summary.requests, 'request')} were answered exactly once."
    return (
        f"Of {counted(summary.requests, 'request')} {lost:,} got no answer and {doubled:,} "
        "were answered twice."
    )


def _policy_errors(summary: Summary, labels: Mapping[str, str]) -> Iterable[str]:
    for each in summary.policies:
        if each.policy_errors and each.policy != BEST_FIXED:
            yield (
                f"The policy {policy_words(each.policy, labels)} failed "
                f"{counted(each.policy_errors, 'time')}: it raised, or answered with what "
                "cannot be, and its last decision stood or the edge ran everything."
            )


def _where_splitting_wins(summary: Summary) -> Iterable[str]:
    for each in summary.models:
        if each.policy == ORACLE and each.inside_share is not None:
            if each.inside_share < NEVER:
                yield (
                    f"On {each.model} the oracle never cuts inside the model: there, "
                    "splitting cannot win, and choosing between the ends is all there is."
                )
            else:
                yield (
                    f"On {each.model} the oracle cuts inside the model for "
                    f"{percent(each.inside_share)} of the requests."
                )
