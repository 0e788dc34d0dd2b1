"""Running plans against each other over a live session, every answer checked.

A lossy codec changes what the cloud is given, and so the answer, however exact the split is.
So each answer is held against two references: the unsplit network on what the codec delivered
(the split itself: equal to rounding) and the unsplit network on the original input (what the
codec costs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, final

import numpy as np

from midstream_edge.session.lifecycle import patience_s
from midstream_edge.session.local_time import TIMEOUT_S
from midstream_edge.session.session import Answer, EdgeSession
from midstream_partitioner.backends.onnxruntime_backend import Executor
from midstream_partitioner.codec_spec import is_lossless
from midstream_partitioner.compare import argmax_equal, relative_error
from midstream_partitioner.costs.timings import FIELDS, Timings
from midstream_partitioner.execution.chain import Chain, State
from midstream_partitioner.execution.crossing import decode_crossing, encode_crossing
from midstream_partitioner.graph.cuts import CLOUD_ONLY, EDGE_ONLY
from midstream_partitioner.partition.cutting import fuse
from midstream_partitioner.planning.plan import Candidate, Plan
from midstream_wire.tensors import Array

#: Requests in a row under one placement.
TURN = 4


@final
@dataclass(frozen=True, slots=True)
class Contender:
    """A way of answering that a trial measures, with what was predicted for it."""

    name: str
    candidate: Candidate


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one placement over a trial.

    `max_relative_error` is against the unsplit network on what the codec delivered,
    `max_codec_error` and `argmax_agreement` against it on the original input. `local` answers
    were finished on the edge because the cloud failed.
    """

    contender: Contender
    measured: Timings
    latencies_s: tuple[float, ...]
    local: int
    max_relative_error: float
    max_codec_error: float
    argmax_agreement: float

    def quantile_s(self, share: float) -> float:
        return float(np.quantile(self.latencies_s, share))

    def to_dict(self) -> dict[str, Any]:
        """The document's entry: predicted beside measured, medians field by field."""
        candidate = self.contender.candidate
        return {
            "name": self.contender.name,
            "cut": candidate.cut,
            "label": candidate.label,
            "codec": candidate.codec,
            "payload_nbytes": candidate.placement.payload_nbytes,
            "predicted": candidate.estimate.to_dict(),
            "measured": self.measured.to_dict(),
            "requests": len(self.latencies_s),
            "local": self.local,
            "p50_s": self.quantile_s(0.5),
            "p95_s": self.quantile_s(0.95),
            "max_relative_error": self.max_relative_error,
            "max_codec_error": self.max_codec_error,
            "argmax_agreement": self.argmax_agreement,
        }


Test = Callable[[Candidate], bool]

#: The test of each baseline; of the placements that pass, it is the best as planned.
BASELINES: Mapping[str, Test] = {
    "edge-only": lambda c: c.cut == EDGE_ONLY,
    "cloud-only raw": lambda c: c.cut == CLOUD_ONLY and c.codec == "raw",
    "cloud-only compressed": lambda c: c.cut == CLOUD_ONLY and c.codec != "raw",
}


def contenders_of(plan: Plan) -> tuple[Contender, ...]:
    """Return what a plan has to be held against, as far as its constraints admit it.

    The baselines: edge-only, and cloud-only with the raw and with the compressed input; the
    best cut inside the network; and the plan's own choice where it is none of these.
    """
    wanted = {**BASELINES, "best cut": _is_inside}
    found = {
        name: next((c for c in plan.candidates if fits(c)), None)
        for name, fits in wanted.items()
    }
    contenders = [Contender(name, c) for name, c in found.items() if c is not None]
    if plan.chosen not in found.values():
        contenders.append(Contender("plan", plan.chosen))
    return tuple(contenders)


def _is_inside(candidate: Candidate) -> bool:
    return candidate.cut not in (EDGE_ONLY, CLOUD_ONLY)


def adopt(session: EdgeSession, candidate: Candidate) -> None:
    """Let `session` run `candidate`, and wait for the cloud as long as that may well take."""
    timeout_s = patience_s(TIMEOUT_S, candidate.latency_s)
    session.use(candidate.k, candidate.codec, timeout_s=timeout_s)


def run_trial(
    session: EdgeSession,
    contenders: Sequence[Contender],
    inputs: Sequence[State],
    *,
    requests: int,
    progress: Callable[[int, int], None],
) -> tuple[Outcome, ...]:
    """Send `requests` requests under each placement, one at a time, in turn.

    In turn, so that whatever drifts (clock rates, a neighbour's load) hits all alike; a few
    requests each time, as a device that has settled on a plan would send them.
    """
    judge = _Judge(session.chain, inputs)
    answers: list[list[Answer]] = [[] for _ in contenders]
    for contender in contenders:  # one unmeasured round warms both sides up
        adopt(session, contender.candidate)
        session.infer(inputs[0])
    for first in range(0, requests, TURN):
        for contender, given in zip(contenders, answers, strict=True):
            adopt(session, contender.candidate)
            for number in range(first, min(first + TURN, requests)):
                given.append(session.infer(inputs[number % len(inputs)]))
                progress(sum(map(len, answers)), requests * len(contenders))
    return tuple(
        _outcome(contender, given, judge)
        for contender, given in zip(contenders, answers, strict=True)
    )


def _outcome(contender: Contender, answers: Sequence[Answer], judge: _Judge) -> Outcome:
    verdicts = [judge.verdict(number, answer) for number, answer in enumerate(answers)]
    return Outcome(
        contender=contender,
        measured=Timings(
            **{name: median(getattr(a.timings, name) for a in answers) for name in FIELDS}
        ),
        latencies_s=tuple(answer.timings.total_s for answer in answers),
        local=sum(answer.reason is not None for answer in answers),
        max_relative_error=max(verdict[0] for verdict in verdicts),
        max_codec_error=max(verdict[1] for verdict in verdicts),
        argmax_agreement=sum(verdict[2] for verdict in verdicts) / len(verdicts),
    )


@final
class _Judge:
    """Knows the right answers: the unsplit network's, for every input and every codec."""

    def __init__(self, chain: Chain, inputs: Sequence[State]) -> None:
        partition = chain.partition
        self._chain = chain.at_speed(1.0)
        self._inputs = inputs
        self._whole = Executor(
            fuse(partition, 0, len(partition.segments)), threads=chain.threads
        )
        self._originals = [self._whole.run(sample) for sample in inputs]
        self._delivered: dict[tuple[int, str, int], State] = {}

    def verdict(self, number: int, answer: Answer) -> tuple[float, float, bool]:
        """Error against what was delivered, error against the original, same argmax."""
        at = number % len(self._inputs)
        original = self._originals[at]
        expected: State = original
        if answer.reason is None:
            expected = self._reference(answer.k, answer.codec, at)
        return (
            relative_error(expected, answer.outputs),
            relative_error(original, answer.outputs),
            argmax_equal(original, answer.outputs),
        )

    def _reference(self, k: int, codec: str, at: int) -> Mapping[str, Array]:
        """The unsplit network's answer to what `codec` delivers of input `at` at cut `k`."""
        partition = self._chain.partition
        last = len(partition.segments)
        if k == last or is_lossless(codec):
            return self._originals[at]
        if (k, codec, at) not in self._delivered:
            state = self._chain.run(self._inputs[at], 0, k)
            sent = encode_crossing(self._chain, k, codec, state)
            state |= decode_crossing(self._chain, k, sent)
            made: State = self._whole.run(state) if k == 0 else self._chain.run(state, k, last)
            self._delivered[k, codec, at] = made
        return self._delivered[k, codec, at]
