"""The edge's side of split inference: heads here, tails there, and always an answer."""

from __future__ import annotations

import asyncio
import importlib.metadata
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import final

from midstream_edge.faults import POLICY
from midstream_edge.link.describe import describe
from midstream_edge.link.endpoint import CONNECT_S, Endpoint
from midstream_edge.link.failures import is_settled
from midstream_edge.link.link_measurement import measure_link
from midstream_edge.link.observations import LinkState
from midstream_edge.policies.interface import Policy
from midstream_edge.policies.probe_budget import ProbeBudget
from midstream_edge.session.answers import Answer, Stats
from midstream_edge.session.director import Choice, FixedPlan, PolicyDirector
from midstream_edge.session.engine import Engine
from midstream_edge.session.handover import Handover
from midstream_edge.session.link_reporter import LinkReporter
from midstream_edge.session.local_time import TIMEOUT_S, DeclaredRest, LocalPace
from midstream_edge.session.threads import Crew
from midstream_partitioner.codec_spec import full_id, parse_codec
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.sizes import Sizes
from midstream_partitioner.execution.chain import Chain
from midstream_partitioner.planning.placements import Placement
from midstream_wire.codecs.plugins import loaded_names
from midstream_wire.credentials import ChannelTls
from midstream_wire.descriptions import ModelDescription
from midstream_wire.errors import CloudRefused, PeerError, TensorError, UsageError
from midstream_wire.frames import Code, Hello
from midstream_wire.limits import MAX_IN_FLIGHT
from midstream_wire.tensors import Array

__all__ = ["Answer", "EdgeSession", "Stats"]

#: What the server sees in its log.
CLIENT = f"midstream {importlib.metadata.version('midstream')}"


@final
class EdgeSession:
    """Runs heads on this device and has the tails run in the cloud, many requests at a time.

    `plan` is (k, codec): segments [0, k) run here, what crosses cut k is encoded by `codec`,
    which may name a transform of that cut in front: "klt:16+half".
    With k = K, or without a `server`, everything runs here and the network is not touched.

    The edge always answers: when the cloud refuses, is away or late, the request is finished
    here from the activation at the cut, once, and the answer says so. While there is no
    connection, requests run here at once; the session reconnects by itself. Only an edge whose
    `chain` holds fewer than all segments cannot, and then raises what went wrong.

    Late means: `timeout_s` after the head has run, or, for a request with a deadline, so short
    before it that the edge can just finish. How long that takes is measured, and taken from
    `local_rest_s` (seconds by k, or what gives them for a request's sizes) before anything has
    been measured; where there is neither, the first request with a deadline runs on both
    sides, and the first result wins.

    Opening waits for the server's first word, at most `patience_s`, and about a second where
    not even a TCP handshake is answered. Raises `UsageError`, and
    `CloudRefused` or `ProtocolError` where the two sides' configuration does not fit (unknown
    model, another digest, bad credentials, not a midstream server). A server that is merely
    away is no error. Methods may be called from any thread of the process that opened the
    session; in a fork of it they raise `UsageError`.
    """

    def __init__(
        self,
        chain: Chain,
        server: str | Endpoint | None,
        *,
        plan: tuple[int, str],
        model: str | None = None,
        tls: ChannelTls | None = None,
        token: str | None = None,
        insecure: bool = False,
        timeout_s: float = TIMEOUT_S,
        max_in_flight: int = MAX_IN_FLIGHT,
        local_rest_s: DeclaredRest | None = None,
        patience_s: float = CONNECT_S,
    ) -> None:
        """`model` is the name under which the server holds the partition (None: its own).

        `server` is an address, spoken to with `tls` (None: plaintext, on loopback only
        unless `insecure`) and the bearer `token`; or an `Endpoint` that says all of that.
        """
        _check_setting(chain, alone=server is None)
        if max_in_flight < 1:
            raise UsageError(f"max_in_flight must be at least 1 (not {max_in_flight!r})")
        if isinstance(server, str):
            server = Endpoint.of(server, tls=tls, token=token, insecure=insecure)
        self._endpoint = server
        self._timeout_s = _seconds("timeout_s", timeout_s)
        self._model = model or chain.partition.name
        self._max_in_flight = max_in_flight
        self._process = os.getpid()
        self._crew = Crew()
        self._handover = Handover(
            self._make_engine(chain, plan, local_rest_s or {}), self._crew
        )
        if server is not None:
            self._connect(server, patience_s)

    @property
    def chain(self) -> Chain:
        """The segments that new requests run."""
        return self._engine.chain

    @property
    def _engine(self) -> Engine:
        return self._here.present

    @property
    def _here(self) -> Handover:
        self._check_process()
        return self._handover

    def _check_process(self) -> None:
        """Raise `UsageError` in a fork of the process, which has none of its threads."""
        if os.getpid() != self._process:
            raise UsageError(
                "a session must be used in the process that opened it, but this one is a fork "
                "of that: open a session in the process that uses it"
            )

    def submit(
        self, inputs: Mapping[str, Array], *, deadline_s: float | None = None
    ) -> Future[Answer]:
        """Begin a request; its answer, or what went wrong, comes in the future.

        Blocks while as many requests are under way as this session and the server allow. The
        arrays must not change until the answer is there. `deadline_s` counts from this call.
        Callbacks of the future run on the session's threads: they must be quick, and must not
        submit.
        """
        return self._here.submit(_named(inputs), deadline_s=_moment(deadline_s))

    def infer(self, inputs: Mapping[str, Array], *, deadline_s: float | None = None) -> Answer:
        """One request from begin to end; raises what went wrong."""
        return self._here.infer(_named(inputs), deadline_s=_moment(deadline_s))

    async def ainfer(
        self, inputs: Mapping[str, Array], *, deadline_s: float | None = None
    ) -> Answer:
        """As `infer`, for asyncio: nothing holds the event loop up."""
        begin = partial(self.submit, inputs, deadline_s=deadline_s)
        # It may wait for room, so it is another thread's; a caller that is cancelled
        # meanwhile leaves a request behind that nobody wants.
        submitting = asyncio.get_running_loop().run_in_executor(None, begin)
        try:
            future = await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(_withdraw)
            raise
        return await asyncio.wrap_future(future)

    @property
    def plan(self) -> tuple[int, str]:
        """Return what the next head will run, or under a policy the latest ran: (k, codec)."""
        return self._engine.director.plan

    def use(self, k: int, codec: str, *, timeout_s: float | None = None) -> None:
        """Switch to another plan, from the next head on; requests under way keep theirs.

        `timeout_s`, where given, is how long the cloud may take from now on.
        """
        if timeout_s is not None:
            self._timeout_s = _seconds("timeout_s", timeout_s)
        engine = self._engine
        engine.director = self._steady(engine.chain, k, codec)

    def follow(
        self,
        policy: Policy,
        placements: Sequence[Placement],
        *,
        probes: ProbeBudget | None = None,
    ) -> PolicyDirector:
        """Have `policy` choose among `placements` for every request, from the next head on.

        What the session measures is told to the policy, small probes of a silent link
        included, within `probes`; the director holds what it knows. Raises `UsageError` for an
        placement that this edge cannot run.
        """
        engine = self._engine
        for placement in placements:
            _check_plan(engine.chain, placement.k, placement.codec)
        director = PolicyDirector(
            policy,
            placements,
            timeout_s=self._timeout_s,
            whole=engine.whole,
            faults=self._crew.faults,
            probes=probes,
        )
        engine.director = director
        LinkReporter(lambda: self._engine, director, self._crew.alarms)
        return director

    def swap(
        self,
        chain: Chain,
        *,
        plan: tuple[int, str],
        model: str | None = None,
        local_rest_s: DeclaredRest | None = None,
    ) -> None:
        """Go over to another partition of the same network, between two requests.

        `model` is the name under which the server holds it (None: as before).

        `chain` and `plan` are as for a new session. The server is asked first, and has to hold
        the partition already (`preparation`); where it refuses, nothing changes and
        `CloudRefused` is raised. While there is no connection, requests go over at once, to
        run here. Those under way are finished as they began; what was held for them is freed
        once the last one is answered. Raises `UsageError` for the chain of another network,
        and for a plan that it cannot run.
        """
        _check_setting(chain, alone=self._endpoint is None)
        if chain.partition.graph_digest != self.chain.partition.graph_digest:
            raise UsageError(
                f"a session may go over to another partition of {self._model} only (not of "
                f"{chain.partition.name}): open another session"
            )
        engine = self._make_engine(chain, plan, local_rest_s or {})
        before, self._model = self._model, model or self._model
        try:
            if self._endpoint is not None:
                self._greet(engine, self._endpoint)
            self._here.swap(engine)
        except BaseException:
            self._model = before
            engine.close()
            raise

    def wait_swapped(self, timeout_s: float) -> bool:
        """Wait until what was held for requests before the last swap is freed."""
        return self._here.wait_swapped(timeout_s)

    @property
    def link_state(self) -> LinkState:
        """Return how the link to the server stands; down for a session without one."""
        return self._engine.link_state

    @property
    def connected(self) -> bool:
        """Return True if a request would go to the cloud now."""
        return self.link_state == "connected"

    @property
    def model(self) -> str:
        """The name under which the server holds the partition."""
        return self._model

    @property
    def link_error(self) -> PeerError | None:
        """Return why there is no connection; None while there is one, or without a server."""
        connection = self._engine.connection
        if connection is None or connection.stream is not None:
            return None
        return connection.error

    @property
    def closed(self) -> bool:
        """Return True if the session takes no requests any more."""
        return self._handover.closed

    @property
    def stranded(self) -> bool:
        """Return True if the server says that it does not hold the session's partition.

        One that was restarted holds the partitions again that it serves, and none that it was
        asked to make; everything runs here until it has made it again.
        """
        error = self.link_error
        return isinstance(error, CloudRefused) and error.code == Code.FAILED_PRECONDITION

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait until a request would go to the cloud; whether that came about in time."""
        connection = self._engine.connection
        return connection is not None and connection.wait_up(timeout_s)

    @property
    def usual_sizes(self) -> Sizes:
        """Return the sizes that requests have of late; () where the network leaves none open.

        They are those of the middle one of the latest 64, by the product of its sizes.
        """
        return self._engine.usual_sizes

    @property
    def stats(self) -> Stats:
        """Counts up to now."""
        errors = self._crew.faults.count(POLICY)
        return replace(self._here.stats, policy_errors=errors)

    def measure_link(self) -> Link:
        """Measure the link to the server; best while no request is under way.

        Raises `CloudUnavailable`, `DeadlineExceeded`, or `UsageError` without a server.
        """
        connection = self._engine.connection
        if connection is None:
            raise UsageError(
                "measuring a link needs a server: name one when opening the session"
            )
        return measure_link(connection.ping)

    def describe(self) -> tuple[ModelDescription, ...]:
        """The models that the server holds. Raises as `describe.describe`, or `UsageError`."""
        self._check_process()
        if self._endpoint is None:
            raise UsageError("describing needs a server: name one when opening the session")
        return describe(self._endpoint)

    def close(self) -> None:
        """End the session within a few seconds; requests under way are cancelled."""
        self._here.close()

    def __enter__(self) -> EdgeSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() == self._process:  # a fork has nothing to end, and keeps its error
            self.close()

    def _make_engine(
        self, chain: Chain, plan: tuple[int, str], local_rest_s: DeclaredRest
    ) -> Engine:
        return Engine(
            chain,
            director=self._steady(chain, *plan),
            pace=LocalPace(len(chain.partition.segments), local_rest_s),
            max_in_flight=self._max_in_flight,
            crew=self._crew,
        )

    def _connect(self, endpoint: Endpoint, patience_s: float) -> None:
        try:
            connection = self._engine.connect(endpoint, self._hello(self.chain))
            error = connection.wait(patience_s) if patience_s > 0 else None
        except BaseException:  # Ctrl-C while waiting
            self.close()
            raise
        if error is not None and is_settled(error):
            self.close()
            raise error

    def _greet(self, engine: Engine, endpoint: Endpoint) -> None:
        """Have the server welcome `engine`; without a link, it goes on trying by itself."""
        old = self._engine.connection
        # On a long way, a channel in use is faster than a fresh one for many round trips.
        stream = None if old is None else old.stream
        connection = engine.connect(endpoint, self._hello(engine.chain), beside=stream)
        error = None if stream is None else connection.wait(CONNECT_S)
        if error is not None and is_settled(error):
            raise error

    def _hello(self, chain: Chain) -> Hello:
        return Hello(self._model, chain.partition.digest, CLIENT, loaded_names())

    def _steady(self, chain: Chain, k: int, codec: str) -> FixedPlan:
        return FixedPlan(Choice(*_check_plan(chain, k, codec), timeout_s=self._timeout_s))


def _check_plan(chain: Chain, k: int, codec: str) -> tuple[int, str]:
    if not 0 <= k <= chain.last:
        raise UsageError(
            f"a plan may run 0 to {chain.last} segments on this edge (not {k}): "
            "plan again for what it holds"
        )
    transform, _ = parse_codec(codec)
    if transform:
        chain.transform(k, transform).compile_encoders()
    return k, full_id(codec)


def _named(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """`inputs`, if they are arrays by name; the arrays are checked where they are run."""
    if not isinstance(inputs, Mapping):
        raise TensorError(
            f"inputs must be a mapping of arrays by the model's names (not a "
            f"{type(inputs).__name__}): give a dict"
        )
    return inputs


def _withdraw(submitting: asyncio.Future[Future[Answer]]) -> None:
    if not submitting.cancelled() and submitting.exception() is None:
        submitting.result().cancel()


def _moment(deadline_s: float | None) -> float | None:
    """The moment that is `deadline_s` from now."""
    if deadline_s is None:
        return None
    return time.monotonic() + _seconds("deadline_s", deadline_s)


def _seconds(name: str, given: float) -> float:
    """A time that a caller allows; infinity for any."""
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = math.nan
    if not seconds > 0:
        raise UsageError(f"{name} must be more than 0 seconds (not {given!r})")
    return seconds


def _check_setting(chain: Chain, *, alone: bool) -> None:
    if chain.first != 0:
        raise UsageError(
            f"an edge's chain must begin at segment 0 (not {chain.first}): "
            "load a prefix of the partition"
        )
    if alone and chain.last < len(chain.partition.segments):
        raise UsageError(
            f"an edge without a server must hold all {len(chain.partition.segments)} segments "
            f"(not {chain.last}): load them all, or name a server"
        )
