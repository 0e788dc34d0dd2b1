"""A session that began without its server, and uses it as soon as it can be reached.

A device is switched on without signal, before its server, with a wrong clock. Its session
answers alone from the first request on; beside it, a thread waits for the server's first word,
asks what it serves, and has the session go on with both sides.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import cast, final

from midstream.deployment import Deployment, EdgeSide, begin_session, go_over, with_profile
from midstream_edge.link.describe import describe
from midstream_edge.link.endpoint import Endpoint
from midstream_edge.link.failures import is_settled
from midstream_edge.policies.interface import Policy
from midstream_edge.policies.menu import Menu
from midstream_edge.policies.probe_budget import ProbeBudget
from midstream_edge.policies.registry import policy
from midstream_edge.session.session import EdgeSession
from midstream_edge.session.threads import start_thread
from midstream_partitioner.costs.device import Device
from midstream_partitioner.costs.link import Link
from midstream_partitioner.costs.profile import Profile
from midstream_partitioner.planning.constraints import UNCONSTRAINED
from midstream_partitioner.planning.planner import Planner
from midstream_wire.errors import CloudUnavailable, DeadlineExceeded, MidstreamError

_LOG = logging.getLogger(__name__)

#: From one look for the server's first word to the next, unless that is a welcome.
LOOK_S = 0.1
#: After a refusal that only a person can lift: the person may.
REFUSED_S = 5.0

Agree = Callable[[], Deployment]
Begin = Callable[[Deployment], None]


@final
class Joining:
    """Calls `begin` with what `agree` gives, once, when the server of `session` is there.

    A context manager; the thread also ends with the session. `agree` describes the server and
    raises as `deploy`; both are called on the thread of this. `error` is why it has not come
    about yet.
    """

    def __init__(self, session: EdgeSession, *, agree: Agree, begin: Begin) -> None:
        self._session = session
        self._agree = agree
        self._begin = begin
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="midstream-join", daemon=True)
        self.error: Exception | None = None
        self.joined = threading.Event()

    def __enter__(self) -> Joining:
        start_thread(self._thread, "joining a server later")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(LOOK_S)  # a question to the server is not waited for

    def _run(self) -> None:
        pause_s = 0.0
        while not (self._stop.wait(pause_s) or self._session.closed):
            pause_s = 0.0
            self._session.wait_connected(LOOK_S)
            if not self._has_spoken():
                continue
            try:
                self._join()
                return
            except (CloudUnavailable, DeadlineExceeded) as error:
                self.error, pause_s = error, LOOK_S
            except Exception as error:  # whatever it is, the session answers alone
                self._tell(error)
                pause_s = REFUSED_S

    def _has_spoken(self) -> bool:
        """Return True if the server was heard: a welcome, or a refusal of what it was asked
        for.
        """
        error = self._session.link_error
        return error is None or is_settled(error)

    def _join(self) -> None:
        deployment = self._agree()
        session = self._session
        if deployment.chain is not session.chain or deployment.model != session.model:
            go_over(session, deployment)
        self._begin(deployment)
        self.error = None
        self.joined.set()

    def _tell(self, error: Exception) -> None:
        if str(error) != str(self.error):
            unexpected = not isinstance(error, MidstreamError)
            _LOG.warning("going on alone: %s", error, exc_info=unexpected)
        self.error = error


def follow(
    side: EdgeSide,
    endpoint: Endpoint,
    chosen: str | Policy | Callable[[Menu], Policy],
    *,
    cloud: Profile | None = None,
    probes: ProbeBudget | None = None,
) -> EdgeSession:
    """A session under a policy, from the start if the server is there, else once it is.

    `cloud` stands in for the profile that the server has, `probes` for the usual budget.
    Raises as `EdgeSession` and `deploy` do.
    """

    def agree() -> Deployment:
        if cloud is not None:
            return Deployment(side.partition, side.model, side.chain, side.edge, cloud)
        for each in describe(endpoint):
            if each.partition_digest == side.partition.digest:
                return replace(side.join(with_profile(endpoint, each)), model=side.model)
        raise CloudUnavailable(
            f"the server at {endpoint.address} no longer holds {side.model}"
        )

    def begin(found: Deployment) -> None:
        link = session.measure_link()
        planner = Planner(
            side.partition,
            side.edge,
            found.cloud,
            constraints=found.allowed(UNCONSTRAINED),
        )
        menu = Menu.of(planner, complete=True)
        made = _policy(chosen, menu, link, side.edge.device)
        session.follow(made, menu.placements, probes=probes)

    session = begin_session(side, endpoint)
    try:
        if session.connected:
            begin(agree())
            return session
    except (CloudUnavailable, DeadlineExceeded):  # it has just gone: joined once it is back
        pass
    except BaseException:
        session.close()
        raise
    Joining(session, agree=agree, begin=begin).__enter__()  # ends with the session
    return session


def _policy(
    chosen: str | Policy | Callable[[Menu], Policy], menu: Menu, link: Link, device: Device
) -> Policy:
    if isinstance(chosen, str):
        return policy(chosen, menu, link=link, device=device)
    if isinstance(chosen, type) or not isinstance(chosen, Policy):
        return cast(Callable[[Menu], Policy], chosen)(menu)
    return chosen
