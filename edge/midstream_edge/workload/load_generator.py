"""Requests sent through a session at their times, and a record of each.

A record counts a request's latency from when it was due, not from when there was room for it:
a session that falls behind shows it (what load testers call coordinated omission, if hidden).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, final

from midstream_edge.link.observations import LinkState
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.session.answers import Answer
from midstream_edge.session.session import EdgeSession
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_wire.errors import MidstreamError
from midstream_wire.tensors import Array

#: How long the last answers may take after the last request was due: as long as a cloud may
#: take that is given up, and the edge for what it then finishes.
DRAIN_S = 30.0


@final
@dataclass(frozen=True, slots=True)
class Schedule:
    """The number and times of requests: at an interval, or each after the one before.

    Ends after `duration_s` or `requests`, whichever comes first; None is no bound.
    """

    requests: int | None = None
    every_s: float | None = None
    duration_s: float | None = None

    def due(self, began_s: float) -> Iterator[float | None]:
        """The moments at which requests are due; None where it is now."""
        number = 0
        while self.requests is None or number < self.requests:
            at_s = None if self.every_s is None else began_s + number * self.every_s
            passed_s = (time.monotonic() if at_s is None else at_s) - began_s
            if self.duration_s is not None and passed_s >= self.duration_s:
                return
            yield at_s
            number += 1


@final
@dataclass(frozen=True, slots=True)
class Record:
    """One request: when it was due, what became of it, and what was believed at its end.

    `at_s` counts from the run's start, `monotonic_s` is the same on the machine's monotonic
    clock. Exactly one of `answer` and `failed` is given.
    """

    number: int
    at_s: float
    monotonic_s: float
    latency_s: float
    link: LinkState
    answer: Answer | None
    failed: str | None
    belief: LinkBelief | None
    switched: bool

    def to_dict(self, device: Device, link: Link) -> dict[str, Any]:
        """The record as a JSON line.

        `energy_j` is the edge's, by its device's power figures and the time on air at the
        rate of `link` or at the one believed.
        """
        head = {
            "number": self.number,
            "at_s": self.at_s,
            "monotonic_s": self.monotonic_s,
            "latency_s": self.latency_s,
            "link": self.link,
            "belief": _belief(self.belief),
            "switched": self.switched,
            "failed": self.failed,
        }
        answer = self.answer
        if answer is None:
            return head
        return head | {
            "where": answer.where,
            "hedged": answer.hedged,
            "reason": answer.reason,
            "k": answer.k,
            "cut": answer.cut,
            "codec": answer.codec,
            "payload_nbytes": answer.payload_nbytes,
            "reply_nbytes": answer.reply_nbytes,
            "timings": answer.timings.to_dict(),
            "predicted": answer.estimate.to_dict() if answer.estimate else None,
            "expected_s": answer.expected_s,
            "edge_busy_s": answer.busy_s,
            "energy_j": energy_j(answer, device, link, self.belief),
        }


def energy_j(answer: Answer, device: Device, link: Link, belief: LinkBelief | None) -> float:
    """Return what an answer cost the edge: computing, sending, waiting, receiving."""
    uplink_bps = link.uplink_bps if belief is None else belief.uplink_bps
    timings = answer.timings
    waited_s = max(0.0, timings.total_s - answer.busy_s)
    sending_s = min(8 * answer.payload_nbytes / uplink_bps, waited_s)
    receiving_s = min(8 * answer.reply_nbytes / link.downlink_bps, waited_s - sending_s)
    return device.energy_j(
        max(timings.total_s, answer.busy_s),
        busy_s=answer.busy_s,
        sending_s=sending_s,
        receiving_s=receiving_s,
    )


def drive(
    session: EdgeSession,
    sample: Callable[[int], Mapping[str, Array]],
    schedule: Schedule,
    *,
    tell: Callable[[Record], None],
    belief: Callable[[], LinkBelief | None] = lambda: None,
    stop: threading.Event | None = None,
) -> int:
    """Send `sample(n)` for each n of `schedule`; returns how many were sent.

    `tell` is called with each record as its answer comes, one at a time, on the session's
    threads: it must be quick; what it raises ends the run, and is raised here. Ends early, in
    good order, once `stop` is set.
    """
    stop = stop or threading.Event()
    notes = _Notes(session, tell, belief)
    sent = 0
    began_s = time.monotonic()
    for at_s in schedule.due(began_s):
        if stop.wait(0.0 if at_s is None else max(0.0, at_s - time.monotonic())):
            break
        due_s = time.monotonic() if at_s is None else at_s
        future = session.submit(sample(sent))
        future.add_done_callback(partial(notes.take, sent, due_s, due_s - began_s))
        sent += 1
        notes.wait(sent if at_s is None else 0)
    notes.wait(sent, DRAIN_S)
    return sent


@final
class _Notes:
    """Turns finished futures into records, one at a time."""

    def __init__(
        self,
        session: EdgeSession,
        tell: Callable[[Record], None],
        belief: Callable[[], LinkBelief | None],
    ) -> None:
        self._session = session
        self._tell = tell
        self._belief = belief
        self._changed = threading.Condition()
        self._done = 0
        self._error: BaseException | None = None
        self._latest: tuple[int, str] | None = None

    def take(self, number: int, due_s: float, at_s: float, future: Future[Answer]) -> None:
        latency_s = time.monotonic() - due_s
        with self._changed:
            try:
                self._record(number, due_s, at_s, latency_s, future)
            except BaseException as error:  # a full disk: whoever waits must know, and go on
                self._error = self._error or error
            self._done += 1
            self._changed.notify_all()

    def _record(
        self, number: int, due_s: float, at_s: float, latency_s: float, future: Future[Answer]
    ) -> None:
        answer, failed = _outcome(future)
        plan = None if answer is None else (answer.k, answer.codec)
        switched = plan is not None and self._latest not in (None, plan)
        self._latest = plan or self._latest
        self._tell(
            Record(
                number=number,
                at_s=at_s,
                monotonic_s=due_s,
                latency_s=latency_s,
                link=self._session.link_state,
                answer=answer,
                failed=failed,
                belief=self._belief(),
                switched=switched,
            )
        )

    def wait(self, count: int, timeout_s: float | None = None) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._done >= count or self._error is not None, timeout_s
            )
            if self._error is not None:
                raise self._error


def _outcome(future: Future[Answer]) -> tuple[Answer | None, str | None]:
    if future.cancelled():
        return None, "the session was closed"
    error = future.exception()
    if error is None:
        return future.result(), None
    if isinstance(error, MidstreamError):
        return None, str(error)
    return None, f"{type(error).__name__}: {error}"


def _belief(belief: LinkBelief | None) -> dict[str, float] | None:
    """The median rate with its tenth and ninetieth percentile for one transfer."""
    if belief is None:
        return None
    return {
        "uplink_bps": belief.uplink_bps,
        "low_bps": belief.quantile_bps(0.1),
        "high_bps": belief.quantile_bps(0.9),
        "rtt_s": belief.rtt_s,
    }
