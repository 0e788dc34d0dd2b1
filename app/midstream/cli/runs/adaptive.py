"""`midstream edge run --adaptive`: a policy chooses for every request."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from types import FrameType
from typing import Any, TextIO, final

import numpy as np

from midstream.cli.flags.policy import Driving
from midstream.cli.output import console
from midstream.cli.output.live_view import View, shown
from midstream.cli.runs.answers import Answering, Writer
from midstream.deployment import Deployment, EdgeSide
from midstream.documents import link_document
from midstream.metrics import served
from midstream.repartition import Course
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.policies.link_estimator import LinkBelief
from midstream_edge.policies.oracle import Curve
from midstream_edge.policies.probe_budget import ProbeBudget
from midstream_edge.repartition.repartitioner import Repartitioner
from midstream_edge.session.answers import FALLBACK
from midstream_edge.session.session import EdgeSession
from midstream_edge.workload.load_generator import Record, drive
from midstream_partitioner.costs.link import Link
from midstream_partitioner.inputs.samples import Sample
from midstream_partitioner.lifeline import heeded
from midstream_partitioner.planning.constraints import Constraints
from midstream_partitioner.planning.planner import Planner
from midstream_partitioner.units import format_duration
from midstream_wire.errors import MidstreamError, UsageError

#: For records of before the server was there: nothing was sent.
_UNUSED = Link(1e6, 1e6, 0.0)


@final
class Following:
    """A policy over a session, from the moment at which the server is described.

    Before it everything runs on the edge. `sample` is an input like those that come. A context
    manager that ends what watches over the partition.
    """

    def __init__(
        self,
        session: EdgeSession,
        endpoint: Endpoint,
        sample: Sample,
        driving: Driving,
        constraints: Constraints,
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._sample = sample
        self._driving = driving
        self._constraints = constraints
        self._curve: Curve | None = None
        self._stack = ExitStack()
        self.deployment: Deployment | None = None
        self.course: Course | None = None
        self.repartitioner: Repartitioner | None = None
        self.link: Link | None = None

    def __enter__(self) -> Following:
        self._curve = self._driving.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, deployment: Deployment, planner: Planner, link: Link) -> None:
        """Have the policy choose from now on."""
        course = Course(
            self._session, deployment, planner, link,
            constraints=deployment.allowed(self._constraints),
            name=self._driving.policy, curve=self._curve,
            probes=ProbeBudget(day_nbytes=self._driving.probes_day_nbytes),
        )  # fmt: skip
        if self._driving.repartition:
            repartitioner = course.repartitioner(self._endpoint, self._sample)
            self.repartitioner = self._stack.enter_context(repartitioner)
        self.deployment, self.course, self.link = deployment, course, link

    @property
    def labels(self) -> dict[tuple[int, str], str]:
        """The placements for people, by plan."""
        return {} if self.course is None else self.course.labels

    @property
    def belief(self) -> LinkBelief | None:
        """Return what the policy believes of the link."""
        return None if self.course is None else self.course.belief

    def document(self) -> dict[str, Any]:
        """Return what was chosen from, on what link, and what learning of it has cost."""
        course, deployment = self.course, self.deployment
        budget = None if course is None else course.director.budget
        placements = () if course is None else course.menu.placements
        return {
            "repartitions": 0
            if self.repartitioner is None
            else self.repartitioner.repartitions,
            "probe_nbytes": 0 if budget is None else budget.probed_nbytes,
            "probe_share": 0.0 if budget is None else budget.share,
            "cloud_profile": deployment and json.loads(deployment.cloud.to_json()),
            "link": self.link and link_document(self.link),
            "menu": [asdict(each) for each in placements],
        }


def run_adaptive(
    session: EdgeSession,
    side: EdgeSide | Deployment,
    inputs: Sequence[Sample],
    *,
    course: Following,
    reached: AbstractContextManager[object],
    driving: Driving,
    requests: int,
    answering: Answering,
    quiet: bool,
) -> dict[str, Any]:
    """Send requests under the policy asked for; the document says how they fared.

    `course` begins within `reached`, as soon as the server is there.
    """
    part, device = side.partition, side.edge.device
    tally = Tally()
    with ExitStack() as stack:
        stop = stack.enter_context(_stopped_by_signals())
        stack.enter_context(course)
        stack.enter_context(reached)
        view = View(f"{part.name} under {driving.policy}", lambda: course.labels)
        listeners: list[Callable[[Record], None]] = [tally.take, view.take]
        if driving.log is not None:
            log = stack.enter_context(_opened(driving.log))
            listeners.append(
                lambda record: _write_line(log, record.to_dict(device, course.link or _UNUSED))
            )
        if driving.metrics is not None:
            metrics = served(driving.metrics, insecure=driving.metrics_insecure)
            listeners.append(stack.enter_context(metrics).take)

        writer = stack.enter_context(answering.open(part))
        if writer is not None:
            noted = _Noted(writer, inputs, stop)
            stack.callback(noted.check)
            listeners.append(noted.take)

        def tell(record: Record) -> None:
            for listener in listeners:
                listener(record)

        stack.enter_context(shown(view, quiet=quiet))
        sent = drive(
            session,
            lambda number: inputs[number % len(inputs)],
            driving.schedule(requests),
            tell=tell,
            belief=lambda: course.belief,
            stop=stop,
        )
    document = _document(session, tally, sent=sent, name=driving.policy)
    document |= {"interrupted": stop.is_set()}
    document |= {"edge_profile": json.loads(side.edge.to_json()), **course.document()}
    if not quiet:
        _print_summary(document)
    return document


@final
class _Noted:
    """Answers written as they come; what fails ends the run, and is told when it has ended."""

    def __init__(
        self, writer: Writer, inputs: Sequence[Sample], stop: threading.Event
    ) -> None:
        self._writer = writer
        self._inputs = inputs
        self._stop = stop
        self._failure: Exception | None = None

    def take(self, record: Record) -> None:
        if record.answer is None or self._failure is not None:
            return
        source = self._inputs[record.number % len(self._inputs)].name
        try:
            self._writer.take(record.number, source, record.answer)
        except MidstreamError as error:
            self._failure = error
            self._stop.set()

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure


@final
class Tally:
    """Counts of records, and their latencies."""

    def __init__(self) -> None:
        self.answered = self.failed = self.local = self.duplicated = 0
        self.switches = self.hedges = 0
        self.latencies_s: list[float] = []
        self._seen: set[int] = set()

    def take(self, record: Record) -> None:
        self.duplicated += record.number in self._seen
        self._seen.add(record.number)
        self.switches += record.switched
        if record.answer is None:
            self.failed += 1
            return
        self.answered += 1
        self.local += record.answer.where == FALLBACK
        self.hedges += record.answer.hedged
        self.latencies_s.append(record.latency_s)

    def quantile_s(self, share: float) -> float | None:
        """The latency that so many answers stayed within; None without answers."""
        return float(np.quantile(self.latencies_s, share)) if self.latencies_s else None


def _document(
    session: EdgeSession,
    tally: Tally,
    *,
    sent: int,
    name: str,
) -> dict[str, Any]:
    stats = session.stats
    return {
        "policy": name,
        "requests": sent,
        "answered": tally.answered,
        "failed": tally.failed,
        "lost": sent - tally.answered - tally.failed,
        "duplicated": tally.duplicated,
        "local": tally.local,
        "hedges": tally.hedges,
        "mean_s": mean(tally.latencies_s) if tally.latencies_s else None,
        "p50_s": tally.quantile_s(0.5),
        "p95_s": tally.quantile_s(0.95),
        "p99_s": tally.quantile_s(0.99),
        "switches": tally.switches,
        "reconnects": stats.reconnects,
        "policy_errors": stats.policy_errors,
        "uplink_nbytes": stats.uplink_nbytes,
        "downlink_nbytes": stats.downlink_nbytes,
    }


def _print_summary(document: dict[str, Any]) -> None:
    if document["answered"]:
        p50, p99 = (format_duration(document[name]) for name in ("p50_s", "p99_s"))
        console.say(
            f"{document['answered']} of {document['requests']} answered, p50 {p50}, "
            f"p99 {p99}; {document['hedges']} hedged, {document['local']} finished on the "
            f"edge because the cloud failed, {document['switches']} switches, "
            f"{document['reconnects']} reconnects"
        )
    if failures := document["policy_errors"]:
        console.say(
            f"the policy failed {failures} times: it raised, or answered with what cannot be, "
            "and its last decision stood or the edge ran everything"
        )


def _write_line(log: TextIO, document: dict[str, Any]) -> None:
    log.write(json.dumps(document) + "\n")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """A file for lines, of which each is whole as soon as it is written."""
    try:
        log = path.open("w", buffering=1, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--log must be a file that can be written (not {path}: {error.strerror})"
        ) from None
    with log:
        yield log


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGINT, SIGTERM and SIGHUP set, so that what was counted is still told."""
    stop = threading.Event()

    def set_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    usual = {number: signal.signal(number, set_stop) for number in heeded()}
    try:
        yield stop
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
