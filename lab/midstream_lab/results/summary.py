"""Summaries of runs per policy, model and trace; pure, from rows and facts.

Regret is how much longer the mean latency is than the clairvoyant oracle's over the same
model, trace and seed. What no policy can know, which fixed placement proves best, is a policy
of its own here: `BEST_FIXED`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from midstream_lab.results.bootstrap import (
    REPLICATES,
    Interval,
    interval,
    quantile_intervals,
)
from midstream_lab.results.comparison import (
    BEST_FIXED,
    ORACLE,
    RACE,
    Cell,
    Comparison,
    Seen,
    behind_equal_energy,
    compare,
    is_fixed,
    references,
)
from midstream_lab.results.rows import RunResult

SHARES = (0.5, 0.95, 0.99)
#: Replicates for quantiles, which cost more than means.
QUANTILE_REPLICATES = 300


@final
@dataclass(frozen=True, slots=True)
class Figures:
    """One policy over some runs: all of them, one model's, or one model's over one trace.

    Regrets are fractions; their mean is over cells, the worst is the worst trace's. Fields
    that end in _low and _high bound 95 % intervals. Of latencies, energies and shares every
    run counts the same, however many requests it had room for. `local` counts requests that
    the edge finished because the cloud failed, `policy_errors` how often the policy raised, or
    answered with what cannot be; `edge_share` is the share of all answers that
    came from the edge, `inside_share` of those that were cut inside the network.
    `behind_equal_energy` is how much longer the mean latency is than the best mixture of
    fixed placements and race on no more edge energy, where any of them spends so little.
    `missed` is the share of requests over their deadline or never answered, where there is
    one. What has no number is None.
    """

    policy: str
    model: str | None
    trace: str | None
    runs: int
    requests: int
    regret_mean: float | None
    regret_mean_low: float | None
    regret_mean_high: float | None
    regret_worst: float | None
    regret_worst_at: str | None
    mean_s: float | None
    mean_low_s: float | None
    mean_high_s: float | None
    p50_s: float | None
    p50_low_s: float | None
    p50_high_s: float | None
    p95_s: float | None
    p95_low_s: float | None
    p95_high_s: float | None
    p99_s: float | None
    p99_low_s: float | None
    p99_high_s: float | None
    lost: int
    duplicated: int
    missed: float | None
    local: int
    hedges: int
    switches: int
    policy_errors: int
    probe_share: float | None
    edge_share: float | None
    inside_share: float | None
    energy_j: float | None
    edge_busy_s: float | None
    behind_equal_energy_mean: float | None
    behind_equal_energy_worst: float | None


@final
@dataclass(frozen=True, slots=True)
class BestFixed:
    """The placement that `BEST_FIXED` stands for in a cell."""

    model: str
    trace: str
    seed: int
    policy: str


@final
@dataclass(frozen=True, slots=True)
class Void:
    """A run that does not count, and why."""

    run: str
    reason: str


@final
@dataclass(frozen=True, slots=True)
class Summary:
    """All figures: per policy, per policy and model, per policy, model and trace.

    `kind` is measured or simulated, `reference` what regret is against: the oracle, or the
    best policy of each cell where no oracle ran. A policy that never got an answer has no
    figures; what it `lost` counts all the same. `deadline_s` is what all requests had, None
    where they had none or several.
    """

    kind: str
    reference: str
    runs: int
    requests: int
    lost: int
    duplicated: int
    deadline_s: float | None
    bootstrap_seed: int
    policies: tuple[Figures, ...]
    models: tuple[Figures, ...]
    traces: tuple[Figures, ...]
    best_fixed: tuple[BestFixed, ...]
    void: tuple[Void, ...]

    def find(
        self, policy: str, model: str | None = None, trace: str | None = None
    ) -> Figures | None:
        """The figures of `policy`, if it ran there."""
        pool = (
            self.policies if model is None else self.models if trace is None else self.traces
        )
        wanted = (policy, model, trace)
        return next((f for f in pool if (f.policy, f.model, f.trace) == wanted), None)

    def to_dict(self) -> dict[str, Any]:
        """Return what summary.json holds: `policies` by name, all else as it is."""
        plain = asdict(self)
        return plain | {"policies": {each["policy"]: each for each in plain["policies"]}}


def summarise(
    results: Iterable[RunResult], *, seed: int = 0, replicates: int = REPLICATES
) -> Summary:
    """The figures of all runs that count; the same for the same results and seed."""
    listed = sorted(results, key=lambda each: each.key)
    counted = [each for each in listed if each.facts.void is None]
    compared = compare(counted, seed=seed, replicates=replicates)
    pool = _Pool(compared, references(compared))
    choices = (each for each in compared.seen if each.policy == BEST_FIXED)
    deadlines = {each.facts.deadline_s for each in counted}
    return Summary(
        kind=listed[0].facts.kind if listed else "measured",
        reference=ORACLE if any(e.policy == ORACLE for e in compared.seen) else "best policy",
        runs=len(counted),
        requests=sum(each.facts.requests for each in counted),
        lost=sum(each.facts.lost for each in counted),
        duplicated=sum(each.facts.duplicated for each in counted),
        deadline_s=deadlines.pop() if len(deadlines) == 1 else None,
        bootstrap_seed=seed,
        policies=pool.figures(lambda each: (None, None)),
        models=pool.figures(lambda each: (each.cell[0], None)),
        traces=pool.figures(lambda each: (each.cell[0], each.cell[1])),
        best_fixed=tuple(BestFixed(*each.cell, each.result.key.policy) for each in choices),
        void=tuple(Void(str(each.key), each.facts.void) for each in listed if each.facts.void),
    )


@final
class _Pool:
    """Runs with what they are held against, put together in different ways."""

    def __init__(self, compared: Comparison, reference: Mapping[Cell, Seen]) -> None:
        self._compared = compared
        self._reference = reference
        self._rivals: dict[Cell, list[Seen]] = {}
        for each in compared.seen:
            if each.policy == RACE or is_fixed(each.policy):
                self._rivals.setdefault(each.cell, []).append(each)

    def figures(
        self, place: Callable[[Seen], tuple[str | None, str | None]]
    ) -> tuple[Figures, ...]:
        """Figures of each policy at each place; policies with the least regret first."""
        groups: dict[tuple[str, str | None, str | None], list[Seen]] = {}
        for each in self._compared.seen:
            groups.setdefault((each.policy, *place(each)), []).append(each)
        made = [self._figures(*group, seen) for group, seen in groups.items()]
        return tuple(
            sorted(made, key=lambda f: (f.model or "", f.trace or "", _rank(f), f.policy))
        )

    def _figures(
        self, policy: str, model: str | None, trace: str | None, seen: Sequence[Seen]
    ) -> Figures:
        facts = [each.result.facts for each in seen]
        sent = sum(each.uplink_nbytes for each in facts)
        rows = [each.result.rows.where(each.result.rows.answered) for each in seen]
        behind = [b for b in self._by_trace(seen, self._behind).values() if np.isfinite(b)]
        return Figures(
            policy=policy,
            model=model,
            trace=trace,
            runs=len(seen),
            requests=sum(each.requests for each in facts),
            **self._regrets(seen),
            **self._latencies(seen),
            lost=sum(each.lost for each in facts),
            duplicated=sum(each.duplicated for each in facts),
            missed=_mean([_late(each.result) for each in seen]),
            local=sum(each.local for each in facts),
            hedges=sum(each.hedges for each in facts),
            switches=sum(each.switches for each in facts),
            policy_errors=sum(each.policy_errors for each in facts),
            probe_share=_number(
                sum(each.probe_share * each.uplink_nbytes for each in facts) / sent
                if sent
                else 0.0
            ),
            edge_share=_mean([each["where"] != "cloud" for each in rows]),
            inside_share=_mean(
                [~np.isin(each["cut"], ("edge-only", "cloud-only")) for each in rows]
            ),
            energy_j=_mean([each["energy_j"] for each in rows]),
            edge_busy_s=_mean([each["edge_busy_s"] for each in rows]),
            behind_equal_energy_mean=float(np.mean(behind)) if behind else None,
            behind_equal_energy_worst=max(behind, default=None),
        )

    def _behind(self, each: Seen) -> float:
        return behind_equal_energy(each, self._rivals.get(each.cell, ()))

    def _regret(self, each: Seen) -> float:
        reference = self._reference.get(each.cell)
        return np.nan if reference is None else each.mean_s / reference.mean_s - 1

    def _by_trace(
        self, seen: Sequence[Seen], figure: Callable[[Seen], float]
    ) -> dict[tuple[str, str], float]:
        """The mean of a figure over the seeds of each model and trace."""
        found: dict[tuple[str, str], list[float]] = {}
        for each in seen:
            found.setdefault(each.cell[:2], []).append(figure(each))
        return {place: float(np.mean(values)) for place, values in found.items()}

    def _regrets(self, seen: Sequence[Seen]) -> dict[str, Any]:
        judged = [each for each in seen if each.cell in self._reference]
        if not judged:
            return dict.fromkeys(
                ("regret_mean", "regret_mean_low", "regret_mean_high",
                 "regret_worst", "regret_worst_at")
            )  # fmt: skip
        replicates = np.mean(
            [each.means_s / self._reference[each.cell].means_s - 1 for each in judged], axis=0
        )
        blocks = sum(self._compared.draws[each.cell].shape[1] for each in judged)
        regret = float(np.mean([self._regret(each) for each in judged]))
        mean = interval(regret, replicates, blocks=blocks)
        places = self._by_trace(judged, self._regret)
        worst = max(places, key=places.__getitem__)
        several_models = len({model for model, _ in places}) > 1
        return {
            "regret_mean": _number(mean.value),
            "regret_mean_low": _number(mean.low),
            "regret_mean_high": _number(mean.high),
            "regret_worst": _number(places[worst]),
            "regret_worst_at": " over ".join(worst) if several_models else worst[1],
        }

    def _latencies(self, seen: Sequence[Seen]) -> dict[str, Any]:
        """Mean and quantiles; every run counts the same, however many requests it had."""
        draws = np.hstack([self._compared.draws[each.cell] for each in seen])
        widths = [self._compared.draws[each.cell].shape[1] for each in seen]
        offsets = np.concatenate(([0], np.cumsum(widths[:-1]))).astype(np.int64)
        quantiles = quantile_intervals(
            np.concatenate([each.latency_s for each in seen]),
            np.concatenate([np.full(len(e.latency_s), 1 / len(e.latency_s)) for e in seen]),
            np.concatenate([e.block + at for e, at in zip(seen, offsets, strict=True)]),
            draws[:QUANTILE_REPLICATES],
            SHARES,
        )
        mean_s = float(np.mean([each.mean_s for each in seen]))
        replicates = np.mean([each.means_s for each in seen], axis=0)
        named = {"mean": interval(mean_s, replicates, blocks=draws.shape[1])} | {
            f"p{round(share * 100)}": each
            for share, each in zip(SHARES, quantiles, strict=True)
        }
        return {
            key: value for name, each in named.items() for key, value in _fields(name, each)
        }


def _late(result: RunResult) -> NDArray[np.bool_]:
    """Return a mask of requests over their deadline or never answered; empty without one."""
    deadline_s = result.facts.deadline_s
    if deadline_s is None:
        return np.zeros(0, dtype=np.bool_)
    # Simulations keep seven digits of a latency.
    return np.asarray(~(result.rows["latency_s"] <= deadline_s * (1 + 1e-6)))


def _fields(name: str, found: Interval) -> list[tuple[str, float | None]]:
    return [
        (f"{name}_s", _number(found.value)),
        (f"{name}_low_s", _number(found.low)),
        (f"{name}_high_s", _number(found.high)),
    ]


def _rank(figures: Figures) -> float:
    return np.inf if figures.regret_mean is None else figures.regret_mean


def _mean(columns: Sequence[Any]) -> float | None:
    """The mean of the runs' means."""
    means = [np.asarray(each, dtype=np.float64).mean() for each in columns if len(each)]
    return _number(np.mean(means)) if means else None


def _number(value: float | np.floating[Any]) -> float | None:
    """A plain number, or None where there is none: documents hold no NaN."""
    return float(value) if np.isfinite(value) else None
